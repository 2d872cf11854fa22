"""Measures whole days by slot: how shares vary from day to day, which hours are restless, how large the cycle is.

Days of one kind may begin at any hour, so a table may hold parts of days; a slot without items says nothing.

Source: docs/decisions (the daily cycle), with what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import fdtrc

from otel_mlmon.types import Floats

ORDERS: Final = 4
"""Oscillations a day that a daily cycle is looked for in: once to four times."""

CYCLE_LEVEL: Final = 1e-3
"""The level of the test whether there is a daily cycle."""

QUARTERS: Final = 96
"""Quarters of an hour in a day, the narrowest slots."""

HOURS: Final = 24
"""Hours in a day, the widest slots."""

RESTLESS_SPREADS: Final = 6.0 * 1.4826
RESTLESS_FACTOR: Final = 1.5
RESTLESS_REACH: Final = 2
"""Quarters of an hour on each side; of hours, one."""


def estimate_cell_effect(table: Floats) -> float:
    """Estimates the variance between days over that of independent items, 1 or above; counts of shape (D, slots, K)."""
    days, _, bins = table.shape
    hours = table.reshape(days, HOURS, -1, bins).sum(2)
    items = hours.sum(-1)
    is_repeated = (items > 0.0).sum(0) > 1
    spread = 1.0 - float(((hours.sum((0, 1)) / max(hours.sum(), 1.0)) ** 2).sum())
    if spread <= 0.0 or not is_repeated.any():
        return 1.0
    hours, items = hours[:, is_repeated], items[:, is_repeated]
    between, counts = _sum_squares_between_days(hours, items)
    expected = np.divide(1.0, items, out=np.zeros_like(items), where=items > 0.0).sum(0) / counts
    return max(1.0, float((between / (counts - 1.0) / (expected * spread)).mean()))


def _sum_squares_between_days(table: Floats, items: Floats) -> tuple[Floats, Floats]:
    """Sums |share - mean|² over the days that have items in a slot, and counts these; shape (slots,) each."""
    shares = table / np.maximum(items, 1.0)[..., None]
    is_present = items > 0.0
    counts = is_present.sum(0).astype(np.float64)
    mean = shares.sum(0) / np.maximum(counts, 1.0)[:, None]
    squares: Floats = (((shares - mean) ** 2).sum(-1) * is_present).sum(0)
    return squares, counts


def find_restless_slots(tables: Sequence[Floats], excursions: Floats, effect: float) -> Floats:
    """Computes by slot the difference ρ that is forgiven at times of the day that vary from day to day.

    A variance says little of a batch that comes at another minute and in another size every night, so as much is
    forgiven there as any of the days was away from the others.

    Args:
        tables: The counts of the days of each kind, shape (D, slots, K) each; a slot without items says nothing.
        excursions: What `measure_excursions` says of the days, shape (D, slots).
        effect: φ.

    Returns:
        Total variations, shape (slots,).
    """
    slots, bins = tables[0].shape[1:]
    squares, freedom, noise, counts, farthest = np.zeros((5, slots))
    for table in tables:
        items = table.sum(-1)
        kind_squares, kind_counts = _sum_squares_between_days(table, items)
        squares += kind_squares
        freedom += np.maximum(kind_counts - 1.0, 0.0)
        shares = table / np.maximum(items, 1.0)[..., None]
        noise += ((1.0 - (shares**2).sum(-1)) / np.maximum(items, 1.0) * (items > 0.0)).sum(0)
        counts += kind_counts
        others = shares.sum(0) - shares
        variations = 0.5 * np.abs(shares - others / np.maximum(kind_counts - 1.0, 1.0)[:, None]).sum(-1)
        is_compared = (items > 0.0) & (kind_counts > 1.0)
        variations = np.maximum(variations - np.sqrt(bins * effect / (4.0 * np.maximum(items, 1.0))), 0.0)
        farthest = np.maximum(farthest, ((variations + excursions) * is_compared).max(0))
    variance = squares / np.maximum(freedom, 1.0) - noise / np.maximum(counts, 1.0)
    variance += 0.5 * np.square(excursions).mean(0)
    if slots == QUARTERS:
        reach = range(-RESTLESS_REACH, RESTLESS_REACH + 1)
        variance = np.mean([np.roll(variance, shift) for shift in reach], axis=0)
    else:
        reach = range(-1, 2)
    is_used = counts > 1.0
    middle = np.median(variance[is_used]) if is_used.any() else 0.0
    spread = np.median(np.abs(variance[is_used] - middle)) if is_used.any() else 0.0
    is_restless = is_used & (variance > middle + RESTLESS_SPREADS * spread)
    deviations = RESTLESS_FACTOR * np.sqrt(np.maximum(variance - middle, 0.0) / 2.0)
    forgiven = np.where(is_restless, np.maximum(deviations, farthest), 0.0)
    widest: Floats = np.maximum.reduce([np.roll(forgiven, shift) for shift in reach])
    return widest


def measure_excursions(quarters: Floats, slots: int, effect: float) -> Floats:
    """Measures how far the farthest quarter of an hour of each slot of a day is from the whole slot, beyond noise.

    Args:
        quarters: Counts of the day, shape (96, K).
        slots: Slots of a day.
        effect: φ.

    Returns:
        Total variations, shape (slots,); empty where slots are quarters of an hour, which have no parts.
    """
    if slots == QUARTERS:
        return np.zeros(0)
    parts = quarters.reshape(slots, QUARTERS // slots, -1)
    items = parts.sum(-1)
    totals = parts.sum(1)
    shares = totals / np.maximum(items.sum(1), 1.0)[:, None]
    variations = 0.5 * np.abs(parts / np.maximum(items, 1.0)[..., None] - shares[:, None]).sum(-1)
    noise = np.sqrt(parts.shape[-1] * effect / (4.0 * np.maximum(items, 1.0)))
    excursions: Floats = (np.maximum(variations - noise, 0.0) * (items > 0.0)).max(1)
    return excursions


def measure_daily_cycle(table: Floats) -> float:
    """Measures the daily cycle: the largest total variation between a time of the day and the mean of the day.

    It is there if the Fourier coefficients of the days, of orders 1 to 4, agree more than chance would let them:
    F = D |c̄|² / (Σ |c_d - c̄|² / (D - 1)) with (8, 8 (D - 1)) degrees of freedom.

    Args:
        table: Counts of at least two days, shape (D, slots, K).

    Returns:
        It, in [0, 1]; NaN where there is none.
    """
    days, slots, _ = table.shape
    items = table.sum(-1, keepdims=True)
    mean = table.sum(1, keepdims=True) / np.maximum(items.sum(1, keepdims=True), 1.0)
    residuals = np.where(items > 0.0, table / np.maximum(items, 1.0) - mean, 0.0)
    angles = 2.0 * np.pi * np.arange(1, ORDERS + 1)[:, None] * (np.arange(slots) + 0.5) / slots
    waves = np.concatenate([np.cos(angles), np.sin(angles)])
    coefficients = 2.0 / slots * np.einsum("ms,dsk->dmk", waves, residuals)
    common = coefficients.mean(0)
    white = 1.0 / np.sqrt(np.maximum(mean.mean((0, 1)), 1e-9))
    between = days * ((common * white) ** 2).sum()
    within = (((coefficients - common) * white) ** 2).sum() / (days - 1)
    freedom = 2.0 * ORDERS
    if not between > 0.0 or fdtrc(freedom, freedom * (days - 1), between / max(within, 1e-300)) >= CYCLE_LEVEL:
        return float("nan")
    return float(0.5 * np.abs(waves.T @ common).sum(-1).max())
