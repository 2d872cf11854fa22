from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch


def explicit(*values: float, bounds: tuple[float, ...] = (1.0, 10.0)) -> StreamSketch:
    return StreamSketch(explicit={bounds: Histogram.from_values(np.array(values), bounds)})


NUMBERS = st.lists(
    st.sampled_from([0.0, 1.0, -1.0, 1.5, -7e9, 3e-300, 1e300]) | st.floats(0.001, 1000.0), max_size=6
).map(lambda values: np.array(values, dtype=np.float64))
SKETCHES = st.builds(
    StreamSketch,
    exponential=st.none() | NUMBERS.map(ExponentialHistogram.from_values),
    explicit=st.lists(st.sampled_from([(1.0,), (1.0, 10.0)]), max_size=2, unique=True).map(
        lambda keys: {bounds: Histogram.from_values(np.array([0.5, 3.0]), bounds) for bounds in keys}
    ),
    categories=st.dictionaries(st.sampled_from("abc"), st.integers(1, 3)).map(
        lambda counts: CategoryCounts(counts=counts)
    ),
    missing=st.integers(0, 2),
)


def test_writers_with_other_bounds_add_up_side_by_side() -> None:
    both = explicit(0.5, 5.0).merge(explicit(7.0, bounds=(6.0,))).merge(explicit(20.0))
    assert {bounds: part.counts.tolist() for bounds, part in both.explicit.items()} == {
        (1.0, 10.0): [1, 1, 1],
        (6.0,): [0, 1],
    }
    assert (both.numbers, both.total, both.moments.mean) == (4, 4, 8.125)


def test_a_quantile_over_one_sketch_is_that_sketch() -> None:
    assert explicit(2.0, 3.0, 4.0).quantile(0.5) == next(iter(explicit(2.0, 3.0, 4.0).explicit.values())).quantile(0.5)


def test_a_quantile_over_mixed_sketches_is_an_upper_bound() -> None:
    both = explicit(0.5, 5.0, 20.0).merge(
        StreamSketch(exponential=ExponentialHistogram.from_values(np.array([4.0, 4.0, 4.0, 4.0])))
    )
    assert (both.quantile(0.1), both.quantile(0.5), both.quantile(1.0)) == (1.0, 4.0, 20.0)
    assert math.isnan(StreamSketch().quantile(0.5))


def test_an_empty_document_is_an_empty_sketch() -> None:
    assert StreamSketch().to_dict() == {}
    assert StreamSketch.from_dict({}) == StreamSketch()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"rows": []}, "unknown key 'rows'"),
        ({"missing": -1}, "a count is below 0"),
        ({"categories": {"a": 1.5}}, "a count is not a whole number"),
        ({"missing": True}, "a count is not a whole number"),
        ({"categories": {"a": 10**30}}, "more than 4611686018427387904 values"),
        ({"explicit": [explicit(2.0).to_dict()["explicit"][0]], "missing": 1 << 62}, "more than 4611686018427387904"),
    ],
)
def test_another_document_is_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        StreamSketch.from_dict(document)


@pytest.mark.parametrize("merged", [1, 2, 8])
def test_points_of_the_largest_counts_add_up_to_a_document_that_is_read_again(merged: int) -> None:
    most = np.array([2**53], dtype=np.int64)
    point = StreamSketch(
        exponential=ExponentialHistogram(scale=0, ordinals=np.array([0]), counts=most),
        explicit={(1.0,): Histogram(bounds=(1.0,), counts=np.append(most, 0))},
        categories=CategoryCounts(counts={"a": 2**53}),
        missing=2**53,
    )
    total = point
    for _ in range(merged - 1):
        total = total.merge(point)
    assert total.total == merged * 2**55
    assert StreamSketch.from_dict(total.to_dict()).to_dict() == total.to_dict()


def test_no_class_is_lost_beside_missing_values() -> None:
    part = StreamSketch(categories=CategoryCounts(counts={"a": 2}), missing=1)
    assert part.merge(part) == StreamSketch(categories=CategoryCounts(counts={"a": 4}), missing=2)


@settings(deadline=None)
@given(st.lists(SKETCHES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_all_at_once_are_merged_as_one_by_one_in_any_order(parts: list[StreamSketch], rng: Any) -> None:
    one_by_one = functools.reduce(lambda merged, part: merged.merge(part), parts)
    shuffled = [part for part in parts if part.total]
    rng.shuffle(shuffled)
    assert StreamSketch.merge_all(parts) == one_by_one
    if shuffled:
        assert StreamSketch.merge_all(shuffled) == StreamSketch.merge_all([part for part in parts if part.total])
