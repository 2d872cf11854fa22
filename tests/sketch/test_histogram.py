from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.errors import BinMismatchError
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments


def histogram(counts: list[int], bounds: tuple[float, ...] = (1.0, 2.0, 4.0)) -> Histogram:
    return Histogram(bounds=bounds, counts=np.array(counts, dtype=np.int64))


def test_bounds_are_inclusive_above() -> None:
    values = np.array([0.5, 1.0, 1.5, 2.0, 4.0, 4.5])
    assert Histogram.from_values(values, (1.0, 2.0, 4.0)).counts.tolist() == [2, 2, 1, 1]


def test_a_falling_count_was_reset() -> None:
    assert histogram([1, 2, 3, 0]).subtract(histogram([2, 2, 3, 0])) is None


def test_other_bounds_do_not_mix() -> None:
    other = Histogram.build_empty((1.0, 3.0))
    with pytest.raises(BinMismatchError, match="3 bounds against 2 others"):
        histogram([0, 0, 0, 0]).merge(other)
    with pytest.raises(BinMismatchError):
        histogram([0, 0, 0, 0]).subtract(other)


def test_confidence_bounds_hold_ten_equal_bins() -> None:
    values = np.arange(1001) / 1000
    counts = Histogram.from_values(values, semconv.CONFIDENCE_BOUNDS).rebin([step / 10 for step in range(1, 10)])
    assert counts.tolist() == [101, 100, 100, 100, 100, 100, 100, 100, 100, 100]


def test_a_bucket_across_an_edge_goes_whole_below_the_next() -> None:
    assert histogram([1, 2, 3, 4]).rebin([1.5]).tolist() == [1, 9]
    assert histogram([1, 2, 3, 4]).rebin([]).tolist() == [10]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(min_value=-10, max_value=10), min_size=1, max_size=40), st.floats(min_value=0, max_value=1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    bounds = tuple(float(bound) for bound in range(-10, 11))
    estimate = Histogram.from_values(np.array(values), bounds).quantile(q)
    true = sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]
    assert min(values) <= estimate <= max(values)
    assert abs(estimate - true) <= 1.0


def test_quantiles_without_extremes_use_the_nearest_bound() -> None:
    assert histogram([4, 0, 0, 0]).quantile(0.5) == 0.5
    assert histogram([0, 0, 0, 4]).quantile(0.99) == 4.0
    assert histogram([0, 4, 0, 0]).quantile(0.25) == 1.25
    assert math.isnan(histogram([0, 0, 0, 0]).quantile(0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": [1, 2]}, "2 counts for 3 bounds"),
        ({"bounds": [1.0, 1.0, 2.0]}, "do not increase"),
        ({"counts": [1, -2, 3, 4]}, "below 0"),
        ({"counts": [1, 2.5, 3, 4]}, "whole number"),
        ({"counts": [1, True, 3, 4]}, "whole number"),
        ({"counts": [1 << 62, 1, 0, 0]}, "more than 4611686018427387904 values"),
        ({"bounds": [1.0, math.nan, 2.0]}, "do not increase"),
        ({"bounds": [1.0, 2.0, math.inf]}, "one is not finite"),
        ({"sum": "x"}, "exact sum"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Histogram.from_dict(histogram([1, 2, 3, 4]).to_dict() | change)


def test_a_single_bound_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="one is not finite"):
        Histogram.from_dict({**histogram([1, 2, 3, 4]).to_dict(), "bounds": [math.nan], "counts": [1, 2]})


def test_unknown_extremes_are_null_in_a_document() -> None:
    assert histogram([1, 2, 3, 4]).to_dict() == {
        "bounds": [1.0, 2.0, 4.0],
        "counts": [1, 2, 3, 4],
        "sum": "0x0p+0",
        "minimum": None,
        "maximum": None,
    }
    bounded = Histogram.from_values(np.array([3.0]), (1.0,))
    assert bounded.moments == Moments(count=1, exact_sum=bounded.moments.exact_sum, minimum=3.0, maximum=3.0)


def test_a_quantile_is_linear_within_its_bucket() -> None:
    counted = histogram([2, 0, 4, 2])
    assert [counted.quantile(q) for q in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)] == [0.0, 0.5, 1.0, 3.0, 4.0, 4.0]
    assert histogram([0, 0, 4, 0]).quantile(0.0) == 2.0
    assert histogram([1, 1], bounds=(-2.0,)).quantile(0.5) == -2.0


def test_the_extremes_close_the_outer_buckets() -> None:
    counted = Histogram(
        bounds=(1.0, 2.0), counts=np.array([2, 0, 2]), moments=Moments(count=4, minimum=-3.0, maximum=6.0)
    )
    assert [counted.quantile(q) for q in (0.0, 0.25, 0.75, 1.0)] == [0.0, 0.5, 4.0, 6.0]
    inside = Histogram(
        bounds=(1.0, 2.0), counts=np.array([0, 4, 0]), moments=Moments(count=4, minimum=1.2, maximum=1.6)
    )
    assert [inside.quantile(q) for q in (0.0, 1.0)] == [1.2, 1.6]
    boundless = Histogram(bounds=(), counts=np.array([4]), moments=Moments(count=4, minimum=2.0, maximum=4.0))
    assert [boundless.quantile(q) for q in (0.0, 0.5, 1.0)] == [2.0, 3.0, 4.0]


def test_equality_is_of_bounds_counts_and_moments() -> None:
    base = histogram([1, 2, 3, 4])
    assert base == histogram([1, 2, 3, 4])
    assert base != histogram([1, 2, 3, 5])
    assert base != histogram([1, 2, 3, 4], bounds=(1.0, 2.0, 5.0))
    assert base != Histogram(bounds=base.bounds, counts=base.counts, moments=Moments(count=10))
    assert (base == "1 2 3 4") is False


def test_a_document_may_count_2_to_the_62() -> None:
    document = histogram([0, 0, 0, 0]).to_dict() | {"counts": [(1 << 62) - 1, 0, 0, 1]}
    assert Histogram.from_dict(document).total == 1 << 62


def test_hidden_values_are_the_middles_of_their_buckets() -> None:
    hidden = Histogram.from_values(np.array([-5.0, 1.2, 2.9, 1e9]), (0.0, 1.0, 3.0)).hide_values()
    assert hidden.counts.tolist() == [1, 0, 2, 1]
    assert hidden.moments == Moments.from_total(count=4, total=0.0 + 2.0 + 2.0 + 3.0)
    assert Histogram.from_values(np.array([7.0]), ()).hide_values().moments == Moments.from_total(count=1, total=0.0)
