"""Models the shares of a stream at each time of the week, from the counts of some whole days.

The week has kinds of day (`week.py`), each with shares by slot of the day. The reference of slot s of a kind is
r_s = (c_s + 200 p)/(n_s + 200), c_s its counts on all days of that kind, p the shares of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.cycle_statistics import (
    HOURS,
    estimate_cell_effect,
    find_restless_slots,
    measure_daily_cycle,
)
from otel_mlmon.processor.detect.state import CycleDay
from otel_mlmon.processor.detect.week import MIN_DAYS, WEEKDAYS, compute_weekday, find_day_kinds
from otel_mlmon.types import Bools, Floats, Ints

SHRINKAGE: Final = 200.0
"""The weight of all slots together in each of them, in items."""

MIN_KIND_ITEMS: Final = 1_000.0
"""Items over φ that the days of a kind have together."""

MAX_DISTANCE: Final = 0.02
"""How far from its kind a weekday that was there once may be."""

_PARTS: Final = 4
"""Parts of a day that are compared: a day of rest may begin at any hour."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeekModel:
    """Holds the shares of a stream at each time of the week: of each kind of day, by slot."""

    kinds: Ints
    """The kind of each hour of the week, 0 for that of most days, shape (7, 24)."""
    day_counts: Ints
    """The days that were known of each weekday, shape (7,)."""
    distances: Floats
    """How far a weekday that was there once was from its kind, as total variation, shape (7,); 0 for the others."""
    shares: Floats
    """r_s by kind, shape (kinds, slots, K)."""
    sizes: Floats
    """n_s + 200 by kind, shape (kinds, slots)."""
    effects: Floats
    """The variance between days over that of independent items, by kind, shape (kinds,)."""
    forgiven: Floats
    """ρ_s, shape (slots,)."""
    amplitude: float
    """The amplitude of the daily cycle; NaN where there is none."""

    def find_day_kind(self, weekday: int, slot: int) -> int:
        """Returns the kind of a slot of a weekday."""
        return int(self.kinds[weekday, slot * HOURS // self.shares.shape[1]])

    def is_restless(self, slot: int) -> bool:
        """Returns whether more is forgiven in a slot of a weekday than in others with traffic."""
        is_calm = (self.forgiven == 0.0) & (self.sizes.max(0) > SHRINKAGE)
        return bool(self.forgiven[slot] > 0.0 and is_calm.any())

    def is_known(self, weekday: int, slot: int) -> bool:
        """Returns whether a weekday was there twice, or was there once and was like most days."""
        count = self.day_counts[weekday]
        is_usual = not self.find_day_kind(weekday, slot) and self.distances[weekday] <= MAX_DISTANCE
        return bool(count >= MIN_DAYS or (count and is_usual))

    def shift_to_reference(self, base: Floats, reference: Floats) -> WeekModel:
        """Returns the week model moved so that its shares are `reference` where they were `base`, shape (K,) each."""
        shares = self.shares / base * reference
        return replace(self, shares=shares / shares.sum(-1, keepdims=True))

    def compute_mean_shares(self) -> Floats:
        """Returns the mean shares of the week, shape (K,)."""
        slots = self.shares.shape[1]
        kinds = self.kinds[:, np.arange(slots) * HOURS // slots]
        weights = self.sizes[kinds, np.arange(slots)] / np.bincount(kinds.ravel(), minlength=len(self.shares))[kinds]
        result: Floats = (self.shares[kinds, np.arange(slots)] * weights[..., None]).sum((0, 1)) / weights.sum()
        return result


def fit_week(days: Sequence[CycleDay], *, effect: float, is_smoothed: bool, has_zone: bool) -> WeekModel | None:
    """Fits a week model to whole days; None for fewer than two, or for too few items to say anything of single hours.

    Args:
        days: The days, the oldest first.
        effect: φ.
        is_smoothed: Whether neighbouring slots are taken together.
        has_zone: Whether days begin at midnight; else they may begin at any hour.
    """
    min_items = MIN_KIND_ITEMS * effect
    if len(days) < MIN_DAYS or sum(int(day.counts.sum()) for day in days) < min_items:
        return None
    numbers = np.array([day.day for day in days])
    table = np.array([day.counts for day in days], dtype=np.float64)
    hours = table.reshape(len(days), HOURS, -1, table.shape[-1]).sum(2)
    kinds = find_day_kinds(numbers, hours, min_items=min_items, has_zone=has_zone)
    tables = [table * mask[..., None] for mask in _build_kind_masks(kinds, numbers, table.shape[1])]
    fitted = [_fit_day_kind(part, is_smoothed=is_smoothed) for part in tables]
    shares = np.array([part_shares for part_shares, _ in fitted])
    effects = np.array([estimate_cell_effect(part) for part in tables])
    day_counts = np.bincount(compute_weekday(numbers), minlength=WEEKDAYS)
    excursions = np.array([day.excursions if day.excursions.size else np.zeros(len(day.counts)) for day in days])
    distances = np.zeros(WEEKDAYS)
    for day, counts in zip(numbers.tolist(), table, strict=True):
        weekday = int(compute_weekday(day))
        if day_counts[weekday] == 1:
            by_slot = _find_slot_kinds(kinds, np.array([day]), len(counts))[0]
            expected = shares[by_slot, np.arange(len(counts))]
            distances[weekday] = _measure_distance(counts, expected, max(effect, float(effects.max())))
    return WeekModel(
        kinds=kinds,
        day_counts=day_counts,
        distances=distances,
        shares=shares,
        sizes=np.array([sizes for _, sizes in fitted]),
        effects=effects,
        forgiven=find_restless_slots(tables, excursions, effect),
        amplitude=measure_daily_cycle(table),
    )


def _measure_distance(counts: Floats, shares: Floats, effect: float) -> float:
    """Measures how far a day's counts, shape (slots, K), are from expected shares, beyond two standard deviations."""
    left = (counts - counts.sum(-1, keepdims=True) * shares).reshape(_PARTS, -1, counts.shape[-1]).sum(1)
    items = np.maximum(counts.reshape(_PARTS, -1).sum(1), 1.0)
    variations = 0.5 * np.abs(left).sum(-1) / items
    return float(np.maximum(variations - 2.0 * np.sqrt(counts.shape[-1] * effect / (4.0 * items)), 0.0).max())


def find_week_residuals(days: Sequence[CycleDay], model: WeekModel) -> list[tuple[Ints, Floats]]:
    """Returns the counts of days by slot, and the counts expected by the other days of their kind.

    The expectation is of independent items of the same number, scaled so that a difference varies as if the cycle
    were known.
    """
    numbers = np.array([day.day for day in days])
    table = np.array([day.counts for day in days], dtype=np.int64)
    pairs: list[tuple[Ints, Floats]] = []
    for mask in _build_kind_masks(model.kinds, numbers, table.shape[1]):
        part = table * mask[..., None]
        total, present = part.sum(0), (part.any(-1)).sum(0)
        scale = np.sqrt(np.maximum(present - 1, 0) / np.maximum(present, 1))[:, None]
        for counts in part:
            others = (total - counts).astype(np.float64)
            pooled = (others.sum(0) + 0.5) / (others.sum() + others.shape[1] / 2.0)
            shares = (others + SHRINKAGE * pooled) / (others.sum(-1, keepdims=True) + SHRINKAGE)
            left = scale * (counts - counts.sum(-1, keepdims=True) * shares)
            is_used = counts.any(-1) & (present > 1)
            pairs += list(zip(counts[is_used], left[is_used], strict=True))
    return pairs


def _build_kind_masks(kinds: Ints, days: Ints, slots: int) -> list[Bools]:
    """Returns which time slots of the given days are of each kind of day, one mask a kind, shape (D, slots)."""
    by_slot = _find_slot_kinds(kinds, days, slots)
    return [by_slot == kind for kind in range(int(kinds.max()) + 1)]


def _find_slot_kinds(kinds: Ints, days: Ints, slots: int) -> Ints:
    """Returns the kind of day of each slot of some days, shape (D, slots)."""
    result: Ints = kinds[np.asarray(compute_weekday(days))][:, np.arange(slots) * HOURS // slots]
    return result


def _fit_day_kind(table: Floats, *, is_smoothed: bool) -> tuple[Floats, Floats]:
    """Fits the shares of one kind of day to the counts of its days, shape (D, slots, K); returns also their sizes."""
    counts = table.sum(0)
    pooled = (counts.sum(0) + 0.5) / (counts.sum() + counts.shape[1] / 2.0)
    items = counts.sum(-1)
    if is_smoothed:
        weights = np.zeros(counts.shape[0])
        weights[[0, 1, -1, 2, -2]] = np.exp([0.0, -0.5, -0.5, -2.0, -2.0])
        kernel = np.stack([np.roll(weights, slot) for slot in range(weights.size)])
        smooth = kernel @ counts
        effective = smooth.sum(-1) ** 2 / np.maximum(kernel**2 @ items, 1e-9)
        counts = smooth * (effective / np.maximum(smooth.sum(-1), 1e-9))[:, None]
        items = effective
    return (counts + SHRINKAGE * pooled) / (items[:, None] + SHRINKAGE), items + SHRINKAGE
