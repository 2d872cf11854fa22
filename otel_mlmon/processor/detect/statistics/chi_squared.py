"""Pearson's chi-squared test of two samples: Σ (observed - expected)² / expected, expectations from the pool.

Bins that are empty in both samples are left out, of the degrees of freedom too.
Choice: two samples. Taking the reference for exact (one sample) false-alarms in 27 % of drift-free windows at
a nominal 5 % where the reference is no larger than the window. The value equals
`scipy.stats.chi2_contingency(correction=False)`.
Source: Pearson, 1900; Cochran, 1954 (five values a bin).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import (
    MIN_EXPECTED,
    Samples,
    compute_chi_squared_tail,
    compute_pearson_chi_squared,
)
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class ChiSquared:
    """Pearson's X², 0 or above, as a drift statistic; its p-value; and its mean without drift.

    Its mean without drift is the degrees of freedom.
    """

    needs_ordered_bins = False
    has_p_value = True

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes Pearson's X² of each stream's reference and window, one stream a row."""
        value = compute_pearson_chi_squared(samples)
        p_value = compute_chi_squared_tail(value, samples.freedom)
        return Measurement(value=value, p_value=p_value, noise=samples.freedom.astype(np.float64))

    def min_count(self, *, bins: int, threshold: float) -> int:  # noqa: ARG002 (part of the Protocol)
        """Returns the number of values that a window needs for Pearson's X²: five a bin, whatever the threshold."""
        return MIN_EXPECTED * bins


CHI_SQUARED: Final = ChiSquared()
