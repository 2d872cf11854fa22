"""Tests whether two model versions get or predict different data: two samples of counts over the same bins.

The statistic is Pearson's X² of the homogeneity of two samples, divided by φ, the design effect of the stream, since
predictions that come in bursts vary more than independent ones (Rao & Scott, 1981, first-order correction). A stream
moved if it is beyond the quantile of chi-squared, and if the total variation is larger than what is tolerated by as
much as chance makes of two equal samples on average. The level is shared among the streams of a version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from scipy.special import chdtri

from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.window import StreamKey, StreamWindow
from otel_mlmon.types import Counts

LEVEL: Final = 0.001
"""The share of versions without any difference of which one is reported, at most."""


def find_moved_streams(
    windows: Iterable[StreamWindow],
    *,
    policy_of: Callable[[StreamKey], DetectionPolicy | None],
    design_effect_of: Callable[[StreamKey], float],
) -> Iterator[tuple[StreamWindow, float]]:
    """Yields the windows whose counts differ from those of the version before, with the tolerated total variation.

    Args:
        windows: One of each stream of a version.
        policy_of: Returns how a stream is judged; one that is not is not compared.
        design_effect_of: Returns φ of a stream, 1 or above.
    """
    judged = [(window, policy) for window in windows if (policy := policy_of(window.stream)) is not None]
    for window, policy in judged:
        if window.reference is not None and has_stream_moved(
            window.reference.counts,
            window.rolling,
            design_effect=design_effect_of(window.stream),
            tolerance=policy.tolerance,
            level=LEVEL / len(judged),
        ):
            yield window, policy.tolerance


def has_stream_moved(first: Counts, second: Counts, *, design_effect: float, tolerance: float, level: float) -> bool:
    """Tests whether two model versions differ by more than a tolerance in one stream, by its counts of shape (K,).

    Args:
        first: One sample.
        second: The other.
        design_effect: φ, 1 or above.
        tolerance: The total variation that is tolerated, [0, 1].
        level: The probability of a difference where there is none.
    """
    sizes = int(first.sum()), int(second.sum())
    if not all(sizes):
        return False
    pooled = (first + second) / sum(sizes)
    is_present = pooled > 0.0
    shares, others, pooled = first[is_present] / sizes[0], second[is_present] / sizes[1], pooled[is_present]
    if pooled.size < 2:
        return False
    inverse_size = 1.0 / sizes[0] + 1.0 / sizes[1]
    statistic = float(((shares - others) ** 2 / pooled).sum()) / (inverse_size * design_effect)
    # The mean of |N(0, v)| is √(2v/π).
    chance = float(np.sqrt(2.0 / math.pi * pooled * (1.0 - pooled) * inverse_size * design_effect).sum()) / 2.0
    variation = float(np.abs(shares - others).sum()) / 2.0
    return statistic > float(chdtri(pooled.size - 1, level)) and variation > tolerance + chance
