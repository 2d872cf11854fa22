"""Which days teach a stream what is usual: also those of a batch that was too large, once its evidence has healed."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.accepted_days import MAX_LOUD_HOURS
from otel_mlmon.processor.detect.cycle import DailyCycle, start_daily_cycle
from otel_mlmon.processor.detect.cycle_statistics import HOURS
from otel_mlmon.processor.detect.state import DAY_NS
from tests.support.cycles import MONDAY, judge

HOUR_NS = DAY_NS // HOURS


def learn(*evidence: dict[int, float]) -> list[int]:
    """The accepted days after three quiet ones and these, each with evidence by hour; and the day that is pending."""
    state = start_daily_cycle(MONDAY * DAY_NS, ("a", "b"))
    cycle = DailyCycle(state, reference=np.array([0.6, 0.4]), reference_count=5_000, is_learned=True)
    days: list[dict[int, float]] = [{}, {}, {}, *evidence]
    for day, by_hour in enumerate(days):
        for hour in range(HOURS):
            start_ns = (MONDAY + day) * DAY_NS + hour * HOUR_NS
            cycle.advance(start_ns, 1.0)
            cycle.add(start_ns, np.array([600, 400]), evidence=by_hour.get(hour, 0.0))
    cycle.advance((MONDAY + len(days)) * DAY_NS, 1.0)
    assert [day.day - MONDAY for day in state.days][:3] == [0, 1, 2]
    return [day.day - MONDAY - 3 for day in state.days[3:]]


@pytest.mark.parametrize(("hours", "is_accepted"), [(1, True), (MAX_LOUD_HOURS, True), (MAX_LOUD_HOURS + 1, False)])
def test_a_day_whose_evidence_healed_within_hours_is_accepted(hours: int, is_accepted: bool) -> None:
    assert learn(dict.fromkeys(range(8, 8 + hours), 1.3)) == [0] * is_accepted


def test_evidence_that_stays_small_is_quiet() -> None:
    assert learn(dict.fromkeys(range(HOURS), 0.4)) == [0]


def test_a_day_at_whose_end_there_is_evidence_waits_for_it_to_heal() -> None:
    late = {22: 1.0, 23: 1.2}
    assert learn(late) == []
    assert learn(late, {0: 1.1, 1: 0.7}) == [0, 1]
    assert learn(late, dict.fromkeys(range(MAX_LOUD_HOURS), 1.1)) == [1]  # that night's is the next day's
    assert learn(late, dict.fromkeys(range(HOURS), 1.1), {}) == [2]


@pytest.mark.parametrize("per_pane", [120, 1_800])
def test_a_nightly_batch_of_any_size_is_learned(per_pane: int) -> None:
    """Hours and quarters of an hour as slots; a batch of up to four times the other traffic, or none, jittering."""
    rng = np.random.default_rng(9)
    streams, days, panes = 2, 18, 48
    counts = rng.multinomial(per_pane, [0.4, 0.3, 0.2, 0.1], size=(streams, days, panes))
    sizes = rng.uniform(0.0, 4.0, (streams, days)) * per_pane
    places = rng.integers(3, 6, (streams, days))
    for stream, day in np.ndindex(streams, days):
        counts[stream, day, places[stream, day]] += rng.multinomial(int(sizes[stream, day]), [0.1, 0.2, 0.3, 0.4])
    moved = counts.copy()
    moved[:, -1, 24:] = rng.multinomial(per_pane, [0.25, 0.3, 0.2, 0.25], size=(streams, panes - 24))
    is_drift = judge(np.concatenate([counts, moved]))
    quiet = is_drift[:streams].reshape(streams, -1)
    assert int((quiet[:, 1:] & ~quiet[:, :-1])[:, 10 * panes :].sum()) <= 1
    # What shows at other hours stays an alarm before and in the hours of the batch.
    assert is_drift[streams:, -1, 36:].all()
