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

Source: Kish, Survey Sampling, 1965 (design effect); von Neumann, The mean square successive difference, 1941;
Satterthwaite, 1946 (the degrees of freedom).
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

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

KEPT: Final = 0.75
"""The share of the differences that is averaged: the smallest."""

PRIOR_ITEMS: Final = 20.0
"""What the reference weighs in the long-run shares p."""

MEMORY_ITEMS: Final = 10_000.0
"""Half-life of the long-run shares p."""


Block: TypeAlias = tuple[NDArray[np.float64], float]
"""Counts of shape (K,) and their sum."""


class DesignEffect:
    """φ of one stream, from its past.

    Memory: 64 numbers and two count vectors a level at most.

    Args:
        reference: Shape (K,), shares above 0 that sum to 1.
    """

    def __init__(self, reference: NDArray[np.float64]) -> None:
        squares = float(reference @ reference)
        cubes = float(reference**2 @ reference)
        trace_of_square = squares - 2.0 * cubes + squares**2
        freedom = (1.0 - squares) ** 2 / trace_of_square if trace_of_square > 0.0 else 1.0
        self._trimmed_away = trimmed_mean_of_chi_squared(freedom)
        self._long_run: NDArray[np.float64] = reference * PRIOR_ITEMS
        self._long_run_items = PRIOR_ITEMS
        self._items = 0.0
        levels = range(len(BLOCK_SIZES))
        self._blocks: list[Block] = [(np.zeros_like(reference), 0.0) for _ in levels]
        self._previous: list[Block | None] = [None for _ in levels]
        self._differences: list[list[float]] = [[] for _ in levels]
        self.estimates: list[float | None] = [None for _ in levels]
        """φ as each level has it; None while it has too few differences."""
        self.value: float = 1.0
        """φ, 1 or above."""
        self.is_known: bool = False
        """Whether enough has been seen to believe `value`; stays so."""

    def add(self, counts: NDArray[np.float64], items: float) -> None:
        """Take in one pane: counts of shape (K,) and their sum, above 0."""
        self._items += items
        decay = 2.0 ** (-items / MEMORY_ITEMS)
        self._long_run = self._long_run * decay + counts
        self._long_run_items = self._long_run_items * decay + items
        block: Block = (counts, items)
        for level, size in enumerate(BLOCK_SIZES):
            held, held_items = self._blocks[level]
            block = (held + block[0], held_items + block[1]) if held_items else block
            if block[1] < size:
                self._blocks[level] = block
                break
            self._blocks[level] = (held, 0.0)
            # A block that is large enough for the next level would only repeat there what it says here.
            if level + 1 < len(BLOCK_SIZES) and block[1] >= BLOCK_SIZES[level + 1]:
                self._previous[level] = None
            else:
                self._compare(level, block)
        self.is_known = self.is_known or (self._items >= CALIBRATION_ITEMS and self._is_settled())

    def over(self, reference: NDArray[np.float64]) -> DesignEffect:
        """What is known, over other bins of the same stream: φ is of the items, so differences keep their meaning."""
        effect = DesignEffect(reference)
        effect._items = self._items
        effect.is_known = self.is_known
        effect._differences = [list(level) for level in self._differences]
        for level in range(len(BLOCK_SIZES)):
            effect._estimate(level)
        return effect

    def to_state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "items": self._items,
            "is_known": self.is_known,
            "long_run": _to_json((self._long_run, self._long_run_items)),
            "blocks": [_to_json(block) for block in self._blocks],
            "previous": [None if block is None else _to_json(block) for block in self._previous],
            "differences": [list(level) for level in self._differences],
        }

    @classmethod
    def from_state(cls, reference: NDArray[np.float64], state: dict[str, Any]) -> DesignEffect:
        """From `to_state`, and the same reference."""
        effect = cls(reference)
        effect._items = float(state["items"])
        effect.is_known = bool(state["is_known"])
        effect._long_run, effect._long_run_items = _from_json(state["long_run"])
        effect._blocks = [_from_json(block) for block in state["blocks"]]
        effect._previous = [None if block is None else _from_json(block) for block in state["previous"]]
        effect._differences = [list(level) for level in state["differences"]]
        for level in range(len(BLOCK_SIZES)):
            effect._estimate(level)
        return effect

    def _compare(self, level: int, block: Block) -> None:
        previous, self._previous[level] = self._previous[level], block
        if previous is None:
            return
        difference = block[0] / block[1] - previous[0] / previous[1]
        spread = 1.0 - float(self._long_run @ self._long_run) / self._long_run_items**2
        expected = (1.0 / block[1] + 1.0 / previous[1]) * spread
        differences = self._differences[level]
        # With all mass in one bin nothing can vary.
        differences.append(float(difference @ difference) / expected if expected > 0.0 else 0.0)
        del differences[:-MAX_DIFFERENCES]
        self._estimate(level)

    def _estimate(self, level: int) -> None:
        # Whole fours, so that exactly three quarters are kept.
        usable = len(self._differences[level]) // 4 * 4
        if usable < MIN_DIFFERENCES:
            return
        kept = int(usable * KEPT)
        smallest = sorted(self._differences[level][-usable:])[:kept]
        self.estimates[level] = sum(smallest) / kept / self._trimmed_away
        self.value = self._largest()

    def _is_settled(self) -> bool:
        """Whether the items seen are enough for the largest plain mean, which no burst can hide from."""
        means = [sum(level) / len(level) for level in self._differences if len(level) >= MIN_DIFFERENCES]
        return bool(means) and self._items >= MIN_EFFECTIVE_ITEMS * max(means)

    def _largest(self) -> float:
        largest = 1.0
        below: float | None = None
        for estimate, differences in zip(self.estimates, self._differences, strict=True):
            if estimate is None:
                continue
            weight = len(differences) / (len(differences) + PRIOR_DIFFERENCES)
            below = estimate if below is None else weight * estimate + (1.0 - weight) * below
            largest = max(largest, below)
        return largest


def trimmed_mean_of_chi_squared(freedom: float) -> float:
    """The mean of the smallest `KEPT` of a chi-squared variable over its degrees of freedom, in (0, 1)."""
    cut = gammaincinv(freedom / 2.0, KEPT)
    return float(gammainc(freedom / 2.0 + 1.0, cut)) / KEPT


def _to_json(block: Block) -> list[Any]:
    return [block[0].tolist(), block[1]]


def _from_json(block: list[Any]) -> Block:
    return np.array(block[0], dtype=np.float64), float(block[1])
