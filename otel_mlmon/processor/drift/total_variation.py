"""Total variation: ½ Σ |p - q|, the share of the traffic that would have to change its bin.

The one of these that reads in the words of the tolerance: 0.10 is ten points of traffic moved.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.drift.counts import samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def total_variation(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """The distance in [0, 1], and its mean without drift by the normal law, Σ sqrt(p(1-p)(1/N + 1/n) / 2π).

    Raises:
        BinMismatchError: The shapes differ.
    """
    both = samples_of(reference, current)
    p, q = both.shares
    pool = (both.before + both.now) / np.where(both.is_there, both.n_before + both.n_now, 1.0)
    spread = np.sqrt(np.maximum(pool * (1.0 - pool), 0.0)).sum(-1)
    noise = spread * np.sqrt(both.unit / (2.0 * math.pi))
    return StatisticValues(value=np.minimum(np.abs(p - q).sum(-1) / 2.0, 1.0), noise=noise)
