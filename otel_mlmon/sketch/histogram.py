"""Counts of values in buckets between fixed bounds, as in OpenTelemetry's explicit-bucket histogram.

Bucket i counts values in (bounds[i-1], bounds[i]]; the first bucket has no lower bound, the last no upper bound.
Source: opentelemetry-proto, metrics.proto, HistogramDataPoint.explicit_bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.sketch.moments import ExactSum, Moments, convert_to_exact_units
from otel_mlmon.types import Counts, Floats

MAX_VALUES: Final = 1 << 62
"""The most values in a stored sketch, 2^62: the counts of any two still fit into 64 bits when they are added."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Holds the counts of values in buckets between fixed bounds: k bounds and k + 1 counts.

    Memory: 8 bytes for each bound and each count.
    """

    bounds: tuple[float, ...]
    """Upper, inclusive bounds, shape (k,), strictly increasing."""
    counts: Counts
    """Values in each bucket, shape (k + 1,), int64, 0 or above."""
    moments: Moments = field(default_factory=Moments)
    """Count, sum and extremes of the same values; `moments.count` equals `counts.sum()`."""

    @classmethod
    def build_empty(cls, bounds: Sequence[float]) -> Histogram:
        """Returns a histogram with the given bucket bounds and no values."""
        return cls(bounds=tuple(bounds), counts=np.zeros(len(bounds) + 1, dtype=np.int64))

    @classmethod
    def from_values(cls, values: NDArray[np.floating[Any]], bounds: Sequence[float]) -> Histogram:
        """Builds a histogram of finite values, shape (n,), with the given bucket bounds."""
        where = np.searchsorted(np.asarray(bounds, dtype=np.float64), values, side="left")
        return cls(
            bounds=tuple(bounds),
            counts=np.bincount(where, minlength=len(bounds) + 1).astype(np.int64),
            moments=Moments.from_values(values),
        )

    @property
    def total(self) -> int:
        """The number of values in the histogram."""
        return int(self.counts.sum())

    def merge(self, other: Histogram) -> Histogram:
        """Returns the histogram of the values of two histograms together, which have the same bounds.

        Raises:
            BinMismatchError: The bounds differ.
        """
        return self.merge_all((self, other))

    @classmethod
    def merge_all(cls, parts: Sequence[Histogram]) -> Histogram:
        """Returns the histogram of the values of one or more histograms together, which have the same bounds.

        Raises:
            BinMismatchError: The bounds differ.
        """
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            parts[0]._check_bounds(part)
        return cls(
            bounds=parts[0].bounds,
            counts=np.add.reduce([part.counts for part in parts]),
            moments=Moments.merge_all([part.moments for part in parts]),
        )

    def subtract(self, earlier: Histogram) -> Histogram | None:
        """Returns the values that a cumulative histogram gained since an earlier state of it; None if it was reset.

        Raises:
            BinMismatchError: The bounds differ.
        """
        self._check_bounds(earlier)
        counts = self.counts - earlier.counts
        if (counts < 0).any():
            return None
        return Histogram(bounds=self.bounds, counts=counts, moments=self.moments.subtract(earlier.moments))

    def hide_values(self) -> Histogram:
        """Returns the histogram without extremes and exact sum, so that only bucket counts tell of the values."""
        units = map(convert_to_exact_units, compute_bucket_middles(np.asarray(self.bounds, dtype=np.float64)).tolist())
        total = sum(count * middle for count, middle in zip(self.counts.tolist(), units, strict=True))
        return replace(self, moments=Moments(count=self.total, exact_sum=ExactSum(total)))

    def rebin(self, edges: Sequence[float]) -> Counts:
        """Adds the bucket counts up over wider bins with the given edges, shape (m,) -> (m + 1,).

        A bucket is counted in the bin that holds its upper bound, which is exact if every edge is one of the bounds.
        The last bucket is counted in the last bin.
        """
        where = np.searchsorted(np.asarray(edges, dtype=np.float64), np.asarray(self.bounds), side="left")
        bins = np.append(where, len(edges))
        counts = np.zeros(len(edges) + 1, dtype=np.int64)
        np.add.at(counts, bins, self.counts)
        return counts

    def quantile(self, q: float) -> float:
        """Estimates the q-quantile of the values, `q` in [0, 1], by interpolation in its bucket; NaN without values.

        A bucket without a bound ends at the extreme value if that is known, else at its other bound. With c the count
        of the bucket (low, high] and b that of the buckets below: low + (high - low) · (q · total - b) / c.
        """
        total = self.total
        if not total:
            return float("nan")
        rank = q * total
        cumulative = np.cumsum(self.counts)
        bucket = min(int(np.searchsorted(cumulative, rank, side="left")), self.counts.size - 1)
        while not self.counts[bucket]:
            bucket += 1
        low = self.bounds[bucket - 1] if bucket else min(0.0, self.bounds[0]) if self.bounds else self.moments.minimum
        high = self.bounds[bucket] if bucket < len(self.bounds) else max(self.moments.maximum, low)
        if np.isfinite(self.moments.minimum):
            low = max(low, min(self.moments.minimum, high))
        if np.isfinite(self.moments.maximum):
            high = min(high, max(self.moments.maximum, low))
        before = float(cumulative[bucket] - self.counts[bucket])
        share = min(1.0, max(0.0, (rank - before) / float(self.counts[bucket])))
        return float(min(high, low + (high - low) * share))  # rounding may exceed the upper end

    def to_dict(self) -> dict[str, Any]:
        """Returns the histogram as a JSON object, which `from_dict` reads."""
        return {"bounds": list(self.bounds), "counts": self.counts.tolist(), **self.moments.to_dict()}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Histogram:
        """Builds a histogram from the JSON object that its `to_dict` has made.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: The counts do not belong to the bounds, or the bounds are not finite and increasing.
        """
        bounds = tuple(float(bound) for bound in document["bounds"])
        counts = parse_bucket_counts(document["counts"])
        if counts.size != len(bounds) + 1:
            raise ValueError(f"{counts.size} counts for {len(bounds)} bounds")
        if not all(map(math.isfinite, bounds)) or not all(low < high for low, high in pairwise(bounds)):
            raise ValueError("the bounds do not increase, or one is not finite")
        return cls(bounds=bounds, counts=counts, moments=Moments.from_dict(document, count=int(counts.sum())))

    def __eq__(self, other: object) -> bool:
        """Returns whether two histograms have the same bounds, counts and moments."""
        return (
            isinstance(other, Histogram)
            and self.bounds == other.bounds
            and bool(np.array_equal(self.counts, other.counts))
            and self.moments == other.moments
        )

    __hash__ = None  # type: ignore[assignment]

    def _check_bounds(self, other: Histogram) -> None:
        if self.bounds != other.bounds:
            raise BinMismatchError(f"{len(self.bounds)} bounds against {len(other.bounds)} others")


def compute_bucket_middles(bounds: Floats) -> Floats:
    """Returns the middle value of each histogram bucket, shape (k,) -> (k + 1,); of an open bucket its one bound."""
    if not bounds.size:
        return np.zeros(1)
    return np.concatenate([bounds[:1], bounds[:-1] / 2 + bounds[1:] / 2, bounds[-1:]])


def parse_bucket_counts(numbers: Sequence[int]) -> Counts:
    """Checks and converts the bucket counts of a JSON document to an array, shape (n,).

    Raises:
        TypeError: A count is not a whole number.
        ValueError: A count is below 0, or their sum is above `MAX_VALUES`.
    """
    if not all(type(number) is int for number in numbers):
        raise TypeError("a count is not a whole number")
    if min(numbers, default=0) < 0:
        raise ValueError("a count is below 0")
    if sum(numbers) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return np.array(numbers, dtype=np.int64)
