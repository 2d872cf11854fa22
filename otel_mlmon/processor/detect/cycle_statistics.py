"""Statistics of whole days by slot: how shares vary from day to day, whether weekends differ, which hours are restless.

Source: docs/decisions (the daily cycle), with what was measured.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import fdtrc

from otel_mlmon.types import Floats, Ints

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
