"""L∞ distance: max |p - q|, the bin that changed most.

The default of SageMaker and Vertex for categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.drift.counts import samples_of
from otel_mlmon.processor.drift.score import StatisticValues


def l_infinity(reference: NDArray[Any], current: NDArray[Any], /) -> StatisticValues:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    p, q = samples_of(reference, current).shares
    return StatisticValues(value=np.minimum(np.abs(p - q).max(-1, initial=0.0), 1.0))
