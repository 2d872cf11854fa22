"""Pairs the counts of references and windows, with the quantities that several drift statistics share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.types import Floats, Ints

MIN_EXPECTED: Final = 5
"""The mean number of values a bin must hold before a p-value is valid (Cochran, 1954)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Two samples over the same bins for each stream, with the quantities that several drift statistics share.

    A pair with an empty sample cannot be compared: its counts are taken as zeros, and every statistic is 0.
    """

    counts: Floats
    """Counts of the reference and of the window, shape (2, ..., K)."""
    totals: Floats
    """N and n, shape (2, ..., 1)."""
    shares: Floats
    """p and q, shape (2, ..., K)."""
    moved: Floats
    """q - p, shape (..., K)."""
    expected: Floats
    """The share of each bin in the pooled sample, shape (..., K); 1 for a bin that is empty in it, to divide by."""
    freedom: Ints
    """Degrees of freedom: bins that are not empty in the pooled sample, less one; 0 or above. Shape (...)."""
    size: Floats
    """N n / (N + n), shape (...); 0 for a pair that cannot be compared."""
    unit: Floats
    """1/N + 1/n, which is 1 / size, shape (...); 0 for a pair that cannot be compared."""


def build_samples(reference: NDArray[Any], current: NDArray[Any]) -> Samples:
    """Pairs the counts of references and windows, shape (S, K) with (S, K) or (K,) with (K,), for drift statistics.

    Raises:
        BinMismatchError: The shapes differ, or there are no bins.
    """
    if not reference.ndim or reference.shape != current.shape:
        raise BinMismatchError(f"counts of shape {current.shape} against a reference of shape {reference.shape}")
    counts = np.array([reference, current], dtype=np.float64)
    totals = np.add.reduce(counts, -1, keepdims=True)
    has_values = np.logical_and.reduce(totals > 0.0, 0)
    is_comparable = bool(has_values.all())
    if not is_comparable:
        counts *= has_values
        totals *= has_values
    divisors = totals if is_comparable else np.where(has_values, totals, 1.0)
    shares = counts / divisors
    pooled_total = divisors[0] + divisors[1]
    expected = (counts[0] + counts[1]) / pooled_total
    is_counted = expected > 0.0
    expected[~is_counted] = 1.0
    size = totals[0] * totals[1] / pooled_total
    return Samples(
        counts=counts,
        totals=totals,
        shares=shares,
        moved=shares[1] - shares[0],
        expected=expected,
        freedom=np.maximum(is_counted.sum(-1) - 1, 0),
        size=size[..., 0],
        unit=np.divide(1.0, size, out=size.copy(), where=has_values)[..., 0],
    )


def compute_pearson_chi_squared(samples: Samples) -> Floats:
    """Computes Pearson's X² of two samples: N n/(N + n) Σ (q - p)² / expected."""
    return np.asarray((samples.moved**2 / samples.expected).sum(-1) * samples.size)


def compute_chi_squared_tail(value: Floats, freedom: Ints | int) -> Floats:
    """Returns P(chi-squared of `freedom` degrees >= value), in [0, 1]; 1 for a value of 0 without a degree."""
    return np.asarray(chdtrc(np.maximum(freedom, 1), value))
