"""Hellinger distance: sqrt(Σ (√p - √q)² / 2).

Choice: with the ½ under the root, so that disjoint samples are at 1.
Source: Hellinger, 1909.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def hellinger(samples: Samples, /) -> StatisticValues:
    """The distance in [0, 1]."""
    p, q = np.sqrt(samples.shares)
    squares = ((p - q) ** 2).sum(-1)
    return StatisticValues(value=np.minimum(np.sqrt(squares / 2.0), 1.0))
