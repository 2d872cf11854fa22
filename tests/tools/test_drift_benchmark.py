"""The short form of the acceptance tables of `python -m benchmarks.drift`."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.drift import accuracy, faults, rare, results
from benchmarks.drift.acceptance import find_kind, run_quiet, run_shift
from benchmarks.drift.accuracy_chunks import draw_chunks
from benchmarks.drift.days import KINDS, MONDAY, Plan, Shift, draw_days, start_traffic
from benchmarks.drift.holidays import CHANGES, run_holiday_drift
from benchmarks.drift.states import run_states
from otel_mlmon.processor.detect.accuracy import estimate_accuracy


def test_weeks_begin_on_a_monday() -> None:
    assert (date(1970, 1, 1) + timedelta(days=MONDAY)).weekday() == 0


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_every_kind_of_traffic_has_the_items_that_it_says(kind: Any) -> None:
    plan = Plan(streams=3, days=2, pane_s=3_600.0, items_a_day=24_000.0, seed=1)
    days = list(draw_days(kind, plan))
    assert [day.shape[:2] for day in days] == [(3, 24)] * 2
    assert all(20_000 < count < 30_000 for day in days for count in day.sum((1, 2)).tolist())


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_every_kind_of_traffic_shifts_from_the_time_that_is_said(kind: Any) -> None:
    """A shift that a kind leaves out would read as one that the engine does not see."""
    shift = Shift(total_variation=np.array([[0.1], [0.05], [0.0]]), from_day=np.array([[1.5], [1.0], [0.0]]))
    plans = [
        Plan(streams=3, days=2, pane_s=3_600.0, items_a_day=240_000.0, seed=1, shift=part) for part in (None, shift)
    ]
    source = start_traffic(kind, plans[0]).shares.argmax(-1)
    usual, shifted = (np.concatenate(list(draw_days(kind, plan)), axis=1) for plan in plans)
    shares = [counts[np.arange(3), :, source] / counts.sum(-1) for counts in (usual, shifted)]
    gone = (shares[0] - shares[1]).reshape(3, 4, 12).mean(-1)
    assert gone == pytest.approx(np.array([[0, 0, 0, 0.1], [0, 0, 0.05, 0.05], [0, 0, 0, 0]]), abs=0.04)


@pytest.mark.simulation
def test_twice_what_a_stream_states_does_not_go_unseen_while_it_is_ok() -> None:
    plan = Plan(streams=4, days=17, pane_s=3_600.0, items_a_day=86_400.0, seed=4)
    result = run_states(find_kind("daily ±.05"), plan)
    assert (result["ok"], result["found"], result["unseen"]) == (4, 4, 0)


@pytest.mark.simulation
def test_a_drift_away_from_days_of_rest_is_no_holiday() -> None:
    plan = Plan(streams=2, days=18, pane_s=3_600.0, items_a_day=86_400.0, seed=4)
    result = run_holiday_drift(CHANGES["the other way, .10"], 16.5, plan)
    assert result["before"] == 0
    assert all(hours is not None and hours <= 6.0 for hours in result["hours"])


@pytest.mark.simulation
def test_days_without_drift_raise_no_alarm_and_drift_on_them_does() -> None:
    quiet = run_quiet(find_kind("independent"), Plan(streams=4, days=2, pane_s=1_800.0, items_a_day=86_400.0, seed=3))
    assert (quiet["early"], quiet["late"]) == (0, 0)
    # In the first two days .2 is forgiven, since a cycle that nobody knows yet may be as large.
    shift = Shift(total_variation=0.35, from_day=1)
    plan = Plan(streams=4, days=2, pane_s=1_800.0, items_a_day=86_400.0, seed=3, shift=shift)
    assert all(hours is not None and hours <= 12.0 for hours in run_shift(find_kind("independent"), plan)["hours"])


@pytest.mark.simulation
def test_a_new_category_is_found_and_nearly_nothing_is_not() -> None:
    moves = {move.name: move for move in rare.MOVES}
    found = rare.measure(moves["new category 0 → 3 %"], 5, 20)
    assert found["early"] == 0
    assert max(found["items"]) <= 1_000
    assert rare.measure(moves["rare class .5 → .7 %, not to be found"], 5, 10)["items"] == [None] * 10
    outliers = rare.measure_outliers(5, 4)
    assert outliers["early"] == 0
    assert max(outliers["items"]) <= 6_000


@pytest.mark.simulation
@pytest.mark.parametrize("name", ["control: no fault", "nulls 3 %", "every row twice"])
def test_a_fault_is_found_where_it_shows_and_nowhere_else(name: str) -> None:
    (fault,) = (fault for fault in faults.FAULTS if fault.name == name)
    result = faults.judge_fault(fault, 9)
    assert result == {"found": 0 if fault.column else None, "wrong": []}


@pytest.mark.simulation
def test_the_interval_of_the_accuracy_holds_on_shifted_chunks_of_a_real_table() -> None:
    draw, is_tuned = accuracy.TABLES["cancer"]
    held = []
    for chunk in draw_chunks(draw, seed=11, splits=4):
        calibration = chunk.pool.calibration
        estimated = estimate_accuracy(calibration.right, calibration.total, chunk.window)
        assert estimated is not None
        held.append(estimated.low <= chunk.accuracy <= estimated.high)
    assert not is_tuned
    # Chunks of one model are alike: four models are four draws of what the calibration does not know.
    assert np.mean(held) >= 0.85


def test_what_was_computed_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FILE", tmp_path / "bench" / "drift.jsonl")
    computed = []

    def compute() -> dict[str, Any]:
        computed.append(1)
        return {"late": 0}

    assert [results.recall(("quiet", 1), compute) for _ in range(2)] == [{"late": 0}] * 2
    assert results.recall(("quiet", 2), compute) == {"late": 0}
    assert len(computed) == 2
    results.forget()
    results.recall(("quiet", 1), compute)
    assert len(computed) == 3
