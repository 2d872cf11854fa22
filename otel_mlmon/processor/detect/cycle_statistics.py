"""Statistics of whole days by slot: how shares vary from day to day, whether weekends differ, which hours are restless.

Source: docs/decisions (the daily cycle), with what was measured.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import fdtrc

from otel_mlmon.types import Floats, Ints

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

KIND_LEVEL: Final = 0.01
"""The level of the test whether the kinds of day differ."""


def estimate_cell_effect(table: Floats) -> float:
    """Estimates the variance between days over that of independent items, 1 or above; counts of shape (D, slots, K)."""
    days, _, bins = table.shape
    hours = table.reshape(days, HOURS, -1, bins).sum(2)
    items = hours.sum(-1)
    is_full = (items > 0.0).all(0)
    if not is_full.any():
        return 1.0
    hours, items = hours[:, is_full], items[:, is_full]
    shares = hours / items[..., None]
    pooled = hours.sum((0, 1)) / hours.sum()
    spread = 1.0 - float((pooled**2).sum())
    if spread <= 0.0:
        return 1.0
    between = shares.var(0, ddof=1).sum(-1)
    return max(1.0, float((between / ((1.0 / items).mean(0) * spread)).mean()))


def are_kinds_different(weekdays: Ints, weekends: Ints) -> bool:
    """Tests whether the shares of whole days differ between the kinds, of counts of shape (D, slots, K) each."""
    tables = [table.sum(1).astype(np.float64) for table in (weekdays, weekends)]
    shares = [table / table.sum(-1, keepdims=True) for table in tables]
    scale = np.sqrt(np.maximum(np.concatenate(shares).mean(0), 1e-9))
    first, second = (table / scale for table in shares)
    freedom = len(first) + len(second) - 2
    between = ((first.mean(0) - second.mean(0)) ** 2).sum() / (1.0 / len(first) + 1.0 / len(second))
    within = (((first - first.mean(0)) ** 2).sum() + ((second - second.mean(0)) ** 2).sum()) / freedom
    return bool(between > 0.0 and fdtrc(1.0, float(freedom), between / max(within, 1e-300)) < KIND_LEVEL)


def find_restless_slots(table: Floats) -> Floats:
    """Computes ρ by slot, shape (slots,), from the counts of some days, shape (D, slots, K)."""
    items = np.maximum(table.sum(-1), 1.0)
    shares = table / items[..., None]
    variance = shares.var(0, ddof=1).sum(-1) - ((1.0 - (shares**2).sum(-1)) / items).mean(0)
    near = RESTLESS_REACH if len(table[0]) == QUARTERS else 1
    reach = range(-near, near + 1)
    smooth = np.mean([np.roll(variance, shift) for shift in reach], axis=0)
    middle = np.median(smooth)
    spread = np.median(np.abs(smooth - middle))
    excess = np.where(smooth > middle + RESTLESS_SPREADS * spread, smooth - middle, 0.0)
    widest: Floats = np.maximum.reduce([np.roll(excess, shift) for shift in reach])
    return np.asarray(RESTLESS_FACTOR * np.sqrt(np.maximum(widest, 0.0) / 2.0))


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
