from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from otel_mlmon.processor.notify.delivery import MAX_HANGING, Delivery, DeliverySettings
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import DeadLetterList, ScriptedNotifier
from tests.support.processes import until

QUICK = DeliverySettings(backoff_s=0.001, max_backoff_s=0.002, breaker_open_s=0.001)


@contextmanager
def delivery(
    notifier: ScriptedNotifier, letters: DeadLetterList, settings: DeliverySettings = QUICK
) -> Iterator[Delivery]:
    made = Delivery(notifier, name="n", dead_letters=letters, settings=settings, rng=random.Random(1))
    made.start()
    try:
        yield made
    finally:
        made.shutdown(10)


def test_alerts_are_told_in_order_even_while_the_first_is_retried() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 503")] * 3), DeadLetterList()
    with delivery(notifier, letters) as made:
        made.submit(FIRING)
        made.submit(RESOLVED)
        assert notifier.wait_for(2) == [FIRING, RESOLVED]
    assert made.outcomes() == {"transient": 3, "delivered": 2}
    assert letters.letters == []


def test_what_will_never_work_is_a_dead_letter_at_once() -> None:
    notifier, letters = ScriptedNotifier([PermanentError("HTTP 404")]), DeadLetterList()
    with delivery(notifier, letters) as made:
        made.submit(FIRING)
        made.submit(RESOLVED)
        assert notifier.wait_for(1) == [RESOLVED]
    assert letters.letters == [(FIRING, "n", "permanent", "HTTP 404")]
    assert made.outcomes() == {"permanent": 1, "dead_letter.permanent": 1, "delivered": 1}


@pytest.mark.guarded
def test_a_fault_of_ours_in_a_notifier_is_a_dead_letter_too() -> None:
    notifier, letters = ScriptedNotifier([ZeroDivisionError()]), DeadLetterList()
    with delivery(notifier, letters) as made:
        made.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
    assert (reason, made.outcomes()["error"]) == ("error", 1)


def test_it_gives_up_after_its_time() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 503")] * 1000), DeadLetterList()
    with delivery(notifier, letters, replace(QUICK, give_up_after_s=0.02)) as made:
        made.submit(FIRING)
        assert letters.wait_for(1) == [(FIRING, "n", "given_up", "HTTP 503")]
    assert 1 < notifier.calls < 1000


def test_retry_after_is_waited_for() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=0.1)]), DeadLetterList()
    with delivery(notifier, letters) as made:
        begin_s = time.monotonic()
        made.submit(FIRING)
        notifier.wait_for(1)
    assert time.monotonic() - begin_s >= 0.1


def test_a_retry_after_beyond_the_end_gives_up_now() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=1e9)]), DeadLetterList()
    with delivery(notifier, letters) as made:
        made.submit(FIRING)
        assert letters.wait_for(1) == [(FIRING, "n", "given_up", "HTTP 429")]


def test_an_open_circuit_lets_time_pass_before_it_tries() -> None:
    settings = replace(QUICK, breaker_failures=2, breaker_open_s=0.2)
    notifier, letters = ScriptedNotifier([PermanentError("x")] * 2), DeadLetterList()
    with delivery(notifier, letters, settings) as made:
        made.submit(FIRING)
        made.submit(FIRING)
        letters.wait_for(2)
        begin_s = time.monotonic()
        made.submit(RESOLVED)
        notifier.wait_for(1)
    assert time.monotonic() - begin_s >= 0.19


def test_a_full_queue_buries_the_oldest_and_never_waits() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    alerts = [replace(FIRING, time_ns=number) for number in range(5)]
    with delivery(notifier, letters, replace(QUICK, capacity=2)) as made:
        made.submit(alerts[0])
        notifier.wait_calls(1)
        for alert in alerts[1:]:
            made.submit(alert)
        assert made.pending() == 3
        assert [letter[0] for letter in letters.letters] == alerts[1:3]
        gate.set()
        assert notifier.wait_for(3) == [alerts[0], *alerts[3:]]
    assert made.outcomes()["dead_letter.overflow"] == 2


def test_a_notifier_that_hangs_is_left_behind_and_few_threads_with_it() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate] * 100), DeadLetterList()
    settings = replace(QUICK, timeout_s=0.01, give_up_after_s=0.3)
    with delivery(notifier, letters, settings) as made:
        made.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
        assert (reason, notifier.calls) == ("given_up", MAX_HANGING)
        assert made.outcomes()["timeout"] > MAX_HANGING
        notifier.script.clear()
        gate.set()
        made.submit(RESOLVED)
        assert RESOLVED in notifier.wait_for(MAX_HANGING + 1)


def test_shutdown_tries_once_more_and_buries_the_rest() -> None:
    slow = DeliverySettings(backoff_s=60)
    notifier, letters = (
        ScriptedNotifier([TransientError("a"), TransientError("b"), TransientError("c")]),
        DeadLetterList(),
    )
    made = Delivery(notifier, name="n", dead_letters=letters, settings=slow)
    made.start()
    made.submit(FIRING)
    until(lambda: made.outcomes() == {"transient": 1})
    made.submit(RESOLVED)
    assert made.shutdown(10)
    assert letters.letters == [(FIRING, "n", "shutdown", "b"), (RESOLVED, "n", "shutdown", "c")]
    made.submit(FIRING)
    assert letters.letters[-1] == (FIRING, "n", "shutdown", "")


def test_shutdown_does_not_wait_for_what_hangs() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    made = Delivery(notifier, name="n", dead_letters=letters, settings=DeliverySettings(timeout_s=30))
    made.start()
    made.submit(FIRING)
    made.submit(RESOLVED)
    notifier.wait_calls(1)
    begin_s = time.monotonic()
    assert not made.shutdown(0.05)
    assert time.monotonic() - begin_s < 5
    assert letters.letters == [(FIRING, "n", "shutdown", ""), (RESOLVED, "n", "shutdown", "")]
    gate.set()
    assert made.shutdown(10)
    assert len(letters.letters) == 2


def test_what_was_never_started_buries_what_it_was_given() -> None:
    letters = DeadLetterList()
    made = Delivery(ScriptedNotifier(), name="n", dead_letters=letters)
    made.submit(FIRING)
    assert not made.shutdown(1)
    assert [letter[2] for letter in letters.letters] == ["shutdown"]
