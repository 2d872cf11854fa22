from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.guard import FAILURE_LIMIT, FAILURE_PERIOD_S, Guard, guard, list_guards
from otel_mlmon.internal_events import EventJournal

pytestmark = pytest.mark.guarded


def fail(stage: Guard, times: int = 1) -> None:
    for _ in range(times):
        with stage:
            raise ValueError("the host's secret")


def test_an_exception_is_swallowed_counted_and_logged_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    journal = EventJournal()
    stage = Guard("decode", journal=journal)
    fail(stage, 2)
    attributes = ((semconv.ERROR_TYPE, "ValueError"), (semconv.STAGE, "decode"))
    assert journal.read_totals(semconv.FAILURES.name) == {attributes: 2}
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "otel_mlmon failed in stage 'decode' with ValueError in fail. Your code runs on, with less telemetry.",
        )
    ]


def test_an_exception_that_was_never_raised_has_no_function(caplog: pytest.LogCaptureFixture) -> None:
    assert Guard("decode", journal=EventJournal()).swallow(KeyError("x"))
    (record,) = caplog.records
    assert record.getMessage().startswith("otel_mlmon failed in stage 'decode' with KeyError. ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_the_hosts_passes(error: BaseException) -> None:
    journal = EventJournal()
    stage = Guard("decode", journal=journal)
    with pytest.raises(type(error)) as caught, stage:
        raise error
    assert caught.value is error
    assert not stage.swallow(error)
    assert journal.read_totals(semconv.FAILURES.name) == {}


@settings(deadline=None)
@given(st.lists(st.floats(0.0, FAILURE_PERIOD_S), max_size=3 * FAILURE_LIMIT))
def test_a_stage_is_switched_off_once_enough_errors_are_within_the_period(waits_s: list[float]) -> None:
    now_s = [0.0]
    stage = Guard("decode", journal=EventJournal(log=logging.getLogger("unused")), clock=lambda: now_s[0])
    times_s: list[float] = []
    expected = False
    for wait_s in waits_s:
        now_s[0] += wait_s
        fail(stage)
        times_s.append(now_s[0])
        expected |= len(times_s) >= FAILURE_LIMIT and times_s[-1] - times_s[-FAILURE_LIMIT] <= FAILURE_PERIOD_S
        assert stage.is_open is expected


@pytest.mark.parametrize(("period_s", "is_open"), [(FAILURE_PERIOD_S, True), (FAILURE_PERIOD_S + 1e-6, False)])
def test_the_period_includes_its_end_and_a_reset_begins_anew(period_s: float, is_open: bool) -> None:
    now_s = [0.0]
    stage = Guard("decode", journal=EventJournal(), clock=lambda: now_s[0])
    fail(stage, FAILURE_LIMIT - 1)
    assert not stage.is_open
    now_s[0] = period_s
    fail(stage)
    assert stage.is_open is is_open
    stage.reset_stage()
    fail(stage, FAILURE_LIMIT - 1)
    assert not stage.is_open


def test_the_log_says_that_a_stage_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    stage = Guard("decode", journal=EventJournal(interval_s=0.0))
    fail(stage, FAILURE_LIMIT)
    off = "The stage is switched off until instrument() is called again."
    assert [off in record.getMessage() for record in caplog.records] == [False] * (FAILURE_LIMIT - 1) + [True]


def test_a_process_has_one_guard_of_a_stage() -> None:
    assert guard("test_guard") is guard("test_guard")
    assert guard("test_guard") in list_guards()
