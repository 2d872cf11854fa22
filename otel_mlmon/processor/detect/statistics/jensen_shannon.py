"""Jensen-Shannon distance, base 2: the root of the mean of KL(p‖m) and KL(q‖m) in bits, with m = (p + q)/2.

Choice: the distance (the root), in base 2, so that disjoint samples are at 1. It is `scipy.spatial.distance.
jensenshannon(p, q, base=2)`. Other tools take natural logarithms: theirs is this times √ln 2 = 0.8326, so a
threshold of 0.1 is not the same threshold.
Source: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003 (it is a
metric).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy.special import rel_entr

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class JensenShannon:
    """The Jensen-Shannon distance, base 2, in [0, 1] as a drift statistic."""

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the Jensen-Shannon distance between each stream's reference and window, one stream a row."""
        p, q = samples.shares
        entropies = rel_entr(samples.shares, (p + q) / 2.0)
        divergence_bits = (entropies[0] + entropies[1]).sum(-1) / (2.0 * math.log(2.0))
        return Measurement(value=np.sqrt(np.minimum(np.maximum(divergence_bits, 0.0), 1.0)))

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values from which the noise √((K-1)/8n ln 2) is at most half of the threshold."""
        return math.ceil((bins - 1) / (2.0 * math.log(2.0) * threshold**2))


JENSEN_SHANNON: Final = JensenShannon()
