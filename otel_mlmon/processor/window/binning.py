"""Chooses the bins of a stream's histogram from its reference, and then keeps them, so that no outlier moves an edge.

Classes: the most frequent of the reference, and `_OTHER`. Numbers: up to 10 bins between quantiles of the
reference, with underflow, overflow and missing as real bins, so that they count as drift. Edges stand on
bounds of the buckets that the numbers are counted in; a bucket is never split, so counting is exact and the
same in any processor.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Protocol, TypeAlias

import numpy as np

from otel_mlmon.processor.window.window import HistogramBins
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.sketch.exponential import (
    BIAS,
    ExponentialHistogram,
    compute_bucket_ordinals,
    compute_upper_bounds,
)
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.sketch.table import Bounds, SketchTable
from otel_mlmon.types import Counts

QUANTILES: Final = 10
"""Bins between underflow and overflow, at most."""

Grid: TypeAlias = int | Bounds | None
"""The grid on which edges lie: an exponential scale, explicit bounds, or None for the numbers themselves."""


class Binning(Protocol):
    """A division of a stream's values into bins."""

    @property
    def bins(self) -> HistogramBins:
        """The K bins of the stream."""

    def count(self, sketch: StreamSketch) -> Counts:
        """Counts every value of a sketch in exactly one bin; returns counts of shape (K,)."""

    def find_required_grid(self, sketch: StreamSketch) -> Grid:
        """Returns the grid to which the bins' edges must move before a sketch can be counted; None if it can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBins:
    """Bins of a categorical stream, one a class; the last one holds every class that is not named."""

    labels: tuple[str, ...]
    has_missing: bool = False
    """Whether missing values are a bin after the others."""

    @classmethod
    def choose(cls, sketch: StreamSketch, *, limit: int, has_missing: bool) -> ClassBins:
        """Chooses a bin for each of the `limit` most frequent classes of a sketch, and one for all others."""
        named = [label for label in sketch.categories.list_top_categories(limit).counts if label != OTHER]
        return cls(labels=(*named, OTHER), has_missing=has_missing)

    @property
    def bins(self) -> HistogramBins:
        """The bins of the classes, the most frequent first."""
        return HistogramBins(names=self.labels + ((MISSING,) if self.has_missing else ()), is_ordered=False)

    def count(self, sketch: StreamSketch) -> Counts:
        """Counts the values of a sketch by class; numbers count as a class that is not named."""
        counts = sketch.categories.select_label_counts(self.labels)
        counts[-1] += sketch.numbers
        return np.array(counts + ([sketch.missing] if self.has_missing else []), dtype=np.int64)

    def find_required_grid(self, sketch: StreamSketch) -> Grid:  # noqa: ARG002 - the Protocol's
        """Returns None: classes have no grid."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBins:
    """Bins of a numeric stream: ranges between edges, and one for missing values."""

    edges: tuple[float, ...]
    """Upper bounds, not decreasing (zeros may be a bin of their own)."""
    cuts: tuple[int, ...] = ()
    """The same as ordinals of an exponential histogram at `scale`; empty if `scale` is None."""
    scale: int | None = None
    has_missing: bool = False
    is_fixed: bool = False
    """Whether the edges are part of the contract, and a bucket across one may be counted whole on its lower side."""

    @property
    def bins(self) -> HistogramBins:
        """The bins of the ranges in order, then that of missing values."""
        names = name_bins_by_range(self.edges) + ((MISSING,) if self.has_missing else ())
        return HistogramBins(names=names, is_ordered=True, edges=self.edges)

    def count(self, sketch: StreamSketch) -> Counts:
        """Counts the numbers of a sketch by range; classes count as missing values, if there is such a bin."""
        counts = np.zeros(len(self.edges) + 1 + self.has_missing, dtype=np.int64)
        ranges = counts[: len(self.edges) + 1]
        for histogram in sketch.explicit.values():
            ranges += histogram.rebin(self.edges)
        if sketch.exponential is not None:
            ranges += self._count_exponential(sketch.exponential)
        if self.has_missing:
            counts[-1] = sketch.missing + sketch.categories.total
        return counts

    def find_required_grid(self, sketch: StreamSketch) -> Grid:
        """Returns a coarser grid that the bins' edges must move to; None if the sketch can be counted."""
        if self.is_fixed:
            return None
        for bounds in sketch.explicit:
            if not set(self.edges) <= set(bounds) or len(set(self.edges)) < len(self.edges):
                return bounds
        exponential = sketch.exponential
        if self.scale is None or exponential is None or not exponential.counts.size:
            return None
        return exponential.scale if exponential.scale < self.scale else None

    def has_cuts_at(self, scale: int) -> bool:
        """Returns whether the edges stand on bounds of exponential buckets of a scale: `CutTable` counts them."""
        return self.scale is not None and scale >= self.scale

    def _count_exponential(self, sketch: ExponentialHistogram) -> Counts:
        if self.scale is not None and self.has_cuts_at(sketch.scale):
            return sketch.at_scale(self.scale).rebin(np.array(self.cuts, dtype=np.int64))
        return sketch.rebin(compute_bin_edges(self.edges, sketch.scale))


_SPACING: Final = 1 << 42
"""More than twice any ordinal, so that the ordinals of several streams lie in stretches of their own."""


class CutTable:
    """The cuts of many streams' bins in one array, so that a pane of all is counted in a few array operations.

    Args:
        binnings: Of each stream; each has a scale.
    """

    def __init__(self, binnings: Sequence[NumberBins]) -> None:
        self.binnings = list(binnings)
        cut_counts = np.array([len(binning.cuts) for binning in binnings], dtype=np.int64)
        has_missing = np.array([binning.has_missing for binning in binnings], dtype=np.int64)
        # There is a bin more than there are cuts, and one for missing values.
        ends = np.cumsum(cut_counts + 1 + has_missing)
        self._scales = np.array([binning.scale or 0 for binning in binnings], dtype=np.int64)
        self._stretches = np.arange(len(binnings)) * _SPACING
        cuts = np.array([cut for binning in binnings for cut in binning.cuts], dtype=np.int64)
        self._cuts = cuts + np.repeat(self._stretches, cut_counts)
        # Each stream has a border more than it has bins of numbers: its first bucket, its cuts, and its last bucket.
        lasts = np.cumsum(cut_counts + 2) - 1
        self._firsts, self._lasts = lasts - cut_counts - 1, lasts
        self._is_cut = np.ones(int(lasts[-1]) + 1 if binnings else 0, dtype=np.bool_)
        self._is_cut[self._firsts] = self._is_cut[lasts] = False
        self._is_number = np.ones(int(ends[-1]) if binnings else 0, dtype=np.bool_)
        self._is_number[ends[has_missing > 0] - 1] = False
        self._ranges = list(pairwise([0, *ends.tolist()]))

    def count(self, table: SketchTable, missing: Sequence[int]) -> list[Counts]:
        """Counts one exponential histogram of each stream over its bins; it is what `NumberBins.count` returns.

        Args:
            table: A row a stream, whose scale is not below that of its bins.
            missing: How many values of each stream are missing.
        """
        starts, ordinals = np.array(table.starts), table.ordinals
        sizes = np.diff(starts)
        steps = np.array(table.scales, dtype=np.int64) - self._scales
        if steps.any():
            indices = (np.abs(ordinals) - BIAS) >> np.repeat(steps, sizes)
            ordinals = (np.sign(ordinals) * (indices + BIAS)).astype(np.int64)
        # How many buckets of the whole table are below each border; a bin has what the sum grows by between two.
        borders = np.empty(self._is_cut.size, dtype=np.intp)
        borders[self._firsts], borders[self._lasts] = starts[:-1], starts[1:]
        borders[self._is_cut] = np.searchsorted(ordinals + np.repeat(self._stretches, sizes), self._cuts, side="right")
        sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(table.counts)))[borders]
        counts = np.zeros(self._is_number.size, dtype=np.int64)
        counts[self._is_number] = np.delete(np.diff(sums), self._lasts[:-1])
        if any(missing):
            for (_, end), binning, count in zip(self._ranges, self.binnings, missing, strict=True):
                if binning.has_missing:
                    counts[end - 1] = count
        return [counts[start:end] for start, end in self._ranges]


def count_over_threshold(sketch: StreamSketch, threshold_s: float) -> Counts:
    """Counts the calls within and over a latency threshold, shape (2,); its own bucket counts as within."""
    over = 0
    for bounds, histogram in sketch.explicit.items():
        over += int(histogram.counts[int(np.searchsorted(bounds, threshold_s, side="left")) + 1 :].sum())
    exponential = sketch.exponential
    if exponential is not None:
        over += int(exponential.counts[exponential.ordinals > _find_cut(threshold_s, exponential.scale)].sum())
    return np.array([sketch.numbers - over, over], dtype=np.int64)


@lru_cache(maxsize=1024)
def _find_cut(edge: float, scale: int) -> int:
    """Returns the ordinal of the exponential bucket at or below a bin edge, which is asked of each pane."""
    return int(compute_bin_edges((edge,), scale)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdBins:
    """Two bins of call durations: within and over a latency threshold."""

    threshold_s: float

    @property
    def bins(self) -> HistogramBins:
        """The two bins: within and over the latency threshold."""
        return HistogramBins(names=("within", "over"), is_ordered=True, edges=(self.threshold_s,))

    def count(self, sketch: StreamSketch) -> Counts:
        """Counts the calls within and over the latency threshold, shape (2,)."""
        return count_over_threshold(sketch, self.threshold_s)

    def find_required_grid(self, sketch: StreamSketch) -> Grid:  # noqa: ARG002 - the Protocol's
        """Returns None: a latency threshold needs no grid."""
        return None


def choose_quantile_bins(sketch: StreamSketch, *, grid: Grid, has_missing: bool) -> NumberBins:
    """Chooses bins of about equal counts for numbers, up to `QUANTILES`, with bins below and above them.

    Args:
        sketch: The reference.
        grid: Where edges may stand.
        has_missing: Whether missing values are a bin.
    """
    if isinstance(grid, tuple) or (grid is None and any(part.total for part in sketch.explicit.values())):
        return _build_explicit_bins(sketch, grid=grid if isinstance(grid, tuple) else None, has_missing=has_missing)
    exponential = sketch.exponential or ExponentialHistogram()
    if grid is not None:
        exponential = exponential.at_scale(min(grid, exponential.scale))
    if not exponential.counts.size:
        return NumberBins(edges=(), has_missing=has_missing)
    positions = _choose_quantile_positions(np.cumsum(exponential.counts).tolist())
    ordinals = exponential.ordinals.tolist()
    cuts = [ordinals[0] - 1, *(ordinals[position] for position in positions)]
    edges = tuple(compute_upper_bounds(cuts, exponential.scale))
    return NumberBins(edges=edges, cuts=tuple(cuts), scale=exponential.scale, has_missing=has_missing)


def compute_bin_edges(edges: Sequence[float], scale: int) -> Counts:
    """Computes the ordinal of the exponential bucket at or below each bin edge, shape (m,) of finite values.

    The bucket that holds an edge counts whole on the side of zero: below a positive edge, above a negative.
    """
    values = np.array(edges, dtype=np.float64)
    return compute_bucket_ordinals(values, scale) - (values < 0)


def name_bins_by_range(edges: Sequence[float]) -> tuple[str, ...]:
    """Names the bins between edges for people: `≤ 0.1`, `0.1 … 0.2`, `> 0.2`."""
    if not edges:
        return ("any value",)
    different = len(set(edges))
    for digits in range(4, 18):  # of which 17 tell any two numbers apart
        texts = [format(edge, f".{digits}g") for edge in edges]
        if len(set(texts)) == different:
            break
    inner = (low if low == high else f"{low} … {high}" for low, high in pairwise(texts))
    return (f"≤ {texts[0]}", *inner, f"> {texts[-1]}")


def _build_explicit_bins(sketch: StreamSketch, *, grid: Bounds | None, has_missing: bool) -> NumberBins:
    allowed = set(grid) if grid is not None else None
    for bounds in sketch.explicit:
        allowed = set(bounds) if allowed is None else allowed & set(bounds)
    edges = np.array(sorted(allowed or ()), dtype=np.float64)
    counts = NumberBins(edges=tuple(edges.tolist())).count(sketch)
    cumulative: list[int] = np.cumsum(counts).tolist()
    empty = range(min(bisect_left(cumulative, 1), edges.size))
    positions = [*empty[-1:], *(place for place in _choose_quantile_positions(cumulative) if place < edges.size)]
    return NumberBins(edges=tuple(edges[positions].tolist()), has_missing=has_missing)


def _choose_quantile_positions(cumulative: Sequence[int]) -> list[int]:
    """Chooses the positions whose cumulative counts are nearest to the quantiles, and the first with all values."""
    total = cumulative[-1]
    last = bisect_left(cumulative, total)
    positions = set[int]()
    for number in range(1, QUANTILES):
        target = total * number / QUANTILES
        above = min(bisect_left(cumulative, target), last)
        below = max(above - 1, 0)
        nearest = cumulative[below if target - cumulative[below] < cumulative[above] - target else above]
        if 0 < nearest < total:
            positions.add(bisect_left(cumulative, nearest))  # empty buckets repeat a cumulative count
    return [*sorted(positions), last]
