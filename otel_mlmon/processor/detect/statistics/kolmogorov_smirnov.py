"""Kolmogorov-Smirnov distance of ordered bins: max |P_k - Q_k| of the cumulative shares.

Means something for ordered bins only. Of the values themselves it could be larger: what moves within a bin is
not seen. No p-value: with ties its law is not the tables', and the tables' would be far too careful.
Source: Smirnov, 1939.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def kolmogorov_smirnov(samples: Samples, /) -> StatisticValues:
    """The distance in [0, 1]."""
    apart = np.abs(np.add.accumulate(samples.moved, -1)).max(-1, initial=0.0)
    return StatisticValues(value=np.minimum(apart, 1.0))
