"""What every statistic asks of its two count vectors, and the shares in them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.drift.score import StatisticValue

NOTHING_TO_COMPARE: Final = StatisticValue(value=0.0)
"""Of two samples one of which is empty: no distance was seen."""

NO_EVIDENCE: Final = StatisticValue(value=0.0, p_value=1.0)
"""The same for a statistic with a p-value."""


def paired(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64, shape (K,).

    Raises:
        BinMismatchError: They are not two rows of the same length.
    """
    if reference.ndim != 1 or reference.shape != current.shape:
        raise BinMismatchError(f"counts of shape {current.shape} against a reference of shape {reference.shape}")
    return reference.astype(np.float64), current.astype(np.float64)


def shares_of(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Both over their sums, shape (K,); None where a sum is 0.

    Raises:
        BinMismatchError: They are not two rows of the same length.
    """
    before, now = paired(reference, current)
    n_before, n_now = float(before.sum()), float(now.sum())
    return (before / n_before, now / n_now) if n_before and n_now else None


def chi_squared_tail(value: float, freedom: int) -> float:
    """P(chi-squared of `freedom` degrees >= value), in [0, 1]; 1 without a degree of freedom."""
    return float(chdtrc(freedom, value)) if freedom > 0 and math.isfinite(value) else float(freedom <= 0)
