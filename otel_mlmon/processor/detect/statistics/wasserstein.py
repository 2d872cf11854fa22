"""Wasserstein-1 distance of ordered bins: Σ |P_k - Q_k| of the cumulative shares, in bins.

Means something for ordered bins only. Choice: the unit is the bin, since the first and last bins are open and
have no width; 0.5 is half a bin's shift of everything. It is `scipy.stats.wasserstein_distance` with the
bins' indices as values.
Source: Vallender, 1974 (the form by cumulative sums).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class Wasserstein:
    """The Wasserstein-1 distance in [0, K - 1], in bins, as a drift statistic."""

    needs_ordered_bins = True
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the Wasserstein-1 distance between each stream's reference and window, one stream a row."""
        return Measurement(value=np.abs(np.add.accumulate(samples.moved, -1)[..., :-1]).sum(-1))

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values from which the noise, at most 0.4 (K-1)/√n, is less than half the threshold."""
        return math.ceil(((bins - 1) / threshold) ** 2)


WASSERSTEIN: Final = Wasserstein()
