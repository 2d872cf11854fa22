"""What is no drift in one pane of streams whose reference depends on the time of the day."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from otel_mlmon.types import Bools, Floats, Indices


class SlotNull(NamedTuple):
    """What is no drift at one time of the day, of K bins."""

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


class DayNull(NamedTuple):
    """What is no drift on a day as the present one, as the mean of its slots."""

    null: SlotNull
    size: float
    """N of all days together."""
    is_known: bool
    """Whether two whole days of this kind are known."""
    amplitude: float = math.nan
    """The largest total variation between a time of the day and the mean of the day; NaN without a daily cycle."""


class SlotArrays(NamedTuple):
    """Stacks what is no drift for S streams, as `SlotNull` has it, and which of them have a cycle."""

    shares: Floats
    highest: Floats
    lowest: Floats
    width: Floats
    variance: Floats
    size: Floats
    effect: Floats
    forgiven: Floats
    is_known: Bools
    has_cycle: Bools

    def select(self, rows: Bools | slice) -> SlotArrays:
        """Returns some of the streams."""
        columns: list[Any] = [column[rows] for column in self]
        return SlotArrays(*columns)


def stack_slots(
    rows: Indices, nulls: Sequence[SlotNull | None], default: Callable[[int], SlotNull]
) -> SlotArrays | None:
    """Stacks what is no drift for some streams, `default` of the row for one without a cycle; None if none has one."""
    has_cycle = np.array([null is not None for null in nulls])
    if not has_cycle.any():
        return None
    slots = [null or default(row) for row, null in zip(rows.tolist(), nulls, strict=True)]
    return SlotArrays._make([*(np.array(column) for column in zip(*slots, strict=True)), has_cycle])


def compute_reference_variance(shares: Floats, total: float) -> float:
    """Computes the square of what is not known of shares, shape (K,), of N items, over φ: K²v/4(K-1)N, v = Σ p(1-p).

    It is K/4N where all shares are alike, and infinite for an empty reference, which knows nothing.
    """
    bins = shares.size
    if not total or bins < 2:
        return bins / (4.0 * total) if total else np.inf
    return bins**2 * float((shares * (1.0 - shares)).sum()) / (4.0 * (bins - 1) * total)
