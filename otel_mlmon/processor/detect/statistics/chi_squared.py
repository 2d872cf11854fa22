"""Pearson's chi-squared of two samples: Σ (observed - expected)² / expected, expectations from the pool.

Bins that are empty in both samples are left out, of the degrees of freedom too.
Choice: two samples. Taking the reference for exact (one sample) false-alarms in 27 % of drift-free windows at
a nominal 5 % where the reference is no larger than the window. The value equals
`scipy.stats.chi2_contingency(correction=False)`.
Source: Pearson, 1900.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples, chi_squared_tail
from otel_mlmon.processor.detect.score import StatisticValues
from otel_mlmon.types import Floats


def chi_squared(samples: Samples, /) -> StatisticValues:
    """X², 0 or above; its p-value, and its mean without drift, which is the degrees of freedom."""
    value = pearson(samples)
    p_value = chi_squared_tail(value, samples.freedom)
    return StatisticValues(value=value, p_value=p_value, noise=samples.freedom.astype(np.float64))


def pearson(samples: Samples) -> Floats:
    """X² alone, in the form that needs no table: N n/(N + n) Σ (q - p)² / (share of both together)."""
    return np.asarray((samples.moved**2 / samples.expected).sum(-1) * samples.size)
