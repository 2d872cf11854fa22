"""Jensen-Shannon distance, base 2: the root of the mean of KL(p‖m) and KL(q‖m) in bits, with m = (p + q)/2.

Choice: the distance (the root), in base 2, so that disjoint samples are at 1. It is `scipy.spatial.distance.
jensenshannon(p, q, base=2)`. Other tools take natural logarithms: theirs is this times √ln 2 = 0.8326, so a
threshold of 0.1 is not the same threshold.
Source: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003 (it is a
metric).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from otel_mlmon.processor.drift.counts import samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def jensen_shannon(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    p, q = samples_of(reference, current).shares
    m = (p + q) / 2.0
    divergence_bits = (rel_entr(p, m) + rel_entr(q, m)).sum(-1) / (2.0 * math.log(2.0))
    return StatisticValues(value=np.sqrt(np.minimum(np.maximum(divergence_bits, 0.0), 1.0)))
