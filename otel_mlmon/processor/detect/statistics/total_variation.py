"""Total variation: ½ Σ |p - q|, the share of the traffic that would have to change its bin.

The one of these that has the unit of the tolerance: 0.10 is ten points of traffic moved.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class TotalVariation:
    """The total variation in [0, 1] as a drift statistic, with its mean without drift.

    Its mean without drift is by the normal law, Σ √(p(1-p)(1/N + 1/n)/2π).
    """

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the total variation between each stream's reference and window, one stream a row."""
        spread = np.sqrt(np.maximum(samples.expected * (1.0 - samples.expected), 0.0)).sum(-1)
        noise = spread * np.sqrt(samples.unit / (2.0 * math.pi))
        return Measurement(value=np.minimum(np.abs(samples.moved).sum(-1) / 2.0, 1.0), noise=noise)

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values from which the noise, at most √((K-1)/2πn), is less than half the threshold."""
        return math.ceil((bins - 1) / threshold**2)


TOTAL_VARIATION: Final = TotalVariation()
