"""Total variation: ½ Σ |p - q|, the share of the traffic that would have to change its bin.

The one of these that reads in the words of the tolerance: 0.10 is ten points of traffic moved.
"""

from __future__ import annotations

import math

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def total_variation(samples: Samples, /) -> StatisticValues:
    """The distance in [0, 1], and its mean without drift by the normal law, Σ sqrt(p(1-p)(1/N + 1/n) / 2π)."""
    spread = np.sqrt(np.maximum(samples.expected * (1.0 - samples.expected), 0.0)).sum(-1)
    noise = spread * np.sqrt(samples.unit / (2.0 * math.pi))
    return StatisticValues(value=np.minimum(np.abs(samples.moved).sum(-1) / 2.0, 1.0), noise=noise)
