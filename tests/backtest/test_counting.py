from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_mlmon.backtest.counting import (
    CellFaultError,
    StreamCountPlan,
    WindowCountPlan,
    count_batches,
    sum_window_numbers,
)
from otel_mlmon.backtest.counts import TableCounts, WindowCounts
from otel_mlmon.processor.window.binning import Binning, ClassBins, NumberBins, choose_quantile_bins
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.table.table import TableColumn, open_memory_table

# Powers of two are bounds of buckets; their neighbours and zeros are where a comparison could go wrong.
VALUES = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6),
    st.integers(-8, 8).flatmap(lambda power: st.sampled_from((-(2.0**power), 2.0**power))),
)


def counted(values: object, binning: Binning) -> WindowCounts:
    """The counts of all values in one window."""
    data = open_memory_table({"x": values}, "data.csv")
    plan = StreamCountPlan(column=data.columns["x"], kind="numeric", binning=binning)
    counts = count_batches(WindowCountPlan(streams=(plan,), window_rows=1 << 40), data.scan(["x"]))
    return next(iter(counts.windows.values()), WindowCounts(np.zeros(binning.bins.count, dtype=np.int64), [0]))


def mean_of(values: object, binning: Binning) -> float:
    """The mean of all values."""
    window = counted(values, binning)
    return sum_window_numbers(window.counts, window.sums[0], binning).mean


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
    counts = counted(values, binning).counts
    # One value a sketch: the sketch of many may be coarser than the bins, which that of one never is.
    expected = np.zeros(binning.bins.count, dtype=np.int64)
    for row in range(values.size):
        expected += binning.count(sketch_of(values[row : row + 1]))
    # The value of a bound is rounded, so which side a value on it belongs to is known of zero and powers of two only.
    # Next to the smallest of all numbers two bounds round to one, and a value on it has two bins.
    is_known = len(set(binning.edges)) == len(binning.edges)
    on_edges = [value for value in data if value in binning.edges]
    if is_known and all(value in (0.0, math.inf) or math.frexp(abs(value))[0] == 0.5 for value in on_edges):
        assert counts.tolist() == expected.tolist()
    assert int(counts.sum()) == values.size


def test_an_outlier_moves_no_edge() -> None:
    binning = choose_quantile_bins(sketch_of(np.linspace(1, 2, 1000)), grid=None, has_missing=True)
    counts = counted(np.array([1e30, -1e30, 1.5]), binning).counts
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
    assert counted(values, binning).counts.tolist() == [2, 1, 1] + [1] * has_missing
    assert math.isnan(mean_of(values, binning))


def test_small_whole_numbers_are_looked_up() -> None:
    assert counted(np.array([-3, 5, 5, 4]), ClassBins(labels=("5", "-3", "_OTHER"))).counts.tolist() == [2, 1, 1]


def test_fractions_are_classes_too() -> None:
    assert counted([0.5, 2.75, 2.75], ClassBins(labels=("0.5", "2.75", "_OTHER"))).counts.tolist() == [1, 2, 0]


@pytest.mark.parametrize("value", [2.0**53, -(2.0**53), 1e19, -1e19, 1e300])
def test_whole_numbers_beyond_53_bits_are_classes_too(value: float) -> None:
    assert counted(np.full(3, value), ClassBins(labels=(f"{int(value)}", "_OTHER"))).counts.tolist() == [3, 0]


def test_words_in_a_column_of_numbers_are_a_fault_with_its_row() -> None:
    binning = choose_quantile_bins(sketch_of(np.arange(10.0)), grid=None, has_missing=True)
    with pytest.raises(CellFaultError) as caught:
        counted([None, "many"], binning)
    assert [(row, value) for row, _, value in caught.value.faults] == [(1, "many")]


def test_against_a_reference_without_a_value_any_is_one() -> None:
    assert counted(["a", None, "7"], NumberBins(edges=(), has_missing=True)).counts.tolist() == [2, 1]


def test_means_are_of_what_is_there() -> None:
    binning = choose_quantile_bins(sketch_of(np.arange(10.0)), grid=None, has_missing=True)
    assert mean_of(np.array([1.0, math.nan, 3.0, math.inf]), binning) == 2.0
    assert math.isnan(mean_of(np.array([math.nan]), binning))
    assert mean_of(np.array([1e30, -1e30, 3.0, 6.0]), binning) == 2.25


@pytest.mark.parametrize("scale", [1e-308, 1e-9, 1.0, 1e9, 1e300])
def test_the_mean_is_near_that_of_the_values_at_any_scale(scale: float) -> None:
    values = np.random.default_rng(1).normal(3, 1, 10_000) * scale
    assert mean_of(values, NumberBins(edges=(scale, 5 * scale))) == pytest.approx(values.mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("labels", "values", "counts"),
    [
        (("1", "2", "_OTHER"), ["1.0", "2", "02", "many"], [1, 2, 1]),
        (("1.0", "many", "_OTHER"), [1.0, 1.0, 2.0], [2, 0, 1]),
        (("1", "1.0", "_OTHER"), ["1.0", "1"], [1, 1, 0]),
        (("True", "False", "_OTHER"), ["true", "FALSE", "True"], [2, 1, 0]),
        (("01", "02", "_OTHER"), ["01", "1", "02"], [1, 1, 1]),
    ],
)
def test_a_label_is_the_number_it_is_spelled_as(
    labels: tuple[str, ...], values: list[object], counts: list[int]
) -> None:
    assert counted(values, ClassBins(labels=labels)).counts.tolist() == counts


def test_a_value_on_an_edge_is_below_it() -> None:
    assert counted(np.array([1.0, 1.5, 2.0, 2.5]), NumberBins(edges=(1.0, 2.0))).counts.tolist() == [1, 2, 1]


ROWS = st.lists(
    st.tuples(st.integers(0, 9), VALUES | st.none(), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=100)
@given(rows=ROWS, data=st.data())
def test_neither_order_nor_parts_change_the_counts_of_windows(
    rows: list[tuple[int, float | None, str | None]], data: st.DataObject
) -> None:
    """Rows are shuffled, dealt to parts, and the parts are merged in any order."""
    plan = WindowCountPlan(
        streams=(
            StreamCountPlan(
                column=TableColumn(name="x", kind="number"), kind="numeric",
                binning=NumberBins(edges=(-1.0, 0.0, 2.0), has_missing=True),
            ),
            StreamCountPlan(
                column=TableColumn(name="c", kind="text"), kind="category", binning=ClassBins(labels=("a", "_")),
            ),
        ),
        window_ns=3,
        time=TableColumn(name="t", kind="number"),
        unit_ns=1,
    )  # fmt: skip

    def count(part: list[tuple[int, float | None, str | None]]) -> TableCounts:
        times, values, words = zip(*part, strict=True) if part else ((), (), ())
        columns = {
            "x": pa.array(values, pa.float64()), "c": pa.array(words, pa.string()), "t": pa.array(times, pa.int64())
        }  # fmt: skip
        return count_batches(plan, pa.table(columns).to_batches(max_chunksize=data.draw(st.integers(1, 60))))

    expected = count(rows)
    parts: list[list[tuple[int, float | None, str | None]]] = [[], [], []]
    for row in data.draw(st.permutations(rows)):
        parts[data.draw(st.integers(0, 2))].append(row)
    merged = TableCounts.build_empty(2, has_times=True)
    for part in data.draw(st.permutations(parts)):
        merged.merge(count(part))

    def content(counts: TableCounts) -> object:
        windows = sorted(counts.windows.items())
        return [(key, one.counts.tolist(), one.sums, one.rows, one.last_ns) for key, one in windows]

    assert content(merged) == content(expected)
    assert (merged.rows, merged.first_ns) == (expected.rows, expected.first_ns)
    assert merged.first.times_ns.tolist() == sorted(row[0] for row in rows)
