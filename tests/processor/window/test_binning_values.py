"""The edges that are chosen for references whose quantiles are known, and every rule of counting once."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.window.binning import (
    ClassBins,
    Grid,
    NumberBins,
    ThresholdBins,
    choose_quantile_bins,
    count_over_threshold,
)
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.sketch.exponential import BIAS, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch


def explicit(bounds: list[float], counts: list[int]) -> StreamSketch:
    histogram = Histogram(bounds=tuple(bounds), counts=np.array(counts, dtype=np.int64))
    return StreamSketch(explicit={histogram.bounds: histogram})


def exponential(counts: dict[int, int], scale: int = 0) -> StreamSketch:
    """Counts by the index of a positive bucket: index i of scale 0 holds (2^i, 2^(i+1)]."""
    return StreamSketch(
        exponential=ExponentialHistogram(
            scale=scale,
            ordinals=np.array([BIAS + index for index in counts], dtype=np.int64),
            counts=np.array(list(counts.values()), dtype=np.int64),
        )
    )


TWENTY = [float(bound) for bound in range(1, 21)]


@pytest.mark.parametrize(
    ("bounds", "counts", "edges"),
    [
        (TWENTY, [1] * 20 + [0], (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)),
        ([0.0, *TWENTY], [0] + [1] * 20 + [0], (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)),
        ([-1.0, 0.0, *TWENTY], [0, 0] + [1] * 20 + [0], (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)),
        (TWENTY, [1] * 20 + [1], (2, 4, 6, 8, 11, 13, 15, 17, 19)),
        ([1.0, 2.0, 3.0], [15, 10, 75, 0], (1, 2, 3)),  # the second decile is as near to one as to the other
        ([1.0, 2.0, 3.0], [14, 12, 74, 0], (1, 2, 3)),
        ([1.0, 2.0, 3.0, 4.0], [40, 0, 0, 0, 60], (1,)),  # empty buckets: the first edge of all that are the same
        ([1.0, 2.0, 3.0, 4.0], [40, 0, 0, 60, 0], (1, 4)),
        ([1.0, 2.0], [0, 5, 0], (1, 2)),
        ([1.0, 2.0], [5, 0, 0], (1,)),
        ([1.0, 2.0], [0, 0, 5], (2,)),
    ],
)
def test_edges_of_explicit_bounds(bounds: list[float], counts: list[int], edges: tuple[float, ...]) -> None:
    counts = counts + [0] * (len(bounds) + 1 - len(counts))
    assert choose_quantile_bins(explicit(bounds, counts), grid=None, has_missing=False) == NumberBins(edges=edges)


@pytest.mark.parametrize(
    ("counts", "cuts"),
    [
        (dict.fromkeys(range(20), 1), [-1, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]),
        ({0: 15, 1: 10, 2: 75}, [-1, 0, 1, 2]),
        ({0: 40, 3: 60}, [-1, 0, 3]),
        ({5: 7}, [4, 5]),
    ],
)
def test_edges_of_exponential_buckets(counts: dict[int, int], cuts: list[int]) -> None:
    binning = choose_quantile_bins(exponential(counts), grid=None, has_missing=True)
    assert binning == NumberBins(
        edges=tuple(2.0 ** (cut + 1) for cut in cuts),
        cuts=tuple(BIAS + cut for cut in cuts),
        scale=0,
        has_missing=True,
    )
    held = binning.count(exponential(counts))
    assert (held[0], held[-2], held[-1], held.sum()) == (0, 0, 0, sum(counts.values()))


@pytest.mark.parametrize(("grid", "scale"), [(None, 3), (5, 3), (3, 3), (2, 2), (-1, -1)])
def test_edges_stand_on_the_grid_but_never_on_a_finer_scale(grid: Grid, scale: int) -> None:
    binning = choose_quantile_bins(exponential({8: 1, 40: 1}, scale=3), grid=grid, has_missing=False)
    assert binning.scale == scale


def test_a_grid_of_bounds_leaves_only_edges_that_all_writers_have() -> None:
    sketch = explicit(TWENTY, [1] * 20 + [0])
    assert choose_quantile_bins(sketch, grid=(2.0, 9.0, 10.5), has_missing=False).edges == (2.0, 9.0)
    other = Histogram(bounds=(9.0, 11.0), counts=np.array([1, 1, 1]))
    mixed = StreamSketch(explicit={**sketch.explicit, other.bounds: other})
    assert choose_quantile_bins(mixed, grid=None, has_missing=False).edges == (9.0, 11.0)


def test_numbers_of_no_bucket_have_one_bin() -> None:
    for sketch in (StreamSketch(), explicit([1.0], [0, 0]), StreamSketch(missing=3)):
        binning = choose_quantile_bins(sketch, grid=None, has_missing=True)
        assert binning == NumberBins(edges=(), has_missing=True)
        assert binning.bins.names == ("any value", MISSING)


def test_classes_are_counted_by_name_and_the_others_together() -> None:
    sketch = StreamSketch(
        categories=CategoryCounts(counts={"a": 5, "b": 7, "c": 1, OTHER: 2}),
        missing=4,
        explicit=explicit([1.0], [1, 1]).explicit,
    )
    assert ClassBins.choose(sketch, limit=2, has_missing=False) == ClassBins(labels=("b", "a", OTHER))
    binning = ClassBins.choose(sketch, limit=2, has_missing=True)
    assert (binning.bins.names, binning.bins.is_ordered) == (("b", "a", OTHER, MISSING), False)
    assert binning.count(sketch).tolist() == [7, 5, 1 + 2 + 2, 4]
    assert ClassBins(labels=("b", OTHER)).count(sketch).tolist() == [7, 5 + 1 + 2 + 2]
    assert binning.find_required_grid(sketch) is None


def test_numbers_are_counted_between_edges_and_classes_are_missing() -> None:
    sketch = StreamSketch(
        explicit=explicit([1.0, 2.0, 3.0], [1, 2, 4, 8]).explicit,
        exponential=exponential({0: 16, 1: 32}).exponential,
        categories=CategoryCounts(counts={"a": 64}),
        missing=128,
    )
    # Of the exponential buckets (1, 2] and (2, 4], the second is on no edge: it counts on the side of zero of 3.
    binning = NumberBins(edges=(1.0, 3.0), has_missing=True)
    assert binning.count(sketch).tolist() == [1, 2 + 4 + 16 + 32, 8, 64 + 128]
    assert NumberBins(edges=(1.0, 3.0)).count(sketch).tolist() == [1, 54, 8]
    on_cuts = NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0)
    assert on_cuts.count(sketch).tolist() == [1 + 2 + 16, 4 + 8 + 32]
    fine = exponential({15: 1, 16: 1, 17: 1}, scale=4)  # (2^(15/16), 2], (2, …
    assert on_cuts.count(fine).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("binning", "sketch", "grid"),
    [
        (NumberBins(edges=(1.0, 2.0)), explicit([0.5, 1.0, 2.0], [1, 1, 1, 1]), None),
        (NumberBins(edges=(1.0, 2.0)), explicit([1.0, 3.0], [1, 1, 1]), (1.0, 3.0)),
        (NumberBins(edges=(1.0, 1.0, 2.0)), explicit([1.0, 2.0], [1, 1, 1]), (1.0, 2.0)),
        (NumberBins(edges=(1.0, 2.0), is_fixed=True), explicit([1.0, 3.0], [1, 1, 1]), None),
        (NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0), exponential({0: 1}, scale=0), None),
        (NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0), exponential({0: 1}, scale=1), None),
        (NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0), exponential({0: 1}, scale=-1), -1),
        (NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0), exponential({}, scale=-1), None),
        (NumberBins(edges=(2.0,), cuts=(BIAS,), scale=0, is_fixed=True), exponential({0: 1}, scale=-1), None),
        (NumberBins(edges=(2.0,)), exponential({0: 1}, scale=-1), None),
        (ThresholdBins(threshold_s=0.1), explicit([1.0], [1, 1]), None),
    ],
)
def test_a_sketch_that_the_edges_do_not_stand_on_asks_for_its_grid(
    binning: NumberBins | ThresholdBins, sketch: StreamSketch, grid: Grid
) -> None:
    assert binning.find_required_grid(sketch) == grid


@pytest.mark.parametrize(
    ("threshold_s", "expected"),
    [(0.5, [1, 14]), (1.0, [1, 14]), (1.5, [3, 12]), (2.0, [3, 12]), (2.5, [7, 8]), (3.0, [7, 8]), (9.0, [15, 0])],
)
def test_calls_over_a_threshold_in_explicit_buckets(threshold_s: float, expected: list[int]) -> None:
    sketch = explicit([1.0, 2.0, 3.0], [1, 2, 4, 8])
    assert count_over_threshold(sketch, threshold_s).tolist() == expected
    assert ThresholdBins(threshold_s=threshold_s).count(sketch).tolist() == expected


@pytest.mark.parametrize(("threshold_s", "expected"), [(1.0, [0, 7]), (1.5, [1, 6]), (2.0, [1, 6]), (4.1, [7, 0])])
def test_calls_over_a_threshold_in_exponential_buckets(threshold_s: float, expected: list[int]) -> None:
    sketch = exponential({0: 1, 1: 2, 2: 4})
    assert count_over_threshold(sketch, threshold_s).tolist() == expected
    mixed = StreamSketch(exponential=sketch.exponential, explicit=explicit([1.0], [0, 5]).explicit)
    over = expected[1] + (5 if threshold_s == 1.0 else 0)
    assert count_over_threshold(mixed, threshold_s).tolist() == [12 - over, over]


def test_the_bins_of_a_threshold_have_names() -> None:
    bins = ThresholdBins(threshold_s=0.25).bins
    assert (bins.names, bins.is_ordered, bins.edges, bins.count) == (("within", "over"), True, (0.25,), 2)
