"""Total variation: ½ Σ |p - q|, the share of the traffic that would have to change its bin.

The one of these that reads in the words of the tolerance: 0.10 is ten points of traffic moved.
"""

from __future__ import annotations

import math

import numpy as np

from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, paired, shares_of
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def total_variation(reference: Counts, current: Counts, /) -> StatisticValue:
    """The distance in [0, 1], and its mean without drift by the normal law, Σ sqrt(p(1-p)(1/N + 1/n) / 2π).

    Raises:
        BinMismatchError: The shapes differ.
    """
    shares = shares_of(reference, current)
    if shares is None:
        return NOTHING_TO_COMPARE
    p, q = shares
    before, now = paired(reference, current)
    n_before, n_now = float(before.sum()), float(now.sum())
    pool = (before + now) / (n_before + n_now)
    unit = (1.0 / n_before + 1.0 / n_now) / (2.0 * math.pi)
    noise = float(np.sqrt(np.maximum(pool * (1.0 - pool), 0.0) * unit).sum())
    return StatisticValue(value=min(1.0, float(np.abs(p - q).sum()) / 2.0), noise=noise)
