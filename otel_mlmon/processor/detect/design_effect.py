"""Estimates the design effect φ: by how much a stream's shares vary more than those of independent items would.

Items come in bursts (sessions, video frames, batches). n items of design effect φ tell as much as n/φ
independent ones, so the evidence counts in those. φ is estimated from the live counts themselves: for a block of
n items with shares s after blocks whose fading mean of n' items has shares s', and long-run shares p,

    |s - s'|² / ((1/n + 1/n') Σ p_k (1 - p_k))

is φ on average. Each block counts half as much in the mean as the one after it, so differences hardly see a slow
drift; an eighth of them, the largest, is left out, and those that straddle the begin or the end of an alarm are
forgotten, so neither does an abrupt one count. Bursts longer than a block hide from it, so blocks of 50·4^j items are
tried; `dispersion.py` combines them.

Many streams are kept together, one a row, and taken in together; a row's φ does not depend on the others.

Source: Kish, Survey Sampling, 1965 (design effect); von Neumann, The mean square successive difference, 1941.
Choice: with one block before instead of the fading mean, and a quarter left out, as many differences know a third less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.arrays import RowArrays, RowIndex, convert_to_slice
from otel_mlmon.processor.detect.dispersion import (
    EFFICIENCY,
    MAX_DIFFERENCES,
    MIN_DIFFERENCES,
    combine_levels,
    compute_degrees_of_freedom,
    compute_level_coefficients,
    compute_trimmed_divisors,
    compute_trimmed_means,
)
from otel_mlmon.processor.detect.state import DesignEffectColumns
from otel_mlmon.types import Bools, Floats, Indices, Ints

BLOCK_SIZES: Final = tuple(50 * 4**level for level in range(6))
"""Items a block holds at least, by level: 50 … 51,200."""

MIN_FREEDOM: Final = 15.0
"""φ is not believed before a level's differences have as many degrees of freedom: of two bins 19, of four 8."""

CALIBRATION_ITEMS: Final = 1_000
"""Items before φ is believed, and a level with enough differences besides."""

MIN_EFFECTIVE_ITEMS: Final = 200.0
"""φ is not believed either before items/φ has reached this: with long bursts 1,000 items are few."""

PRIOR_ITEMS: Final = 20.0
"""How many items the reference weighs in the long-run shares p."""

MEMORY_ITEMS: Final = 10_000.0
"""Half-life of the long-run shares p, in items."""

FADING: Final = 0.5
"""The factor by which a block's weight in the fading mean of past blocks falls with each further block."""

_LEVELS: Final = len(BLOCK_SIZES)
_NEXT_SIZES: Final = (*BLOCK_SIZES[1:], math.inf)
"""The block size, by level, from which the next level would only repeat this level's difference."""
_STORED: Final = (
    "items", "is_calibrated", "long_run", "means", "difference_counts", "pending_counts", "prior_estimate",
    "prior_divisor",
)  # fmt: skip
_AGES: Final = np.arange(MAX_DIFFERENCES, 0, -1)
"""The age of each remembered difference, the latest being 1."""


class DesignEffects:
    """The design effects of many streams of K bins, one stream a row, estimated from their past panes.

    Memory: 70 numbers and two count vectors a level and stream.

    A block is kept as its K counts, its items n, and n again: in the mean of the blocks before, these become
    Σ w c, Σ w n and Σ w² n, w the weights that fade, and (Σ w² n)/(Σ w n)² is 1/n' of that mean.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._fading = np.array([FADING] * (bins + 1) + [FADING**2])
        self._arrays = RowArrays(
            freedom=((), np.float64),
            divisors=((MAX_DIFFERENCES + 1,), np.float64),
            long_run=((bins + 1,), np.float64),
            items=((), np.float64),
            blocks=((_LEVELS, bins + 2), np.float64),
            means=((_LEVELS, bins + 2), np.float64),
            differences=((_LEVELS, MAX_DIFFERENCES), np.float64),
            difference_counts=((_LEVELS,), np.int64),
            pending_counts=((_LEVELS,), np.int64),
            level_estimates=((_LEVELS,), np.float64),
            coefficients=((4, _LEVELS), np.float64),
            estimate=((), np.float64),
            divisor=((), np.float64),
            is_calibrated=((), np.bool_),
            prior_estimate=((), np.float64),
            prior_divisor=((), np.float64),
        )

    @property
    def divisor(self) -> Floats:
        """The number by which each stream's counts are divided: φ with a margin for its uncertainty, 1 or above."""
        return self._arrays["divisor"]

    @property
    def estimate(self) -> Floats:
        """The design effect φ of each stream, 1 or above, never above `divisor`."""
        return self._arrays["estimate"]

    @property
    def is_calibrated(self) -> Bools:
        """Whether each stream's φ is estimated from enough items; once true, it stays true."""
        return self._arrays["is_calibrated"]

    def measure_progress(self, rows: Indices) -> Floats:
        """Measures the progress of estimating φ, [0, 1]: its items, and the blocks of the fullest level."""
        arrays = self._arrays
        needed = np.maximum(MIN_DIFFERENCES, np.ceil(MIN_FREEDOM / (EFFICIENCY * arrays["freedom"][rows])))
        blocks = arrays["difference_counts"][rows].max(-1) / needed
        items = arrays["items"][rows] / np.maximum(CALIBRATION_ITEMS, MIN_EFFECTIVE_ITEMS * arrays["estimate"][rows])
        ratios: Floats = np.minimum(np.minimum(blocks, items), 1.0)
        return ratios

    @property
    def level_estimates(self) -> Floats:
        """The design effect of each stream at each of six block sizes, shape (rows, 6); NaN with too few blocks."""
        has_estimate = self._arrays["difference_counts"] >= MIN_DIFFERENCES
        return np.where(has_estimate, self._arrays["level_estimates"], np.nan)

    def start(
        self, row: int, reference: Floats, prior: tuple[float, int] | None = None, *, is_enough: bool = True
    ) -> None:
        """Starts to estimate the design effect of a stream in a row.

        Args:
            row: The row.
            reference: Shares of shape (K,), above 0, that sum to 1.
            prior: φ of the reference, and from how many differences it is known; it holds until enough is known of the
                live items. None, or too few differences, if it is not known.
            is_enough: Whether the prior is enough to judge by; else it is a lower bound until enough is known.
        """
        arrays = self._arrays
        arrays.clear(row)
        arrays["freedom"][row] = freedom = compute_degrees_of_freedom(reference)
        arrays["long_run"][row, :-1] = reference * PRIOR_ITEMS
        arrays["long_run"][row, -1] = PRIOR_ITEMS
        # A difference that is not there is never among the smallest.
        arrays["differences"][row] = np.inf
        arrays["estimate"][row] = arrays["divisor"][row] = 1.0
        if prior is not None and prior[1] >= MIN_DIFFERENCES:
            excess = max(prior[0] - 1.0, 0.0)
            caution = float(compute_level_coefficients(np.array([[prior[1]]]), np.array([freedom]))[0, 3, 0])
            self._set_prior(row, 1.0 + excess, 1.0 + excess * caution, is_enough=is_enough)

    def _set_prior(self, row: int, estimate: float, divisor: float, *, is_enough: bool = True) -> None:
        arrays = self._arrays
        arrays["prior_estimate"][row] = arrays["estimate"][row] = estimate
        arrays["prior_divisor"][row] = arrays["divisor"][row] = divisor
        arrays["is_calibrated"][row] = is_enough

    def raise_prior(self, row: int, estimate: float) -> None:
        """Takes an earlier estimate of φ as a lower bound until enough live items are counted."""
        arrays = self._arrays
        if arrays["items"][row] or estimate <= arrays["prior_estimate"][row]:
            return
        self._set_prior(row, estimate, max(estimate, float(arrays["prior_divisor"][row])))

    def set_initial_divisor(self, row: int, divisor: float) -> None:
        """Sets the divisor of a stream's counts that holds from its first items on, until its own φ is known."""
        self._set_prior(row, 1.0, divisor)

    def add(self, rows: Indices, counts: Floats, items: Floats) -> None:
        """Adds one pane to the estimates of some streams: counts of shape (S, K) and their sums, above 0."""
        arrays, index = self._arrays, convert_to_slice(rows)
        block = np.empty((len(rows), self._bins + 2))
        block[:, : self._bins] = counts
        block[:, self._bins :] = items[:, None]
        arrays["items"][index] += items
        arrays["long_run"][index] *= np.exp2(items / -MEMORY_ITEMS)[:, None]
        arrays["long_run"][index] += block[:, :-1]
        self._fill_blocks(rows, index, block)
        prior = arrays["prior_estimate"][index]
        is_open = ~arrays["is_calibrated"][index] | (prior > 0.0)
        if is_open.any():
            enough = np.maximum(CALIBRATION_ITEMS, MIN_EFFECTIVE_ITEMS * prior)
            candidates = rows[is_open & (arrays["items"][index] >= enough)]
            calibrated = candidates[self._check_calibration(candidates)]
            arrays["is_calibrated"][calibrated] = True
            is_released = arrays["prior_estimate"][calibrated] > 0.0
            if is_released.any():
                released = calibrated[is_released]
                arrays["prior_estimate"][released] = arrays["prior_divisor"][released] = 0.0
                self._combine_estimates(released)

    def forget_transitions(self, rows: Indices, is_stable: Bools, has_changed: Bools) -> None:
        """Discards differences across the start or end of a drift, which are no natural variation.

        Args:
            rows: Those that `add` was called with, or more.
            is_stable: Whether everything that was added so far, since the last change, is of one law.
            has_changed: Whether a drift began or ended since the row was last stable.
        """
        arrays = self._arrays
        for row in rows[has_changed] if has_changed.any() else ():
            counts, pending = arrays["difference_counts"][row], arrays["pending_counts"][row]
            # A level keeps the few that it needs for an estimate: without it bursts would be thought over.
            dropped = np.minimum(pending, np.where(counts >= MIN_DIFFERENCES, counts - MIN_DIFFERENCES, counts))
            for level in np.flatnonzero(dropped):
                remaining = arrays["differences"][row, level, : -dropped[level]]
                arrays["differences"][row, level] = np.concatenate([np.full(dropped[level], np.inf), remaining])
            arrays["difference_counts"][row] = counts - dropped
            arrays["blocks"][row] = arrays["means"][row] = 0.0
            self._estimate_effects(np.array([row]))
        arrays["pending_counts"][rows[is_stable | has_changed]] = 0

    def relearn(self, rows: Sequence[int], shares: Floats, residuals: Sequence[Sequence[tuple[Ints, Floats]]]) -> None:
        """Estimates some streams' design effects again, without the part that a daily cycle explains.

        A row of which too little is left keeps its estimate.

        Args:
            rows: At least one.
            shares: Of the reference, by row.
            residuals: For each of `rows`, counts of blocks and their differences from what was to be expected.
        """
        former = {row: self.pack([row]) for row in rows}
        for row in rows:
            self.start(row, shares[row])
        for number in range(max(map(len, residuals))):
            blocks = [(row, *pairs[number]) for row, pairs in zip(rows, residuals, strict=True) if number < len(pairs)]
            places = np.array([row for row, _, _ in blocks])
            items = np.array([counts.sum() for _, counts, _ in blocks], dtype=np.float64)
            self.add(places, np.array([left for _, _, left in blocks]) + items[:, None] * shares[places], items)
        for row in rows:
            if not self._arrays["is_calibrated"][row]:
                self.restore([row], shares[[row]], former[row])

    def copy_estimate(self, row: int, previous: DesignEffects, previous_row: int) -> None:
        """Copies into a row the estimate of the same stream over other bins, as φ belongs to the items."""
        names = ("items", "is_calibrated", "prior_estimate", "prior_divisor")
        for name in (*names, "differences", "difference_counts", "pending_counts"):
            self._arrays[name][row] = previous._arrays[name][previous_row]
        self._estimate_effects(np.array([row]))

    def pack(self, rows: Indices | Sequence[int]) -> DesignEffectColumns:
        """Returns the estimates of some streams as columns for storage; `restore` restores them bit for bit."""
        columns = self._arrays.pack(rows, (*_STORED, "blocks", "differences"))
        columns["blocks"] = columns["blocks"][:, :, :-1]
        columns["differences"] = columns["differences"][columns["difference_counts"][..., None] >= _AGES]
        return DesignEffectColumns(**columns)

    def restore(self, rows: Sequence[int], references: Floats, columns: DesignEffectColumns) -> None:
        """Restores the stored estimates of streams in rows, with the same reference shares, shape (S, K); S ≥ 1."""
        for row, reference in zip(rows, references, strict=True):
            self.start(row, reference)
        arrays, places = self._arrays, np.array(rows, dtype=np.intp)
        arrays.restore(places, columns, _STORED)
        arrays["blocks"][places] = np.concatenate((columns.blocks, columns.blocks[..., -1:]), axis=-1)
        differences = np.full_like(arrays["differences"][places], np.inf)
        differences[columns.difference_counts[..., None] >= _AGES] = columns.differences
        arrays["differences"][places] = differences
        self._estimate_effects(places)

    def _fill_blocks(self, rows: Indices, index: RowIndex, block: Floats) -> None:
        """Adds panes to the blocks of the lowest level, and each full block to the level above it."""
        blocks, has_grown, concluded = self._arrays["blocks"], False, rows[:0]
        lowest = self._find_first_level(index, float(block[:, -1].min()))
        for level in range(lowest, _LEVELS):
            block = blocks[index, level] + block
            is_full = block[:, -1] >= BLOCK_SIZES[level]
            blocks[index, level] = np.where(is_full[:, None], 0.0, block)
            if not is_full.all():
                index = rows = rows[is_full]
                block = block[is_full]
            if not rows.size:
                break
            if level == lowest:
                concluded = rows
            has_grown |= self._compare_blocks(rows, index, level, block)
        if has_grown:
            self._update_coefficients(concluded)
        if concluded.size:
            self._combine_estimates(convert_to_slice(concluded))

    def _find_first_level(self, index: RowIndex, min_items: float) -> int:
        """Returns the lowest level at which panes of so many items do not fill more than one block."""
        level = 0
        while min_items >= _NEXT_SIZES[level]:
            level += 1
        arrays = self._arrays
        is_in_use = arrays["blocks"][index, :level, -1].any() or arrays["means"][index, :level, -1].any()
        return 0 if is_in_use else level

    def _compare_blocks(self, rows: Indices, index: RowIndex, level: int, block: Floats) -> bool:
        """Compares newly filled blocks with the mean of earlier ones; returns whether any was compared."""
        mean = self._arrays["means"][index, level]
        is_own = block[:, -1] < _NEXT_SIZES[level]
        is_pair = is_own & (mean[:, -1] > 0.0)
        has_grown = False
        if is_pair.all():
            has_grown = self._add_differences(rows, index, level, block, mean)
        elif is_pair.any():
            has_grown = self._add_differences(rows[is_pair], rows[is_pair], level, block[is_pair], mean[is_pair])
        next_mean = mean * self._fading
        next_mean += block
        next_mean[~is_own] = 0.0
        self._arrays["means"][index, level] = next_mean
        return has_grown

    def _add_differences(self, rows: Indices, index: RowIndex, level: int, block: Floats, mean: Floats) -> bool:
        """Records how far blocks are from the mean of earlier ones; returns whether any stream has more differences."""
        arrays = self._arrays
        items, mean_items = block[:, -2:-1], mean[:, -2:-1]
        difference = block[:, :-2] / items
        difference -= mean[:, :-2] / mean_items
        difference *= difference
        shares = arrays["long_run"][index, :-1] / arrays["long_run"][index, -1:]
        shares *= shares
        expected = (1.0 / items + mean[:, -1:] / (mean_items * mean_items))[:, 0]
        expected *= 1.0 - np.add.reduce(shares, -1)
        # With all mass in one bin nothing can vary.
        latest = np.zeros(len(rows))
        np.divide(np.add.reduce(difference, -1), expected, out=latest, where=expected > 0.0)
        arrays["differences"][index, level, :-1] = arrays["differences"][index, level, 1:]
        arrays["differences"][index, level, -1] = latest
        arrays["pending_counts"][index, level] += 1
        counts = arrays["difference_counts"][index, level]
        has_grown = bool(counts.min() < MAX_DIFFERENCES)
        if has_grown:
            arrays["difference_counts"][index, level] = np.minimum(counts + 1, MAX_DIFFERENCES)
        self._estimate_level(rows, index, level)
        return has_grown

    def _estimate_effects(self, rows: Indices) -> None:
        """Estimates the design effects of streams again, after their differences have been changed."""
        for level in range(_LEVELS):
            self._estimate_level(rows, rows, level)
        self._update_coefficients(rows)
        self._combine_estimates(rows)

    def _estimate_level(self, rows: Indices, index: RowIndex, level: int) -> None:
        arrays = self._arrays
        counts = arrays["difference_counts"][index, level]
        has_estimate = counts >= MIN_DIFFERENCES
        if not has_estimate.all():
            index = rows = rows[has_estimate]
            counts = counts[has_estimate]
        if rows.size:
            differences, divisors = arrays["differences"][index, level], self._find_divisors(rows, counts)
            arrays["level_estimates"][index, level] = compute_trimmed_means(differences, counts, divisors)

    def _find_divisors(self, rows: Indices, counts: Ints) -> Floats:
        """Returns the divisors of trimmed means by number of differences, each computed when it is first needed."""
        table = self._arrays["divisors"]
        divisors: Floats = table[rows, counts]
        if (is_new := divisors == 0.0).any():
            places = rows[is_new], counts[is_new]
            table[places] = divisors[is_new] = compute_trimmed_divisors(self._arrays["freedom"][places[0]], places[1])
        return divisors

    def _update_coefficients(self, rows: Indices) -> None:
        arrays = self._arrays
        arrays["coefficients"][rows] = compute_level_coefficients(
            arrays["difference_counts"][rows], arrays["freedom"][rows]
        )

    def _combine_estimates(self, index: RowIndex) -> None:
        arrays = self._arrays
        estimate, divisor = combine_levels(arrays["level_estimates"][index], arrays["coefficients"][index])
        arrays["estimate"][index] = np.maximum(estimate, arrays["prior_estimate"][index])
        arrays["divisor"][index] = np.maximum(divisor, arrays["prior_divisor"][index])

    def _check_calibration(self, rows: Indices) -> Bools:
        """Returns which streams have enough items for the largest plain mean, from which no burst can hide."""
        arrays = self._arrays
        counts = arrays["difference_counts"][rows]
        sums = np.where(counts[..., None] >= _AGES, arrays["differences"][rows], 0.0).sum(-1)
        freedom = EFFICIENCY * arrays["freedom"][rows, None] * counts
        is_counted = (counts >= MIN_DIFFERENCES) & (freedom >= MIN_FREEDOM)
        means = np.where(is_counted, sums / np.maximum(counts, 1), -np.inf).max(-1)
        calibrated: Bools = np.isfinite(means) & (arrays["items"][rows] >= MIN_EFFECTIVE_ITEMS * means)
        return calibrated
