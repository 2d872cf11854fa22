"""Kolmogorov-Smirnov distance of ordered bins: max |P_k - Q_k| of the cumulative shares.

Means something for ordered bins only. Of the values themselves it could be larger: what moves within a bin is
not seen. No p-value: with ties its law is not the tables', and the tables' would be far too careful.
Source: Smirnov, 1939.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.drift.counts import samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def kolmogorov_smirnov(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    p, q = samples_of(reference, current).shares
    apart = np.abs(np.add.accumulate(p - q, -1)).max(-1, initial=0.0)
    return StatisticValues(value=np.minimum(apart, 1.0))
