"""Weighs the bets on drift by one pane: their gains, which of them leads, and what each bin adds to the leading one.

`evidence.py` says what the components are, and keeps what they won.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import (
    PLUG_INS,
    Direction,
    build_alternatives,
    compute_bin_set_bounds,
    compute_bin_set_sums,
    compute_dirichlet_regret,
    compute_log_likelihood_ratios,
)
from otel_mlmon.processor.detect.arrays import RowArrays, RowIndex, convert_to_slice
from otel_mlmon.processor.detect.detectable import find_even_share
from otel_mlmon.processor.detect.rare_bins import WEIGHT as RARE_WEIGHT
from otel_mlmon.processor.detect.rare_bins import RareBets, RareBinEvidence, RareLimits
from otel_mlmon.types import Bools, Floats, Indices

RELEASE_NATS: Final = math.log(2.0) / 100.0
"""The amount by which each item lowers ln W_j of an idle component."""

UNIVERSAL: Final = PLUG_INS
"""The universal component; the plug-ins are before it."""

FIRST_ALTERNATIVE: Final = UNIVERSAL + 1
"""The first of the fixed alternatives."""

_MIN_LOG_RATIO: Final = 1e-12
"""A component none of whose ln L is as far from 0 is idle."""


class CycleVariation(NamedTuple):
    """The variation of a stream's distribution in its daily cycle, which is no drift."""

    width: Floats
    """The largest total variation between the reference and a neighbour, shape (S,)."""
    expected: Floats
    """The past counts that were to be expected, by half-life, shape (S, 3, K)."""
    size: Floats
    """N, shape (S,)."""
    forgiven: Floats
    """By how much more than the tolerance is forgiven, shape (S,)."""
    has_cycle: Bools
    """Which streams have a cycle, shape (S,)."""


class NullHypothesis(NamedTuple):
    """The distributions that are no drift: all within a radius of the references of S streams with K bins."""

    shares: Floats
    """The reference, shape (S, K), every share above 0."""
    highest: Floats
    """The largest `set_sums` of the reference and its neighbours in a cycle, shape (S, 4K)."""
    lowest: Floats
    """The smallest."""
    radius: Floats
    """d, shape (S,); may be infinite."""
    cycle: CycleVariation | None = None
    """None where no stream has a cycle."""


class PaneBets(NamedTuple):
    """The wealth of all bets on drift of S streams, after a pane of each."""

    weighted: Floats
    """ln of the weighted W_j, shape (S, C)."""
    maximum: Floats
    """The largest ln of a weighted wealth, of these bets and those on rare bins, shape (S,)."""
    leader: Indices
    """The component that has it; below 0, -1 less the bet on a rare bin. Shape (S,)."""
    log_ratios: Floats
    """ln L of the plug-ins and the universal component, shape (S, 4, K)."""
    rare: RareBets | None


class DriftBets:
    """The weighted bets on drift for K bins and a direction, on which the evidence is built.

    Args:
        bins: K.
        direction: Which moves are drift.
        rare: The rare bins, on which a quarter of the weight is bet; None for none.
    """

    def __init__(self, bins: int, direction: Direction, rare: RareBinEvidence | None) -> None:
        self._direction: Direction = direction
        self._rare = rare
        self._alternatives = build_alternatives(bins, direction)
        weights = np.full(
            FIRST_ALTERNATIVE + self._alternatives.alternative_count, 0.5 / max(1, self._alternatives.alternative_count)
        )
        weights[:FIRST_ALTERNATIVE] = 0.125
        self.log_weights: Floats = np.log(weights if rare is None else weights * (1.0 - RARE_WEIGHT))
        """ln of each component's weight, shape (C,)."""

    def weigh_pane(
        self,
        index: RowIndex,
        panes: Floats,
        items: Floats,
        effect: Floats,
        null: NullHypothesis,
        history: Floats,
        won: Floats,
    ) -> PaneBets:
        """Multiplies the wealth (CUSUM) of every bet on drift by its factor for a pane.

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
        cycle = null.cycle
        radius, expected = null.radius, None
        if cycle is not None:
            radius = radius + cycle.width
            expected = np.where(cycle.has_cycle[:, None, None], cycle.expected, np.nan)
        log_ratios = compute_log_likelihood_ratios(history, pane_shares, null.shares, radius, self._direction, expected)
        weighted = np.empty((len(panes), self.log_weights.size))
        weighted[:, :FIRST_ALTERNATIVE] = (log_ratios * panes[:, None]).sum(-1)
        weighted[:, UNIVERSAL] -= compute_dirichlet_regret(panes, pane_shares, items)
        is_idle = np.abs(log_ratios[:, :UNIVERSAL]).max(-1) < _MIN_LOG_RATIO
        np.copyto(weighted[:, :UNIVERSAL], idle_log_factors[:, None], where=is_idle)
        bounds = compute_bin_set_bounds(null.highest, null.lowest, null.radius)
        self._alternatives.log_factors(panes, bounds, idle_log_factors, out=weighted[:, FIRST_ALTERNATIVE:])
        weighted += won
        weighted += self.log_weights
        leader = weighted.argmax(-1)
        maximum = weighted[np.arange(len(panes)), leader]
        rare = self._weigh_rare_bins(index, panes, items, effect, null)
        if rare is not None:
            is_rare = rare.maximum > maximum
            leader = np.where(is_rare, -1 - rare.leader, leader)
            maximum = np.where(is_rare, rare.maximum, maximum)
        return PaneBets(weighted, maximum, leader, log_ratios, rare)

    def _weigh_rare_bins(
        self, index: RowIndex, panes: Floats, items: Floats, effect: Floats, null: NullHypothesis
    ) -> RareBets | None:
        if self._rare is None:
            return None
        if null.cycle is None:
            return self._rare.weigh_pane(index, panes, items, effect)
        bins, cycle = panes.shape[-1], null.cycle
        highest, lowest = null.highest[:, :bins], null.lowest[:, :bins]
        limits = RareLimits(highest, lowest, cycle.size, cycle.forgiven, cycle.has_cycle)
        return self._rare.weigh_pane(index, panes, items, effect, limits)

    def compute_contributions(self, rows: Indices, panes: Floats, null: NullHypothesis, bets: PaneBets) -> Floats:
        """Computes how much each bin of a pane adds to the leading bet where there is evidence, shape (S, K)."""
        added = np.zeros(panes.shape)
        has_evidence, leader = bets.maximum > 0.0, bets.leader
        learned = np.flatnonzero(has_evidence & (leader >= 0) & (leader < FIRST_ALTERNATIVE))
        added[learned] = panes[learned] * bets.log_ratios[learned, leader[learned]]
        fixed = np.flatnonzero(has_evidence & (leader >= FIRST_ALTERNATIVE))
        if fixed.size:
            bounds = compute_bin_set_bounds(null.highest[fixed], null.lowest[fixed], null.radius[fixed])
            added[fixed] = panes[fixed] * self._alternatives.log_ratios(leader[fixed] - FIRST_ALTERNATIVE, bounds)
        single = np.flatnonzero(has_evidence & (leader < 0))
        if single.size and self._rare is not None and bets.rare is not None:
            added[single] = self._rare.contributions(rows, panes, bets.rare, single)
        return added


class SlotHypothesis(NamedTuple):
    """The distributions that are no drift at one time of the day, for K bins."""

    shares: Floats
    """r_s, shape (K,), above 0."""
    highest: Floats
    """`set_sums` of r_s and its neighbours, the largest, shape (4K,)."""
    lowest: Floats
    """The smallest, shape (4K,)."""
    width: float
    """The largest total variation between r_s and a neighbour."""
    variance: float
    """The square of what is not known of r_s, over φ."""
    size: float
    """N of the slot."""
    effect: float
    """The smallest φ that what is not known is counted with."""
    forgiven: float
    """By how much more than the tolerance is forgiven."""
    is_known: bool
    """Whether two days of this kind are known, so that φ may learn from what is left."""
    is_restless: bool = False
    """Whether so much is forgiven now, and not at other hours, that a pane does not tell the end of a drift."""


class DayHypothesis(NamedTuple):
    """The distributions that are no drift on a kind of day, as the mean over its times of day."""

    null: SlotHypothesis
    size: float
    """N of all days together."""
    weakness: Literal["unknown_hours", "unknown_day", "holiday"] | None
    """Why the stream is weak on such a day, whatever would be found; None for nothing."""
    amplitude: float = math.nan
    """The largest total variation between a time of the day and the mean of the day; NaN without a daily cycle."""


class SlotArrays(NamedTuple):
    """The distributions that are no drift at one time of the day, stacked for S streams."""

    shares: Floats
    highest: Floats
    lowest: Floats
    width: Floats
    variance: Floats
    size: Floats
    effect: Floats
    forgiven: Floats
    is_known: Bools
    is_restless: Bools
    has_cycle: Bools

    def select_slots(self, rows: Bools | slice) -> SlotArrays:
        """Selects the distributions that are no drift of some of the streams, by their position."""
        columns: list[Any] = [column[rows] for column in self]
        return SlotArrays(*columns)


class SlotTable:
    """The shares that count as no drift at this time of the day, for many streams of K bins, one stream a row.

    They are written once a time of the day, which lasts for many panes: to stack thousands of small arrays costs more
    than to judge them.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        numbers = ((), np.float64)
        self._arrays = RowArrays(
            shares=((bins,), np.float64),
            highest=((4 * bins,), np.float64),
            lowest=((4 * bins,), np.float64),
            width=numbers,
            variance=numbers,
            size=numbers,
            effect=numbers,
            forgiven=numbers,
            is_known=((), np.bool_),
            is_restless=((), np.bool_),
            has_cycle=((), np.bool_),
        )
        self._written: list[SlotHypothesis | None] = []
        """The hypothesis in each row; None for what the reference has."""

    def write(self, rows: Sequence[int], nulls: Sequence[SlotHypothesis | None]) -> None:
        """Writes which shares some streams may have from now on without drift; None for what their reference has.

        Args:
            rows: Of a bank of evidence, each once; all rows are written before they are stacked.
            nulls: What is no drift of each.
        """
        written = self._written
        if (missing := max(rows, default=-1) + 1 - len(written)) > 0:
            written.extend([None] * missing)
            self._arrays.clear(len(written) - 1)
        changed = {row: null for row, null in zip(rows, nulls, strict=True) if null is not written[row]}
        self._arrays["has_cycle"][list(changed)] = [null is not None for null in changed.values()]
        for row, null in changed.items():
            written[row] = null
        present = {row: null for row, null in changed.items() if null is not None}
        if present:
            places = list(present)
            for name, values in zip(SlotHypothesis._fields, zip(*present.values(), strict=True), strict=True):
                self._arrays[name][places] = np.array(values)

    def stack(self, rows: Indices, column_of: Callable[[str], NDArray[Any]]) -> SlotArrays | None:
        """Collects in arrays which shares streams may have now without drift; None if no stream has a daily cycle.

        Args:
            rows: Each once, shape (S,).
            column_of: Returns a column of the bank by name.

        Returns:
            Arrays that are valid until the next call.
        """
        index = convert_to_slice(rows)
        has_cycle = self._arrays["has_cycle"][index]
        if not has_cycle.any():
            return None
        columns = [self._arrays[name][index] for name in SlotHypothesis._fields]
        if has_cycle.all():
            return SlotArrays._make([*columns, has_cycle])
        slots = _stack_reference_slots(rows, column_of)
        for reference, column in zip(slots, columns, strict=False):
            reference[has_cycle] = column[has_cycle]
        return slots._replace(has_cycle=has_cycle)


def _stack_reference_slots(rows: Indices, column_of: Callable[[str], NDArray[Any]]) -> SlotArrays:
    """Stacks the distributions that are no drift for streams without a daily cycle."""
    zeros, is_false = np.zeros(rows.size), np.zeros(rows.size, dtype=bool)
    return SlotArrays(
        shares=column_of("shares")[rows],
        highest=column_of("set_shares")[rows],
        lowest=column_of("set_shares")[rows],
        width=zeros,
        variance=column_of("variance")[rows],
        size=column_of("total")[rows],
        effect=np.ones(rows.size),
        forgiven=zeros.copy(),
        is_known=~is_false,
        is_restless=is_false,
        has_cycle=is_false.copy(),
    )


def compute_reference_variance(shares: Floats, total: float) -> float:
    """Computes the squared uncertainty of a reference's shares, over φ: K²v/4(K-1)N, v = Σ p(1-p).

    It is K/4N where all shares are alike, and infinite for an empty reference, which knows nothing.
    """
    bins = shares.size
    if not total or bins < 2:
        return bins / (4.0 * total) if total else np.inf
    return bins**2 * float((shares * (1.0 - shares)).sum()) / (4.0 * (bins - 1) * total)


def compute_reference_columns(counts: Floats, direction: Direction) -> dict[str, Floats]:
    """Computes the columns that bets need of references, from counts of shape (S, K): S rows each, by name."""
    totals = counts.sum(-1)
    shares = (counts + 0.5) / (totals[:, None] + counts.shape[-1] / 2.0)
    return {
        "total": totals,
        "shares": shares,
        "set_shares": compute_bin_set_sums(shares),
        "variance": np.array([compute_reference_variance(*row) for row in zip(shares, totals.tolist(), strict=True)]),
        "even_share": np.array([find_even_share(row, direction) for row in shares]),
    }
