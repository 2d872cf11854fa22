"""Finds days that are like another day of the week, such as a public holiday with the mix of a Sunday.

Nobody says when holidays are, and such a day is no drift. The counts since midnight are held against every weekday that
is known, hour by hour:

    ln LR_w = Σ c ln(r_w/r_today)/φ

A weekday that is likelier by e⁵, and no farther than .02 beyond noise, is no drift either for the rest of the day, as
long as that stays so: it is asked again every quarter of an hour. A drift that begins at noon is not taken for a
holiday, since the hours before speak against it; one that begins at midnight, and looks as another weekday does, is
taken for one for two days at most, and is told then; one that goes the same way and further is told within hours.

The two days are counted until a usual day of that weekday's kind has come and gone, so that no weekend between lets it
begin again. Such a day teaches nothing.

Choice: docs/decisions (daily cycles), with the price that was measured.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.processor.detect.cycle_statistics import HOURS, QUARTERS
from otel_mlmon.processor.detect.state import DAY_NS, CycleState
from otel_mlmon.processor.detect.week import WEEKDAYS, compute_weekday
from otel_mlmon.processor.detect.week_model import WeekModel
from otel_mlmon.types import Bools, Floats, Ints

MIN_NATS: Final = 5.0
"""By how much likelier, as a logarithm, another weekday has to be."""

MIN_ITEMS: Final = 20.0
"""Items over φ of a pane that may raise an alarm by itself; smaller ones are looked at once there is some evidence."""

MIN_EVIDENCE: Final = 0.25
"""So much of the alarm line."""

MAX_HOURS: Final = 42
"""How long after the first day was found to be as another one a further day may be."""

MAX_MISFIT: Final = 0.02
"""How far a day may be from the other weekday, as total variation beyond noise."""

MIN_HOURS: Final = 3
"""In how many hours two weekdays of different kinds differ: when a day begins is known to an hour or two."""

_HOUR_NS: Final = DAY_NS // HOURS


def compute_kind_contrasts(model: WeekModel, weekday: int, slot: int) -> Floats:
    """Computes how much likelier each bin is on each kind of day than on a weekday, in nats, shape (kinds, K)."""
    logs = np.log(model.shares[:, slot])
    contrasts: Floats = logs - logs[model.find_day_kind(weekday, slot)]
    return contrasts


def find_holiday(
    state: CycleState, model: WeekModel, start_ns: int, pane: Ints, effect: float, contrasts: Floats
) -> bool:
    """Finds whether the present day is like another weekday, and notes it in the state; returns whether that is new.

    Args:
        state: Of the cycle; changed.
        model: The week.
        start_ns: Of a pane that is not judged yet, Unix nanoseconds, by the stream's clock.
        pane: Its counts, shape (K,).
        effect: φ of the stream.
        contrasts: From `compute_kind_contrasts`, of today at the time of the pane.
    """
    if len(model.shares) == 1 or state.evidence >= 1.0:
        return False
    if state.other_weekday >= 0:
        # A new quarter of an hour: evidence alone would not tell a drift of which most is forgiven on a holiday.
        is_due = state.evidence >= MIN_EVIDENCE or not state.today[start_ns % DAY_NS * QUARTERS // DAY_NS].any()
        return is_due and _refute_holiday(state, model, start_ns)
    if state.other_since_ns and start_ns - state.other_since_ns >= MAX_HOURS * _HOUR_NS:
        return False
    # This is asked of every pane of every stream: `max` of a short list takes a fifth of the time of the array's.
    if state.evidence < MIN_EVIDENCE and (
        max((contrasts @ pane).tolist()) < MIN_NATS * effect or pane.sum() < MIN_ITEMS * effect
    ):
        return False
    weekday, slot = int(compute_weekday(state.day)), start_ns % DAY_NS * state.slots // DAY_NS
    if not all(model.is_known(weekday, slot) for slot in range(state.slots)):
        return False
    counts = state.today.reshape(state.slots, QUARTERS // state.slots, -1).sum(1)
    counts[slot] += pane
    other = find_likelier_weekday(model, weekday, counts, effect)
    if other is None:
        return False
    state.other_weekday = other
    if not state.other_since_ns:
        state.other_since_ns, state.other_from = start_ns, weekday
    return True


def end_holidays(state: CycleState, model: WeekModel | None) -> None:
    """Notes at the end of a day that a holiday is over, if it was a usual day of a holiday's kind."""
    if model is None or not state.other_since_ns or state.other_weekday >= 0 or not state.is_quiet:
        return
    if _is_same_kind(model, int(compute_weekday(state.day)), state.other_from):
        state.other_since_ns = 0


def find_likelier_weekday(model: WeekModel, weekday: int, counts: Ints, effect: float) -> int | None:
    """Finds the weekday that a day is like, if that is much likelier than the day's own weekday.

    Args:
        model: The week.
        weekday: The day's, 0 for a Monday.
        counts: Since midnight, shape (slots, K).
        effect: φ.

    Returns:
        Another weekday, whose kinds of hours are others; None for none.
    """
    places = np.arange(len(counts))
    hours, is_clear = _find_clear_hours(model, len(counts))
    logs = np.log(model.shares)
    usual = logs[hours[weekday], places]
    best, best_nats = None, MIN_NATS * max(effect, 1.0)
    for other in range(WEEKDAYS):
        if not model.day_counts[other] or _is_same_kind(model, other, weekday):
            continue
        ratios = (counts * (logs[hours[other], places] - usual)).sum(-1)
        nats = float(ratios[is_clear[weekday] & is_clear[other]].sum())
        if nats >= best_nats and _measure_misfit(model, other, weekday, counts, effect) <= MAX_MISFIT:
            best, best_nats = other, nats
    return best


def _refute_holiday(state: CycleState, model: WeekModel, start_ns: int) -> bool:
    """Ends the treatment of the present day as another weekday if it is unlike both, until a usual day has passed."""
    counts = state.today.reshape(state.slots, QUARTERS // state.slots, -1).sum(1)
    weekday = int(compute_weekday(state.day))
    if _measure_misfit(model, state.other_weekday, weekday, counts, state.effect) <= MAX_MISFIT:
        return False
    state.other_weekday = -1
    state.other_since_ns = start_ns - MAX_HOURS * _HOUR_NS
    return True


def _measure_misfit(model: WeekModel, other: int, weekday: int, counts: Ints, effect: float) -> float:
    """Measures how far the counts since midnight are from another weekday, beyond two standard deviations."""
    hours, is_clear = _find_clear_hours(model, len(counts))
    part = counts * (is_clear[weekday] & is_clear[other])[:, None]
    items = max(float(part.sum()), 1.0)
    expected = part.sum(-1) @ model.shares[hours[other], np.arange(len(counts))]
    variation = 0.5 * float(np.abs(part.sum(0) - expected).sum()) / items
    return variation - 2.0 * float(np.sqrt(part.shape[1] * max(effect, 1.0) / (4.0 * items)))


def _find_clear_hours(model: WeekModel, slots: int) -> tuple[Ints, Bools]:
    """Finds the kind of each slot of the week, and which slots are not near those of another kind, shape (7, slots)."""
    week = model.kinds.ravel()
    is_clear = ((week == np.roll(week, 1)) & (week == np.roll(week, -1))).reshape(WEEKDAYS, HOURS)
    hours = np.arange(slots) * HOURS // slots
    return model.kinds[:, hours], is_clear[:, hours]


def _is_same_kind(model: WeekModel, one: int, other: int) -> bool:
    """Returns whether two weekdays of a week model are of the same kind."""
    return int((model.kinds[one] != model.kinds[other]).sum()) < MIN_HOURS
