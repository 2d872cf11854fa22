"""The G test of two samples: 2 Σ observed ln(observed / expected) over both, with expectations from the pool.

The likelihood-ratio sister of chi-squared, with the same law without drift. The value equals
`scipy.stats.chi2_contingency(correction=False, lambda_="log-likelihood")`.
Source: Woolf, 1957; Sokal and Rohlf, Biometry.
"""

from __future__ import annotations

from scipy.special import xlogy

from otel_mlmon.processor.drift.counts import NO_EVIDENCE, chi_squared_tail, paired
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def g_test(reference: Counts, current: Counts, /) -> StatisticValue:
    """G, 0 or above; its p-value, and its mean without drift, which is the degrees of freedom.

    Raises:
        BinMismatchError: The shapes differ.
    """
    before, now = paired(reference, current)
    n_before, n_now = float(before.sum()), float(now.sum())
    if not n_before or not n_now:
        return NO_EVIDENCE
    pool = before + now
    seen = pool > 0.0
    before, now, pool = before[seen], now[seen], pool[seen] / (n_before + n_now)
    likelihood = xlogy(before, before / (n_before * pool)).sum() + xlogy(now, now / (n_now * pool)).sum()
    value = max(0.0, 2.0 * float(likelihood))
    freedom = int(seen.sum()) - 1
    return StatisticValue(value=value, p_value=chi_squared_tail(value, freedom), noise=float(freedom))
