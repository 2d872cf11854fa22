from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.receive.load import INITIAL_BYTES_PER_S, REQUEST_BYTES, ReturnSchedule, WorkTimeMeter


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def work(meter: WorkTimeMeter, clock: Clock, seconds: float, size_bytes: int) -> None:
    with meter.measure():
        clock.now_s += seconds
    meter.complete(size_bytes)


def test_before_anything_is_measured_a_rate_is_assumed() -> None:
    size = 1_000_000
    expected_s = (size + 3 * REQUEST_BYTES) / INITIAL_BYTES_PER_S
    assert WorkTimeMeter(clock=Clock()).estimate_s(3, size) == pytest.approx(expected_s)


@given(st.sampled_from([20_000, 200_000, 5_000_000]), st.floats(0.01, 1.5))
def test_the_rate_is_that_of_the_time_worked_however_long_the_pauses(bytes_per_s: int, pause_s: float) -> None:
    clock = Clock()
    meter = WorkTimeMeter(clock=clock)
    for _ in range(80):
        work(meter, clock, 0.5, bytes_per_s // 2 - REQUEST_BYTES)
        clock.now_s += pause_s
    assert meter.estimate_s(0, bytes_per_s) == pytest.approx(1.0, rel=0.05)


def test_work_of_several_threads_at_once_counts_once() -> None:
    clock = Clock()
    meter = WorkTimeMeter(clock=clock)
    for _ in range(40):
        with meter.measure():
            clock.now_s += 0.25
            with meter.measure():
                clock.now_s += 0.5
            clock.now_s += 0.25
        meter.complete(100_000 - REQUEST_BYTES)
    assert meter.estimate_s(0, 100_000) == pytest.approx(1.0, rel=0.05)


def test_a_machine_that_becomes_slow_is_noticed_within_seconds_of_work() -> None:
    clock = Clock()
    meter = WorkTimeMeter(clock=clock)
    for _ in range(1000):
        work(meter, clock, 0.1, 100_000)
    for _ in range(20):
        work(meter, clock, 1.0, 100_000)
    assert meter.estimate_s(0, 100_000) > 0.7


def test_refused_requests_come_again_one_after_the_other_and_not_too_late() -> None:
    now_s = 100.0
    schedule = ReturnSchedule(max_delay_s=3.0, clock=lambda: now_s)
    assert [schedule.add(0.5, min_delay_s=1.0) for _ in range(7)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    now_s = 102.0
    assert [schedule.add(0.5, min_delay_s=1.0) for _ in range(2)] == [1.5, 2.0]
    now_s = 200.0
    assert schedule.add(0.5, min_delay_s=1.0) == 1.0
