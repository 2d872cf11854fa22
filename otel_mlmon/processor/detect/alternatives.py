"""A fixed dictionary of simple alternatives to the reference, each a bet of its own against every law within the ball.

An alternative (U, D, θ) states that mass went from the bins D to the bins U and that the other bins are as they were.
Within total variation d of the reference r the bins U hold at most A = r(U) + d and the bins D at least B = r(D) - d;
the bet is that between the two the odds are e^θ times as large:

    L = e^θ Z on U, Z on D, 1 elsewhere, with Z = (A + B) / (A e^θ + B).

E_p[L] = 1 + p(U)(e^θ Z - 1) - p(D)(1 - Z) grows with p(U) and falls with p(D), so over the ball it is largest at
p(U) = A, p(D) = B, where it is 1: an e-value for one item, and for a pane Π L^c in which every item may have a law
of its own within the ball. For one-sided evidence U is a run of bins from the end that mass may not move to; the
larger null set bounds p(U) by the same A.

The pairs are: one bin against all others, both ways; the bins up to an edge against those beyond it, both ways (a
shift of ordered bins); and, up to `MAX_BINS_OF_PAIRS` bins, each bin against each other bin. Four tilts θ each, a
factor of three apart: a bet wins (2x - x²) of what could be won, x the tilt over the true one, so between two of them
at least three quarters are won.

A plug-in must first learn where mass went, and Dirichlet's prior pays (K - 1)/2 · ln n for not knowing it, in every
pane anew: ten nats of the fourteen that a pane of 1,000 items brings at a total variation of .10. The dictionary is
paid once, ln of its size, and what a bet has won is carried from pane to pane.

Source: Huber, A robust version of the probability ratio test, 1965 (the least favourable pair A, B); Shin, Ramdas and
Rinaldo, E-detectors, NEJSDS 2024 (mixtures of baseline detectors).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from otel_mlmon.types import Bools, Floats, Indices

Direction = Literal["both", "up", "down"]
"""Which moves of mass are drift: any, towards the last bins only, or towards the first bins only."""

TILTS: Final = np.array([0.04, 0.12, 0.36, 1.08])
"""θ, in nats of log odds."""

MAX_BINS_OF_PAIRS: Final = 10
"""With more bins there is no bet on each pair of them: K² bets cost time, and few are ever right."""


class Alternatives:
    """The pairs (U, D) for K bins and a direction, each with every tilt.

    Args:
        bins: K.
        direction: Which moves are drift.
    """

    def __init__(self, bins: int, direction: Direction) -> None:
        pairs = _pairs(bins, direction)
        self.gain_sets: Bools = np.array([gain for gain, _ in pairs], dtype=bool).reshape(-1, bins)
        """U, shape (M, K)."""
        self.loss_sets: Bools = np.array([loss for _, loss in pairs], dtype=bool).reshape(-1, bins)
        """D, shape (M, K)."""
        self._gain_index: Indices = np.array([_set_index(bins_) for bins_ in self.gain_sets], dtype=np.intp)
        self._loss_index: Indices = np.array([_set_index(bins_) for bins_ in self.loss_sets], dtype=np.intp)

    @property
    def count(self) -> int:
        """How many bets there are: M pairs with every tilt."""
        return len(self.gain_sets) * TILTS.size

    def log_factors(
        self, pane: Floats, set_shares: Floats, radius: Floats, idle_log_factors: Floats, *, out: Floats
    ) -> None:
        """Computes ln Π L^c of each bet over a pane: c (ln Z + θ) over U and c ln Z over D.

        Args:
            pane: Counts, shape (S, K).
            set_shares: `set_sums` of the reference's shares, shape (S, 4K).
            radius: d, shape (S,); may be infinite.
            idle_log_factors: 0 or below, shape (S,): the factor of a bet whose D the ball can empty.
            out: Receives them, shape (S, T·M): every pair with the first tilt, with the second, …
        """
        counts = set_sums(pane)
        gain, loss = counts.take(self._gain_index, -1), counts.take(self._loss_index, -1)
        upper, lower = _bounds(set_shares, radius)
        share = _gain_share(upper.take(self._gain_index, -1), lower.take(self._loss_index, -1))
        moved, is_open = gain + loss, share > 0.0
        is_all_open = is_open.all()
        # One tilt after the other: arrays of all of them would not stay in the processor's cache.
        for index, tilt in enumerate(TILTS.tolist()):
            # -ln Z, as ln((A e^θ + B)/(A + B)).
            cost = share * math.expm1(tilt)
            cost += 1.0
            np.log(cost, out=cost)
            cost *= moved
            reward = gain * tilt
            factors = out[:, index * len(self.gain_sets) : (index + 1) * len(self.gain_sets)]
            np.subtract(reward, cost, out=factors)
            if not is_all_open:
                np.copyto(factors, idle_log_factors[:, None], where=~is_open)

    def log_ratios(self, bets: Indices, set_shares: Floats, radius: Floats) -> Floats:
        """Computes ln L of one bet a row, shape (S, K); `bets` index the last axis of `log_factors`."""
        tilt, pair = np.divmod(bets, len(self.gain_sets))
        rows = np.arange(len(bets))
        upper, lower = _bounds(set_shares, radius)
        share = _gain_share(upper[rows, self._gain_index[pair]], lower[rows, self._loss_index[pair]])
        log_z = -np.log(share * np.expm1(TILTS[tilt]) + 1.0)[:, None]
        ratios: Floats = self.gain_sets[pair] * (TILTS[tilt, None] + log_z) + self.loss_sets[pair] * log_z
        return ratios


@lru_cache(maxsize=256)
def alternatives_of(bins: int, direction: Direction) -> Alternatives:
    """Returns the dictionary for so many bins and a direction, built once."""
    return Alternatives(bins, direction)


def set_sums(rows: Floats) -> Floats:
    """Sums each row over every set of bins that an alternative may name, shape (S, 4K).

    The sets are each bin, all bins but it, the first bins up to it, and all bins beyond it.
    """
    total = rows.sum(-1, keepdims=True)
    cumulative = np.add.accumulate(rows, -1)
    return np.concatenate([rows, total - rows, cumulative, np.maximum(total - cumulative, 0.0)], axis=-1)


def _pairs(bins: int, direction: Direction) -> list[tuple[Bools, Bools]]:
    positions = np.arange(bins)
    runs = [positions < edge for edge in range(1, bins)]
    if direction == "down":
        return [(run, ~run) for run in runs]
    if direction == "up":
        return [(~run, run) for run in runs]
    single = [positions == position for position in range(bins)] if bins > 2 else []
    # The first and the last bin are runs already.
    sets = runs + single[1:-1]
    pairs = [pair for bins_ in sets for pair in ((bins_, ~bins_), (~bins_, bins_))]
    if 2 < bins <= MAX_BINS_OF_PAIRS:
        pairs += [(gain, loss) for gain in single for loss in single if gain is not loss]
    return pairs


def _bounds(set_shares: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Returns A and B by set, shape (S, 4K); B is infinite where the ball can empty the set."""
    d = np.minimum(radius, 2.0)[:, None]
    lower = set_shares - d
    return set_shares + d, np.where(lower > 0.0, lower, np.inf)


def _gain_share(upper: Floats, lower: Floats) -> Floats:
    """Returns A/(A + B), of which Z = 1/(1 + (e^θ - 1) A/(A + B)); 0 where there is nothing to bet on."""
    return upper / (upper + lower)


def _set_index(bins_: Bools) -> int:
    """Returns the position of a set of bins in `set_sums`."""
    bins, size = bins_.size, int(bins_.sum())
    if size == 1:
        return int(bins_.argmax())
    if size == bins - 1:
        return bins + int(bins_.argmin())
    return 2 * bins + size - 1 if bins_[0] else 3 * bins + (bins - size) - 1
