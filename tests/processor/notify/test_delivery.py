from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.notify.delivery import MAX_HANGING, Delivery, DeliverySettings
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import DeadLetterList, ScriptedNotifier
from tests.support.processes import until

DeadLetter = tuple[Alert, str, str, str]

QUICK = DeliverySettings(backoff_s=0.001, max_backoff_s=0.002, breaker_open_s=0.001)


@contextmanager
def delivery(
    notifier: ScriptedNotifier, letters: DeadLetterList, settings: DeliverySettings = QUICK
) -> Iterator[Delivery]:
    queue = Delivery(notifier, name="n", dead_letters=letters, settings=settings, rng=random.Random(1))
    queue.start()
    try:
        yield queue
    finally:
        queue.shutdown(10)


def test_alerts_are_told_in_order_even_while_the_first_is_retried() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 503")] * 3), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        queue.submit(RESOLVED)
        assert notifier.wait_for(2) == [FIRING, RESOLVED]
    assert queue.outcomes() == {"transient": 3, "delivered": 2}
    assert letters.letters == []


def test_what_will_never_work_is_a_dead_letter_at_once() -> None:
    notifier, letters = ScriptedNotifier([PermanentError("HTTP 404")]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        queue.submit(RESOLVED)
        assert notifier.wait_for(1) == [RESOLVED]
    assert letters.letters == [(FIRING, "n", "permanent", "HTTP 404")]
    assert queue.outcomes() == {"permanent": 1, "dead_letter.permanent": 1, "delivered": 1}


@pytest.mark.guarded
def test_a_fault_of_ours_in_a_notifier_is_a_dead_letter_too() -> None:
    notifier, letters = ScriptedNotifier([ZeroDivisionError()]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
    assert (reason, queue.outcomes()["error"]) == ("error", 1)


def test_a_retry_after_beyond_the_end_gives_up_now() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=1e9)]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        assert letters.wait_for(1) == [(FIRING, "n", "given_up", "HTTP 429")]


def test_a_full_queue_buries_the_oldest_and_never_waits() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    alerts = [replace(FIRING, time_ns=number) for number in range(5)]
    with delivery(notifier, letters, replace(QUICK, capacity=2)) as queue:
        queue.submit(alerts[0])
        notifier.wait_calls(1)
        for alert in alerts[1:]:
            queue.submit(alert)
        assert queue.pending() == 3
        assert [letter[0] for letter in letters.letters] == alerts[1:3]
        gate.set()
        assert notifier.wait_for(3) == [alerts[0], *alerts[3:]]
    assert queue.outcomes()["dead_letter.overflow"] == 2


def test_a_notifier_that_hangs_is_left_behind_and_few_threads_with_it() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate] * 100), DeadLetterList()
    settings = replace(QUICK, timeout_s=0.01, give_up_after_s=0.3)
    with delivery(notifier, letters, settings) as queue:
        queue.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
        assert (reason, notifier.calls) == ("given_up", MAX_HANGING)
        assert queue.outcomes()["timeout"] > MAX_HANGING
        notifier.script.clear()
        gate.set()
        queue.submit(RESOLVED)
        assert RESOLVED in notifier.wait_for(MAX_HANGING + 1)


def test_shutdown_tries_once_more_and_buries_the_rest() -> None:
    slow = DeliverySettings(backoff_s=60)
    notifier, letters = (
        ScriptedNotifier([TransientError("a"), TransientError("b"), TransientError("c")]),
        DeadLetterList(),
    )
    queue = Delivery(notifier, name="n", dead_letters=letters, settings=slow)
    queue.start()
    queue.submit(FIRING)
    until(lambda: queue.outcomes() == {"transient": 1})
    queue.submit(RESOLVED)
    assert queue.shutdown(10)
    assert letters.letters == [(FIRING, "n", "shutdown", "b"), (RESOLVED, "n", "shutdown", "c")]
    queue.submit(FIRING)
    assert letters.letters[-1] == (FIRING, "n", "shutdown", "")


def test_shutdown_does_not_wait_for_what_hangs() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    queue = Delivery(notifier, name="n", dead_letters=letters, settings=DeliverySettings(timeout_s=30))
    queue.start()
    queue.submit(FIRING)
    queue.submit(RESOLVED)
    notifier.wait_calls(1)
    begin_s = time.monotonic()
    assert not queue.shutdown(0.05)
    assert time.monotonic() - begin_s < 5
    assert letters.letters == [(FIRING, "n", "shutdown", ""), (RESOLVED, "n", "shutdown", "")]
    gate.set()
    assert queue.shutdown(10)
    assert len(letters.letters) == 2


def test_what_was_never_started_buries_what_it_was_given() -> None:
    letters = DeadLetterList()
    queue = Delivery(ScriptedNotifier(), name="n", dead_letters=letters)
    queue.submit(FIRING)
    assert not queue.shutdown(1)
    assert [letter[2] for letter in letters.letters] == ["shutdown"]


class Timeline:
    """A clock that only waiting moves, and every wait that was asked for."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def wait(self, delay_s: float) -> None:
        self.waits_s.append(delay_s)
        self.now_s += delay_s


def waits_of(
    script: Sequence[Exception], *alerts: Alert, seed: int = 7, **settings: float
) -> tuple[list[float], list[tuple[Alert, str, str, str]]]:
    """Delivers alerts on a timeline, and returns every wait and the dead letters."""
    timeline, letters, notifier = Timeline(), DeadLetterList(), ScriptedNotifier(list(script))
    options = DeliverySettings(**settings)  # type: ignore[arg-type]
    queue = Delivery(
        notifier, name="n", dead_letters=letters, settings=options, clock=timeline.clock, rng=random.Random(seed),
        wait=timeline.wait,
    )  # fmt: skip
    for alert in alerts:
        queue.submit(alert)
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    return timeline.waits_s, letters.letters


def test_by_default_attempts_back_off_with_jitter_to_a_minute_for_an_hour() -> None:
    waits_s, letters = waits_of([TransientError("HTTP 503")] * 1000, FIRING)
    rng, backoff_s, expected_s, now_s = random.Random(7), 1.0, list[float](), 0.0
    for failures in range(1, 1000):
        if failures > 5:
            expected_s.append(30.0)  # the circuit is open after five failures in a row
            now_s += 30.0
        delay_s = backoff_s * rng.uniform(0.5, 1.0)
        if now_s + delay_s > 3600.0:
            break
        expected_s.append(delay_s)
        now_s += delay_s
        backoff_s = min(60.0, 2.0 * backoff_s)
    assert waits_s == expected_s
    assert [round(wait_s, 2) for wait_s in waits_s[:6]] == [0.66, 1.15, 3.3, 4.29, 12.29, 30.0]
    assert letters == [(FIRING, "n", "given_up", "HTTP 503")]


@pytest.mark.parametrize(("give_up_after_s", "attempts"), [(2.49, 1), (2.5, 2), (7.49, 2), (7.5, 3)])
def test_it_gives_up_before_an_attempt_that_would_be_too_late(give_up_after_s: float, attempts: int) -> None:
    # The waits are as asked for: 2.5 s, then 5 s, whatever the jitter.
    script = [TransientError("x", retry_after_s=2.5), TransientError("x", retry_after_s=5.0), TransientError("x")]
    waits_s, letters = waits_of(script, FIRING, give_up_after_s=give_up_after_s, backoff_s=0.0, max_backoff_s=0.0)
    assert waits_s == [2.5, 5.0][: attempts - 1] + ([0.0] if attempts == 3 else [])
    assert len(letters) == (attempts < 3)


@pytest.mark.parametrize(("failures", "waits_s"), [(1, []), (2, []), (3, [30.0]), (4, [30.0, 30.0])])
def test_the_circuit_opens_at_its_number_of_failures_in_a_row(failures: int, waits_s: list[float]) -> None:
    script: list[Exception] = [PermanentError("x")] * failures
    waits, letters = waits_of(script, *[FIRING] * failures, RESOLVED, breaker_failures=3)
    assert waits == waits_s
    assert len(letters) == failures


def test_a_success_closes_the_circuit() -> None:
    class Alternating(ScriptedNotifier):
        def notify(self, alert: Alert) -> None:
            if alert.time_ns % 3:
                raise PermanentError("x")

    timeline, letters = Timeline(), DeadLetterList()
    queue = Delivery(
        Alternating(), name="n", dead_letters=letters, settings=DeliverySettings(breaker_failures=3),
        clock=timeline.clock, wait=timeline.wait,
    )  # fmt: skip
    for number in range(9):
        queue.submit(replace(FIRING, time_ns=number))
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    assert (timeline.waits_s, queue.outcomes()["delivered"]) == ([], 3)


@pytest.mark.parametrize(("retry_after_s", "wait_s"), [(0.1, 0.5), (3.0, 3.0), (0.0, 0.5)])
def test_the_longer_of_backoff_and_retry_after_is_waited_for(retry_after_s: float, wait_s: float) -> None:
    class HalfJitter(random.Random):
        def uniform(self, a: float, b: float) -> float:
            assert (a, b) == (0.5, 1.0)
            return a

    timeline, letters = Timeline(), DeadLetterList()
    notifier = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=retry_after_s)])
    queue = Delivery(
        notifier, name="n", dead_letters=letters, clock=timeline.clock, rng=HalfJitter(), wait=timeline.wait
    )
    queue.submit(FIRING)
    queue.start()
    notifier.wait_for(1)
    assert queue.shutdown(10)
    assert timeline.waits_s == [wait_s]
