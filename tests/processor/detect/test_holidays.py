"""Days that are as another day of the week: no alarm on a holiday, and none missed for a drift that stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.cycle import DailyCycle, start_daily_cycle
from otel_mlmon.processor.detect.cycle_statistics import HOURS
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.holidays import MIN_NATS, find_likelier_weekday
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.state import DAY_NS, CycleDay
from otel_mlmon.processor.detect.week_model import WeekModel, fit_week
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.cycles import LOG10_LINE, MONDAY, POLICY

WORK, REST = np.array([0.6, 0.4]), np.array([0.48, 0.52])
PER_HOUR = 2_000
DAYS = 14
"""Days that are learned: Monday to Sunday twice."""


def draw(days: int, changed: dict[int, NDArray[np.float64]], *, begin: int = 0) -> NDArray[np.int64]:
    """Counts of shape (days, 24, 2) of a week with days of rest; the shares of some days are others from an hour on."""
    rng = np.random.default_rng(5)
    shares = np.array([[REST if day % 7 >= 5 else WORK] * HOURS for day in range(days)])
    for day, other in changed.items():
        shares[day, begin if day == min(changed) else 0 :] = other
    return rng.multinomial(PER_HOUR, shares)


@dataclass(slots=True)
class Judgement:
    """What is said of one stream from its first day on."""

    drift: list[int] = field(default_factory=list)
    """The hours, from the end of the learned days on, at which the state is drift."""
    scores: list[DriftScore] = field(default_factory=list)
    """The last one of each day."""
    weaknesses: list[str | None] = field(default_factory=list)
    """Of the shift that would be found, at the end of each day."""


WEEKS: dict[str, NDArray[np.int64]] = {
    "a holiday": draw(19, {16: REST}),
    "two holidays": draw(18, {15: REST, 16: REST}),
    "a working Saturday": draw(21, {19: WORK}),
    "rest from Monday on": draw(24, dict.fromkeys(range(14, 24), REST)),
    "rest from Thursday on": draw(24, dict.fromkeys(range(17, 24), REST)),
    "work on weekends": draw(28, dict.fromkeys((19, 20, 26, 27), WORK)),
    "rest from noon on": draw(17, {15: REST, 16: REST}, begin=12),
    "beyond a day of rest": draw(16, {15: REST - np.array([0.032, -0.032])}),
    "another": draw(15, {14: np.array([0.75, 0.25])}),
}
"""Counts of streams that are judged together, each as if alone."""


@pytest.fixture(scope="module")
def judgements() -> dict[str, Judgement]:
    evaluator = DriftEvaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE, statistics={})
    bins = HistogramBins(names=("a", "b"), is_ordered=False)
    streams = {name: StreamKey(ModelKey(name, ""), "prediction.label") for name in WEEKS}
    references = {
        name: ReferenceCounts(bins=bins, counts=counts[0, :3].sum(0), origin="learned")
        for name, counts in WEEKS.items()
    }
    judgements = {name: Judgement() for name in WEEKS}
    for hour in range(HOURS * max(map(len, WEEKS.values()))):
        day, start_ns = hour // HOURS, MONDAY * DAY_NS + hour * DAY_NS // HOURS
        names = [name for name, counts in WEEKS.items() if day < len(counts)]
        panes = {name: WEEKS[name][day, hour % HOURS] for name in names}
        scores = evaluator.evaluate(
            StreamWindow(
                stream=streams[name], start_ns=start_ns, end_ns=start_ns + DAY_NS // HOURS,
                reference=references[name], pane=panes[name], rolling=panes[name], rolling_start_ns=start_ns,
            )
            for name in names
        )  # fmt: skip
        is_end = hour % HOURS == HOURS - 1
        detectable = evaluator.measure_detectable([streams[name].model for name in names]) if is_end else {}
        for name, (_, score) in zip(names, scores, strict=True):
            if score.state == "drift":
                judgements[name].drift.append(hour - DAYS * HOURS)
            if is_end:
                shift = detectable[streams[name].model][streams[name].stream]
                judgements[name].scores.append(score.with_detectable(shift))
                judgements[name].weaknesses.append(shift.weakness)
    return judgements


def test_a_holiday_that_is_as_a_sunday_is_weak_and_no_alarm(judgements: dict[str, Judgement]) -> None:
    holiday = judgements["a holiday"]
    assert holiday.drift == []
    assert [score.state for score in holiday.scores[15:18]] == ["ok", "weak", "ok"]
    assert (holiday.weaknesses[16], holiday.weaknesses[-1]) == ("holiday", None)


@pytest.mark.parametrize("name", ["two holidays", "a working Saturday"])
def test_holidays_in_a_row_and_working_days_of_rest_are_no_alarm(judgements: dict[str, Judgement], name: str) -> None:
    assert judgements[name].drift == []


@pytest.mark.parametrize(("name", "first"), [("rest from Monday on", 14), ("rest from Thursday on", 17)])
def test_days_that_stay_so_are_told_on_the_third_also_over_a_weekend(
    judgements: dict[str, Judgement], name: str, first: int
) -> None:
    drift = judgements[name].drift
    workdays = [day for day in range(first, 24) if day % 7 < 5]
    assert drift
    assert (drift[0] + DAYS * HOURS) // HOURS == workdays[2]


def test_weekends_that_become_as_workdays_are_told_on_the_second_weekend(judgements: dict[str, Judgement]) -> None:
    drift = judgements["work on weekends"].drift
    assert drift
    assert (drift[0] + DAYS * HOURS) // HOURS == 26


def test_a_drift_that_begins_at_noon_is_no_holiday(judgements: dict[str, Judgement]) -> None:
    assert 36 <= judgements["rest from noon on"].drift[0] <= 40


def test_a_drift_to_something_else_is_no_holiday(judgements: dict[str, Judgement]) -> None:
    drift = judgements["another"].drift
    assert drift[0] <= 2
    assert drift[-1] == HOURS - 1


def test_a_drift_in_the_direction_of_a_day_of_rest_and_beyond_it_is_told_on_the_same_day(
    judgements: dict[str, Judgement],
) -> None:
    """Beyond a Sunday by .032: its hours alone would forgive .028, and the whole day does not."""
    drift = judgements["beyond a day of rest"].drift
    assert drift
    assert HOURS < drift[0] < 2 * HOURS


def build_model() -> WeekModel:
    counts = draw(DAYS, {})
    days = [CycleDay(day=MONDAY + day, counts=counts[day].astype(np.int32)) for day in range(DAYS)]
    model = fit_week(days, effect=1.0, is_smoothed=False, has_zone=True)
    assert model is not None
    return model


def test_the_likelier_weekday_is_one_of_another_kind() -> None:
    model = build_model()
    rest = np.rint(REST * PER_HOUR * np.ones((HOURS, 1))).astype(np.int64)
    work = np.rint(WORK * PER_HOUR * np.ones((HOURS, 1))).astype(np.int64)
    assert find_likelier_weekday(model, 2, rest, 1.0) in (5, 6)
    assert find_likelier_weekday(model, 2, work, 1.0) is None
    assert find_likelier_weekday(model, 5, rest, 1.0) is None
    few = np.zeros_like(rest)
    few[0] = np.rint(REST * 100)
    nats = float(few[0] @ np.log(REST / WORK))
    assert (find_likelier_weekday(model, 2, few, 1.0) is None) is (nats < MIN_NATS)
    assert find_likelier_weekday(model, 2, rest, 1e9) is None


def test_a_holiday_teaches_nothing() -> None:
    """A Tuesday that was once missing is known after the third, unless that is a holiday."""
    for holiday, known in ((22, [1, 15]), (15, [1, 22])):
        counts = draw(28, {holiday: REST})
        state = start_daily_cycle(MONDAY * DAY_NS, ("a", "b"))
        cycle = DailyCycle(state, reference=WORK, reference_count=5_000, is_learned=True)
        for hour, pane in enumerate(counts.reshape(-1, 2)):
            start_ns = MONDAY * DAY_NS + hour * DAY_NS // HOURS
            if hour // HOURS != 8:
                cycle.advance(start_ns, 1.0)
                cycle.compare_with_week(start_ns, pane, 1.0)
                cycle.add(start_ns, pane, evidence=0.0)
        cycle.advance((MONDAY + 28) * DAY_NS, 1.0)
        assert [day.day - MONDAY for day in state.days if (day.day - MONDAY) % 7 == 1] == known
