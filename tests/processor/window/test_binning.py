from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.window.binning import (
    ClassBins,
    CutTable,
    NumberBins,
    ThresholdBins,
    choose_quantile_bins,
    name_bins_by_range,
)
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.sketch.table import SketchTable

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), max_size=60)


def exponential(*values: float, missing: int = 0) -> StreamSketch:
    return StreamSketch(
        exponential=ExponentialHistogram.from_values(np.array(values, dtype=np.float64)), missing=missing
    )


def explicit(*values: float, bounds: tuple[float, ...] = semconv.VALUE_BOUNDS) -> StreamSketch:
    return StreamSketch(explicit={bounds: Histogram.from_values(np.array(values, dtype=np.float64), bounds)})


def test_numbers_get_ten_even_bins_and_three_for_what_is_odd() -> None:
    reference = exponential(*np.linspace(100.0, 200.0, 1001))
    binning = choose_quantile_bins(reference, grid=None, has_missing=True)
    counts = binning.count(reference)
    assert binning.bins.count == 13
    assert (counts[0], counts[-2], counts[-1]) == (0, 0, 0)
    assert all(90 <= count <= 110 for count in counts[1:-2])
    odd = exponential(-5.0, 0.0, 1.0, 1e9, 1e9, missing=4)
    coarse = choose_quantile_bins(reference, grid=binning.find_required_grid(odd), has_missing=True)
    assert coarse.count(odd).tolist()[0] + coarse.count(odd).tolist()[-2] == 5
    assert coarse.count(odd)[-1] == 4


def test_an_outlier_in_coarse_buckets_needs_a_coarser_grid() -> None:
    binning = choose_quantile_bins(exponential(*np.linspace(100.0, 200.0, 1001)), grid=None, has_missing=False)
    outlier = exponential(100.0, 1e-300)
    assert outlier.exponential is not None
    assert binning.find_required_grid(outlier) == outlier.exponential.scale
    assert binning.find_required_grid(exponential(100.0, 101.0)) is None
    assert binning.find_required_grid(StreamSketch()) is None


@settings(deadline=None, max_examples=150)
@given(reference=VALUES, current=VALUES, has_missing=st.booleans())
def test_every_value_is_in_exactly_one_bin(reference: list[float], current: list[float], has_missing: bool) -> None:
    for of in (exponential, explicit):
        binning = choose_quantile_bins(of(*reference), grid=None, has_missing=has_missing)
        bins = binning.bins
        for sketch in (of(*reference), of(*current), exponential(*current), explicit(*current)):
            grid = binning.find_required_grid(sketch)
            fitting = (
                binning if grid is None else choose_quantile_bins(of(*reference), grid=grid, has_missing=has_missing)
            )
            counts = fitting.count(sketch)
            assert counts.shape == (fitting.bins.count,)
            assert counts.sum() == sketch.numbers
        assert list(bins.edges) == sorted(bins.edges)
        assert bins.count <= 13
        assert bins.count == len(bins.edges) + 1 + has_missing


@settings(deadline=None, max_examples=100)
@given(reference=VALUES, scale_steps=st.integers(0, 4))
def test_a_coarser_grid_still_holds_the_reference(reference: list[float], scale_steps: int) -> None:
    sketch = exponential(*reference)
    assert sketch.exponential is not None
    grid = sketch.exponential.scale - scale_steps
    binning = choose_quantile_bins(sketch, grid=grid, has_missing=False)
    assert binning.scale in (None, grid)
    assert binning.count(sketch).sum() == len(reference)
    assert binning.find_required_grid(StreamSketch(exponential=sketch.exponential.at_scale(grid))) is None


def test_a_reference_in_exponential_buckets_follows_explicit_ones() -> None:
    reference = exponential(*np.linspace(1.0, 1000.0, 1000))
    grid = choose_quantile_bins(reference, grid=None, has_missing=False).find_required_grid(explicit(5.0))
    assert grid == semconv.VALUE_BOUNDS
    binning = choose_quantile_bins(reference, grid=grid, has_missing=False)
    assert set(binning.edges) <= set(semconv.VALUE_BOUNDS)
    # Buckets of about 1 % straddle a bound; no more than that is misplaced.
    live = explicit(*np.linspace(1.0, 1000.0, 1000))
    assert np.abs(binning.count(reference) - binning.count(live)).max() <= 10
    assert binning.find_required_grid(live) is None


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        (exponential(5.0, 5.0, 5.0), 4),
        (exponential(0.0, 0.0), 4),
        (exponential(), 2),
        (StreamSketch(missing=9), 2),
        (explicit(5.0, 5.0), 4),
        (explicit(1e9, bounds=(1.0,)), 3),
        (explicit(1e9, bounds=()), 2),
    ],
)
def test_degenerate_references_are_legal(reference: StreamSketch, names: int) -> None:
    binning = choose_quantile_bins(reference, grid=None, has_missing=True)
    assert binning.bins.count == names
    assert len(set(binning.bins.names)) == names
    assert binning.count(reference).sum() == reference.total
    grid = binning.find_required_grid(exponential(1.0, 2.0, 3.0))
    assert choose_quantile_bins(reference, grid=grid, has_missing=True).count(exponential(1.0, 2.0, 3.0)).sum() == 3


def test_a_constant_that_changes_leaves_its_bin() -> None:
    reference = exponential(*[5.0] * 100)
    moved = exponential(*[6.0] * 100)
    mixed = reference.merge(moved)
    grid = choose_quantile_bins(reference, grid=None, has_missing=False).find_required_grid(mixed)
    binning = choose_quantile_bins(reference, grid=grid, has_missing=False)
    assert binning.count(mixed).tolist() == [0, 100, 100]


def test_zeros_begin_at_a_zero_without_a_sign() -> None:
    binning = choose_quantile_bins(exponential(0.0, 0.0, 1.0), grid=None, has_missing=False)
    assert binning.bins.names == ("≤ 0", "0", "0 … 1", "> 1")
    assert [str(edge) for edge in binning.bins.edges] == ["0.0", "0.0", "1.0"]


def test_classes_beyond_the_first_are_other() -> None:
    reference = StreamSketch(categories=CategoryCounts(counts={"a": 5, "b": 3, "c": 1}))
    binning = ClassBins.choose(reference, limit=2, has_missing=True)
    assert binning.bins.names == ("a", "b", OTHER, MISSING)
    current = StreamSketch(categories=CategoryCounts(counts={"a": 1, "new": 2, OTHER: 3}), missing=4)
    assert binning.count(current).tolist() == [1, 0, 5, 4]


@pytest.mark.parametrize(
    ("budget_s", "expected"),
    [(0.05, [2, 2]), (0.06, [3, 1]), (0.1, [3, 1]), (5.0, [4, 0]), (60.0, [4, 0]), (1e-9, [0, 4])],
)
def test_the_bucket_that_holds_the_budget_is_within(budget_s: float, expected: list[int]) -> None:
    calls = explicit(0.001, 0.04, 0.09, 0.3, bounds=semconv.DURATION_BOUNDS_S)
    assert ThresholdBins(threshold_s=budget_s).count(calls).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(min_value=1e-6, max_value=1e3), max_size=30), st.floats(min_value=1e-6, max_value=1e3))
def test_a_call_over_the_budget_by_a_bucket_is_over(seconds: list[float], budget_s: float) -> None:
    calls = exponential(*seconds)
    within, over = ThresholdBins(threshold_s=budget_s).count(calls).tolist()
    assert within + over == len(seconds)
    assert over <= sum(value > budget_s for value in seconds)
    assert calls.exponential is not None
    factor = 2.0 ** (2.0**-calls.exponential.scale)
    assert over >= sum(value > budget_s * factor * (1 + 1e-12) for value in seconds)


def test_fixed_edges_count_any_sketch() -> None:
    binning = NumberBins(edges=(0.1, 0.2), is_fixed=True)
    assert binning.count(exponential(0.05, 0.15, 0.9)).tolist() == [1, 1, 1]
    assert binning.count(explicit(0.05, 0.15, 0.9, bounds=semconv.CONFIDENCE_BOUNDS)).tolist() == [1, 1, 1]
    assert binning.find_required_grid(explicit(0.5, bounds=(0.7,))) is None


def test_names_have_as_many_digits_as_they_need() -> None:
    assert name_bins_by_range((0.1, 0.2)) == ("≤ 0.1", "0.1 … 0.2", "> 0.2")
    assert name_bins_by_range((280.01234, 280.01239)) == ("≤ 280.0123", "280.0123 … 280.0124", "> 280.0124")
    assert name_bins_by_range((0.0, 0.0, 1.0)) == ("≤ 0", "0", "0 … 1", "> 1")
    assert name_bins_by_range(()) == ("any value",)
    assert name_bins_by_range((math.inf,)) == ("≤ inf", "> inf")


NUMBERS = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False) | st.just(0.0), min_size=1, max_size=40)


@given(
    streams=st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 6), st.integers(0, 9), st.booleans()), max_size=6),
)
def test_many_streams_counted_together_are_each_counted_as_alone(
    streams: list[tuple[list[float], list[float], int, int, bool]],
) -> None:
    pairs = []
    for reference, values, steps, missing, has_missing in streams:
        histogram = ExponentialHistogram.from_values(np.array(reference))
        coarse = histogram.at_scale(max(histogram.scale - steps, -10))
        sketch = StreamSketch(exponential=ExponentialHistogram.from_values(np.array(values)), missing=missing)
        binning = choose_quantile_bins(StreamSketch(exponential=coarse), grid=None, has_missing=has_missing)
        assert sketch.exponential is not None
        if binning.has_cuts_at(sketch.exponential.scale):
            pairs.append((binning, sketch))
    alone = [binning.count(sketch).tolist() for binning, sketch in pairs]
    table = SketchTable.from_sketches([sketch.exponential for _, sketch in pairs if sketch.exponential is not None])
    together = CutTable([binning for binning, _ in pairs]).count(table, [sketch.missing for _, sketch in pairs])
    assert [counts.tolist() for counts in together] == alone
