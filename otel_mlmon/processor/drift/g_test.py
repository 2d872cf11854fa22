"""The G test of two samples: 2 Σ observed ln(observed / expected) over both, with expectations from the pool.

The likelihood-ratio sister of chi-squared, with the same law without drift. The value equals
`scipy.stats.chi2_contingency(correction=False, lambda_="log-likelihood")`.
Source: Woolf, 1957; Sokal and Rohlf, Biometry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from otel_mlmon.processor.drift.counts import chi_squared_tail, samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def g_test(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """G, 0 or above; its p-value, and its mean without drift, which is the degrees of freedom.

    Raises:
        BinMismatchError: The shapes differ.
    """
    both = samples_of(reference, current)
    pool = both.before + both.now
    is_seen = pool > 0.0
    total = np.where(both.is_there, both.n_before + both.n_now, 1.0)
    expected = np.where(is_seen, pool, 1.0) / total
    p, q = both.shares
    likelihood = (xlogy(both.before, np.where(is_seen, p, 1.0) / expected)).sum(-1)
    likelihood += (xlogy(both.now, np.where(is_seen, q, 1.0) / expected)).sum(-1)
    is_there = both.is_there[..., 0]
    value = np.where(is_there, np.maximum(2.0 * likelihood, 0.0), 0.0)
    freedom = np.where(is_there, is_seen.sum(-1) - 1, 0)
    return StatisticValues(value=value, p_value=chi_squared_tail(value, freedom), noise=freedom.astype(np.float64))
