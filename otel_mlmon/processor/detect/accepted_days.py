"""Decides which whole days a daily cycle is learned from: those without evidence of drift, or whose evidence healed.

A day is accepted only if it was whole (with items in three quarters of the slots that the fullest day before had; the
first day with any) and no evidence in it reached half of the alarm line; the first two, which were judged by a
reference without hours, also if their shares are within .15 of that; the second of a weekday that was not as most days
are only within .05 of the first or of most days, since so much is forgiven on it. A nightly batch of another size each
night reaches that line in its largest nights, and where only the small ones teach it alarms for ever. So a day is
accepted too if that were four hours at most, and then there was no evidence any more, be it within the first four
hours of the next day.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.processor.detect.cycle_statistics import HOURS, QUARTERS, measure_excursions
from otel_mlmon.processor.detect.state import DAY_NS, CycleDay, CycleState
from otel_mlmon.processor.detect.week import MIN_DAYS, compute_weekday
from otel_mlmon.processor.detect.week_model import WeekModel
from otel_mlmon.types import Floats, Ints

MIN_FULL_SHARE: Final = 0.75
"""The share of the slots of the fullest day that a whole day has items in."""

MIN_SLOT_ITEMS: Final = 3_000.0
"""Items over φ that a slot has in seven days."""

MAX_QUIET_EVIDENCE: Final = 0.5
"""The part of the alarm line that the evidence of a quiet day stays below."""

MAX_LOUD_HOURS: Final = 4
"""Hours of a day in which it may be above, if it heals: a batch, not a drift."""

NEAR_REFERENCE: Final = 0.15
"""The total variation that the first days may be away from the reference without hours."""

MAX_CHANGE: Final = 0.05
"""The total variation that the second day of an odd weekday may be away from the first."""

_MAX_COUNT: Final = np.iinfo(np.int32).max


def settle_pending_day(state: CycleState, start_ns: int) -> bool:
    """Accepts a pending day into a daily cycle once the evidence at its end has healed, or drops it after too long.

    Args:
        state: Of the cycle; changed.
        start_ns: Of the present pane, Unix nanoseconds, by the stream's clock.

    Returns:
        Whether a day was accepted.
    """
    pending = state.pending
    if pending is None:
        return False
    is_healed = not state.evidence
    if is_healed:
        state.days.append(pending)
    if is_healed or start_ns - state.day * DAY_NS >= MAX_LOUD_HOURS * DAY_NS // HOURS:
        state.pending = None
    return is_healed


def accept_day(
    state: CycleState, model: WeekModel | None, *, reference: Floats, reference_count: int, is_known: bool
) -> bool:
    """Accepts an ended day into a daily cycle, drops it, or keeps it pending until its evidence of drift heals.

    Args:
        state: Of the cycle; changed.
        model: The week; None before it is known.
        reference: Shares of the reference without hours, shape (K,).
        reference_count: N of it.
        is_known: Whether a week is known, of this version or of the version before.

    Returns:
        Whether the day was accepted.
    """
    number = sum(compute_weekday(other.day) == compute_weekday(state.day) for other in state.days)
    is_whole = state.first_ns <= state.day * DAY_NS and _is_full_day(state)
    if not (is_whole and number < MIN_DAYS and _is_usual_day(state, model)):
        return False
    is_quiet = state.is_quiet or (not is_known and _is_near_reference(state, reference, reference_count))
    if not is_quiet and not 0 < state.loud_hours.bit_count() <= MAX_LOUD_HOURS:
        return False
    if not state.days and not state.inherited:
        _choose_slot_count(state)
    state.pending = CycleDay(
        day=state.day,
        counts=np.minimum(_count_slots(state), _MAX_COUNT).astype(np.int32),
        excursions=measure_excursions(state.today.astype(np.float64), state.slots, state.effect),
    )
    if not is_quiet and state.evidence:
        return False
    state.days.append(state.pending)
    state.pending = None
    return True


def _count_slots(state: CycleState) -> Ints:
    """Returns the counts of the present day by time slot, shape (slots, K)."""
    counts: Ints = state.today.reshape(state.slots, QUARTERS // state.slots, -1).sum(1)
    return counts


def _is_full_day(state: CycleState) -> bool:
    """Returns whether the present day has items in most of the slots in which the fullest day before had any."""
    slots = _count_slots(state).any(axis=1).sum()
    most = max((day.counts.any(axis=1).sum() for day in state.days), default=1)
    return bool(slots >= MIN_FULL_SHARE * most)


def _is_usual_day(state: CycleState, model: WeekModel | None) -> bool:
    """Returns whether the present day is like most days, or like the one before of its weekday, where that was odd."""
    weekday = int(compute_weekday(state.day))
    if model is None or not model.day_counts[weekday]:
        return True
    if all(model.is_known(weekday, slot) for slot in range(state.slots)):
        return True
    first = next(day.counts for day in state.days if compute_weekday(day.day) == weekday).sum(0)
    today = _count_slots(state)
    items = max(float(today.sum()), 1.0)
    noise = np.sqrt(first.size * state.effect / 4.0 * (1.0 / first.sum() + 1.0 / items))
    usual = today.sum(-1) @ model.shares[0] / items
    variations = [0.5 * np.abs(today.sum(0) / items - shares).sum() for shares in (first / first.sum(), usual)]
    return bool(min(variations) <= MAX_CHANGE + noise)


def _is_near_reference(state: CycleState, reference: Floats, reference_count: int) -> bool:
    day = state.today.sum(0)
    distance = 0.5 * np.abs(day / day.sum() - reference).sum() if day.any() else 1.0
    return bool(distance <= NEAR_REFERENCE + np.sqrt(day.size / (4.0 * max(reference_count, 1))))


def _choose_slot_count(state: CycleState) -> None:
    week = 7.0 * float(state.today.sum()) / max(state.effect, 1.0)
    state.slots = QUARTERS if week >= MIN_SLOT_ITEMS * QUARTERS else HOURS
    state.is_smoothed = week < MIN_SLOT_ITEMS * HOURS
