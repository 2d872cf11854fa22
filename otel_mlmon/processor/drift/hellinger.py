"""Hellinger distance: sqrt(Σ (√p - √q)² / 2).

Choice: with the ½ under the root, so that disjoint samples are at 1.
Source: Hellinger, 1909.
"""

from __future__ import annotations

import math

import numpy as np

from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, shares_of
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def hellinger(reference: Counts, current: Counts, /) -> StatisticValue:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    shares = shares_of(reference, current)
    if shares is None:
        return NOTHING_TO_COMPARE
    difference = np.sqrt(shares[0]) - np.sqrt(shares[1])
    return StatisticValue(value=min(1.0, math.sqrt(float(difference @ difference) / 2.0)))
