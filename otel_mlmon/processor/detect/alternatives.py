"""Moves: a fixed dictionary of drifts with few words, each a bet of its own against everything within the radius.

A move (U, D, θ) says that mass went from the bins D to the bins U and that the rest is as it was. Within d of the
reference r the bins U hold at most A = r(U) + d and the bins D at least B = r(D) - d; the move bets that between
the two the odds are e^θ times as large:

    L = e^θ Z on U, Z on D, 1 elsewhere, with Z = (A + B) / (A e^θ + B).

E_p[L] = 1 + p(U)(e^θ Z - 1) - p(D)(1 - Z) grows with p(U) and falls with p(D), so over the ball it is largest at
p(U) = A, p(D) = B, where it is 1: an e-value for one item, and for a pane Π L^c in which every item may have a law
of its own within the ball. For one-sided evidence U is a run of bins from the end that mass may not move to; the
larger null set bounds p(U) by the same A.

The pairs are: one bin against all others, both ways; the bins up to an edge against those beyond it, both ways (a
shift of ordered bins); and, up to `MAX_BINS_OF_PAIRS` bins, each bin against each other bin. Three tilts θ each, a
factor of three apart: what a bet wins is (2x - x²) of the most that can be won, x the tilt over the true one, so
between two of them at least three quarters are won.

A plug-in must first learn where mass went, and Dirichlet's prior pays (K - 1)/2 · ln n for not knowing it, in every
pane anew: ten nats of the fourteen that a pane of 1,000 items brings at a total variation of .10. The dictionary is
paid once, ln of its size, and what a bet has won is carried from pane to pane.

Source: Huber, A robust version of the probability ratio test, 1965; Shin, Ramdas and Rinaldo, E-detectors, NEJSDS
(mixtures of baseline detectors).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["both", "up", "down"]
"""Which moves are drift: any, of mass towards the last bins, or of mass towards the first bins."""

TILTS: Final = np.array([0.04, 0.12, 0.36, 1.08])
"""θ, in nats of log odds."""

MAX_BINS_OF_PAIRS: Final = 10
"""With more bins there is no bet on each pair of them: K² bets cost time, and most are never right."""


class Alternatives:
    """The pairs (U, D) for K bins and a direction.

    Args:
        bins: K.
        direction: Which moves are drift.
    """

    def __init__(self, bins: int, direction: Direction) -> None:
        pairs = _pairs(bins, direction)
        self.up: NDArray[np.bool_] = np.array([up for up, _ in pairs], dtype=bool).reshape(-1, bins)
        """U, shape (M, K)."""
        self.down: NDArray[np.bool_] = np.array([down for _, down in pairs], dtype=bool).reshape(-1, bins)
        """D, shape (M, K)."""
        self._up_index = np.array([_place(row) for row in self.up], dtype=np.intp)
        self._down_index = np.array([_place(row) for row in self.down], dtype=np.intp)

    @property
    def count(self) -> int:
        """How many bets there are: M pairs with every tilt."""
        return len(self.up) * TILTS.size

    def log_factors(
        self,
        pane: NDArray[np.float64],
        held: NDArray[np.float64],
        radius: NDArray[np.float64],
        idle: NDArray[np.float64],
        *,
        out: NDArray[np.float64],
    ) -> None:
        """The ln Π L^c of each bet, c (ln Z + θ) over U and c ln Z over D.

        Args:
            pane: Counts, shape (S, K).
            held: `held_by_sets` of the reference's shares, shape (S, 4K).
            radius: d, shape (S,); may be infinite.
            idle: 0 or below, shape (S,): the answer where there is nothing to bet on, since the ball can empty D.
            out: Where to, shape (S, T·M): every pair with the first tilt, with the second, …
        """
        counts = held_by_sets(pane)
        up, down = counts.take(self._up_index, -1), counts.take(self._down_index, -1)
        most, least = _bounds(held, radius)
        share = _share(most.take(self._up_index, -1), least.take(self._down_index, -1))
        both, is_open = up + down, share > 0.0
        is_all_open = is_open.all()
        # One tilt after the other: arrays of all of them would not stay in the processor's cache.
        for place, tilt in enumerate(TILTS.tolist()):
            less = share * math.expm1(tilt)
            less += 1.0
            np.log(less, out=less)
            less *= both
            more = up * tilt
            here = np.subtract(more, less, out=out[:, place * len(self.up) : (place + 1) * len(self.up)])
            if not is_all_open:
                np.copyto(here, idle[:, None], where=~is_open)

    def log_ratios(
        self, bets: NDArray[np.intp], held: NDArray[np.float64], radius: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The ln L of one bet a row, shape (S, K); `bets` are indices into the last axis of `log_factors`."""
        tilt, pair = np.divmod(bets, len(self.up))
        rows = np.arange(len(bets))
        most, least = _bounds(held, radius)
        share = _share(most[rows, self._up_index[pair]], least[rows, self._down_index[pair]])
        log_z = -np.log(share * np.expm1(TILTS[tilt]) + 1.0)[:, None]
        ratios: NDArray[np.float64] = self.up[pair] * (TILTS[tilt, None] + log_z) + self.down[pair] * log_z
        return ratios


@lru_cache(maxsize=256)
def alternatives_of(bins: int, direction: Direction) -> Alternatives:
    """The one dictionary of these."""
    return Alternatives(bins, direction)


def held_by_sets(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each set holds, shape (S, 4K): one bin, all but it, the first bins up to it, all bins beyond it."""
    total = rows.sum(-1, keepdims=True)
    first = np.add.accumulate(rows, -1)
    return np.concatenate([rows, total - rows, first, np.maximum(total - first, 0.0)], axis=-1)


def _pairs(bins: int, direction: Direction) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    places = np.arange(bins)
    first = [places < edge for edge in range(1, bins)]
    if direction == "down":
        return [(run, ~run) for run in first]
    if direction == "up":
        return [(~run, run) for run in first]
    one = [places == place for place in range(bins)] if bins > 2 else []
    # The first and the last bin are runs already.
    sets = first + one[1:-1]
    pairs = [pair for group in sets for pair in ((group, ~group), (~group, group))]
    if 2 < bins <= MAX_BINS_OF_PAIRS:
        pairs += [(into, out) for into in one for out in one if into is not out]
    return pairs


def _bounds(held: NDArray[np.float64], radius: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A and B by set, shape (S, 4K); B is infinite where the ball can empty the set."""
    d = np.minimum(radius, 2.0)[:, None]
    least = held - d
    return held + d, np.where(least > 0.0, least, np.inf)


def _share(most: NDArray[np.float64], least: NDArray[np.float64]) -> NDArray[np.float64]:
    """A/(A + B), of which Z = 1/(1 + (e^θ - 1) A/(A + B)); 0 where there is nothing to bet on."""
    return most / (most + least)


def _place(group: NDArray[np.bool_]) -> int:
    """Where `held_by_sets` has `group`."""
    bins, size = group.size, int(group.sum())
    if size == 1:
        return int(group.argmax())
    if size == bins - 1:
        return bins + int(group.argmin())
    return 2 * bins + size - 1 if group[0] else 3 * bins + (bins - size) - 1
