"""Cramér's V with the bias correction: how strongly "before or now" goes with the bin.

With φ² = X²/T over T values in all and K bins seen: φ̃² = max(0, φ² - (K-1)/(T-1)), K̃ = K - (K-1)²/(T-1) and
2̃ = 2 - 1/(T-1), V = sqrt(φ̃² / min(K̃ - 1, 2̃ - 1)). Without the correction V is above 0 on pure noise.
Source: Bergsma, A bias-correction for Cramér's V and Tschuprow's T, 2013.
"""

from __future__ import annotations

import math

import numpy as np

from otel_mlmon.processor.drift.chi_squared import chi_squared
from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, paired
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def cramers_v(reference: Counts, current: Counts, /) -> StatisticValue:
    """V in [0, 1]; 0 where fewer than two bins are seen.

    Raises:
        BinMismatchError: The shapes differ.
    """
    before, now = paired(reference, current)
    total = float(before.sum() + now.sum())
    bins = int(np.count_nonzero(before + now))
    if total <= 1.0 or bins < 2:
        return NOTHING_TO_COMPARE
    rest = total - 1.0
    squared = max(0.0, chi_squared(reference, current).value / total - (bins - 1) / rest)
    smaller = min(bins - 1 - (bins - 1) ** 2 / rest, 1.0 - 1.0 / rest)
    return StatisticValue(value=min(1.0, math.sqrt(squared / smaller)) if smaller > 0.0 else 0.0)
