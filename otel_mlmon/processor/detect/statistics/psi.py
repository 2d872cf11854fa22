"""Population stability index: Σ (q - p) ln(q / p), of shares smoothed by half a count a bin.

Without drift PSI / (1/N + 1/n) is chi-squared with K - 1 degrees of freedom. So a fixed threshold means
something else at every sample size: at 100 bins and 500 values the average without drift is 0.21. Hence the
noise beside the value.

Choice: +½ smoothing. Tools that fill empty bins with 1e-4, 0.01 or the smallest float differ by a factor of
500 where one bin of 0.5 % is empty.
Source: Lewis, An Introduction to Credit Scoring, 1994; Yurdakul, Statistical properties of the PSI, 2018 (the
law).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples, compute_chi_squared_tail
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class Psi:
    """The population stability index (PSI), 0 or above, in nats; its p-value; and its mean without drift.

    Its mean without drift is (K - 1)(1/N + 1/n).
    """

    needs_ordered_bins = False
    has_p_value = True

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the population stability index of each stream's reference and window, one stream a row."""
        bins = samples.counts.shape[-1]
        p, q = (samples.counts + 0.5) / (samples.totals + bins / 2.0)
        value = ((q - p) * np.log(q / p)).sum(-1)
        p_value = compute_chi_squared_tail(value * samples.size, bins - 1)
        return Measurement(value=value, p_value=p_value, noise=(bins - 1) * samples.unit)

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values from which the noise (K-1)/n is at most a quarter of the threshold."""
        return math.ceil(4 * (bins - 1) / threshold)


PSI: Final = Psi()
