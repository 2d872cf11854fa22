"""Cramér's V with the bias correction: how strongly "before or now" goes with the bin.

With φ² = X²/T over T values in all and K bins seen: φ̃² = max(0, φ² - (K-1)/(T-1)), K̃ = K - (K-1)²/(T-1) and
2̃ = 2 - 1/(T-1), V = sqrt(φ̃² / min(K̃ - 1, 2̃ - 1)). Without the correction V is above 0 on pure noise.
Source: Bergsma, A bias-correction for Cramér's V and Tschuprow's T, 2013.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues
from otel_mlmon.processor.detect.statistics.chi_squared import pearson


def cramers_v(samples: Samples, /) -> StatisticValues:
    """V in [0, 1]; 0 where fewer than two bins are seen."""
    total = (samples.totals[0] + samples.totals[1])[..., 0]
    more = samples.freedom
    is_table = (total > 1.0) & (more > 0)
    total = np.where(is_table, total, 2.0)
    rest = total - 1.0
    squared = np.maximum(pearson(samples) / total - more / rest, 0.0)
    smaller = np.minimum(more - more**2 / rest, 1.0 - 1.0 / rest)
    is_table &= smaller > 0.0
    value = np.sqrt(squared / np.where(is_table, smaller, 1.0))
    return StatisticValues(value=np.where(is_table, np.minimum(value, 1.0), 0.0))
