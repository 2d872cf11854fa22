"""Kolmogorov-Smirnov distance of ordered bins: max |P_k - Q_k| of the cumulative shares.

Means something for ordered bins only. Of the values themselves it could be larger: what moves within a bin is
not seen. No p-value: with ties its law is not the tables', and the tables' would be far too careful.
Source: Smirnov, 1939.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, shares_of
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def kolmogorov_smirnov(reference: Counts, current: Counts, /) -> StatisticValue:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    shares = shares_of(reference, current)
    if shares is None:
        return NOTHING_TO_COMPARE
    return StatisticValue(value=min(1.0, float(np.abs(np.cumsum(shares[0] - shares[1])).max(initial=0.0))))
