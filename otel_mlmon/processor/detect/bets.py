"""The bets of all components on one pane: their factors, which of them leads, and what each bin adds to it.

`evidence.py` says what the components are, and keeps what they won.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.processor.detect.alternatives import (
    PLUG_INS,
    Direction,
    alternatives_of,
    dirichlet_regret,
    log_likelihood_ratios,
    set_bounds,
)
from otel_mlmon.processor.detect.arrays import RowIndex
from otel_mlmon.processor.detect.rare_bins import WEIGHT as RARE_WEIGHT
from otel_mlmon.processor.detect.rare_bins import RareBets, RareBins
from otel_mlmon.types import Floats, Indices

RELEASE_NATS: Final = math.log(2.0) / 100.0
"""The amount by which each item lowers ln W_j of an idle component."""

UNIVERSAL: Final = PLUG_INS
"""The universal component; the plug-ins are before it."""

FIRST_ALTERNATIVE: Final = UNIVERSAL + 1
"""The first of the fixed alternatives."""

_MIN_LOG_RATIO: Final = 1e-12
"""A component none of whose ln L is as far from 0 is idle."""


class Null(NamedTuple):
    """What is no drift: every law within a ball around the reference of each stream, S of them with K bins."""

    shares: Floats
    """The reference, shape (S, K), every share above 0."""
    set_shares: Floats
    """`set_sums` of it, shape (S, 4K)."""
    radius: Floats
    """d, shape (S,); may be infinite."""


class PaneBets(NamedTuple):
    """The bets of all components of S streams on a pane of each."""

    weighted: Floats
    """ln of the weighted W_j, shape (S, C)."""
    maximum: Floats
    """The largest of them and of those on rare bins, shape (S,)."""
    leader: Indices
    """The component that has it; below 0, -1 less the bet on a rare bin. Shape (S,)."""
    log_ratios: Floats
    """ln L of the plug-ins and the universal component, shape (S, 4, K)."""
    rare: RareBets | None


class Bets:
    """The components for K bins and a direction.

    Args:
        bins: K.
        direction: Which moves are drift.
        rare: The rare bins, on which a quarter of the weight is bet; None for none.
    """

    def __init__(self, bins: int, direction: Direction, rare: RareBins | None) -> None:
        self._direction: Direction = direction
        self._rare = rare
        self._alternatives = alternatives_of(bins, direction)
        weights = np.full(FIRST_ALTERNATIVE + self._alternatives.count, 0.5 / max(1, self._alternatives.count))
        weights[:FIRST_ALTERNATIVE] = 0.125
        self.log_weights: Floats = np.log(weights if rare is None else weights * (1.0 - RARE_WEIGHT))
        """ln of each component's weight, shape (C,)."""

    def weigh(
        self, index: RowIndex, panes: Floats, items: Floats, effect: Floats, null: Null, history: Floats, won: Floats
    ) -> PaneBets:
        """Multiplies the CUSUM of every component by its factor for a pane.

        Args:
            index: The rows of the bank.
            panes: Counts over φ, shape (S, K).
            items: Their sums, shape (S,).
            effect: φ, shape (S,).
            null: What is bet against.
            history: Past counts of the plug-ins, shape (S, 3, K).
            won: ln W_j of the components, shape (S, C).
        """
        idle_log_factors = -RELEASE_NATS * items
        pane_shares = panes / items[:, None]
        log_ratios = log_likelihood_ratios(history, pane_shares, null.shares, null.radius, self._direction)
        weighted = np.empty((len(panes), self.log_weights.size))
        weighted[:, :FIRST_ALTERNATIVE] = (log_ratios * panes[:, None]).sum(-1)
        weighted[:, UNIVERSAL] -= dirichlet_regret(panes, pane_shares, items)
        is_idle = np.abs(log_ratios[:, :UNIVERSAL]).max(-1) < _MIN_LOG_RATIO
        np.copyto(weighted[:, :UNIVERSAL], idle_log_factors[:, None], where=is_idle)
        bounds = set_bounds(null.set_shares, null.radius)
        self._alternatives.log_factors(panes, bounds, idle_log_factors, out=weighted[:, FIRST_ALTERNATIVE:])
        weighted += won
        weighted += self.log_weights
        leader = weighted.argmax(-1)
        maximum = weighted[np.arange(len(panes)), leader]
        rare = self._rare.weigh(index, panes, items, effect) if self._rare is not None else None
        if rare is not None:
            is_rare = rare.maximum > maximum
            leader = np.where(is_rare, -1 - rare.leader, leader)
            maximum = np.where(is_rare, rare.maximum, maximum)
        return PaneBets(weighted, maximum, leader, log_ratios, rare)

    def contributions(self, rows: Indices, panes: Floats, null: Null, bets: PaneBets) -> Floats:
        """Computes what each bin of a pane adds to the leading component where there is evidence, shape (S, K)."""
        added = np.zeros(panes.shape)
        has_evidence, leader = bets.maximum > 0.0, bets.leader
        learned = np.flatnonzero(has_evidence & (leader >= 0) & (leader < FIRST_ALTERNATIVE))
        added[learned] = panes[learned] * bets.log_ratios[learned, leader[learned]]
        fixed = np.flatnonzero(has_evidence & (leader >= FIRST_ALTERNATIVE))
        if fixed.size:
            bounds = set_bounds(null.set_shares[fixed], null.radius[fixed])
            added[fixed] = panes[fixed] * self._alternatives.log_ratios(leader[fixed] - FIRST_ALTERNATIVE, bounds)
        single = np.flatnonzero(has_evidence & (leader < 0))
        if single.size and self._rare is not None and bets.rare is not None:
            added[single] = self._rare.contributions(rows, panes, bets.rare, single)
        return added
