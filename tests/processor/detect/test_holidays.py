"""Days that are as another day of the week: no alarm on a holiday, and none missed for a drift that stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.cycle import DailyCycle, start_cycle
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
STREAM = StreamKey(ModelKey("m", ""), "prediction.label")
DAYS = 14
"""Days that are learned: Monday to Sunday twice."""


def draw(days: int, changed: dict[int, NDArray[np.float64]], *, begin: int = 0) -> NDArray[np.int64]:
    """Counts of shape (days, 24, 2) of a week with days of rest; the shares of some days are others from an hour on."""
    rng = np.random.default_rng(5)
    shares = np.array([[REST if day % 7 >= 5 else WORK] * HOURS for day in range(days)])
    for day, other in changed.items():
        shares[day, begin if day == min(changed) else 0 :] = other
    return rng.multinomial(PER_HOUR, shares)


def judge(counts: NDArray[np.int64]) -> tuple[list[int], DriftEvaluator, list[DriftScore]]:
    """The hours, from the end of the learned days on, at which the state is drift; and the last score of each day."""
    evaluator = DriftEvaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE, statistics={})
    bins = HistogramBins(names=("a", "b"), is_ordered=False)
    reference = ReferenceCounts(bins=bins, counts=counts[0, :3].sum(0), origin="learned")
    drift, scores = [], []
    for hour, pane in enumerate(counts.reshape(-1, 2)):
        start_ns = MONDAY * DAY_NS + hour * DAY_NS // HOURS
        window = StreamWindow(
            stream=STREAM, start_ns=start_ns, end_ns=start_ns + DAY_NS // HOURS, reference=reference, pane=pane,
            rolling=pane, rolling_start_ns=start_ns,
        )  # fmt: skip
        ((_, score),) = evaluator.evaluate([window])
        if score.state == "drift":
            drift.append(hour - DAYS * HOURS)
        if hour % HOURS == HOURS - 1:
            detectable = evaluator.measure_detectable({STREAM: reference})[STREAM]
            scores.append(score.with_detectable(detectable))
    return drift, evaluator, scores


def test_a_holiday_that_is_as_a_sunday_is_weak_and_no_alarm() -> None:
    drift, evaluator, scores = judge(draw(19, {16: REST}))
    assert drift == []
    assert [scores[day].state for day in (15, 16, 17)] == ["ok", "weak", "ok"]
    detectable = evaluator.find_detectable(STREAM)
    assert detectable is not None
    assert detectable.weakness is None


def test_the_reason_is_said() -> None:
    _, evaluator, _ = judge(draw(17, {16: REST}))
    detectable = evaluator.find_detectable(STREAM)
    assert detectable is not None
    assert detectable.weakness == "holiday"


def test_two_holidays_in_a_row_are_no_alarm() -> None:
    assert judge(draw(18, {15: REST, 16: REST}))[0] == []


def test_a_working_saturday_is_no_alarm() -> None:
    assert judge(draw(21, {19: WORK}))[0] == []


@pytest.mark.parametrize("first", [14, 17])
def test_days_that_stay_so_are_told_on_the_third_also_over_a_weekend(first: int) -> None:
    drift, _, _ = judge(draw(24, dict.fromkeys(range(first, 24), REST)))
    workdays = [day for day in range(first, 24) if day % 7 < 5]
    assert drift
    assert (drift[0] + DAYS * HOURS) // HOURS == workdays[2]


def test_weekends_that_become_as_workdays_are_told_on_the_second_weekend() -> None:
    drift, _, _ = judge(draw(28, dict.fromkeys((19, 20, 26, 27), WORK)))
    assert drift
    assert (drift[0] + DAYS * HOURS) // HOURS == 26


def test_a_drift_that_begins_at_noon_is_no_holiday() -> None:
    drift, _, _ = judge(draw(17, {15: REST, 16: REST}, begin=12))
    assert 36 <= drift[0] <= 40


def test_a_drift_to_something_else_is_no_holiday() -> None:
    drift, _, _ = judge(draw(15, {14: np.array([0.75, 0.25])}))
    assert drift[0] <= 2
    assert drift[-1] == HOURS - 1


def test_a_drift_in_the_direction_of_a_day_of_rest_and_beyond_it_is_told_on_the_same_day() -> None:
    """Beyond a Sunday by .032: its hours alone would forgive .028, and the whole day does not."""
    drift, _, _ = judge(draw(16, {15: REST - np.array([0.032, -0.032])}))
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
        state = start_cycle(MONDAY * DAY_NS, ("a", "b"))
        cycle = DailyCycle(state, reference=WORK, reference_count=5_000, is_learned=True)
        for hour, pane in enumerate(counts.reshape(-1, 2)):
            start_ns = MONDAY * DAY_NS + hour * DAY_NS // HOURS
            if hour // HOURS != 8:
                cycle.advance(start_ns, 1.0)
                cycle.compare_with_week(start_ns, pane, 1.0)
                cycle.add(start_ns, pane, evidence=0.0)
        cycle.advance((MONDAY + 28) * DAY_NS, 1.0)
        assert [day.day - MONDAY for day in state.days if (day.day - MONDAY) % 7 == 1] == known
