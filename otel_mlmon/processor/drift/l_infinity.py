"""L∞ distance: max |p - q|, the bin that changed most.

The default of SageMaker and Vertex for categories.
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.drift.counts import NOTHING_TO_COMPARE, shares_of
from otel_mlmon.processor.drift.score import Counts, StatisticValue


def l_infinity(reference: Counts, current: Counts, /) -> StatisticValue:
    """The distance in [0, 1].

    Raises:
        BinMismatchError: The shapes differ.
    """
    shares = shares_of(reference, current)
    if shares is None:
        return NOTHING_TO_COMPARE
    return StatisticValue(value=min(1.0, float(np.abs(shares[0] - shares[1]).max(initial=0.0))))
