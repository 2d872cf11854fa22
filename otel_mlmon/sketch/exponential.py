"""Counts of values in buckets that grow by a constant factor, as in OpenTelemetry's exponential histogram.

With base = 2^(2^-scale), bucket i counts values in (base^i, base^(i+1)]; the negative range mirrors the positive one,
and zeros are counted apart. A scale that is smaller by 1 joins buckets 2j and 2j+1 into j (`index >> 1`), so two
histograms can be merged exactly at the smaller of their scales. Source: opentelemetry-specification,
metrics/data-model.md, ExponentialHistogram.

Every bucket has an *ordinal*, an integer that increases with its values: -(i + BIAS) for bucket i of the negative
range, 0 for zeros, i + BIAS for bucket i of the positive range. So bins of ordinals are bins of values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.sketch.histogram import parse_bucket_counts
from otel_mlmon.sketch.moments import ExactSum, Moments, convert_to_exact_units
from otel_mlmon.types import Counts, Floats

BIAS: Final = 1 << 40
"""Larger than any bucket index, which is below 2^10 · 2^20 at scale 20, so that ordinals keep the order of values."""

MAX_BUCKETS: Final = 320
"""The widest range in buckets, else the scale is reduced; twice the SDK's 160, for two ranges side by side."""

MAX_SCALE: Final = 20
MIN_SCALE: Final = -10

MAX_HIDDEN_SCALE: Final = 10
"""The finest scale of hidden values: buckets of 0.07 % of a value. At the finest, 20, ten equal values would be told to
a millionth."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExponentialHistogram:
    """Holds the counts of values in the buckets of OpenTelemetry's exponential histogram; empty buckets take no room.

    Memory: at most 2 × `MAX_BUCKETS` + 1 ordinals and counts of 8 bytes each.
    """

    scale: int = MAX_SCALE
    ordinals: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The buckets that are not empty, shape (m,), strictly increasing."""
    counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The values in each of these buckets, shape (m,), above 0."""
    moments: Moments = field(default_factory=Moments)
    """Count, sum and extremes of the same values."""

    @classmethod
    def from_values(cls, values: NDArray[np.floating[Any]]) -> ExponentialHistogram:
        """Builds an exponential histogram of finite values, shape (n,), at the finest scale with few enough buckets."""
        numbers = np.asarray(values, dtype=np.float64)
        return cls._limit_buckets(
            scale=MAX_SCALE,
            ordinals=compute_bucket_ordinals(numbers, MAX_SCALE),
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
        """Builds an exponential histogram from the bucket counts of an OTLP data point, arrays of any length."""
        filled = np.flatnonzero(positive_counts)
        ordinals, counts = filled + (positive_offset + BIAS), positive_counts[filled]
        if zero_count or negative_counts.size:
            # From the most negative value to the most positive one, so that the ordinals are in order already.
            below = np.flatnonzero(negative_counts)[::-1]
            zeros = np.array([zero_count] if zero_count else [], dtype=np.int64)
            ordinals = np.concatenate([-(below + (negative_offset + BIAS)), 0 * zeros, ordinals])
            counts = np.concatenate([negative_counts[below], zeros, counts])
        if max(positive_counts.size, negative_counts.size) <= MAX_BUCKETS:
            return cls(scale=scale, ordinals=ordinals, counts=counts, moments=moments)
        return cls._limit_buckets(scale=scale, ordinals=ordinals, counts=counts, moments=moments)

    @classmethod
    def _limit_buckets(cls, *, scale: int, ordinals: Counts, counts: Counts, moments: Moments) -> ExponentialHistogram:
        """Builds a histogram from unsorted bucket counts, with buckets merged until they are few enough."""
        keep = counts > 0
        ordinals, counts = ordinals[keep], counts[keep]
        if (ordinals[1:] < ordinals[:-1]).any():
            order = np.argsort(ordinals, kind="stable")
            ordinals, counts = ordinals[order], counts[order]
        while scale > MIN_SCALE and _count_required_buckets(ordinals) > MAX_BUCKETS:
            ordinals = _halve_ordinals(ordinals)
            scale -= 1
        first = np.flatnonzero(np.diff(ordinals, prepend=ordinals[:1] - 1))
        if first.size < ordinals.size:
            ordinals, counts = ordinals[first], np.add.reduceat(counts, first)
        return cls(scale=scale, ordinals=ordinals, counts=counts, moments=moments)

    @property
    def total(self) -> int:
        """The number of values in the histogram."""
        return int(self.counts.sum())

    def at_scale(self, scale: int) -> ExponentialHistogram:
        """Returns the histogram with wider buckets, those of a smaller or equal OTLP `scale`.

        Raises:
            ValueError: `scale` is finer than the histogram.
        """
        if scale > self.scale:
            raise ValueError(f"scale {scale} is finer than {self.scale}")
        if scale == self.scale:
            return self
        ordinals = self.ordinals
        for _ in range(self.scale - scale):
            ordinals = _halve_ordinals(ordinals)
        return self._limit_buckets(scale=scale, ordinals=ordinals, counts=self.counts, moments=self.moments)

    def merge(self, other: ExponentialHistogram) -> ExponentialHistogram:
        """Returns the histogram of the values of two exponential histograms together, at the coarser scale."""
        return self.merge_all((self, other))

    @classmethod
    def merge_all(cls, parts: Sequence[ExponentialHistogram]) -> ExponentialHistogram:
        """Returns the histogram of the values of one or more histograms together; their order does not matter.

        Its scale is the largest, not above that of any set with values, at which `MAX_BUCKETS` are enough.
        """
        if len(parts) == 1:
            return parts[0]
        filled = [part for part in parts if part.counts.size]
        moments = Moments.merge_all([part.moments for part in parts])
        if len(filled) < 2:
            one = filled[0] if filled else min(parts, key=lambda part: part.scale)
            return cls(scale=one.scale, ordinals=one.ordinals, counts=one.counts, moments=moments)
        scale = min([part.scale for part in filled])
        while any(part.scale != scale for part in filled):  # a coarser scale may be needed on the way to another
            filled = [part.at_scale(scale) for part in filled]
            scale = min([part.scale for part in filled])
        ordinals = filled[0].ordinals
        if (
            all(part.ordinals.size == ordinals.size and (part.ordinals == ordinals).all() for part in filled[1:])
            and int(ordinals[-1]) - int(ordinals[0]) < MAX_BUCKETS
        ):
            counts = np.add.reduce([part.counts for part in filled])
            if counts.all():  # the same buckets, as most often: none is added, so none has to be merged
                return cls(scale=scale, ordinals=ordinals, counts=counts, moments=moments)
        return cls._limit_buckets(
            scale=scale,
            ordinals=np.concatenate([part.ordinals for part in filled]),
            counts=np.concatenate([part.counts for part in filled]),
            moments=moments,
        )

    def subtract(self, earlier: ExponentialHistogram) -> ExponentialHistogram | None:
        """Returns the values that a cumulative histogram gained since an earlier state of it; None if it was reset."""
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
        positions = np.searchsorted(self.ordinals, before.ordinals)
        if positions.max() >= self.ordinals.size or (self.ordinals[positions] != before.ordinals).any():
            return None
        counts = self.counts.copy()
        counts[positions] -= before.counts
        if (counts < 0).any():
            return None
        return self._limit_buckets(
            scale=self.scale,
            ordinals=self.ordinals,
            counts=counts,
            moments=self.moments.subtract(earlier.moments),
        )

    def hide_values(self) -> ExponentialHistogram:
        """Returns the histogram without extremes and exact sum, so that only bucket counts tell of the values.

        No bucket is finer than `MAX_HIDDEN_SCALE`, no extremes are known, and the sum is that of the buckets' middles.
        """
        coarse = self.at_scale(min(self.scale, MAX_HIDDEN_SCALE))
        units = map(convert_to_exact_units, compute_bucket_middles(coarse.ordinals, coarse.scale).tolist())
        total = sum(count * middle for count, middle in zip(coarse.counts.tolist(), units, strict=True))
        return replace(coarse, moments=Moments(count=coarse.total, exact_sum=ExactSum(total)))

    def rebin(self, cuts: Counts) -> Counts:
        """Adds the bucket counts up over wider bins (cuts[j-1], cuts[j]] of bucket ordinals, shape (m,) -> (m + 1,)."""
        ends = np.searchsorted(self.ordinals, cuts, side="right")
        cumulative = np.zeros(self.counts.size + 1, dtype=np.int64)
        np.cumsum(self.counts, out=cumulative[1:])
        below = np.concatenate((cumulative[:1], cumulative[ends], cumulative[-1:]))
        return np.asarray(below[1:] - below[:-1])

    def quantile(self, q: float) -> float:
        """Estimates the q-quantile of the values, `q` in [0, 1], as the middle of its bucket; NaN without values.

        The estimate is never beyond the extremes if they are known.
        """
        if not self.counts.size:
            return math.nan
        cumulative = np.cumsum(self.counts)
        bucket = min(int(np.searchsorted(cumulative, q * cumulative[-1], side="left")), self.counts.size - 1)
        low, high = compute_bucket_range(int(self.ordinals[bucket]), self.scale)
        middle = low + (high - low) / 2
        if math.isfinite(self.moments.minimum):
            middle = max(middle, self.moments.minimum)
        return min(middle, self.moments.maximum) if math.isfinite(self.moments.maximum) else middle

    def to_dict(self) -> dict[str, Any]:
        """Returns the exponential histogram as a JSON object, which `from_dict` reads."""
        return {
            "scale": self.scale,
            "ordinals": self.ordinals.tolist(),
            "counts": self.counts.tolist(),
            **self.moments.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ExponentialHistogram:
        """Builds an exponential histogram from the JSON object that its `to_dict` has made.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: The ordinals do not increase or are too far apart, or the scale is out of range.
        """
        scale, ordinals = document["scale"], np.array(document["ordinals"], dtype=np.int64)
        if not all(type(number) is int for number in (scale, *document["ordinals"])):
            raise TypeError("the scale or an ordinal is not a whole number")
        counts = parse_bucket_counts(document["counts"])
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise ValueError(f"scale {scale} is not within {MIN_SCALE} and {MAX_SCALE}")
        if ordinals.shape != counts.shape or (np.diff(ordinals) <= 0).any() or not counts.all():
            raise ValueError("the ordinals do not increase, or there is not one count above 0 for each")
        if scale > MIN_SCALE and _count_required_buckets(ordinals) > MAX_BUCKETS:
            raise ValueError(f"a range is wider than {MAX_BUCKETS} buckets")
        return cls(
            scale=scale,
            ordinals=ordinals,
            counts=counts,
            moments=Moments.from_dict(document, count=int(counts.sum())),
        )

    def __eq__(self, other: object) -> bool:
        """Returns whether two exponential histograms have the same scale, bucket counts and moments."""
        return (
            isinstance(other, ExponentialHistogram)
            and self.scale == other.scale
            and bool(np.array_equal(self.ordinals, other.ordinals))
            and bool(np.array_equal(self.counts, other.counts))
            and self.moments == other.moments
        )

    __hash__ = None  # type: ignore[assignment]


@functools.cache
def find_bucket_index_range(scale: int) -> tuple[int, int]:
    """Returns the indices of the lowest and the highest bucket that floats can be in at a scale."""
    return math.floor(-1075 * 2.0**scale) - 1, math.ceil(1024 * 2.0**scale)


def compute_bucket_range(ordinal: int, scale: int) -> tuple[float, float]:
    """Returns the lower and upper bound of an exponential histogram's bucket; (0, 0) for the bucket of zeros."""
    if ordinal == 0:
        return 0.0, 0.0
    index = abs(ordinal) - BIAS
    width = 2.0**-scale
    low, high = _compute_bucket_bound(index, width), _compute_bucket_bound(index + 1, width)
    return (low, high) if ordinal > 0 else (-high, -low)


def compute_upper_bounds(ordinals: Sequence[int], scale: int) -> list[float]:
    """Returns the upper bound of each bucket, as `compute_bucket_range` has it; none is -0."""
    width = 2.0**-scale
    return [
        _compute_bucket_bound(ordinal - BIAS + 1, width) if ordinal > 0
        else 0.0 - _compute_bucket_bound(-ordinal - BIAS, width) if ordinal < 0
        else 0.0
        for ordinal in ordinals
    ]  # fmt: skip


def compute_bucket_middles(ordinals: Counts, scale: int) -> Floats:
    """Returns the middle value of each exponential bucket, shape (n,); its lower bound if its upper one is infinite."""
    indices = (np.abs(ordinals) - BIAS).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        low, high = np.exp2(indices * 2.0**-scale), np.exp2((indices + 1) * 2.0**-scale)
    low = np.minimum(low, np.finfo(np.float64).max)
    middles = low + np.where(np.isinf(high), 0.0, high - low) / 2
    return np.asarray(np.sign(ordinals) * middles, dtype=np.float64)


def compute_bucket_indices(magnitudes: NDArray[np.float64], scale: int) -> Counts:
    """Returns the OTLP bucket index i of each magnitude above 0, shape (n,): base^i < magnitude <= base^(i+1)."""
    mantissa, exponent = np.frexp(magnitudes)  # magnitude = mantissa * 2^exponent, mantissa in [0.5, 1)
    if scale <= 0:
        # A power of two belongs to the bucket below it, since upper bounds are inclusive.
        octaves = exponent.astype(np.int64) - 1 - (mantissa == 0.5)
        indices: Counts = octaves >> -scale
        return indices
    scaled = (np.log2(mantissa) + exponent) * float(1 << scale)
    return np.ceil(scaled).astype(np.int64) - 1


def compute_bucket_ordinals(values: NDArray[np.float64], scale: int) -> Counts:
    """Returns the bucket number of each finite value, shape (n,), counted upwards from negative to positive."""
    ordinals = np.zeros(values.size, dtype=np.int64)
    filled = values != 0
    magnitudes = np.abs(values[filled])
    ordinals[filled] = np.where(values[filled] > 0, 1, -1) * (compute_bucket_indices(magnitudes, scale) + BIAS)
    return ordinals


def _halve_ordinals(ordinals: Counts) -> Counts:
    sign = np.sign(ordinals)
    halved: Counts = sign * (((np.abs(ordinals) - BIAS) >> 1) + BIAS)
    return halved


def _count_required_buckets(ordinals: Counts) -> int:
    """Returns how many buckets OTLP would need for sorted bucket ordinals, on the side of zero with more."""
    negative, nonpositive = (int(position) for position in np.searchsorted(ordinals, (0, 1)))
    below = int(ordinals[negative - 1] - ordinals[0]) + 1 if negative else 0
    above = int(ordinals[-1] - ordinals[nonpositive]) + 1 if nonpositive < ordinals.size else 0
    return max(below, above)


def _compute_bucket_bound(index: int, width: float) -> float:
    """Returns 2^(`index` · `width`), where the width of buckets is in octaves."""
    try:
        return math.pow(2.0, index * width)
    except OverflowError:
        return math.inf
