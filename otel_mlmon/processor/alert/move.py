"""Decides which property of a distribution of numbers tells most of its move: missing values, mean, spread or a range.

The move is the total variation, half of the sum of all changes of shares. A stretch of neighbouring bins whose share
changed by d explains d of it; the one that explains most is sought. If a stretch that reaches to an end of the axis
does nearly as well the distribution moved to one side: its mean says that, where it moved enough for it. If the stretch
lies around the median, the distribution grew wider or narrower: the middle half says that. Else it is named itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from otel_mlmon import semconv
from otel_mlmon.processor.window.window import HistogramBins

_FRACTION_DIGITS: Final = 9
"""Shares that differ by less are equal: a sum of floats is exact to about sixteen digits."""
MEAN_RATIO: Final = 0.25
"""The smallest move of the mean, in quartile distances of the reference and for all values that moved to one side, with
which it is the mean that tells the move. A shift of a normal distribution has about 1.8."""
SIDE_SHARE: Final = 0.7
"""How much of the largest stretch's growth one at an end of the axis must have for a move to one side. A change of the
spread alone has a half."""
MISSING_SHARE: Final = 0.5
"""The share of a move from which on missing values are what tells it."""


class BinRange(NamedTuple):
    """A range of neighbouring bins of a histogram, and by how much their share of all values grew."""

    first: int
    last: int
    growth: float


def find_moved_bins(growth: Sequence[float]) -> BinRange:
    """Finds the range of neighbouring bins whose share of all values changed most; the shortest if several did.

    Args:
        growth: By how much the share of each bin grew, shape (K,), K of 1 or above.
    """
    stretches = [
        BinRange(first, last, math.fsum(growth[first : last + 1]))
        for first in range(len(growth))
        for last in range(first, len(growth))
        if last - first + 1 < max(len(growth), 2)
    ]
    return max(
        stretches,
        key=lambda stretch: (
            round(abs(stretch.growth), _FRACTION_DIGITS), stretch.first - stretch.last, stretch.growth
        ),
    )  # fmt: skip


def is_move_of_missing_values(bins: HistogramBins, growth: Sequence[float]) -> bool:
    """Returns whether at least half of a distribution's move is a change in the share of missing values."""
    moved = math.fsum(map(abs, growth)) / 2
    return semconv.MISSING in bins.names and abs(growth[bins.names.index(semconv.MISSING)]) >= MISSING_SHARE * moved


def is_move_of_mean(
    stretch: BinRange, growth: Sequence[float], means: tuple[float, float], quartiles: tuple[float, float]
) -> bool:
    """Returns whether a distribution moved to one side by so much that its mean describes the move.

    Args:
        stretch: What moved most.
        growth: By how much the share of each bin on the axis grew.
        means: Of the reference and of the current data.
        quartiles: The lower and the upper quartile of the reference, as far as they are known.
    """
    move = means[1] - means[0]
    below = max(accumulate(growth), key=abs)
    if not math.isfinite(move) or abs(below) < SIDE_SHARE * abs(stretch.growth):
        return False
    distance = quartiles[1] - quartiles[0]
    is_large = not math.isfinite(distance) or abs(move) >= MEAN_RATIO * abs(below) * distance
    return is_large and (move > 0.0) == (below < 0.0)


def is_move_of_spread(stretch: BinRange, shares: Sequence[float]) -> bool:
    """Returns whether a distribution grew wider or narrower around its median rather than moved to one side.

    Args:
        stretch: What moved most.
        shares: Of the reference, by bins on the axis.
    """
    below, above = math.fsum(shares[: stretch.first]), math.fsum(shares[stretch.last + 1 :])
    is_inside = stretch.first > 0 and stretch.last < len(shares) - 1
    return is_inside and max(below, above) < math.fsum(shares) / 2


def name_bin_range(stretch: BinRange, bins: HistogramBins) -> str:
    """Names the values of a range of bins, such as `0.2 … 0.7`."""
    if stretch.first == stretch.last:
        return bins.names[stretch.first]
    if not bins.edges:
        return f"{bins.names[stretch.first]} … {bins.names[stretch.last]}"
    if stretch.first == 0:
        return f"≤ {bins.edges[stretch.last]:.3g}"
    if stretch.last == len(bins.edges):
        return f"> {bins.edges[stretch.first - 1]:.3g}"
    return f"{bins.edges[stretch.first - 1]:.3g} … {bins.edges[stretch.last]:.3g}"
