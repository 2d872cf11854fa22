"""Hellinger distance: sqrt(Σ (√p - √q)² / 2).

Choice: with the ½ under the root, so that disjoint samples are at 1.
Source: Hellinger, 1909.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.drift.counts import samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def hellinger(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    p, q = samples_of(reference, current).shares
    squares = ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1)
    return StatisticValues(value=np.minimum(np.sqrt(squares / 2.0), 1.0))
