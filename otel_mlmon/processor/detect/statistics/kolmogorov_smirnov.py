"""Kolmogorov-Smirnov distance of ordered bins: max |P_k - Q_k| of the cumulative shares.

Means something for ordered bins only. Of the values themselves it could be larger: a move within a bin is
not seen. No p-value: with ties its law is not the tables', and the tables' would be far too careful.
Source: Smirnov, 1939.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class KolmogorovSmirnov:
    """The Kolmogorov-Smirnov distance in [0, 1] as a drift statistic."""

    needs_ordered_bins = True
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the Kolmogorov-Smirnov distance between each stream's reference and window, one stream a row."""
        distance = np.abs(np.add.accumulate(samples.moved, -1)).max(-1, initial=0.0)
        return Measurement(value=np.minimum(distance, 1.0))

    def min_count(self, *, bins: int, threshold: float) -> int:  # noqa: ARG002 (part of the Protocol)
        """Returns the number of values from which the noise, at most 1/√n, is at most half of the threshold."""
        return math.ceil(4.0 / threshold**2)


KOLMOGOROV_SMIRNOV: Final = KolmogorovSmirnov()
