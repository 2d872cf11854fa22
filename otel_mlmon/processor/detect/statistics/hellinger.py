"""Hellinger distance: sqrt(Σ (√p - √q)² / 2).

Choice: with the ½ under the root, so that disjoint samples are at 1.
Source: Hellinger, 1909.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class Hellinger:
    """The Hellinger distance in [0, 1] as a drift statistic."""

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the Hellinger distance between each stream's reference and window, one stream a row."""
        p, q = np.sqrt(samples.shares)
        squares = ((p - q) ** 2).sum(-1)
        return Measurement(value=np.minimum(np.sqrt(squares / 2.0), 1.0))

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values from which the noise √((K-1)/8n) is at most half of the threshold."""
        return math.ceil((bins - 1) / (2.0 * threshold**2))


HELLINGER: Final = Hellinger()
