"""Jensen-Shannon distance, base 2: the root of the mean of KL(p‖m) and KL(q‖m) in bits, with m = (p + q)/2.

Choice: the distance (the root), in base 2, so that disjoint samples are at 1. It is `scipy.spatial.distance.
jensenshannon(p, q, base=2)`. Other tools take natural logarithms: theirs is this times √ln 2 = 0.8326, so a
threshold of 0.1 is not the same threshold.
Source: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003 (it is a
metric).
"""

from __future__ import annotations

import math

from scipy.special import rel_entr

from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, shares_of
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def jensen_shannon(reference: Counts, current: Counts, /) -> StatisticValue:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    shares = shares_of(reference, current)
    if shares is None:
        return NOTHING_TO_COMPARE
    p, q = shares
    m = (p + q) / 2.0
    divergence_bits = float((rel_entr(p, m) + rel_entr(q, m)).sum()) / (2.0 * math.log(2.0))
    return StatisticValue(value=math.sqrt(min(1.0, max(0.0, divergence_bits))))
