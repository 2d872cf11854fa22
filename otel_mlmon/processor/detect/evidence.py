"""The tolerant e-CUSUM: an e-detector for a stream that has left its reference by more than is tolerated.

The reference counts R (N in total, K bins) give shares r_k = (R_k + ½)/(N + K/2). The null is every law within a total
variation of d = tolerance + sqrt(K²vφ/4(K-1)N), v = Σ r_k (1 - r_k): the first term is what the operator
tolerates, the second what a finite reference does not know, √(Kφ/4N) where all bins are alike. Rare bins have intervals
of their own beside it (`rare_bins.py`), streams with a daily cycle a reference for each time of the day (`cycle.py`).
All counts c are taken as c/φ, φ a cautious design effect (`design_effect.py`).

Many components bet against the null, each by its own idea of what drift would look like. Two-sided, a quarter of the
weight is for the bets on rare bins, and the rest of it for these:

- A fixed dictionary of simple alternatives (`alternatives.py`). Half of it, in equal parts.
- Three plug-ins: their alternative q is the exponentially weighted mean of the counts before this pane,
  with half-lives of 100, 1,000 and 10,000 items, shrunk to r with 20 pseudo-counts; their factor for a pane is
  Π L_k^c_k, L the likelihood ratio of `two_sided` or `one_sided`. An eighth each.
- Universal inference on the pane alone: the Dirichlet(½) marginal likelihood of c over the largest likelihood of c in
  the null, so that one very large pane is enough. The last eighth.

Each factor e_j is an e-value given the past, and each component is a CUSUM of its own, W_j ← max(W_j, 1)·e_j. The
evidence is the largest weighted one, W = max of w_j·W_j.

Without drift beyond d, the average run length to W >= A is at least A panes: each W_j is an e-detector, so is their
weighted mean, and W is not above that. That is exact for independent items, and rests on simulations for items in
bursts. An e-value may be replaced by any smaller one, and that is used three times:

- w_j·W_j is capped at 100 times the alarm line, so that the end of a drift shows.
- When one is at its cap, all others start again from 1: the ones that bet on less would be the last to see it end.
- A plug-in or universal component whose alternative lies within d has L = 1 and would keep its W_j for ever, as would
  a bet on a set that the null can empty. It halves it every 100 items instead.

One-sided evidence enlarges the ball by everything that lies on the other side of it; each L is the exact likelihood
ratio against that larger set.

Source: Huber, A robust version of the probability ratio test, 1965 (the clipped ratio); Saha and Ramdas,
arXiv 2408.14015 (its e-value); Page, Continuous inspection schemes, 1954 (CUSUM); Shin, Ramdas and Rinaldo,
E-detectors, NEJSDS 2024; Lindon and Malek, arXiv 2011.03567 (the Dirichlet mixture); Wasserman, Ramdas and
Balakrishnan, Universal inference, PNAS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction, add_pane_evidence
from otel_mlmon.processor.detect.arrays import (
    DailyTraffic,
    RowArrays,
    RowIndex,
    check_counts,
    convert_to_slice,
    count_used,
)
from otel_mlmon.processor.detect.bets import (
    UNIVERSAL,
    CycleVariation,
    DriftBets,
    NullHypothesis,
    PaneBets,
    SlotArrays,
    SlotTable,
    compute_reference_columns,
)
from otel_mlmon.processor.detect.column_checks import check_evidence_columns
from otel_mlmon.processor.detect.design_effect import DesignEffects
from otel_mlmon.processor.detect.rare_bins import RareBinEvidence
from otel_mlmon.processor.detect.state import EvidenceColumns
from otel_mlmon.types import Bools, Floats, Indices, Ints

CAP: Final = 100.0
"""w_j·W_j stays at or below this many times the alarm line."""
MAX_PANE_ITEMS: Final = 1e9
"""A larger pane counts as one of this size: beyond, float64 loses whole nats in ln Γ."""
CALIBRATING: Final = 0
"""Status code of a row whose design effect is not known yet: without it there is no evidence."""
OK: Final = 1
DRIFT: Final = 2
"""Status code from the alarm line on, until W has fallen back to 1."""

_STORED: Final = (
    "reference", "tolerance", "log_e", "since_ns", "last_ns", "history", "has_cycle", "contributions",
)  # fmt: skip
_CHUNK_NUMBERS: Final = 100_000
"""Streams are taken in so many at a time that one array of all components stays in the processor's cache."""


class EvidenceBank:
    """The evidence of drift of many streams of K bins and one direction, one stream a row.

    The result of a row does not depend, to the last bit, on the rows it is updated with.

    Runs on: one thread at a time.

    Args:
        bins: K, 1 or above.
        direction: Which moves are drift.
    """

    def __init__(self, bins: int, direction: Direction = "both") -> None:
        self.bins = bins
        self.direction: Direction = direction
        self.rare = RareBinEvidence(bins) if direction == "both" else None
        self._bets = DriftBets(bins, direction, self.rare)
        components = self._bets.log_weights.size
        self.effects = DesignEffects(bins)
        self.traffic = DailyTraffic()
        self.slots = SlotTable(bins)
        """The shares of each row that count as no drift at this time of the day."""
        self._free_rows: list[int] = []
        self._row_count = 0
        self._arrays = RowArrays(
            reference=((bins,), np.float64),
            total=((), np.float64),
            shares=((bins,), np.float64),
            set_shares=((4 * bins,), np.float64),
            variance=((), np.float64),
            even_share=((), np.float64),
            tolerance=((), np.float64),
            history=((UNIVERSAL, bins), np.float64),
            expected=((UNIVERSAL, bins), np.float64),
            has_cycle=((), np.bool_),
            log_cusums=((components,), np.float64),
            onsets_ns=((components,), np.int64),
            contributions=((bins,), np.float64),
            log_e=((), np.float64),
            since_ns=((), np.int64),
            last_ns=((), np.int64),
            status=((), np.int8),
        )

    def column(self, name: str) -> NDArray[Any]:
        """Returns an array by row, such as `reference` (counts), `total` (N) or `since_ns` (the onset of drift)."""
        return self._arrays[name]

    @property
    def least_log_weight(self) -> float:
        """The logarithm of the weight of one bet of the dictionary of simple drifts."""
        return float(self._bets.log_weights[-1])

    @property
    def log_e(self) -> Floats:
        """The evidence of drift by row: ln W, 0 or above."""
        return self._arrays["log_e"]

    @property
    def status(self) -> NDArray[np.int8]:
        """The status of each row's stream, one of `CALIBRATING`, `OK` and `DRIFT`."""
        return self._arrays["status"]

    def add(
        self,
        reference_counts: NDArray[Any],
        tolerance: float,
        *,
        always_rare: Bools | None = None,
        design_effect: tuple[float, int] | None = None,
        is_effect_enough: bool = True,
    ) -> int:
        """Adds a stream with its reference, in a free row; returns the row.

        Args:
            reference_counts: Shape (K,), 0 or above.
            tolerance: The total variation that is tolerated, [0, 1].
            always_rare: Which bins have a tolerance of their own whatever their share, shape (K,); None for no bin.
            design_effect: φ of the reference, as `DesignEffects.start` has it.
            is_effect_enough: Whether it is enough to judge by.

        Returns:
            Its row.

        Raises:
            BinMismatchError: The reference is not one row of K counts.
            ValueError: A count is negative or not finite, or the tolerance is out of range.
        """
        counts = check_counts(np.asarray(reference_counts)[None], self.bins)[0]
        if not 0.0 <= tolerance <= 1.0:
            raise ValueError(f"a tolerance of {tolerance} is not in [0, 1]")
        (row,) = self._add_rows(counts[None], np.array([tolerance]))
        if self.rare is not None:
            self.rare.start(row, counts, tolerance, always_rare)
        self.effects.start(row, self._arrays["shares"][row], design_effect, is_enough=is_effect_enough)
        return row

    def _add_rows(self, counts: Floats, tolerances: Floats) -> list[int]:
        """Adds streams with references of shape (S, K) in free rows, and returns these."""
        reused = [self._free_rows.pop() for _ in range(min(len(counts), len(self._free_rows)))]
        first, self._row_count = self._row_count, self._row_count + len(counts) - len(reused)
        rows, arrays = [*reused, *range(first, self._row_count)], self._arrays
        for row in rows:
            arrays.clear(row)
            self.traffic.start(row)
        arrays["reference"][rows], arrays["tolerance"][rows] = counts, tolerances
        for name, column in compute_reference_columns(counts, self.direction).items():
            arrays[name][rows] = column
        self.slots.write(rows, [None] * len(rows))
        return rows

    def copy_evidence(self, row: int, previous: EvidenceBank, previous_row: int) -> None:
        """Copies into a row the evidence that a stream had over other bins of the same reference.

        The evidence stays, each factor being an e-value of its own pane; the bets begin anew from it, since what the
        components had learned is in the former bins.
        """
        arrays, source = self._arrays, previous._arrays
        for name in ("log_e", "since_ns", "last_ns", "status"):
            arrays[name][row] = source[name][previous_row]
        arrays["log_cusums"][row] = source["log_e"][previous_row]
        arrays["onsets_ns"][row] = source["since_ns"][previous_row]
        self.effects.copy_estimate(row, previous.effects, previous_row)
        self.traffic.restore([row], previous.traffic.pack([previous_row]))

    def remove(self, row: int) -> None:
        """Removes a stream's evidence, whose row is used again."""
        self._free_rows.append(row)

    def update(
        self,
        rows: Indices,
        counts: NDArray[Any],
        end_ns: Ints,
        log_alarm_line: float,
    ) -> None:
        """Updates the evidence of some streams with one pane each.

        Args:
            rows: Shape (S,), each row once.
            counts: Shape (S, K), 0 or above.
            end_ns: End of the panes, Unix nanoseconds, shape (S,).
            log_alarm_line: ln of the W that is an alarm.

        Raises:
            BinMismatchError: A pane has not K bins.
            ValueError: A count is negative or not finite.
        """
        panes = check_counts(counts, self.bins)
        self.traffic.add(rows, panes.sum(-1), end_ns)
        size = max(1, _CHUNK_NUMBERS // self._bets.log_weights.size)
        for start in range(0, len(rows), size):
            chunk = slice(start, start + size)
            slots = self.slots.stack(rows[chunk], self.column)
            self._update_chunk(rows[chunk], panes[chunk], end_ns[chunk], log_alarm_line, slots)

    def pack(self, rows: Sequence[int]) -> EvidenceColumns:
        """Returns the evidence of some streams as columns for storage; `restore` restores it bit for bit."""
        index, arrays = np.array(rows, dtype=np.intp), self._arrays
        log_cusums = arrays["log_cusums"][index]
        is_used = log_cusums != 0.0
        return EvidenceColumns(
            **arrays.pack(index, _STORED),
            is_drift=arrays["status"][index] == DRIFT,
            expected=arrays["expected"][index[arrays["has_cycle"][index]]],
            component_counts=count_used(is_used),
            components=is_used.nonzero()[1],
            log_cusums=log_cusums[is_used],
            onsets_ns=arrays["onsets_ns"][index][is_used],
            rare_bins=None if self.rare is None else self.rare.pack(index),
            design_effects=self.effects.pack(index),
            traffic=self.traffic.pack(index),
        )

    def restore(self, columns: EvidenceColumns) -> list[int]:
        """Adds streams with their stored evidence; returns the row of each.

        Raises:
            BinMismatchError: They have not K bins.
            ValueError: The columns contradict each other; nothing is added.
        """
        check_evidence_columns(columns, self.bins, self.direction, components=self._bets.log_weights.size)
        references = check_counts(columns.reference, self.bins)
        rows, arrays = self._add_rows(references, columns.tolerance), self._arrays
        arrays.restore(rows, columns, _STORED)
        index = np.array(rows, dtype=np.intp)
        arrays["expected"][index[columns.has_cycle]] = columns.expected
        owners = np.repeat(index, columns.component_counts)
        arrays["log_cusums"][owners, columns.components] = columns.log_cusums
        arrays["onsets_ns"][owners, columns.components] = columns.onsets_ns
        if self.rare is not None and columns.rare_bins is not None:
            self.rare.restore(rows, references, columns.tolerance, columns.rare_bins)
        self.traffic.restore(rows, columns.traffic)
        known = np.where(columns.design_effects.is_calibrated, OK, CALIBRATING)
        arrays["status"][index] = np.where(columns.is_drift, DRIFT, known)
        self.effects.restore(rows, arrays["shares"][index], columns.design_effects)
        return rows

    def relearn_design_effects(self, rows: Sequence[int], residuals: Sequence[Sequence[tuple[Ints, Floats]]]) -> None:
        """Estimates the design effects of some streams again, as `DesignEffects.relearn` does."""
        self.effects.relearn(rows, self._arrays["shares"], residuals)

    def _update_chunk(
        self, rows: Indices, panes: Floats, end_ns: Ints, log_alarm_line: float, slots: SlotArrays | None
    ) -> None:
        items = panes.sum(-1)
        present, present_panes, present_items, present_slots = rows, panes, items, slots
        if not items.all():
            mask = items > 0.0
            present, present_panes, present_items = rows[mask], panes[mask], items[mask]
            present_slots = slots.select_slots(mask) if slots is not None else None
        is_calibrated = self.effects.is_calibrated[present]
        if present_slots is not None:
            is_calibrated &= ~(present_slots.is_restless & (self.status[present] == DRIFT))
        # φ of the past alone goes into a bet: with the pane's own part in it, the factors would not be e-values.
        if is_calibrated.any():
            mask = slice(None) if is_calibrated.all() else is_calibrated
            bet_slots = present_slots.select_slots(mask) if present_slots is not None else None
            self._bet_on_panes(present[mask], present_panes[mask], present_items[mask], log_alarm_line, bet_slots)
        if present_slots is not None:
            # φ learns from what the cycle leaves, and nothing on a kind of day that is not known.
            excess = present_slots.shares - self._arrays["shares"][present]
            mask = present_slots.is_known
            present_panes = (present_panes - present_items[:, None] * excess)[mask]
            present, present_items = present[mask], present_items[mask]
        if present.size:
            self.effects.add(present, present_panes, present_items)
        self._update_status(rows, end_ns, log_alarm_line)

    def _bet_on_panes(
        self, rows: Indices, panes: Floats, items: Floats, log_alarm_line: float, slots: SlotArrays | None
    ) -> None:
        """Multiplies the wealth of every bet by its factor for a pane, and learns from the pane for the next one."""
        arrays, index = self._arrays, convert_to_slice(rows)
        effect = self.effects.divisor[index]
        scale = np.maximum(effect, items / MAX_PANE_ITEMS)
        panes, items = panes / scale[:, None], items / scale
        history = arrays["history"][index]
        null = self._build_null(index, items, effect, history, slots)
        bets = self._bets.weigh_pane(index, panes, items, effect, null, history, arrays["log_cusums"][index])
        self._add_contributions(rows, panes, null, bets)
        self._store_cusums(rows, index, bets, log_alarm_line + math.log(CAP))
        arrays["history"][index] = add_pane_evidence(history, panes, items)

    def _build_null(
        self, index: RowIndex, items: Floats, effect: Floats, history: Floats, slots: SlotArrays | None
    ) -> NullHypothesis:
        """Returns the distributions that are no drift in a pane, and adds their expectation to a cycle's history."""
        arrays = self._arrays
        tolerance, shares = arrays["tolerance"][index], arrays["shares"][index]
        if slots is None:
            arrays["has_cycle"][index] = False
            sums, radius = arrays["set_shares"][index], tolerance + np.sqrt(arrays["variance"][index] * effect)
            return NullHypothesis(shares, sums, sums, radius)
        has_history = (arrays["has_cycle"][index] & slots.has_cycle)[:, None, None]
        expected = np.where(has_history, arrays["expected"][index], history.sum(-1, keepdims=True) * shares[:, None])
        radius = tolerance + slots.forgiven + np.sqrt(slots.variance * np.maximum(effect, slots.effect))
        arrays["expected"][index] = add_pane_evidence(expected, items[:, None] * slots.shares, items)
        arrays["has_cycle"][index] = slots.has_cycle
        cycle = CycleVariation(slots.width, expected, slots.size, slots.forgiven, slots.has_cycle)
        return NullHypothesis(slots.shares, slots.highest, slots.lowest, radius, cycle)

    def _store_cusums(self, rows: Indices, index: RowIndex, bets: PaneBets, cap: float) -> None:
        """Stores ln W_j of each bet, 0 or above, and the end of the last pane at which it was at 1."""
        arrays, log_weights = self._arrays, self._bets.log_weights
        maximum, leader = bets.maximum, bets.leader
        log_cusums = bets.weighted
        log_cusums -= log_weights
        np.maximum(log_cusums, 0.0, out=log_cusums)
        is_capped = maximum >= cap
        if is_capped.any():
            log_cusums[is_capped] = 0.0
            capped = np.flatnonzero(is_capped & (leader >= 0))
            log_cusums[capped, leader[capped]] = cap - log_weights[leader[capped]]
        # A third of the time of `nonzero` with two axes.
        starting = np.flatnonzero((log_cusums > 0.0) & (arrays["log_cusums"][index] == 0.0))
        stream, component = np.divmod(starting, log_cusums.shape[1])
        arrays["onsets_ns"][rows[stream], component] = arrays["last_ns"][rows[stream]]
        first = np.flatnonzero((maximum > 0.0) & (arrays["log_e"][index] == 0.0))
        onsets_ns = arrays["onsets_ns"][rows[first], leader[first]]
        if self.rare is not None and bets.rare is not None:
            self.rare.store_bets(index, bets.rare, is_capped & (leader < 0), is_capped, cap, arrays["last_ns"][index])
            is_rare = leader[first] < 0
            onsets_ns[is_rare] = self.rare.onsets_ns(rows[first[is_rare]], -1 - leader[first[is_rare]])
        arrays["since_ns"][rows[first]] = onsets_ns
        arrays["log_cusums"][index] = log_cusums
        arrays["log_e"][index] = np.minimum(np.maximum(maximum, 0.0), cap)

    def _add_contributions(self, rows: Indices, panes: Floats, null: NullHypothesis, bets: PaneBets) -> None:
        """Adds each bin's contribution to the leading bet where there is evidence; from 0 where it begins."""
        contributions, log_e = self._arrays["contributions"], self._arrays["log_e"][rows]
        has_evidence = bets.maximum > 0.0
        if not has_evidence.any() and not log_e.any():
            contributions[rows] = 0.0
            return
        contributions[rows[~has_evidence | (log_e == 0.0)]] = 0.0
        contributions[rows] += self._bets.compute_contributions(rows, panes, null, bets)

    def _update_status(self, rows: Indices, end_ns: Ints, log_alarm_line: float) -> None:
        arrays = self._arrays
        log_e, previous, arrays["last_ns"][rows] = arrays["log_e"][rows], arrays["status"][rows], end_ns
        is_at_one = log_e == 0.0
        arrays["since_ns"][rows] = np.where(is_at_one, end_ns, arrays["since_ns"][rows])
        status = np.where(log_e >= log_alarm_line, DRIFT, np.where((previous == CALIBRATING) | is_at_one, OK, previous))
        is_stable = np.where(status == DRIFT, log_e >= log_alarm_line + math.log(CAP), is_at_one)
        self.effects.forget_transitions(rows, is_stable, (status == DRIFT) != (previous == DRIFT))
        arrays["status"][rows] = np.where(self.effects.is_calibrated[rows], status, CALIBRATING)
