"""Sums of sketches and of counts do not depend on the order of merging, bit for bit."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.window.pane_values import add_increments
from otel_mlmon.processor.window.series import SeriesKey, SeriesState, TimeSeries
from otel_mlmon.processor.window.window import PaneCounts
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.sketch.table import AnyHistogram, PointValue
from tests.support.observations import MODEL
from tests.support.plain_sketches import build_increments, merge_streams, sketch_streams

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.lists(FLOATS, max_size=6)
COUNTS, LABELS = st.integers(0, 9), st.text(max_size=1)
BOUNDS = st.sampled_from([(), (0.0,), (-1.0, 0.5, 1e300), (0.001, 0.1, 10.0)])


def histogram(values: list[float], bounds: tuple[float, ...]) -> Histogram:
    return Histogram.from_values(np.array(values, dtype=np.float64), bounds)


def exponential(values: list[float]) -> ExponentialHistogram:
    return ExponentialHistogram.from_values(np.array(values, dtype=np.float64))


SKETCHES: st.SearchStrategy[tuple[str, str, str, AnyHistogram | int]] = st.one_of(
    st.builds(lambda values, bounds: (semconv.DURATION.name, "", "", histogram(values, bounds)), VALUES, BOUNDS),
    st.builds(lambda values: (semconv.DURATION.name, "E", "", exponential(values)), VALUES),
    st.builds(lambda values: (semconv.FEATURE.name, "age", "", exponential(values)), VALUES),
    st.builds(lambda values, bounds: (semconv.FEATURE.name, "age", "", histogram(values, bounds)), VALUES, BOUNDS),
    st.builds(
        lambda count, label: (semconv.PREDICTIONS.name, label, "", count), st.integers(0, 9), st.text(max_size=1)
    ),
    st.builds(lambda count: (semconv.MISSING_VALUES.name, "age", "", count), st.integers(0, 9)),
    st.builds(
        lambda count, value: (semconv.CATEGORY.name, "age", value, count), st.integers(0, 9), st.text(max_size=1)
    ),
)


def merge_at_random(parts: list[Any], order: Any, merge: Any) -> Any:
    """Merges two of the parts, and the result again, until one is left: any order, and any tree."""
    remaining = list(parts)
    while len(remaining) > 1:
        order.shuffle(remaining)
        remaining.append(merge(remaining.pop(), remaining.pop()))
    return remaining[0]


def bits(streams: dict[str, StreamSketch]) -> list[tuple[str, list[bytes]]]:
    """Every bit of a pane, in an order that no merging has part in."""
    return [
        (
            name,
            [
                encode_record(sketch.exponential),
                *(encode_record(sketch.explicit[bounds]) for bounds in sorted(sketch.explicit)),
                encode_record(sorted(sketch.categories.counts.items())),
                encode_record(sketch.missing),
                encode_record(sketch.moments),
            ],
        )
        for name, sketch in sorted(streams.items())
    ]


@settings(deadline=None, max_examples=100)
@given(sketches=st.lists(SKETCHES, min_size=1, max_size=10), order=st.randoms(use_true_random=False))
def test_a_pane_is_the_same_in_whatever_order_its_parts_are_merged(
    sketches: list[tuple[str, str, str, AnyHistogram | int]], order: Any
) -> None:
    parts = [
        sketch_streams(metric, name, category, PointValue.from_sketch(sketch))
        for metric, name, category, sketch in sketches
    ]
    merged = merge_at_random(parts, order, lambda one, other: merge_streams([one, other]))
    assert bits(merged) == bits(merge_streams(parts))
    assert merged == merge_streams(parts)
    # What a series without values would add is no part of a pane.
    filled = [part for part, (*_, sketch) in zip(parts, sketches, strict=True) if PointValue.from_sketch(sketch).total]
    series = [series_of(metric, name, category) for metric, name, category, _ in sketches]
    values = [PointValue.from_sketch(sketch) for _, _, _, sketch in sketches]
    added = add_increments(MODEL, map(build_increments, series, values))
    expected = merge_streams(filled)
    assert bits(added.build_all_sketches()) == bits(expected)
    assert added.totals == {name: sketch.total for name, sketch in expected.items()}


def series_of(metric: str, name: str, category: str) -> TimeSeries:
    return TimeSeries(
        SeriesState(
            key=SeriesKey("", 0), sender="", model=MODEL, metric=metric, name=name, category=category, updated_ns=0
        )
    )


def pane(values: list[float], start_ns: int = 0) -> PaneCounts:
    moments = Moments.from_values(values)
    return PaneCounts(
        start_ns=start_ns,
        end_ns=start_ns + 10,
        generation=3,
        counts=np.array([sum(value < 0 for value in values), sum(value >= 0 for value in values)]),
        number_count=moments.count,
        exact_sum=moments.exact_sum,
    )


@given(parts=st.lists(VALUES, min_size=1, max_size=8), order=st.randoms(use_true_random=False))
def test_counts_of_an_interval_are_the_same_in_whatever_order_they_are_merged(
    parts: list[list[float]], order: Any
) -> None:
    panes = [pane(values, 10 * number) for number, values in enumerate(parts)]
    merged = merge_at_random(panes, order, PaneCounts.merge)
    assert encode_record(merged) == encode_record(reduce(PaneCounts.merge, panes))
    flat = pane([value for values in parts for value in values])
    assert encode_record(merged) == encode_record(flat._replace(end_ns=10 * len(parts)))
