"""The G test of two samples: 2 Σ observed ln(observed / expected) over both, with expectations from the pool.

The likelihood-ratio sister of chi-squared, with the same law without drift. The value equals
`scipy.stats.chi2_contingency(correction=False, lambda_="log-likelihood")`.
Source: Woolf, 1957; Sokal and Rohlf, Biometry.
"""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from otel_mlmon.processor.detect.counts import Samples, chi_squared_tail
from otel_mlmon.processor.detect.score import StatisticValues


def g_test(samples: Samples, /) -> StatisticValues:
    """G, 0 or above; its p-value, and its mean without drift, which is the degrees of freedom."""
    of_each = xlogy(samples.counts, samples.shares / samples.expected).sum(-1)
    value = np.maximum(2.0 * (of_each[0] + of_each[1]), 0.0)
    p_value = chi_squared_tail(value, samples.freedom)
    return StatisticValues(value=value, p_value=p_value, noise=samples.freedom.astype(np.float64))
