"""The Bhattacharyya distance -ln Σ √(p q), in nats (Bhattacharyya, 1943)."""

from __future__ import annotations

import math

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class Bhattacharyya:
    """Measures the distance of the shares, 0 or above."""

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Measures each row; samples without a bin in common are as far as one count in a thousand would be."""
        p, q = samples.shares
        return Measurement(value=-np.log(np.maximum(np.sqrt(p * q).sum(-1), 1e-3)))

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the n from which the noise, about (K-1)/8n, is at most a quarter of the threshold."""
        return math.ceil((bins - 1) / (2 * threshold))


BHATTACHARYYA = Bhattacharyya()
