"""The G test of two samples: 2 Σ observed ln(observed / expected) over both, with expectations from the pool.

The likelihood-ratio sister of chi-squared, with the same law without drift. The value equals
`scipy.stats.chi2_contingency(correction=False, lambda_="log-likelihood")`.
Source: Woolf, 1957; Sokal and Rohlf, Biometry; Cochran, 1954 (five values a bin).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import xlogy

from otel_mlmon.processor.detect.counts import MIN_EXPECTED, Samples, compute_chi_squared_tail
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class GTest:
    """The G statistic, 0 or above, as a drift statistic; its p-value; and its mean without drift.

    Its mean without drift is the degrees of freedom.
    """

    needs_ordered_bins = False
    has_p_value = True

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the G statistic of each stream's reference and window, one stream a row."""
        log_likelihoods = xlogy(samples.counts, samples.shares / samples.expected).sum(-1)
        value = np.maximum(2.0 * (log_likelihoods[0] + log_likelihoods[1]), 0.0)
        p_value = compute_chi_squared_tail(value, samples.freedom)
        return Measurement(value=value, p_value=p_value, noise=samples.freedom.astype(np.float64))

    def min_count(self, *, bins: int, threshold: float) -> int:  # noqa: ARG002 (part of the Protocol)
        """Returns the number of values that a window needs for the G test: five a bin, whatever the threshold."""
        return MIN_EXPECTED * bins


G_TEST: Final = GTest()
