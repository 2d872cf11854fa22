"""The bins of a stream, chosen from its reference and then fixed: an outlier cannot move an edge.

Classes: the most frequent of the reference, and `_OTHER`. Numbers: up to 10 bins between quantiles of the
reference, with underflow, overflow and missing as real bins, so that they count as drift. Edges stand on
bounds of the buckets that the numbers are counted in; a bucket is never split, so counting is exact and the
same in any processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, TypeAlias

import numpy as np

from otel_mlmon.processor.window.window import Bins
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.sketch.exponential import ExponentialHistogram, bucket_range, compute_ordinals
from otel_mlmon.sketch.stream_sketch import Bounds, StreamSketch
from otel_mlmon.types import Counts

QUANTILES: Final = 10
"""Bins between underflow and overflow, at most."""

Grid: TypeAlias = int | Bounds | None
"""Where edges may stand: on an exponential scale, on explicit bounds, or None: as the numbers came."""


class Binning(Protocol):
    """How the sketches of one stream become counts over bins."""

    @property
    def bins(self) -> Bins:
        """The K bins."""

    def count(self, stream_sketch: StreamSketch) -> Counts:
        """Shape (K,): every value of `stream_sketch` in exactly one bin."""

    def misfit(self, stream_sketch: StreamSketch) -> Grid:
        """The grid that the edges must be brought to before `stream_sketch` can be counted; None if it can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBins:
    """One bin a class; the last of `labels` takes every class that is not named."""

    labels: tuple[str, ...]
    has_missing: bool = False
    """Whether missing values are a bin after the others."""

    @classmethod
    def of(cls, stream_sketch: StreamSketch, *, limit: int, has_missing: bool) -> ClassBins:
        """The `limit` most frequent classes of `stream_sketch` and `_OTHER`."""
        named = [label for label in stream_sketch.categories.top(limit).counts if label != OTHER]
        return cls(labels=(*named, OTHER), has_missing=has_missing)

    @property
    def bins(self) -> Bins:
        """The classes, the most frequent first."""
        return Bins(names=self.labels + ((MISSING,) if self.has_missing else ()), is_ordered=False)

    def count(self, stream_sketch: StreamSketch) -> Counts:
        """Numbers, where classes are expected, are `_OTHER`."""
        counts = stream_sketch.categories.counts_for(self.labels)
        counts[-1] += stream_sketch.numbers
        return np.array(counts + ([stream_sketch.missing] if self.has_missing else []), dtype=np.int64)

    def misfit(self, stream_sketch: StreamSketch) -> Grid:  # noqa: ARG002 - the Protocol's
        """None: classes have no grid."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBins:
    """Bins between edges, and one for missing values."""

    edges: tuple[float, ...]
    """Upper bounds, not decreasing (zeros may be a bin of their own)."""
    cuts: tuple[int, ...] = ()
    """The same as ordinals of an exponential histogram at `scale`; empty if `scale` is None."""
    scale: int | None = None
    has_missing: bool = False
    is_fixed: bool = False
    """Whether the edges were given, and a bucket across one may be counted whole on its lower side."""

    @property
    def bins(self) -> Bins:
        """The ranges in order, then missing."""
        names = range_names(self.edges) + ((MISSING,) if self.has_missing else ())
        return Bins(names=names, is_ordered=True, edges=self.edges)

    def count(self, stream_sketch: StreamSketch) -> Counts:
        """Classes, where numbers are expected, are missing values, or left out where there is no such bin."""
        counts = np.zeros(len(self.edges) + 1, dtype=np.int64)
        for histogram in stream_sketch.explicit.values():
            counts += histogram.rebin(self.edges)
        if stream_sketch.exponential is not None:
            counts += self._count_exponential(stream_sketch.exponential)
        if not self.has_missing:
            return counts
        return np.append(counts, np.int64(stream_sketch.missing + stream_sketch.categories.total))

    def misfit(self, stream_sketch: StreamSketch) -> Grid:
        """A coarser scale, or the bounds that both have."""
        if self.is_fixed:
            return None
        for bounds in stream_sketch.explicit:
            if not set(self.edges) <= set(bounds) or len(set(self.edges)) < len(self.edges):
                return bounds
        sketch = stream_sketch.exponential
        if self.scale is not None and sketch is not None and sketch.counts.size and sketch.scale < self.scale:
            return sketch.scale
        return None

    def _count_exponential(self, sketch: ExponentialHistogram) -> Counts:
        if self.scale is not None and sketch.scale >= self.scale:
            return sketch.at_scale(self.scale).rebin(np.array(self.cuts, dtype=np.int64))
        return sketch.rebin(cuts_at(self.edges, sketch.scale))


def latency_count(stream_sketch: StreamSketch, budget_s: float) -> Counts:
    """Calls within and over the budget, shape (2,); the bucket that holds the budget counts as within."""
    over = 0
    for bounds, histogram in stream_sketch.explicit.items():
        over += int(histogram.counts[int(np.searchsorted(bounds, budget_s, side="left")) + 1 :].sum())
    sketch = stream_sketch.exponential
    if sketch is not None:
        over += int(sketch.counts[sketch.ordinals > cuts_at((budget_s,), sketch.scale)[0]].sum())
    return np.array([stream_sketch.numbers - over, over], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetBins:
    """Within and over a latency budget."""

    budget_s: float

    @property
    def bins(self) -> Bins:
        """Within and over."""
        return Bins(names=("within", "over"), is_ordered=True, edges=(self.budget_s,))

    def count(self, stream_sketch: StreamSketch) -> Counts:
        """Shape (2,)."""
        return latency_count(stream_sketch, self.budget_s)

    def misfit(self, stream_sketch: StreamSketch) -> Grid:  # noqa: ARG002 - the Protocol's
        """None: a budget is not moved."""
        return None


def quantile_bins(stream_sketch: StreamSketch, *, grid: Grid, has_missing: bool) -> NumberBins:
    """Up to `QUANTILES` bins of about equal counts, underflow and overflow; numbers of one value get one bin.

    Args:
        stream_sketch: The reference.
        grid: Where edges may stand.
        has_missing: Whether missing values are a bin.
    """
    if isinstance(grid, tuple) or (grid is None and any(part.total for part in stream_sketch.explicit.values())):
        return _explicit_bins(stream_sketch, grid=grid if isinstance(grid, tuple) else None, has_missing=has_missing)
    sketch = stream_sketch.exponential or ExponentialHistogram()
    sketch = sketch if grid is None else sketch.at_scale(min(grid, sketch.scale))
    if not sketch.counts.size:
        return NumberBins(edges=(), has_missing=has_missing)
    chosen = _chosen(np.cumsum(sketch.counts))
    cuts = [int(sketch.ordinals[0]) - 1, *(int(sketch.ordinals[position]) for position in chosen)]
    edges = tuple(bucket_range(cut, sketch.scale)[1] + 0.0 for cut in cuts)
    return NumberBins(edges=edges, cuts=tuple(cuts), scale=sketch.scale, has_missing=has_missing)


def cuts_at(edges: Sequence[float], scale: int) -> Counts:
    """Ordinals at or below each edge, shape (m,) of finite values.

    The bucket that holds an edge counts whole on the side of zero: below a positive edge, above a negative.
    """
    values = np.array(edges, dtype=np.float64)
    return compute_ordinals(values, scale) - (values < 0)


def range_names(edges: Sequence[float]) -> tuple[str, ...]:
    """What a person reads, one name a bin: `≤ 0.1`, `0.1 … 0.2`, `> 0.2`."""
    if not edges:
        return ("any value",)
    texts = [format(edge, ".17g") for edge in edges]
    for digits in range(4, 17):
        short = [format(edge, f".{digits}g") for edge in edges]
        if len(set(short)) == len(set(edges)):
            texts = short
            break
    inner = (low if low == high else f"{low} … {high}" for low, high in pairwise(texts))
    return (f"≤ {texts[0]}", *inner, f"> {texts[-1]}")


def _explicit_bins(stream_sketch: StreamSketch, *, grid: Bounds | None, has_missing: bool) -> NumberBins:
    allowed = set(grid) if grid is not None else None
    for bounds in stream_sketch.explicit:
        allowed = set(bounds) if allowed is None else allowed & set(bounds)
    edges = np.array(sorted(allowed or ()), dtype=np.float64)
    counts = NumberBins(edges=tuple(edges.tolist())).count(stream_sketch)
    cumulative = np.cumsum(counts)
    below = np.flatnonzero(cumulative[:-1] == 0)
    picked = [*below[-1:].tolist(), *(position for position in _chosen(cumulative) if position < edges.size)]
    return NumberBins(edges=tuple(edges[picked].tolist()), has_missing=has_missing)


def _chosen(cumulative: Counts) -> list[int]:
    """Positions whose cumulative counts are nearest to the quantiles, and the first that holds everything."""
    total = int(cumulative[-1])
    last = int(np.searchsorted(cumulative, total, side="left"))
    targets = total * np.arange(1, QUANTILES) / QUANTILES
    above = np.minimum(np.searchsorted(cumulative, targets, side="left"), last)
    under = np.maximum(above - 1, 0)
    nearer = np.where(targets - cumulative[under] < cumulative[above] - targets, under, above)
    inner = {int(position) for position in nearer if 0 < cumulative[position] < total}
    # Empty buckets repeat a cumulative count: the first of them is the edge.
    first = {int(np.searchsorted(cumulative, cumulative[position], side="left")) for position in inner}
    return [*sorted(first), last]
