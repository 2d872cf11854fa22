"""Jensen-Shannon distance, base 2: the root of the mean of KL(p‖m) and KL(q‖m) in bits, with m = (p + q)/2.

Choice: the distance (the root), in base 2, so that disjoint samples are at 1. It is `scipy.spatial.distance.
jensenshannon(p, q, base=2)`. Other tools take natural logarithms: theirs is this times √ln 2 = 0.8326, so a
threshold of 0.1 is not the same threshold.
Source: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003 (it is a
metric).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import rel_entr

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def jensen_shannon(samples: Samples, /) -> StatisticValues:
    """The distance in [0, 1]."""
    p, q = samples.shares
    of_p, of_q = rel_entr(samples.shares, (p + q) / 2.0)
    divergence_bits = (of_p + of_q).sum(-1) / (2.0 * math.log(2.0))
    return StatisticValues(value=np.sqrt(np.minimum(np.maximum(divergence_bits, 0.0), 1.0)))
