"""What every statistic asks of its count vectors, and the shares in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.drift.score import Numbers


@dataclass(slots=True)
class Samples:
    """Two samples over the same bins, for each stream; arrays of (..., K) and (..., 1)."""

    before: Numbers
    now: Numbers
    n_before: Numbers
    n_now: Numbers
    is_there: NDArray[np.bool_]
    """Where neither is empty; elsewhere there is nothing to compare, and the value is 0."""

    @property
    def shares(self) -> tuple[Numbers, Numbers]:
        """Each over its sum; of a pair with an empty sample, zeros."""
        if self.is_there.all():
            return self.before / self.n_before, self.now / self.n_now
        there = self.is_there
        return (
            np.where(there, self.before, 0.0) / np.where(there, self.n_before, 1.0),
            np.where(there, self.now, 0.0) / np.where(there, self.n_now, 1.0),
        )

    @property
    def unit(self) -> Numbers:
        """1/N + 1/n, shape (...); 0 where there is nothing to compare."""
        there = self.is_there
        unit = np.where(there, 1.0 / np.where(there, self.n_before, 1.0) + 1.0 / np.where(there, self.n_now, 1.0), 0.0)
        return np.asarray(unit[..., 0])


def samples_of(reference: NDArray[Any], current: NDArray[Any]) -> Samples:
    """Both as float64, and their sums.

    Raises:
        BinMismatchError: They are not rows of the same length, as many of either.
    """
    if not reference.ndim or reference.shape != current.shape:
        raise BinMismatchError(f"counts of shape {current.shape} against a reference of shape {reference.shape}")
    before, now = reference.astype(np.float64), current.astype(np.float64)
    n_before, n_now = before.sum(-1, keepdims=True), now.sum(-1, keepdims=True)
    return Samples(before, now, n_before, n_now, (n_before > 0.0) & (n_now > 0.0))


def chi_squared_tail(value: Numbers, freedom: Numbers) -> Numbers:
    """P(chi-squared of `freedom` degrees >= value), in [0, 1]; 1 without a degree of freedom."""
    return np.where(freedom > 0, chdtrc(np.maximum(freedom, 1), value), 1.0)
