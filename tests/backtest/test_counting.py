from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_mlmon.backtest.counting import build_counter
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.window.binning import Binning, ClassBins, NumberBins, choose_quantile_bins
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.table.table import build_column

# Powers of two are bounds of buckets; their neighbours and zeros are where a comparison could go wrong.
VALUES = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6),
    st.integers(-8, 8).flatmap(lambda power: st.sampled_from((-(2.0**power), 2.0**power))),
)


def place(row: int) -> str:
    """As a table says it."""
    return f"data.csv:{row + 2}"


def sketch_of(values: NDArray[np.float64]) -> StreamSketch:
    finite = values[np.isfinite(values)]
    return StreamSketch(exponential=ExponentialHistogram.from_values(finite), missing=int(values.size - finite.size))


@settings(deadline=None, max_examples=200)
@example(reference=[5e-324], data=[5e-324])
@given(
    reference=st.lists(VALUES, min_size=1, max_size=40),
    data=st.lists(st.one_of(VALUES, st.just(math.nan), st.just(math.inf)), max_size=40),
)
def test_rows_are_counted_as_their_sketch_is(reference: list[float], data: list[float]) -> None:
    binning = choose_quantile_bins(sketch_of(np.array(reference)), grid=None, has_missing=True)
    values = np.array(data, dtype=np.float64)
    counter = build_counter(build_column("x", values), binning, place)
    # One value a sketch: the sketch of many may be coarser than the bins, which that of one never is.
    expected = np.zeros(binning.bins.count, dtype=np.int64)
    for row in range(values.size):
        expected += binning.count(sketch_of(values[row : row + 1]))
    # The value of a bound is rounded, so which side a value on it belongs to is known of zero and powers of two only.
    # Next to the smallest of all numbers two bounds round to one, and a value on it has two bins.
    is_known = len(set(binning.edges)) == len(binning.edges)
    on_edges = [value for value in data if value in binning.edges]
    if is_known and all(value in (0.0, math.inf) or math.frexp(abs(value))[0] == 0.5 for value in on_edges):
        assert counter.count(0, values.size).tolist() == expected.tolist()
    assert int(counter.count(0, values.size).sum()) == values.size


def test_an_outlier_moves_no_edge() -> None:
    binning = choose_quantile_bins(sketch_of(np.linspace(1, 2, 1000)), grid=None, has_missing=True)
    counts = build_counter(build_column("x", np.array([1e30, -1e30, 1.5])), binning, place).count(0, 3)
    assert (int(counts[0]), int(counts[-2]), int(counts.sum())) == (1, 1, 3)


@pytest.mark.parametrize("has_missing", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 2.0, 9.0, math.nan],
        [1.0, 2.0, 2.0, 2.5, math.nan],
        [1e300, 1.0, 2.0, 2.0, math.nan],
        ["1", "2", "2", "nine", None],
    ],
)
def test_classes_unseen_and_missing(values: list[object], *, has_missing: bool) -> None:
    binning: Binning = ClassBins(labels=("2", "1", "_OTHER"), has_missing=has_missing)
    counter = build_counter(build_column("x", values), binning, place)
    assert counter.count(0, 5).tolist() == [2, 1, 1] + [1] * has_missing
    assert math.isnan(counter.mean(0, 5))


def test_small_whole_numbers_are_looked_up() -> None:
    counter = build_counter(build_column("x", np.array([-3, 5, 5, 4])), ClassBins(labels=("5", "-3", "_OTHER")), place)
    assert counter.count(0, 4).tolist() == [2, 1, 1]
    assert counter.count(1, 3).tolist() == [2, 0, 0]


def test_fractions_are_classes_too() -> None:
    counter = build_counter(build_column("x", [0.5, 2.75, 2.75]), ClassBins(labels=("0.5", "2.75", "_OTHER")), place)
    assert counter.count(0, 3).tolist() == [1, 2, 0]


@pytest.mark.parametrize("value", [2.0**53, -(2.0**53), 1e19, -1e19, 1e300])
def test_whole_numbers_beyond_53_bits_are_classes_too(value: float) -> None:
    bins = ClassBins(labels=(f"{int(value)}", "_OTHER"))
    assert build_counter(build_column("x", np.full(3, value)), bins, place).count(0, 3).tolist() == [3, 0]


def test_where_a_row_stands_is_looked_up_for_faults_only() -> None:
    def never(row: int) -> str:
        raise AssertionError(row)

    counter = build_counter(build_column("x", ["a", "b"]), ClassBins(labels=("a", "_OTHER")), never)
    assert counter.count(0, 2).tolist() == [1, 1]


@pytest.mark.parametrize(("values", "line"), [(["many", None], 2), ([None, "many"], 3)])
def test_words_in_a_column_of_numbers_are_a_fault_with_its_place(values: list[object], line: int) -> None:
    binning = choose_quantile_bins(sketch_of(np.arange(10.0)), grid=None, has_missing=True)
    with pytest.raises(ConfigurationError, match=rf"^data.csv:{line}: column 'x': 'many' is not a number"):
        build_counter(build_column("x", values), binning, place)


def test_means_are_of_what_is_there() -> None:
    binning = choose_quantile_bins(sketch_of(np.arange(10.0)), grid=None, has_missing=True)
    counter = build_counter(build_column("x", np.array([1.0, math.nan, 3.0, math.inf, math.nan])), binning, place)
    assert counter.mean(0, 4) == 2.0
    assert math.isnan(counter.mean(4, 5))


@pytest.mark.parametrize(
    ("labels", "values", "counts"),
    [
        (("1", "2", "_OTHER"), ["1.0", "2", "02", "many"], [1, 2, 1]),
        (("1.0", "many", "_OTHER"), [1.0, 1.0, 2.0], [2, 0, 1]),
        (("1", "1.0", "_OTHER"), ["1.0", "1"], [1, 1, 0]),
    ],
)
def test_a_label_is_the_number_it_is_spelled_as(
    labels: tuple[str, ...], values: list[object], counts: list[int]
) -> None:
    counter = build_counter(build_column("x", values), ClassBins(labels=labels), place)
    assert counter.count(0, len(values)).tolist() == counts


def test_the_mean_of_finite_numbers_is_of_the_rows_asked_for() -> None:
    binning = choose_quantile_bins(sketch_of(np.arange(10.0)), grid=None, has_missing=True)
    counter = build_counter(build_column("x", np.array([9.0, 1.0, 2.0, 6.0, 9.0])), binning, place)
    assert counter.mean(1, 4) == 3.0
    assert math.isnan(counter.mean(2, 2))


def test_a_value_on_an_edge_is_below_it() -> None:
    binning = NumberBins(edges=(1.0, 2.0))
    counter = build_counter(build_column("x", np.array([1.0, 1.5, 2.0, 2.5])), binning, place)
    assert counter.count(0, 4).tolist() == [1, 2, 1]
