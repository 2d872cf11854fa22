"""Cramér's V with the bias correction: how strongly "reference or window" is associated with the bin.

With φ² = X²/T over T values in all and K bins seen: φ̃² = max(0, φ² - (K-1)/(T-1)), K̃ = K - (K-1)²/(T-1) and
2̃ = 2 - 1/(T-1), V = sqrt(φ̃² / min(K̃ - 1, 2̃ - 1)). Without the correction V is above 0 on pure noise.
Source: Bergsma, A bias-correction for Cramér's V and Tschuprow's T, 2013.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples, compute_pearson_chi_squared
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class CramersV:
    """Cramér's V in [0, 1] as a drift statistic; 0 where fewer than two bins have values."""

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes Cramér's V of each stream's reference and window, one stream a row."""
        total = (samples.totals[0] + samples.totals[1])[..., 0]
        freedom = samples.freedom
        is_table = (total > 1.0) & (freedom > 0)
        total = np.where(is_table, total, 2.0)
        corrected = total - 1.0
        phi_squared = np.maximum(compute_pearson_chi_squared(samples) / total - freedom / corrected, 0.0)
        smaller_side = np.minimum(freedom - freedom**2 / corrected, 1.0 - 1.0 / corrected)
        is_table &= smaller_side > 0.0
        value = np.sqrt(phi_squared / np.where(is_table, smaller_side, 1.0))
        return Measurement(value=np.where(is_table, np.minimum(value, 1.0), 0.0))

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values that keep V without drift, at most √((K-1)/n), to half of the threshold."""
        return math.ceil(4.0 * (bins - 1) / threshold**2)


CRAMERS_V: Final = CramersV()
