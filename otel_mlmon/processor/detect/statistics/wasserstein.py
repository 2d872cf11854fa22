"""Wasserstein-1 distance of ordered bins: Σ |P_k - Q_k| of the cumulative shares, in bins.

Means something for ordered bins only. Choice: the unit is the bin, since the first and last bins are open and
have no width; 0.5 is half a bin's shift of everything. It is `scipy.stats.wasserstein_distance` with the
bins' indices as values.
Source: Vallender, 1974 (the form by cumulative sums).
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def wasserstein(samples: Samples, /) -> StatisticValues:
    """The distance in [0, K - 1], in bins."""
    return StatisticValues(value=np.abs(np.add.accumulate(samples.moved, -1)[..., :-1]).sum(-1))
