"""Counts over buckets that grow by a constant factor, as OTLP's exponential histogram has them.

With base = 2^(2^-scale), bucket i holds (base^i, base^(i+1)]; the negative range mirrors it, and zeros are
counted by themselves. One step of scale down joins buckets 2j and 2j+1 into j (`index >> 1`), so any two
histograms merge exactly at the smaller of their scales. Source: opentelemetry-specification, metrics/data-
model.md, ExponentialHistogram.

Every bucket has an *ordinal*, an integer that grows with the values it holds: -(i + BIAS) for bucket i of
the negative range, 0 for zeros, i + BIAS for bucket i of the positive range. Bins over ordinals are bins
over values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.sketch.histogram import parse_counts
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.types import Counts

BIAS: Final = 1 << 40
"""Above any bucket index: at scale 20 they reach 2^10 · 2^20."""

MAX_BUCKETS: Final = 320
"""A range that holds more is brought to a smaller scale; twice the SDK's 160, for two side by side."""

MAX_SCALE: Final = 20
MIN_SCALE: Final = -10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExponentialHistogram:
    """Sparse counts by ordinal at one scale.

    Memory: at most 2 × `MAX_BUCKETS` + 1 ordinals and counts of 8 bytes each.
    """

    scale: int = MAX_SCALE
    ordinals: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Shape (m,), strictly increasing: the buckets that are not empty."""
    counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Shape (m,), above 0."""
    moments: Moments = field(default_factory=Moments)

    @classmethod
    def from_values(cls, values: NDArray[np.floating[Any]]) -> ExponentialHistogram:
        """Of finite values, shape (n,), at the largest scale that `MAX_BUCKETS` allows."""
        numbers = np.asarray(values, dtype=np.float64)
        return cls._limited(
            scale=MAX_SCALE,
            ordinals=compute_ordinals(numbers, MAX_SCALE),
            counts=np.ones(numbers.size, dtype=np.int64),
            moments=Moments.from_values(numbers),
        )

    @classmethod
    def from_buckets(  # one argument a field of the OTLP message
        cls,
        *,
        scale: int,
        zero_count: int,
        positive_offset: int,
        positive_counts: Counts,
        negative_offset: int,
        negative_counts: Counts,
        moments: Moments,
    ) -> ExponentialHistogram:
        """From dense buckets as they stand on the wire; each counts array has shape (any,)."""
        filled = np.flatnonzero(positive_counts)
        ordinals, counts = filled + (positive_offset + BIAS), positive_counts[filled]
        if zero_count or negative_counts.size:
            # From the most negative value to the most positive one, so that ordinals stand in order already.
            below = np.flatnonzero(negative_counts)[::-1]
            zeros = np.array([zero_count] if zero_count else [], dtype=np.int64)
            ordinals = np.concatenate([-(below + (negative_offset + BIAS)), 0 * zeros, ordinals])
            counts = np.concatenate([negative_counts[below], zeros, counts])
        if max(positive_counts.size, negative_counts.size) <= MAX_BUCKETS:
            return cls(scale=scale, ordinals=ordinals, counts=counts, moments=moments)
        return cls._limited(scale=scale, ordinals=ordinals, counts=counts, moments=moments)

    @classmethod
    def _limited(cls, *, scale: int, ordinals: Counts, counts: Counts, moments: Moments) -> ExponentialHistogram:
        """Sorted, summed, without empty buckets, at a scale at which both ranges fit."""
        keep = counts > 0
        ordinals, counts = ordinals[keep], counts[keep]
        if (ordinals[1:] < ordinals[:-1]).any():
            order = np.argsort(ordinals, kind="stable")
            ordinals, counts = ordinals[order], counts[order]
        while scale > MIN_SCALE and _width(ordinals) > MAX_BUCKETS:
            ordinals = _halve(ordinals)
            scale -= 1
        first = np.flatnonzero(np.diff(ordinals, prepend=ordinals[:1] - 1))
        if first.size < ordinals.size:
            ordinals, counts = ordinals[first], np.add.reduceat(counts, first)
        return cls(scale=scale, ordinals=ordinals, counts=counts, moments=moments)

    @property
    def total(self) -> int:
        """How many values."""
        return int(self.counts.sum())

    def at_scale(self, scale: int) -> ExponentialHistogram:
        """The same counts at `scale`, which must not be above this one's.

        Raises:
            ValueError: `scale` is finer than what was counted.
        """
        if scale > self.scale:
            raise ValueError(f"scale {scale} is finer than {self.scale}")
        if scale == self.scale:
            return self
        ordinals = self.ordinals
        for _ in range(self.scale - scale):
            ordinals = _halve(ordinals)
        return self._limited(scale=scale, ordinals=ordinals, counts=self.counts, moments=self.moments)

    def merge(self, other: ExponentialHistogram) -> ExponentialHistogram:
        """Of both sets together, at the smaller of their scales or below."""
        scale = min(self.scale, other.scale) if self.counts.size and other.counts.size else None
        if scale is None:
            one = self if self.counts.size else other
            return ExponentialHistogram(
                scale=one.scale,
                ordinals=one.ordinals,
                counts=one.counts,
                moments=self.moments.merge(other.moments),
            )
        a, b = self.at_scale(scale), other.at_scale(scale)
        scale = min(a.scale, b.scale)
        a, b = a.at_scale(scale), b.at_scale(scale)
        return self._limited(
            scale=scale,
            ordinals=np.concatenate([a.ordinals, b.ordinals]),
            counts=np.concatenate([a.counts, b.counts]),
            moments=self.moments.merge(other.moments),
        )

    def subtract(self, earlier: ExponentialHistogram) -> ExponentialHistogram | None:
        """What was added after `earlier`, a former state of the same running total; None if it was reset."""
        if not earlier.counts.size:
            return ExponentialHistogram(
                scale=self.scale,
                ordinals=self.ordinals,
                counts=self.counts,
                moments=self.moments.subtract(earlier.moments),
            )
        if earlier.scale < self.scale:
            return None  # a running total never grows finer
        before = earlier.at_scale(self.scale)
        if before.scale < self.scale:
            return None
        where = np.searchsorted(self.ordinals, before.ordinals)
        if where.size and (where.max() >= self.ordinals.size or (self.ordinals[where] != before.ordinals).any()):
            return None
        counts = self.counts.copy()
        counts[where] -= before.counts
        if (counts < 0).any():
            return None
        return self._limited(
            scale=self.scale,
            ordinals=self.ordinals,
            counts=counts,
            moments=self.moments.subtract(earlier.moments),
        )

    def rebin(self, cuts: Counts) -> Counts:
        """Counts over bins of ordinals, shape (m,) -> (m + 1,): bin j holds (cuts[j-1], cuts[j]]."""
        counts = np.zeros(cuts.size + 1, dtype=np.int64)
        np.add.at(counts, np.searchsorted(cuts, self.ordinals, side="left"), self.counts)
        return counts

    def quantile(self, q: float) -> float:
        """The value below which a share `q` in [0, 1] lies: the middle of its bucket; NaN of no values.

        Never beyond the extremes, where they are known.
        """
        if not self.counts.size:
            return math.nan
        cumulative = np.cumsum(self.counts)
        bucket = min(int(np.searchsorted(cumulative, q * cumulative[-1], side="left")), self.counts.size - 1)
        low, high = bucket_range(int(self.ordinals[bucket]), self.scale)
        middle = low + (high - low) / 2
        if math.isfinite(self.moments.minimum):
            middle = max(middle, self.moments.minimum)
        return min(middle, self.moments.maximum) if math.isfinite(self.moments.maximum) else middle

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` is its inverse."""
        return {
            "scale": self.scale,
            "ordinals": self.ordinals.tolist(),
            "counts": self.counts.tolist(),
            **self.moments.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ExponentialHistogram:
        """From `to_dict`.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: The ordinals do not increase or lie too far apart, or the scale is not one.
        """
        scale, ordinals = document["scale"], np.array(document["ordinals"], dtype=np.int64)
        if not all(type(number) is int for number in (scale, *document["ordinals"])):
            raise TypeError("the scale or an ordinal is not a whole number")
        counts = parse_counts(document["counts"])
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise ValueError(f"scale {scale} is not within {MIN_SCALE} and {MAX_SCALE}")
        if ordinals.shape != counts.shape or (np.diff(ordinals) <= 0).any() or not counts.all():
            raise ValueError("the ordinals do not increase, or there is not one count above 0 for each")
        if scale > MIN_SCALE and _width(ordinals) > MAX_BUCKETS:
            raise ValueError(f"a range is wider than {MAX_BUCKETS} buckets")
        return cls(
            scale=scale,
            ordinals=ordinals,
            counts=counts,
            moments=Moments.from_dict(document, count=int(counts.sum())),
        )

    def __eq__(self, other: object) -> bool:
        """Same scale, buckets and moments."""
        return (
            isinstance(other, ExponentialHistogram)
            and self.scale == other.scale
            and bool(np.array_equal(self.ordinals, other.ordinals))
            and bool(np.array_equal(self.counts, other.counts))
            and self.moments == other.moments
        )

    __hash__ = None  # type: ignore[assignment]


def bucket_range(ordinal: int, scale: int) -> tuple[float, float]:
    """Lower and upper bound of the values in a bucket; (0, 0) for zeros."""
    if ordinal == 0:
        return 0.0, 0.0
    index = abs(ordinal) - BIAS
    low, high = _power(index, scale), _power(index + 1, scale)
    return (low, high) if ordinal > 0 else (-high, -low)


def compute_indices(magnitudes: NDArray[np.float64], scale: int) -> Counts:
    """Bucket index of each magnitude, shape (n,), above 0: the i with base^i < magnitude <= base^(i+1)."""
    mantissa, exponent = np.frexp(magnitudes)  # magnitude = mantissa * 2^exponent, mantissa in [0.5, 1)
    if scale <= 0:
        # A power of two belongs to the bucket below it, since upper bounds are inclusive.
        whole = exponent.astype(np.int64) - 1 - (mantissa == 0.5)
        floored: Counts = whole >> -scale
        return floored
    scaled = (np.log2(mantissa) + exponent) * float(1 << scale)
    rounded = np.rint(scaled)
    # The logarithm of an exact bound may fall on either side of its integer.
    on_bound = (mantissa == 0.5) & (rounded == scaled)
    index = np.ceil(scaled).astype(np.int64) - 1
    return np.where(on_bound, rounded.astype(np.int64) - 1, index)


def compute_ordinals(values: NDArray[np.float64], scale: int) -> Counts:
    """Ordinal of each value, shape (n,), all finite."""
    ordinals = np.zeros(values.size, dtype=np.int64)
    filled = values != 0
    magnitudes = np.abs(values[filled])
    ordinals[filled] = np.where(values[filled] > 0, 1, -1) * (compute_indices(magnitudes, scale) + BIAS)
    return ordinals


def _halve(ordinals: Counts) -> Counts:
    sign = np.sign(ordinals)
    halved: Counts = sign * (((np.abs(ordinals) - BIAS) >> 1) + BIAS)
    return halved


def _width(ordinals: Counts) -> int:
    """Buckets from the first to the last of the wider of the two ranges; the ordinals are sorted."""
    negative, nonpositive = (int(where) for where in np.searchsorted(ordinals, (0, 1)))
    below = int(ordinals[negative - 1] - ordinals[0]) + 1 if negative else 0
    above = int(ordinals[-1] - ordinals[nonpositive]) + 1 if nonpositive < ordinals.size else 0
    return max(below, above)


def _power(index: int, scale: int) -> float:
    try:
        return math.pow(2.0, index * 2.0**-scale)
    except OverflowError:
        return math.inf
