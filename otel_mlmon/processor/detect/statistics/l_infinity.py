"""L∞ distance: max |p - q|, the bin that changed most.

The default of SageMaker and Vertex for categories.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues


def l_infinity(samples: Samples, /) -> StatisticValues:
    """The distance in [0, 1]."""
    return StatisticValues(value=np.minimum(np.abs(samples.moved).max(-1, initial=0.0), 1.0))
