"""Estimates the design effect of one stream, one number at a time: an oracle for the vectorised code.

The formulas that combine levels are those of `dispersion.py`, which have tests of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from otel_mlmon.processor.detect.dispersion import (
    MAX_DIFFERENCES,
    MIN_DIFFERENCES,
    combine_levels,
    compute_degrees_of_freedom,
    compute_level_coefficients,
    compute_trimmed_divisors,
)

SIZES = (50, 200, 800, 3_200, 12_800, 51_200)


class ScalarDesignEffect:
    """The design effect of one stream, computed one number at a time."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.freedom = compute_degrees_of_freedom(np.array(shares))
        counts = np.maximum(np.arange(MAX_DIFFERENCES + 1), MIN_DIFFERENCES)
        self.divisors = compute_trimmed_divisors(np.full(counts.shape, self.freedom), counts).tolist()
        self.long_run, self.long_run_total, self.items = [20.0 * share for share in shares], 20.0, 0.0
        self.blocks = [[0.0] * len(shares) for _ in SIZES]
        self.means: list[list[tuple[float, list[float]]]] = [[] for _ in SIZES]
        """By level, weight and counts of the blocks before."""
        self.differences: list[list[float]] = [[] for _ in SIZES]
        self.pending = [0] * len(SIZES)
        self.is_calibrated = False

    def add(self, counts: Sequence[float]) -> None:
        """One pane."""
        items = sum(counts)
        self.items += items
        decay = 0.5 ** (items / 10_000.0)
        self.long_run = [x * decay + count for x, count in zip(self.long_run, counts, strict=True)]
        self.long_run_total = self.long_run_total * decay + items
        block = list(counts)
        for level, size in enumerate(SIZES):
            block = [x + y for x, y in zip(self.blocks[level], block, strict=True)]
            if sum(block) < size:
                self.blocks[level] = block
                break
            self.blocks[level] = [0.0] * len(block)
            if level + 1 < len(SIZES) and sum(block) >= SIZES[level + 1]:
                self.means[level] = []
                continue
            if self.means[level]:
                self._compare(level, block)
            self.means[level] = [(weight / 2.0, former) for weight, former in self.means[level]] + [(1.0, block)]
        if self.items >= 1_000:
            self.is_calibrated |= self._is_settled()

    def _compare(self, level: int, block: list[float]) -> None:
        weighted = sum(weight * sum(former) for weight, former in self.means[level])
        unknown = sum(weight**2 * sum(former) for weight, former in self.means[level]) / weighted**2
        shares = [sum(w * former[k] for w, former in self.means[level]) / weighted for k in range(len(block))]
        squares = sum((x / sum(block) - share) ** 2 for x, share in zip(block, shares, strict=True))
        spread = 1.0 - sum((x / self.long_run_total) ** 2 for x in self.long_run)
        self.differences[level] = [*self.differences[level], squares / ((1.0 / sum(block) + unknown) * spread)][-64:]
        self.pending[level] += 1

    def _is_settled(self) -> bool:
        means = [
            sum(values) / len(values)
            for values in self.differences
            if len(values) >= 8 and 0.8 * self.freedom * len(values) >= 15.0
        ]
        return bool(means) and self.items >= 200.0 * max(means)

    def forget_transition(self) -> None:
        """A drift began or ended."""
        for level, values in enumerate(self.differences):
            remaining = max(len(values) - self.pending[level], min(len(values), 8) if len(values) >= 8 else 0)
            self.differences[level] = values[:remaining]
            self.blocks[level] = [0.0] * len(self.blocks[level])
            self.means[level] = []
        self.be_stable()

    def be_stable(self) -> None:
        """All that was added is of one law."""
        self.pending = [0] * len(SIZES)

    @property
    def estimates(self) -> tuple[float, float]:
        """φ and the divisor."""
        levels = [
            sum(sorted(values)[: len(values) - math.ceil(len(values) / 8)]) / self.divisors[len(values)]
            if len(values) >= 8
            else 1.0
            for values in self.differences
        ]
        counts = np.array([[len(values) for values in self.differences]])
        phi, divisor = combine_levels(np.array([levels]), compute_level_coefficients(counts, np.array([self.freedom])))
        return float(phi[0]), float(divisor[0])
