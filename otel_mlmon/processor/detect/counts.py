"""Count vectors: what is one, and what the statistics ask of two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Two samples over the same bins, for each stream, and what more than one statistic asks of them.

    Of a pair with an empty sample there is nothing to compare: its counts are taken as zeros, and the value is 0.
    """

    counts: Floats
    """The reference's and the current ones, shape (2, ..., K)."""
    totals: Floats
    """N and n, shape (2, ..., 1)."""
    shares: Floats
    """p and q, shape (2, ..., K)."""
    moved: Floats
    """q - p, shape (..., K)."""
    expected: Floats
    """The share of each bin in both together, shape (..., K); 1 where nothing was counted, to divide by."""
    freedom: NDArray[np.int64]
    """Bins in which anything was counted, less one; 0 at least. Shape (...)."""
    size: Floats
    """N n / (N + n), shape (...); 0 where there is nothing to compare."""
    unit: Floats
    """1/N + 1/n, which is 1 / size, shape (...); 0 where there is nothing to compare."""


def samples_of(reference: NDArray[Any], current: NDArray[Any]) -> Samples:
    """Compare shape (S, K) with shape (S, K), row by row; or (K,) with (K,).

    Raises:
        BinMismatchError: They are not rows of the same length, as many of either.
    """
    if not reference.ndim or reference.shape != current.shape:
        raise BinMismatchError(f"counts of shape {current.shape} against a reference of shape {reference.shape}")
    counts = np.array([reference, current], dtype=np.float64)
    totals = np.add.reduce(counts, -1, keepdims=True)
    is_there = np.logical_and.reduce(totals > 0.0, 0)
    is_all = is_there.all()
    if not is_all:
        counts *= is_there
        totals *= is_there
    divisors = totals if is_all else np.where(is_there, totals, 1.0)
    shares = counts / divisors
    both = divisors[0] + divisors[1]
    expected = (counts[0] + counts[1]) / both
    is_counted = expected > 0.0
    expected[~is_counted] = 1.0
    size = totals[0] * totals[1] / both
    return Samples(
        counts=counts,
        totals=totals,
        shares=shares,
        moved=shares[1] - shares[0],
        expected=expected,
        freedom=np.maximum(is_counted.sum(-1) - 1, 0),
        size=size[..., 0],
        unit=np.divide(1.0, size, out=size.copy(), where=is_there)[..., 0],
    )


def chi_squared_tail(value: Floats, freedom: NDArray[np.int64] | int) -> Floats:
    """P(chi-squared of `freedom` degrees >= value), in [0, 1]; 1 without a degree of freedom, where the value is 0."""
    return np.asarray(chdtrc(np.maximum(freedom, 1), value))


def checked(counts: NDArray[Any], bins: int) -> Floats:
    """`counts` as float64, shape (S, K).

    Raises:
        BinMismatchError: They are not rows of K counts.
        ValueError: One is negative or not finite.
    """
    if counts.ndim != 2 or not bins or counts.shape[1] != bins:
        raise BinMismatchError(f"counts of shape {counts.shape[1:]} against a reference of shape {(bins,)}")
    values: Floats = counts.astype(np.float64)
    if not are_counts(values).all():
        raise ValueError("counts must be finite and not negative")
    return values


def are_counts(rows: Floats) -> NDArray[np.bool_]:
    """Whether each row has only counts, shape (S,)."""
    return np.asarray((rows.min(-1) >= 0.0) & np.isfinite(rows.sum(-1)))
