from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.moving_reference import (
    HOUR_NS,
    SHRINKAGE,
    MovingReference,
    compute_hour_of_week,
    sample_coupled_counts,
)
from otel_mlmon.processor.window.reference import ModelWindowSettings, MovingReferenceSettings
from otel_mlmon.processor.window.window import HistogramBins, PaneCounts, StreamWindow, WindowSettings
from otel_mlmon.sketch.moments import ExactSum
from otel_mlmon.types import ModelKey
from tests.support.observations import SECOND, T0, Bench, facts, label

BINS = HistogramBins(names=("a", "b", "_OTHER"), is_ordered=False)
DAILY = MovingReferenceSettings(rolling_hours=48, lag_hours=24)
SHARES = arrays(np.float64, 4, elements=st.floats(0.01, 1.0)).map(lambda numbers: numbers / numbers.sum())


def counts_of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def history(reference: MovingReferenceSettings = DAILY, learn: int = 100) -> MovingReference:
    return MovingReference(settings=reference, name="m", min_values=learn)


def hour(number: int, *counts: int) -> PaneCounts:
    """A pane that is one whole hour, the `number`th since the Unix epoch."""
    return PaneCounts(
        start_ns=number * HOUR_NS,
        end_ns=(number + 1) * HOUR_NS,
        generation=0,
        counts=counts_of(*counts),
        number_count=0,
        exact_sum=ExactSum(),
    )


def test_the_epoch_begins_on_a_thursday() -> None:
    assert (compute_hour_of_week(0), compute_hour_of_week(96), compute_hour_of_week(96 + 168)) == (72, 0, 0)


def test_a_reference_holds_what_ends_a_lag_before_its_epoch_and_nothing_later() -> None:
    moving = history()
    for number in range(24 * 6):
        moving.add(hour(number, number, 0, 1))
    reference = moving.find_reference(24 * 5 * HOUR_NS + 1, BINS)  # the sixth day: days three and four are judged by
    assert reference is not None
    assert reference.counts.tolist() == [sum(range(48, 96)), 0, 48]
    assert reference.origin == "rolling"
    same = moving.find_reference(24 * 6 * HOUR_NS, BINS)
    assert same is reference
    later = moving.find_reference(24 * 6 * HOUR_NS + 1, BINS)
    assert later is not None
    assert later.counts.tolist() == [sum(range(72, 120)), 0, 48]


def test_too_few_values_make_no_reference() -> None:
    moving = history(learn=100)
    moving.add(hour(0, 99, 0, 0))
    assert moving.find_reference(72 * HOUR_NS, BINS) is None
    weekly = history(MovingReferenceSettings(rolling_hours=500, lag_hours=24, hour_of_week=True), learn=1)
    for number in range(167):
        weekly.add(hour(number, 1, 1, 1))
    assert weekly.find_reference(192 * HOUR_NS, BINS) is None
    assert weekly.find_reference(193 * HOUR_NS, BINS) is not None  # by then a week is a lag ago


def test_hours_are_forgotten_when_no_reference_will_need_them() -> None:
    moving = history()
    for number in range(1000):
        moving.add(hour(number, 1, 0, 0))
    assert (len(moving.hours), min(moving.hours), DAILY.retained_hours) == (97, 903, 96)


@given(SHARES, SHARES, SHARES)
@settings(deadline=None, max_examples=200)
def test_a_coupling_takes_one_to_the_other_and_widens_no_distance(
    before: NDArray[np.float64], after: NDArray[np.float64], current: NDArray[np.float64]
) -> None:
    assume(np.abs(after - before).sum() > 1e-6)
    gains = np.maximum(after - before, 0)
    kernel = np.diag(np.minimum(1, after / before))
    kernel += (1 - kernel.sum(axis=1))[:, None] * gains / gains.sum()
    assert before @ kernel == pytest.approx(after)
    assert np.abs(current @ kernel - after).sum() <= np.abs(current - before).sum() + 1e-12
    # And that kernel is what is drawn from.
    counts = np.rint(current * 100_000).astype(np.int64)
    moved = sample_coupled_counts(counts, before, after, np.random.default_rng(0))
    assert moved.sum() == counts.sum()
    assert moved / counts.sum() == pytest.approx(current @ kernel, abs=6 * math.sqrt(0.25 / 100_000))


def test_an_hour_that_was_seldom_seen_is_taken_almost_as_it_is() -> None:
    weekly = MovingReferenceSettings(rolling_hours=24 * 14, lag_hours=24, hour_of_week=True)
    moving = history(weekly)
    for number in range(24 * 14):
        counts = (0, 5, 0) if compute_hour_of_week(number) == 7 else (800, 100, 100)
        moving.add(hour(number, *counts))
    end_ns = 24 * 16 * HOUR_NS
    reference = moving.find_reference(end_ns - 1, BINS)
    assert reference is not None
    assert (reference.origin, moving.epoch_reference is not None and len(moving.epoch_reference.hours)) == (
        "hour_of_week",
        168,
    )
    # 167 hours of 2,000 values each, and the pseudo-observations.
    assert reference.total == pytest.approx(2000 + SHRINKAGE, rel=0.05)
    assert moving.epoch_reference is not None
    assert moving.epoch_reference.hours[7] == pytest.approx([0.76, 0.14, 0.1], abs=0.02)


def test_a_pane_is_adjusted_the_same_whenever_it_is() -> None:
    weekly = MovingReferenceSettings(rolling_hours=24 * 14, lag_hours=24, hour_of_week=True)
    moving = history(weekly)
    for number in range(24 * 14):
        moving.add(hour(number, *((900, 100, 0) if number % 24 < 12 else (100, 900, 0))))
    end_ns = 24 * 15 * HOUR_NS + 600 * SECOND
    moving.find_reference(end_ns, BINS)
    one, other = (moving.adjust_counts(end_ns, counts_of(910, 90, 0)).tolist() for _ in range(2))
    assert one == other
    assert one[0] == pytest.approx(500, abs=80)
    assert moving.adjust_counts(end_ns + 1, counts_of(910, 90, 0)).tolist() != one


def week(bench: Bench, *, days: range, restart: str = "", moved_from: int | None = None) -> list[StreamWindow]:
    """A pane of 500 predictions every half hour, with a daily cycle of .20 in total variation."""
    rng = np.random.default_rng(days.start)
    windows: list[StreamWindow] = []
    for half_hour in range(48 * days.start, 48 * days.stop):
        at_s = 1800.0 * (half_hour + 1)
        share = 0.5 + 0.2 * math.sin(2 * math.pi * (half_hour % 48) / 48)
        share -= 0.15 if moved_from is not None and half_hour >= 48 * moved_from else 0.0
        count = int(rng.binomial(500, share))
        for name, number in (("a", count), ("b", 500 - count)):
            bench.add(label(number, at_s=at_s, since_s=at_s - 1800, label=name))
        windows += bench.panes.close_panes(bench.clock.now_ns)
        if restart and half_hour % 3 == 0:
            with_store(bench, restart)
    return windows


def with_store(bench: Bench, path: str) -> None:
    """Save, and go on from what was saved."""
    store = SqliteRepository(path, synchronous="OFF")
    bench.panes.save(store)
    store.commit()
    bench.reload(store)
    store.close()


def bench_of(reference: MovingReferenceSettings | None) -> Bench:
    windows = WindowSettings(pane_s=1800, lateness_s=0, rolling_s=7200, stale_after_s=1e9, history_hours=10_000)
    return Bench(settings=ModelWindowSettings(learn=5000, moving=reference), windows=windows)


def alarms(windows: list[StreamWindow], *, since_s: float) -> list[int]:
    """Panes, from some time on, in which the evidence is over a line of one false alarm in 10^4 panes."""
    policy = DetectionPolicy(tolerance=0.02, direction="both")
    evaluator = DriftEvaluator(policy_for=lambda _: policy, alarm_line_for=lambda _: 4.0, statistics={})
    panes = []
    for number, window in enumerate(windows):
        ((_, score),) = evaluator.evaluate([window])
        if score.state == "drift" and window.end_ns > T0 + since_s * SECOND:
            panes.append(number)
    return panes


WEEKLY = MovingReferenceSettings(rolling_hours=24 * 21, lag_hours=24, hour_of_week=True)


@pytest.mark.simulation
def test_a_daily_cycle_is_no_drift_with_the_hour_of_the_week_or_without() -> None:
    day_s = 86_400.0
    assert alarms(week(bench_of(None), days=range(3)), since_s=0) == []
    quiet = week(bench_of(WEEKLY), days=range(30))
    assert alarms(quiet, since_s=22 * day_s) == []
    assert {window.reference.origin for window in quiet[48 * 25 :] if window.reference} == {"hour_of_week"}


@pytest.mark.simulation
def test_a_drift_on_top_of_the_cycle_is_found() -> None:
    panes = alarms(week(bench_of(WEEKLY), days=range(28), moved_from=27), since_s=27 * 86_400.0)
    assert panes != []
    assert panes[0] - 48 * 27 <= 12  # of 500 values


def test_a_restart_is_no_restart(tmp_path: Path) -> None:
    whole_run = week(bench_of(MovingReferenceSettings(rolling_hours=24, lag_hours=24)), days=range(5))
    broken = week(
        bench_of(MovingReferenceSettings(rolling_hours=24, lag_hours=24)),
        days=range(5),
        restart=str(tmp_path / "state"),
    )
    assert facts(broken) == facts(whole_run)
    assert {window.reference.origin for window in whole_run if window.reference} == {"learned", "rolling"}


def test_budgets_do_not_move() -> None:
    bench = bench_of(DAILY)
    bench.add(label(5, at_s=1800))
    model = bench.panes._state.models[ModelKey("digits", "1")]
    assert model.ensure_stream("latency").moving is None
    assert model.ensure_stream("prediction.label").moving is not None
