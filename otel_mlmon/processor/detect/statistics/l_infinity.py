"""L∞ distance: max |p - q|, the change of the bin that changed by the largest share.

The default of SageMaker and Vertex for categories.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.statistics.statistic import Measurement


class LInfinity:
    """The L∞ distance in [0, 1] as a drift statistic."""

    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the L∞ distance between each stream's reference and window, one stream a row."""
        return Measurement(value=np.minimum(np.abs(samples.moved).max(-1, initial=0.0), 1.0))

    def min_count(self, *, bins: int, threshold: float) -> int:  # noqa: ARG002 (part of the Protocol)
        """Returns the number of values from which the noise, at most 1/√n, is at most half of the threshold."""
        return math.ceil(4.0 / threshold**2)


L_INFINITY: Final = LInfinity()
