"""The daily cycle of a stream: quiet traffic with cycles stays quiet, and drift on top of a cycle is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.bets import compute_reference_variance
from otel_mlmon.processor.detect.cycle import (
    FORGIVEN_ODD,
    FORGIVEN_REST,
    FORGIVEN_WEEKDAY,
    DailyCycle,
    start_daily_cycle,
)
from otel_mlmon.processor.detect.cycle_statistics import (
    QUARTERS,
    estimate_cell_effect,
    find_restless_slots,
    measure_daily_cycle,
    measure_excursions,
)
from otel_mlmon.processor.detect.detectable import FORGIVEN_EARLY
from otel_mlmon.processor.detect.state import DAY_NS
from tests.support.cycles import MONDAY, count_alarms, hours_to_alarm, traffic
from tests.support.simulations import choose_size

Table = NDArray[np.int64]


def fed(days: Table, *, is_learned: bool = True, quiet: tuple[bool, ...] | None = None) -> DailyCycle:
    """A cycle that began at a Monday's first moment and was shown these days, shape (D, 96, K)."""
    shares = days.sum((0, 1)) / days.sum()
    state = start_daily_cycle(MONDAY * DAY_NS, tuple("abcdefgh"[: days.shape[2]]))
    cycle = DailyCycle(state, reference=shares, reference_count=5_000, is_learned=is_learned)
    for day, counts in enumerate(days):
        for slot, pane in enumerate(counts):
            start_ns = (MONDAY + day) * DAY_NS + slot * DAY_NS // QUARTERS
            cycle.advance(start_ns, 1.0)
            cycle.add(start_ns, pane, evidence=0.0 if quiet is None or quiet[day] else 1.0)
    cycle.advance((MONDAY + len(days)) * DAY_NS, 1.0)
    return cycle


@pytest.mark.simulation
def test_cycles_are_quiet_after_the_second_day() -> None:
    kinds = ("none", "daily", "square", "weekend", "batch")
    streams, days = choose_size((2, 8), (6, 10))
    counts = np.concatenate([traffic(kind, streams=streams, days=days, seed=31) for kind in kinds])
    alarms = count_alarms(counts).reshape(5, streams).tolist()
    assert dict(zip(kinds, alarms, strict=True)) == dict.fromkeys(kinds, [0] * streams)


@pytest.mark.simulation
def test_drift_on_a_cycle_is_found() -> None:
    cells = [("daily", 0.15, 6.0), ("daily", 0.2, 2.0), ("none", 0.1, 4.0)]
    streams = choose_size(4, 10)
    counts = [traffic(kind, streams=streams, days=9, seed=32, shift=shift, shifted_from=8) for kind, shift, _ in cells]
    found = hours_to_alarm(np.concatenate(counts), from_day=8).reshape(len(cells), streams)
    hours = np.quantile(found, 0.9, axis=1, method="inverted_cdf")
    assert (hours <= [limit for _, _, limit in cells]).all(), hours


def test_the_reference_of_a_slot_is_what_its_days_had() -> None:
    days = np.tile(np.array([600, 400]), (2, QUARTERS, 1))
    days[:, 40:48] = [900, 100]
    cycle = fed(days)
    null = cycle.find_slot_hypothesis((MONDAY + 2) * DAY_NS + 44 * DAY_NS // QUARTERS)
    assert null is not None
    pooled = (days.sum((0, 1)) + 0.5) / (days.sum() + 1)
    assert null.shares == pytest.approx((np.array([1_800, 200]) + 200 * pooled) / 2_200)
    assert (null.size, null.effect, null.is_known) == (2_200.0, 1.0, False)
    edge = cycle.find_slot_hypothesis((MONDAY + 2) * DAY_NS + 47 * DAY_NS // QUARTERS)
    assert edge is not None
    assert edge.width > 0.2
    assert (edge.highest >= edge.lowest).all()


def test_a_reference_of_training_data_stays_the_middle_of_its_cycle() -> None:
    days = np.tile(np.array([600, 400]), (2, QUARTERS, 1))
    days[:, 40:48] = [900, 100]
    state = fed(days).state
    around = DailyCycle(state, reference=np.array([0.5, 0.5]), reference_count=10_000, is_learned=False)
    null = around.find_slot_hypothesis((MONDAY + 2) * DAY_NS)
    assert null is not None
    assert null.shares[0] < 0.5
    assert null.size < 2_200


def test_a_day_with_evidence_is_not_accepted_and_two_of_each_weekday_are_enough() -> None:
    days = np.tile(np.array([600, 400]), (23, QUARTERS, 1))
    cycle = fed(days, quiet=tuple(day != 2 for day in range(23)))
    assert [day.day - MONDAY for day in cycle.state.days] == [*(day for day in range(14) if day != 2), 16]


def test_a_first_day_far_from_the_reference_teaches_nothing() -> None:
    days = np.tile(np.array([600, 400]), (2, QUARTERS, 1))
    days[1] = [100, 900]
    state = start_daily_cycle(MONDAY * DAY_NS, ("a", "b"))
    cycle = DailyCycle(state, reference=np.array([0.6, 0.4]), reference_count=5_000, is_learned=True)
    for day in range(2):
        start_ns = (MONDAY + day) * DAY_NS
        cycle.advance(start_ns, 1.0)
        cycle.add(start_ns, days[day].sum(0), evidence=1.0)
    cycle.advance((MONDAY + 2) * DAY_NS, 1.0)
    assert len(cycle.state.days) == 1
    assert not cycle.is_known


def test_before_the_hours_are_known_more_is_forgiven_with_every_hour() -> None:
    state = start_daily_cycle(MONDAY * DAY_NS, ("a", "b"))
    cycle = DailyCycle(state, reference=np.array([0.6, 0.4]), reference_count=5_000, is_learned=True)
    assert cycle.find_slot_hypothesis(MONDAY * DAY_NS) is None
    hour, later = (cycle.find_slot_hypothesis(MONDAY * DAY_NS + hours * DAY_NS // 24) for hours in (1, 20))
    assert hour is not None
    assert later is not None
    assert [hour.forgiven, later.forgiven] == pytest.approx([0.03, FORGIVEN_EARLY])


def test_small_traffic_keeps_its_reference() -> None:
    days = np.tile(np.array([1, 1]), (3, QUARTERS, 1))
    assert fed(days).find_slot_hypothesis((MONDAY + 3) * DAY_NS) is None


def forgiven(cycle: DailyCycle, day: int, hour: int = 12) -> float:
    null = cycle.find_slot_hypothesis((MONDAY + day) * DAY_NS + hour * DAY_NS // 24)
    assert null is not None
    assert null.is_known == (null.forgiven == 0.0)
    return null.forgiven


def test_weekdays_that_were_not_there_yet_may_be_days_of_rest() -> None:
    cycle = fed(np.tile(np.array([600, 400]), (3, QUARTERS, 1)))
    assert [forgiven(cycle, day, hour) for day, hour in ((3, 12), (4, 9), (7, 0))] == [
        FORGIVEN_WEEKDAY, FORGIVEN_WEEKDAY, 0.0,
    ]  # fmt: skip
    assert [forgiven(cycle, day, hour) for day, hour in ((4, 10), (5, 12), (6, 23))] == [FORGIVEN_REST] * 3


def test_days_of_rest_say_little_of_the_others() -> None:
    state = start_daily_cycle((MONDAY + 5) * DAY_NS, ("a", "b"))
    cycle = DailyCycle(state, reference=np.array([0.6, 0.4]), reference_count=5_000, is_learned=True)
    for pane in range(2 * QUARTERS):
        start_ns = (MONDAY + 5) * DAY_NS + pane * DAY_NS // QUARTERS
        cycle.advance(start_ns, 1.0)
        cycle.add(start_ns, np.array([600, 400]), evidence=0.0)
    cycle.advance((MONDAY + 7) * DAY_NS, 1.0)
    assert [forgiven(cycle, day) for day in (7, 9)] == [FORGIVEN_REST] * 2


def test_a_weekday_that_was_odd_once_is_judged_as_the_others_too() -> None:
    days = np.tile(np.array([600, 400]), (7, QUARTERS, 1))
    days[5:] = [400, 600]
    days = np.random.default_rng(1).poisson(days)
    cycle = fed(days)
    assert [forgiven(cycle, day) for day in (7, 11, 12)] == [0.0, 0.0, FORGIVEN_ODD]
    saturday = cycle.find_slot_hypothesis((MONDAY + 12) * DAY_NS + DAY_NS // 2)
    assert saturday is not None
    assert (saturday.shares[0], saturday.highest[0]) == pytest.approx((0.4, 0.6), abs=0.02)


@pytest.mark.parametrize(("moved", "is_accepted"), [(0.02, True), (0.10, True), (0.20, False), (-0.10, False)])
def test_a_drift_on_an_odd_weekday_is_not_learned(moved: float, is_accepted: bool) -> None:
    """Saturday and Sunday are odd by .1; the second Saturday is nearly so, as a working day is, or otherwise."""
    days = np.tile(np.array([600, 400]), (13, QUARTERS, 1))
    days[5:7] = [500, 500]
    days[12] = [500 + 1_000 * moved, 500 - 1_000 * moved]
    cycle = fed(np.random.default_rng(2).poisson(days))
    assert (cycle.state.days[-1].day == MONDAY + 12) is is_accepted


def test_parts_of_days_say_nothing_of_the_other_slots() -> None:
    rng = np.random.default_rng(4)
    table = rng.multinomial(900, [0.6, 0.4], size=(7, QUARTERS)).astype(np.float64)
    table[3:, :48] = 0.0
    assert estimate_cell_effect(table) < 1.6
    assert find_restless_slots([table], np.zeros(table.shape[:2]), 1.0).max() < 0.03


def test_restless_slots_and_the_variance_between_days() -> None:
    rng = np.random.default_rng(4)
    table = rng.multinomial(900, [0.6, 0.4], size=(7, QUARTERS)).astype(np.float64)
    assert estimate_cell_effect(table) < 1.6
    assert find_restless_slots([table], np.zeros(table.shape[:2]), 1.0).max() < 0.03
    for day in range(7):
        table[day, 8:10] = [900 - 100 * day, 100 * day]
    restless = find_restless_slots([table], np.zeros(table.shape[:2]), 1.0)
    assert restless[8:10].min() > 0.2
    assert restless[20:90].max() < 0.03


def test_a_restless_slot_forgives_what_the_farthest_day_was_away() -> None:
    """A batch that comes at another time each night is at each minute on few nights, so its deviation is small."""
    table = np.random.default_rng(4).multinomial(900, [0.6, 0.4], size=(14, QUARTERS)).astype(np.float64)
    for day in range(14):
        table[day, 6 + day % 7] = [270, 630]
    restless = find_restless_slots([table], np.zeros(table.shape[:2]), 1.0)
    assert restless[6:13].min() > 0.25
    assert restless[20:90].max() < 0.03


def test_an_excursion_is_how_far_a_quarter_is_from_its_hour() -> None:
    quarters = np.tile([600.0, 400.0], (QUARTERS, 1))
    quarters[9] = [200, 800]
    excursions = measure_excursions(quarters, 24, 1.0)
    assert excursions[2] == pytest.approx(0.3 - math.sqrt(2.0 / 4_000.0))
    assert np.delete(excursions, 2).tolist() == [0.0] * 23
    assert measure_excursions(quarters, QUARTERS, 1.0).size == 0


def test_what_a_reference_does_not_know() -> None:
    assert compute_reference_variance(np.full(4, 0.25), 1_000) == pytest.approx(4 / 4_000)
    assert math.isinf(compute_reference_variance(np.full(4, 0.25), 0))


@pytest.mark.parametrize(("kind", "amplitude", "expected"), [("daily", 0.05, 0.05), ("daily", 0.03, 0.03)])
def test_a_daily_cycle_is_found_and_measured(kind: str, amplitude: float, expected: float) -> None:
    days = traffic(kind, streams=6, days=4, seed=31, amplitude=amplitude).reshape(6, 4, 24, 6, 4).sum(3)
    found = [measure_daily_cycle(table.astype(np.float64)) for table in days]
    assert found == pytest.approx([expected] * 6, rel=0.3)


def test_no_daily_cycle_is_found_where_there_is_none() -> None:
    days = traffic("none", streams=60, days=3, seed=32).reshape(60, 3, 24, 6, 4).sum(3)
    found = [measure_daily_cycle(table.astype(np.float64)) for table in days]
    assert sum(not math.isnan(amplitude) for amplitude in found) <= 1
