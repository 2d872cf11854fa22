"""The design effect φ: by how much the shares of a stream vary more than those of independent items would.

Items come in bursts (sessions, video frames, batches). n items of design effect φ tell as much as n/φ
independent ones, so the evidence counts in those. φ is found from the live counts themselves: for successive
blocks of about B items with shares s and s', whose long-run shares are p,

    |s - s'|² / ((1/n + 1/n') Σ p_k (1 - p_k))

is φ on average. Differences of neighbours do not see a slow drift, and the largest quarter is left out, so
neither does an abrupt one count (it makes one or two large differences). What the trimming takes away without
any burst is known from the chi-squared law with ν = (Σλ)²/Σλ² degrees of freedom, λ the eigenvalues of
diag(r) - r rᵀ, and is given back. Bursts longer than a block hide from it, so blocks of 50·4^j items are
tried and the largest φ counts. The largest of several noisy numbers is too large, so each level's is shrunk
to that of the level below, as if 16 more of its differences had said that one; without bursts φ is then
1.1 to 1.2 on average instead of 1.2 to 1.4, which is so much earlier an alarm.

Many streams are kept together, one a row, and taken in together; a row's φ does not depend on the others.

Source: Kish, Survey Sampling, 1965 (design effect); von Neumann, The mean square successive difference, 1941;
Satterthwaite, 1946 (the degrees of freedom).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from otel_mlmon.processor.drift.rows import Rows

BLOCK_SIZES: Final = tuple(50 * 4**level for level in range(6))
"""Items a block holds at least, by level: 50 … 51,200."""

MIN_DIFFERENCES: Final = 8
"""A level says nothing before it has this many."""

MAX_DIFFERENCES: Final = 64
"""The latest that a level remembers. A multiple of 4."""

CALIBRATION_ITEMS: Final = 1_000
"""Items before φ is believed, and a level with enough differences besides."""

PRIOR_DIFFERENCES: Final = 16
"""How many differences the level below stands for."""

MIN_EFFECTIVE_ITEMS: Final = 200.0
"""φ is not believed either before items/φ has reached this: with long bursts 1,000 items are few."""

PRIOR_ITEMS: Final = 20.0
"""What the reference weighs in the long-run shares p."""

MEMORY_ITEMS: Final = 10_000.0
"""Half-life of the long-run shares p."""

KEPT: Final = 0.75
"""The share of the differences that is averaged: the smallest."""

_LEVELS: Final = len(BLOCK_SIZES)
_AGE: Final = np.arange(MAX_DIFFERENCES, 0, -1)
"""Place of a difference counted from the latest, which is 1."""

Index = NDArray[np.intp]
Numbers = NDArray[np.float64]


class DesignEffects:
    """φ of many streams of K bins, from their past.

    Memory: 64 numbers and two count vectors a level and stream.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._rows = Rows(
            trimmed_away=((), np.float64),
            long_run=((bins,), np.float64),
            long_run_items=((), np.float64),
            items=((), np.float64),
            blocks=((_LEVELS, bins), np.float64),
            block_items=((_LEVELS,), np.float64),
            previous=((_LEVELS, bins), np.float64),
            previous_items=((_LEVELS,), np.float64),
            differences=((_LEVELS, MAX_DIFFERENCES), np.float64),
            known=((_LEVELS,), np.int64),
            estimates=((_LEVELS,), np.float64),
            value=((), np.float64),
            is_known=((), np.bool_),
        )

    @property
    def value(self) -> Numbers:
        """φ by row, 1 or above."""
        return self._rows["value"]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """By row: whether enough has been seen to believe `value`; stays so."""
        return self._rows["is_known"]

    @property
    def estimates(self) -> Numbers:
        """φ as each level has it, shape (rows, 6); NaN while it has too few differences."""
        return self._rows["estimates"]

    def start(self, row: int, reference: Numbers) -> None:
        """Begin anew in `row`, with shares of shape (K,), above 0, that sum to 1."""
        self._rows.clear(row)
        squares = float((reference**2).sum())
        cubes = float((reference**3).sum())
        trace_of_square = squares - 2.0 * cubes + squares**2
        freedom = (1.0 - squares) ** 2 / trace_of_square if trace_of_square > 0.0 else 1.0
        self._rows["trimmed_away"][row] = trimmed_mean_of_chi_squared(freedom)
        self._rows["long_run"][row] = reference * PRIOR_ITEMS
        self._rows["long_run_items"][row] = PRIOR_ITEMS
        self._rows["estimates"][row] = np.nan
        self._rows["value"][row] = 1.0

    def add(self, rows: Index, counts: Numbers, items: Numbers) -> None:
        """Take in one pane of each of `rows`: counts of shape (S, K) and their sums, above 0."""
        data = self._rows
        data["items"][rows] += items
        decay = np.exp2(-items / MEMORY_ITEMS)
        data["long_run"][rows] = data["long_run"][rows] * decay[:, None] + counts
        data["long_run_items"][rows] = data["long_run_items"][rows] * decay + items
        changed = np.zeros(len(rows), dtype=bool)
        at, block, block_items = np.arange(len(rows)), counts, items
        for level in range(self._first_level(rows, float(items.min())), _LEVELS):
            size = BLOCK_SIZES[level]
            row = rows[at]
            block = data["blocks"][row, level] + block
            block_items = data["block_items"][row, level] + block_items
            is_full = block_items >= size
            if is_full.all():
                data["blocks"][row, level] = 0.0
                data["block_items"][row, level] = 0.0
            else:
                data["blocks"][row, level] = np.where(is_full[:, None], 0.0, block)
                data["block_items"][row, level] = np.where(is_full, 0.0, block_items)
                at, block, block_items = at[is_full], block[is_full], block_items[is_full]
            if not at.size:
                break
            changed[at[self._compare(rows[at], level, block, block_items)]] = True
        if changed.any():
            self._conclude(rows[changed])
        young = rows[~data["is_known"][rows] & (data["items"][rows] >= CALIBRATION_ITEMS)]
        if young.size:
            data["is_known"][young] = self._are_settled(young)

    def go_on(self, row: int, before: DesignEffects, before_row: int) -> None:
        """Know in `row` what was known over other bins of the same stream: φ is of the items, so differences hold."""
        for name in ("items", "is_known", "differences", "known"):
            self._rows[name][row] = before._rows[name][before_row]
        only = np.array([row])
        for level in range(_LEVELS):
            self._estimate(only, level)
        self._conclude(only)

    def to_state(self, row: int) -> dict[str, Any]:
        """As JSON has it."""
        data = self._rows
        known = data["known"][row].tolist()
        # Of a level without a previous block, what is left of an older one has no meaning.
        previous_items = data["previous_items"][row]
        previous = np.where(previous_items[:, None] > 0.0, data["previous"][row], 0.0)
        return {
            "items": float(data["items"][row]),
            "is_known": bool(data["is_known"][row]),
            "long_run": [data["long_run"][row].tolist(), float(data["long_run_items"][row])],
            "blocks": [data["blocks"][row].tolist(), data["block_items"][row].tolist()],
            "previous": [previous.tolist(), previous_items.tolist()],
            "differences": [
                level[MAX_DIFFERENCES - count :].tolist()
                for level, count in zip(data["differences"][row], known, strict=True)
            ],
        }

    def restore(self, row: int, reference: Numbers, state: dict[str, Any]) -> None:
        """Put what `to_state` gave into `row`, with the same reference."""
        self.start(row, reference)
        data = self._rows
        data["items"][row] = state["items"]
        data["is_known"][row] = state["is_known"]
        data["long_run"][row], data["long_run_items"][row] = state["long_run"]
        data["blocks"][row], data["block_items"][row] = state["blocks"]
        data["previous"][row], data["previous_items"][row] = state["previous"]
        only = np.array([row])
        for level, differences in enumerate(state["differences"]):
            data["known"][row, level] = len(differences)
            data["differences"][row, level, MAX_DIFFERENCES - len(differences) :] = differences
            self._estimate(only, level)
        self._conclude(only)

    def _first_level(self, rows: Index, least_items: float) -> int:
        """The lowest level that panes of so many items do not just pass through."""
        level = 0
        while level + 1 < _LEVELS and least_items >= BLOCK_SIZES[level + 1]:
            level += 1
        data = self._rows
        is_held = data["block_items"][rows, :level].any() or data["previous_items"][rows, :level].any()
        return 0 if is_held else level

    def _compare(self, rows: Index, level: int, block: Numbers, items: Numbers) -> NDArray[np.bool_]:
        """Take a full block of each row; true where it made a difference to its neighbour known."""
        data = self._rows
        # A block that is large enough for the next level would only repeat there what it says here.
        is_own: NDArray[np.bool_] = (
            items < BLOCK_SIZES[level + 1] if level + 1 < _LEVELS else np.ones(len(rows), dtype=bool)
        )
        before_items = data["previous_items"][rows, level]
        data["previous_items"][rows, level] = np.where(is_own, items, 0.0)
        if not is_own.any():
            return is_own
        before = data["previous"][rows, level]
        data["previous"][rows, level] = block
        is_pair: NDArray[np.bool_] = is_own & (before_items > 0.0)
        if not is_pair.all():
            rows, block, items = rows[is_pair], block[is_pair], items[is_pair]
            before, before_items = before[is_pair], before_items[is_pair]
        if not rows.size:
            return is_pair
        difference = block / items[:, None] - before / before_items[:, None]
        spread = 1.0 - (data["long_run"][rows] ** 2).sum(-1) / data["long_run_items"][rows] ** 2
        expected = (1.0 / items + 1.0 / before_items) * spread
        # With all mass in one bin nothing can vary.
        is_varied = expected > 0.0
        latest = np.where(is_varied, (difference**2).sum(-1) / np.where(is_varied, expected, 1.0), 0.0)
        held = data["differences"][rows, level]
        data["differences"][rows, level] = np.concatenate([held[:, 1:], latest[:, None]], axis=-1)
        data["known"][rows, level] = np.minimum(data["known"][rows, level] + 1, MAX_DIFFERENCES)
        self._estimate(rows, level)
        return is_pair

    def _estimate(self, rows: Index, level: int) -> None:
        data = self._rows
        # Whole fours, so that exactly three quarters are kept.
        usable = data["known"][rows, level] // 4 * 4
        is_enough = usable >= MIN_DIFFERENCES
        if not is_enough.all():
            rows, usable = rows[is_enough], usable[is_enough]
        if not rows.size:
            return
        kept = (usable * KEPT).astype(np.intp)
        recent = np.where(usable[:, None] >= _AGE, data["differences"][rows, level], np.inf)
        recent.sort(-1)
        smallest = np.add.accumulate(recent, -1)[np.arange(len(rows)), kept - 1]
        data["estimates"][rows, level] = smallest / kept / data["trimmed_away"][rows]

    def _conclude(self, rows: Index) -> None:
        """The largest of the levels, each shrunk to the one below."""
        data = self._rows
        estimates, known = data["estimates"][rows], data["known"][rows]
        weights = known / (known + PRIOR_DIFFERENCES)
        is_there = ~np.isnan(estimates)
        largest = np.ones(len(rows))
        below = np.full(len(rows), np.nan)
        for level in np.flatnonzero(is_there.any(0)):
            estimate, weight = estimates[:, level], weights[:, level]
            shrunk = np.where(np.isnan(below), estimate, weight * estimate + (1.0 - weight) * below)
            below = np.where(is_there[:, level], shrunk, below)
            largest = np.fmax(largest, below)
        data["value"][rows] = largest

    def _are_settled(self, rows: Index) -> NDArray[np.bool_]:
        """Whether the items seen are enough for the largest plain mean, which no burst can hide from."""
        data = self._rows
        known = data["known"][rows]
        sums = data["differences"][rows].sum(-1)
        means = np.where(known >= MIN_DIFFERENCES, sums / np.maximum(known, 1), -np.inf).max(-1)
        settled: NDArray[np.bool_] = np.isfinite(means) & (data["items"][rows] >= MIN_EFFECTIVE_ITEMS * means)
        return settled


def trimmed_mean_of_chi_squared(freedom: float) -> float:
    """The mean of the smallest `KEPT` of a chi-squared variable over its degrees of freedom, in (0, 1)."""
    cut = gammaincinv(freedom / 2.0, KEPT)
    return float(gammainc(freedom / 2.0 + 1.0, cut)) / KEPT
