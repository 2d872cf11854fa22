"""Learns the daily cycle of a stream: its shares at each time of the day, on each kind of day of the week.

What repeats every day is neither drift nor bursts. Taken for bursts it makes φ, and with it what is forgiven, so large
that nothing is found any more. So the counts of whole days are kept by slot of the day, and from the third day on panes
are judged against their own time of the week (`week_model.py`):

- Slots are as narrow as the traffic of seven days allows: of 15 minutes where each has 3,000 φ items, else of an hour,
  with neighbours weighing e^(-1/2), e^-2 where even those have fewer.
- The null is the hull of the balls around the slots half an hour before, now and half an hour after, so that a cycle
  whose phase wanders is no drift, and around both kinds of day within 75 minutes of the hour at which one becomes the
  other, which a change of the clocks moves. The distance to these widens the ball of the components that learn.
- What is not known of r_s is counted with the larger of φ and of the variance between days over that of independent
  items, hour by hour. φ itself is estimated on what the cycle leaves, counts less n (r_s - p).
- A slot that is restless from day to day (a nightly batch of another size each night) forgives
  ρ_s = 1.5 √((w_s - med w)/2) more where w_s, its variance between days of a kind beyond sampling, is above the median
  by 6 robust standard deviations; what is near it, half an hour or one of wider slots, is included.
- A weekday that was not there yet may be a day of rest: .13 more is forgiven from Friday 10:00 to Monday 12:00 UTC,
  where somewhere on earth it is Saturday or Sunday (or on these two days, where the time zone is known), .06 on other
  days once two of these are known. One that was there once, and was not as most days are, is judged as those too, and
  .08 and its distance from these more is forgiven, since one odd day makes no pattern. Until then φ learns nothing, and
  the state is `weak`, but on those other days.
- Before two days are known panes are judged by the reference without hours. It says nothing of other hours than its
  own, so .03 more is forgiven for each hour since the first pane, .2 at most. Where two days hold fewer than 1,000 φ
  items nothing can be said of their hours: there the reference without hours stays, and nothing more is forgiven.

A day is accepted only if it was whole (with items in three quarters of the slots that the fullest day before had; the
first day with any) and no evidence in it reached half of the alarm line; the first two, which were judged by a
reference without hours, also if their shares are within .15 of that; the second of a weekday that was not as most days
are only within .05 of the first or of most days, since so much is forgiven on it. Two of each weekday are, and then
nothing changes any more: it never follows what it judges.

A reference that was not learned here, such as one of training data, has no hours. Then the cycle is laid around it:
r_s is its shares times r_s/p, p the shares of a week, normalised.

Days are those of the time zone of the stream's users where the configuration names it, with its changes of the clocks,
and else of UTC: then the hour at which a day begins is found from the days themselves.

Measured, rivals and what they lost: docs/decisions.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from otel_mlmon.processor.detect.accepted_days import MAX_QUIET_EVIDENCE, accept_day, settle_pending_day
from otel_mlmon.processor.detect.alternatives import compute_bin_set_sums
from otel_mlmon.processor.detect.bets import DayHypothesis, SlotHypothesis, compute_reference_variance
from otel_mlmon.processor.detect.cycle_statistics import HOURS, QUARTERS
from otel_mlmon.processor.detect.detectable import FORGIVEN_EARLY
from otel_mlmon.processor.detect.holidays import compute_kind_contrasts, end_holidays, find_holiday
from otel_mlmon.processor.detect.state import DAY_NS, CycleDay, CycleState
from otel_mlmon.processor.detect.week import MIN_DAYS, WEEKDAYS, compute_weekday
from otel_mlmon.processor.detect.week_model import WeekModel, find_week_residuals, fit_week
from otel_mlmon.types import Floats, Ints

FORGIVEN_REST: Final = 0.13
"""The shift that is forgiven beside the tolerance on a weekday that was not there yet and may be a day of rest."""

FORGIVEN_WEEKDAY: Final = 0.06
"""The same on any other weekday."""

FORGIVEN_ODD: Final = 0.08
"""The same on a weekday that was there once and is not as most days are."""

FORGIVEN_INHERITED: Final = 0.03
"""The shift that is forgiven beside the tolerance while the cycle is that of the version before."""

FORGIVEN_PER_HOUR: Final = 0.03
"""The shift that is forgiven beside the tolerance for each hour since the first pane, while no cycle is known."""

HULL_QUARTERS: Final = 2
"""How far from now the slots are, before and after, that are no drift either."""

BOUNDARY_QUARTERS: Final = 5
"""How far from now a change of the kind of day may be, so that both kinds are no drift."""

_QUARTER_NS: Final = DAY_NS // QUARTERS
_ENDLESS_NS: Final = 2**63
_WEEK_QUARTERS: Final = WEEKDAYS * QUARTERS
_REST: Final = {False: (4 * QUARTERS + 40, _WEEK_QUARTERS + 48), True: (5 * QUARTERS, _WEEK_QUARTERS)}
"""When a day of rest may begin and end, in quarters of an hour from Monday on, by whether the time zone is known."""
_WORKDAYS: Final = {False: slice(0, 4), True: slice(0, 5)}
"""The weekdays that say what working days are like."""


def start_daily_cycle(start_ns: int, bins: tuple[str, ...], time_zone: str = "") -> CycleState:
    """Returns the state of a new daily cycle of a stream whose first pane begins at `start_ns` by its own clock."""
    today = np.zeros((QUARTERS, len(bins)), dtype=np.int64)
    return CycleState(bins=bins, first_ns=start_ns, day=start_ns // DAY_NS, today=today, time_zone=time_zone)


class DailyCycle:
    """Learns the daily cycle of one stream, and tells which shares are no drift at a time of the week.

    All times are Unix nanoseconds plus what the stream's clock is ahead of UTC.

    Args:
        state: What was stored.
        reference: Shares of the reference without hours, shape (K,), above 0.
        reference_count: N of it.
        is_learned: Whether it was learned from the same traffic. The cycle is laid around any other.
        reference_ns: When it was begun to be learned; 0 if that is not known.
    """

    def __init__(
        self,
        state: CycleState,
        *,
        reference: Floats,
        reference_count: int,
        is_learned: bool,
        reference_ns: int = 0,
    ) -> None:
        self.state = state
        self._reference = reference
        self._reference_count = reference_count
        self._is_learned = is_learned
        self._reference_ns = reference_ns
        self._has_zone = bool(state.time_zone)
        self._model: WeekModel | None = None
        self._inherited: WeekModel | None = None
        """The week of the version before, until this one has its own."""
        self._null: tuple[int, int, SlotHypothesis | None] | None = None
        """The shares that count as no drift in panes that start from a time on, and before another."""
        self._contrasts: tuple[int, int, Floats] | None = None
        """How much likelier each bin is on each kind of day than today, in panes that start between two times."""
        self._days: dict[int, DayHypothesis | None] = {}
        """By weekday."""
        self._fit_models()

    @property
    def is_known(self) -> bool:
        """Whether two whole days of the stream are known, of this model version or of the version before."""
        return self._model is not None or self._inherited is not None

    def advance(self, start_ns: int, effect: float) -> bool:
        """Moves on to the day of a pane that starts at `start_ns`; returns whether the kinds of day changed by that.

        That is where a cycle is known for the first time, or other kinds of day, so that φ has to be estimated anew.

        Args:
            start_ns: Unix nanoseconds, by the stream's clock.
            effect: φ of the stream.
        """
        state, day, before = self.state, start_ns // DAY_NS, self._model
        if state.pending is None and day <= state.day:
            return False
        if state.pending is not None and settle_pending_day(state, start_ns):
            self._fit_models()
        if day > state.day:
            state.effect = effect
            end_holidays(state, self._model)
            if state.other_weekday < 0 and accept_day(
                state,
                self._model,
                reference=self._reference,
                reference_count=self._reference_count,
                is_known=self.is_known,
            ):
                self._fit_models()
            state.day, state.is_quiet, state.loud_hours, state.other_weekday = day, True, 0, -1
            state.today = np.zeros_like(state.today)
            self._contrasts = None
            self._days.clear()
        model = self._model
        if model is None or model is before:
            return False
        return before is None or not np.array_equal(before.kinds, model.kinds)

    def add(self, start_ns: int, counts: Ints, *, evidence: float) -> None:
        """Counts a pane of the present day, shape (K,), with the evidence after it as a part of the alarm line."""
        state = self.state
        if start_ns // DAY_NS == state.day:
            quarter = state.today[start_ns % DAY_NS * QUARTERS // DAY_NS]
            quarter += counts
            state.evidence = evidence
            if evidence >= MAX_QUIET_EVIDENCE:
                state.is_quiet = False
                state.loud_hours |= 1 << start_ns % DAY_NS * HOURS // DAY_NS

    def compare_with_week(self, start_ns: int, pane: Ints, effect: float) -> None:
        """Finds whether the present day is like another weekday, whose shares are then no drift today either.

        Args:
            start_ns: Of a pane that is not judged yet, Unix nanoseconds, by the stream's clock.
            pane: Its counts, shape (K,).
            effect: φ of the stream.
        """
        state, model, contrasts = self.state, self._model, self._contrasts
        if model is None or len(model.shares) == 1:
            return
        if contrasts is None or not contrasts[0] <= start_ns < contrasts[1]:
            begin_ns, slot = start_ns - start_ns % _QUARTER_NS, start_ns % DAY_NS * state.slots // DAY_NS
            values = compute_kind_contrasts(model, int(compute_weekday(state.day)), slot)
            contrasts = self._contrasts = begin_ns, begin_ns + _QUARTER_NS, values
        if find_holiday(state, model, start_ns, pane, effect, contrasts[2]):
            self._null = None
            self._days.clear()

    def find_slot_hypothesis(self, start_ns: int) -> SlotHypothesis | None:
        """Returns the shares that are no drift in a pane that starts at `start_ns`; None for those of the reference."""
        null = self._null
        if null is not None and null[0] <= start_ns < null[1]:
            return null[2]
        if not self.is_known:
            return self._build_early_null(start_ns)
        begin_ns = start_ns - start_ns % _QUARTER_NS
        weekday, quarter = int(compute_weekday(start_ns // DAY_NS)), start_ns % DAY_NS // _QUARTER_NS
        self._null = begin_ns, begin_ns + _QUARTER_NS, self._build_null(weekday, quarter)
        return self._null[2]

    def find_calm_time(self, start_ns: int) -> tuple[int, int]:
        """Returns from when on, and until when, panes that start there change nothing but counts; (0, 0) for never.

        That is the part of a quarter of an hour in which the same shares are no drift, of the present day.

        Args:
            start_ns: Of a pane whose shares were asked for last.
        """
        state, null = self.state, self._null
        is_compared = self._model is not None and len(self._model.shares) > 1
        if null is None or is_compared or state.pending is not None or start_ns // DAY_NS != state.day:
            return 0, 0
        begin_ns = start_ns - start_ns % _QUARTER_NS
        return max(begin_ns, null[0]), min(begin_ns + _QUARTER_NS, null[1])

    def build_day_hypothesis(self, start_ns: int) -> DayHypothesis | None:
        """Returns the shares that are no drift on the day of a pane that starts at `start_ns`, as the mean over slots.

        While no cycle is known it is what will be forgiven within the day; None for what the reference alone has.
        """
        weekday = int(compute_weekday(start_ns // DAY_NS))
        if weekday not in self._days:
            self._days[weekday] = self._build_day_null(weekday)
        return self._days[weekday]

    def _build_day_null(self, weekday: int) -> DayHypothesis | None:
        if not self.is_known:
            if self._has_little_traffic:
                return None
            null = self._build_pooled_null(FORGIVEN_EARLY)
            return DayHypothesis(null, float(self._reference_count), weakness="unknown_hours")
        width = QUARTERS // self.state.slots
        quarters = range(width // 2, QUARTERS, width)
        nulls = [self._build_null(weekday, quarter) for quarter in quarters]
        columns = SlotHypothesis(*(np.mean(np.array(column), axis=0) for column in zip(*nulls, strict=True)))
        model = self._find_week_model(weekday, QUARTERS // 2)
        size = float(model.sizes[0].sum()) if self._is_learned else float(self._reference_count)
        is_known = all(
            null.is_known or self._is_workday(model, weekday, quarter)
            for null, quarter in zip(nulls, quarters, strict=True)
        )
        is_holiday = self.state.other_weekday >= 0 and weekday == compute_weekday(self.state.day)
        weakness: Literal["holiday", "unknown_day"] | None = "holiday" if is_holiday else "unknown_day"
        return DayHypothesis(
            columns._replace(is_known=is_known), size, None if is_known else weakness, amplitude=model.amplitude
        )

    def list_residuals(self) -> list[tuple[Ints, Floats]]:
        """Returns the counts of each learned day by time of day, and those expected from the other days like it."""
        return [] if self._model is None else find_week_residuals(self.state.days, self._model)

    def _fit_models(self) -> None:
        """Fits the weekly pattern to the days learned so far, and another to those of the model version before."""
        self._null = self._contrasts = None
        self._days.clear()
        state = self.state
        self._model = self._fit_days_model(state.days)
        if self._model is not None and not self._is_learned:
            self._model = self._model.shift_to_reference(self._model.compute_mean_shares(), self._reference)
        if state.inherited and self._inherited is None:
            inherited = self._fit_days_model(state.inherited, effect=1.0)
            if inherited is not None:
                self._inherited = inherited.shift_to_reference(self._find_base_shares(inherited), self._reference)

    def _fit_days_model(self, days: list[CycleDay], effect: float | None = None) -> WeekModel | None:
        state = self.state
        return fit_week(
            days,
            effect=state.effect if effect is None else effect,
            is_smoothed=state.is_smoothed,
            has_zone=self._has_zone,
        )

    def _find_base_shares(self, model: WeekModel) -> Floats:
        """Returns the shares of the version before in the hours in which this version's reference was learned."""
        first_ns, slots = self.state.first_ns, self.state.slots
        if not self._is_learned or self._reference_ns <= 0 or first_ns - self._reference_ns >= DAY_NS:
            return model.compute_mean_shares()
        times_ns = np.linspace(self._reference_ns, first_ns, QUARTERS).astype(np.int64)
        places = times_ns % DAY_NS * slots // DAY_NS
        kinds = model.kinds[np.asarray(compute_weekday(times_ns // DAY_NS)), places * HOURS // slots]
        base: Floats = model.shares[kinds, places].mean(0)
        return base

    def _build_early_null(self, start_ns: int) -> SlotHypothesis | None:
        state = self.state
        quarters = (start_ns - state.first_ns) // _QUARTER_NS
        forgiven = min(FORGIVEN_EARLY, FORGIVEN_PER_HOUR * quarters / 4.0)
        is_empty = self._has_little_traffic or forgiven <= 0.0
        begin_ns = state.first_ns + quarters * _QUARTER_NS
        end_ns = begin_ns + _QUARTER_NS if is_empty or forgiven < FORGIVEN_EARLY else _ENDLESS_NS
        self._null = begin_ns, end_ns, None if is_empty else self._build_pooled_null(forgiven)
        return self._null[2]

    @property
    def _has_little_traffic(self) -> bool:
        """Whether two whole days hold too few items to say anything of single hours."""
        return not self.is_known and len(self.state.days) >= MIN_DAYS

    def _build_pooled_null(self, forgiven: float) -> SlotHypothesis:
        """Builds the shares that are no drift while nothing is known of single hours."""
        shares, total = self._reference, float(self._reference_count)
        sums, variance = compute_bin_set_sums(shares[None])[0], compute_reference_variance(shares, total)
        return SlotHypothesis(shares, sums, sums, 0.0, variance, total, 1.0, forgiven, is_known=True)

    def _find_week_model(self, weekday: int, quarter: int) -> WeekModel:
        """Returns the week model for a time: of this version if it knows that time, else of the one before if known."""
        slot = quarter * self.state.slots // QUARTERS
        models = [model for model in (self._model, self._inherited) if model is not None]
        return next((model for model in models if model.is_known(weekday, slot)), models[0])

    def _build_null(self, weekday: int, quarter: int) -> SlotHypothesis:
        slots = self.state.slots
        model = self._find_week_model(weekday, quarter)
        slot = quarter * slots // QUARTERS
        is_known = model.is_known(weekday, slot)
        kind = model.find_day_kind(weekday, slot)
        other = self.state.other_weekday if model is self._model else -1
        points = self._list_tolerated_slots(model, weekday, quarter)
        if not is_known:
            points.append((0, slot))
        if other >= 0:
            points = self._list_tolerated_slots(model, other, quarter) + points
            kind = points[0][0]
        kinds, places = np.array(list(dict.fromkeys(points))).T
        hull = model.shares[kinds, places]
        sums = compute_bin_set_sums(hull)
        shares = hull[0]
        size = float(model.sizes[kind, slot])
        is_inherited = model is self._inherited
        if not self._is_learned or is_inherited:
            size = 1.0 / (1.0 / size + 1.0 / max(self._reference_count, 1))
        forgiven = float(model.forgiven[places].max()) + FORGIVEN_INHERITED * is_inherited
        return SlotHypothesis(
            shares=shares,
            highest=sums.max(0),
            lowest=sums.min(0),
            width=float(0.5 * np.abs(hull - shares).sum(-1).max()),
            variance=compute_reference_variance(shares, size),
            size=size,
            effect=float(model.effects[kind]),
            forgiven=forgiven if is_known else forgiven + self._find_unknown_allowance(model, weekday, quarter),
            is_known=is_known and other < 0,
            is_restless=any(model.is_restless(place) for place in places.tolist()),
        )

    def _list_tolerated_slots(self, model: WeekModel, weekday: int, quarter: int) -> list[tuple[int, int]]:
        """Lists the kinds of day and slots whose shares are no drift at a time of a weekday, its own first."""
        before, after, kind_before, kind_after = (
            self._find_kind_slot(model, weekday * QUARTERS + quarter + quarters)
            for quarters in (-HULL_QUARTERS, HULL_QUARTERS, -BOUNDARY_QUARTERS, BOUNDARY_QUARTERS)
        )
        slot = quarter * self.state.slots // QUARTERS
        points = [(model.find_day_kind(weekday, slot), slot), before, after]
        return [*points, (kind_before[0], slot), (kind_after[0], slot)]

    def _find_kind_slot(self, model: WeekModel, quarters: int) -> tuple[int, int]:
        """Returns the kind of day and the slot of a time, in quarters of an hour since Monday."""
        weekday, quarter = divmod(quarters % _WEEK_QUARTERS, QUARTERS)
        slot = quarter * self.state.slots // QUARTERS
        return model.find_day_kind(weekday, slot), slot

    def _find_unknown_allowance(self, model: WeekModel, weekday: int, quarter: int) -> float:
        """Returns the difference of shares that is forgiven at a time of the week that is not known."""
        if model.day_counts[weekday]:
            return FORGIVEN_ODD + float(model.distances[weekday])
        return FORGIVEN_WEEKDAY if self._is_workday(model, weekday, quarter) else FORGIVEN_REST

    def _is_workday(self, model: WeekModel, weekday: int, quarter: int) -> bool:
        """Returns whether a weekday that was not there yet is likely to be like those that were."""
        begin, end = _REST[self._has_zone]
        is_rest = (weekday * QUARTERS + quarter - begin) % _WEEK_QUARTERS < end - begin
        has_workdays = int(model.day_counts[_WORKDAYS[self._has_zone]].sum()) >= MIN_DAYS
        return has_workdays and not is_rest and not model.day_counts[weekday]
