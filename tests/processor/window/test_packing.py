"""What is packed is unpacked bit for bit, and what contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.packed_numbers import PackedSums, pack_ints
from otel_mlmon.processor.window.packing import (
    PackedValues,
    PointsRecord,
    SeriesRecord,
    pack_points,
    pack_series,
    pack_values,
    unpack_points,
    unpack_series,
    unpack_values,
)
from otel_mlmon.processor.window.series import CountedTimes, PendingPoints, SeriesKey, SeriesState, TimeSeries
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=8).map(np.array)
BOUNDS = st.sampled_from([(), (0.0,), (-1.0, 2.0, 1e9)])
SKETCHES = st.one_of(
    st.builds(lambda numbers, bounds: Histogram.from_values(numbers.astype(float), bounds), NUMBERS, BOUNDS),
    NUMBERS.map(lambda numbers: ExponentialHistogram.from_values(numbers.astype(float))),
)
VALUES = st.one_of(
    st.integers(0, 2**53).map(lambda count: PointValue(counter=count)), SKETCHES.map(PointValue.from_sketch)
)
TIMES = st.integers(0, 2**62)
KEYS = st.tuples(TIMES, TIMES)
EXEMPLARS = st.lists(
    st.builds(TraceExemplar, st.sampled_from(["ab", "cd"]), st.floats(min_value=0.0, allow_infinity=False)), max_size=2
).map(tuple)
STATES = st.builds(
    SeriesState,
    key=st.builds(SeriesKey, st.text(max_size=3), st.integers(-1, 3)),
    sender=st.just("s"),
    model=st.just(MODEL),
    metric=st.sampled_from(["ml.predictions", "ml.input.feature"]),
    name=st.text(max_size=2),
    category=st.text(max_size=2),
    updated_ns=st.integers(0, 2),
    newest_ns=st.integers(0, 2),
    total=st.none() | VALUES,
    total_ns=st.integers(0, 2),
    total_received_ns=st.integers(0, 2),
    counted=st.builds(CountedTimes, st.lists(KEYS, max_size=2).map(tuple), st.lists(KEYS, max_size=2).map(tuple)),
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6))
def test_values_are_unpacked_as_they_were(values: list[PointValue]) -> None:
    columns = [(value.table, [value.number]) for value in values]
    packed = decode_record(encode_record(pack_values(columns)), PackedValues)
    assert list(unpack_values(packed)) == values


@st.composite
def draw_points(draw: st.DrawFn) -> PendingPoints:
    points = PendingPoints(
        request=7, sender="s", key=draw(KEYS), is_cumulative=draw(st.booleans()), pane_end_ns=draw(TIMES),
        time_ns=draw(TIMES), received_ns=draw(TIMES), series=[], table=None, numbers=[],
    )  # fmt: skip
    # Points of one time are of series of one start.
    start_ns, names = draw(TIMES), draw(st.sampled_from([st.sampled_from("abcdé"), HEX_NAMES]))
    keys = draw(st.lists(names.map(lambda name: SeriesKey(name, start_ns)), max_size=4, unique=True))
    states = [replace(draw(STATES), key=key) for key in keys]
    sketches = draw(st.none() | st.lists(SKETCHES, min_size=len(states), max_size=len(states)))
    if sketches is not None:
        points.table = SketchTable.from_sketches(sketches)
    for row, state in enumerate(states):
        points.add(TimeSeries(state), row if points.table else draw(st.integers(0, 2**53)), draw(EXEMPLARS))
    return points


HEX_NAMES = st.one_of(
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.binary(min_size=15, max_size=15).map(lambda name: f"{name.hex()} 1"),  # which is read as hex digits too
    st.binary(min_size=16, max_size=16).map(lambda name: name.hex().upper()),
)


@settings(deadline=None)
@given(st.lists(draw_points(), max_size=3))
def test_points_of_a_request_are_unpacked_as_they_were(groups: list[PendingPoints]) -> None:
    record = decode_record(encode_record(pack_points(7, MODEL, groups)), PointsRecord)
    assert list(unpack_points(record)) == [
        (
            series.state.key,
            points.key,
            points.pane_end_ns,
            points.time_ns,
            points.received_ns,
            points.find_value(series),
            points.exemplars.get(position, ()),
        )
        for points in groups
        for position, series in enumerate(points.series)
    ]


def test_a_trace_that_was_stored_without_its_value_is_of_no_slow_call() -> None:
    points = PendingPoints(
        request=7, sender="s", key=(0, 0), is_cumulative=False, pane_end_ns=0, time_ns=0, received_ns=0,
        series=[], table=None, numbers=[],
    )  # fmt: skip
    state = SeriesState(key=SeriesKey("s", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=0)
    points.add(TimeSeries(state), 1, (TraceExemplar("ab", 0.5),))
    record = pack_points(7, ModelKey("m", "1", ""), [points])
    assert record.exemplars == {0: ("ab:0.5",)}
    (unpacked,) = unpack_points(record._replace(exemplars={0: ("ab",)}))
    assert unpacked.exemplars == (TraceExemplar("ab", 0.0),)


@settings(deadline=None)
@given(st.lists(STATES, max_size=5))
def test_the_series_of_a_sender_are_unpacked_as_they_were(states: list[SeriesState]) -> None:
    record = decode_record(encode_record(pack_series(MODEL, "s", states)), SeriesRecord)
    assert list(unpack_series(record, [state.identity for state in states])) == states


@pytest.mark.parametrize(
    "fields",
    [
        {"sums": PackedSums((0,), 8, b"")},
        {"sizes": [3]},
        {"sizes": [-2, 4]},
        {"sizes": [2, 1], "counts": pack_ints(np.array([1, 1, 1]))},
        {"kinds": bytes([2, 2])},
        {"kinds": bytes([1])},
        {"kinds": bytes([0, 2])},
        {"firsts": []},
        {"steps": pack_ints(np.array([1, 1, 1]))},
        {"counts": ("<f8", b"")},
        {"scales": []},
    ],
)
def test_values_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    values = [PointValue.from_sketch(ExponentialHistogram.from_values(np.array([1.0, 3.0])))]
    with pytest.raises(ValueError, match=r"."):
        list(unpack_values(pack_values([(value.table, [value.number]) for value in values])._replace(**fields)))


def test_series_without_the_progress_they_name_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="progress that is not there"):
        list(unpack_series(pack_series(MODEL, "s", [state])._replace(progress_numbers=[1]), [state.identity]))


def test_series_without_their_identities_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="0 identities for 1 series"):
        list(unpack_series(pack_series(MODEL, "s", [state]), []))
