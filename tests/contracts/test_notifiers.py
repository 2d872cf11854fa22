"""What holds for every notifier behind its delivery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from otel_mlmon.processor.notify.delivery import Delivery, DeliverySettings
from otel_mlmon.processor.notify.log import LogNotifier
from otel_mlmon.processor.notify.notifier import Notifier, PermanentError, TransientError
from otel_mlmon.processor.notify.otlp import OtlpNotifier
from otel_mlmon.processor.notify.webhook import WebhookNotifier
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import Letters, Scripted
from tests.support.webhook_server import Answer, webhook_server

QUICK = DeliverySettings(timeout_s=0.3, backoff_s=0.001, max_backoff_s=0.002, breaker_open_s=0.001)


@dataclass(frozen=True)
class Addressee:
    """A notifier, and the states it told its addressee, once they are so many."""

    notifier: Notifier
    wait: Callable[[int], list[str]]


Make = Callable[[str], Addressee]


class Lines(logging.Handler):
    """A log one can wait for; its faults are those of `script`."""

    def __init__(self, script: Scripted) -> None:
        super().__init__()
        self.script = script

    def handle(self, record: logging.LogRecord) -> bool:
        """Without logging's own lock, which would hang every other line with the one that hangs."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.script.notify(FIRING if "FIRING" in record.getMessage() else RESOLVED)


def script_of(fault: str, gate: threading.Event) -> Scripted:
    faults: dict[str, list[Exception | threading.Event]] = {
        "none": [],
        "transient": [TransientError("HTTP 503")],
        "permanent": [PermanentError("HTTP 404")],
        "hang": [gate],
    }
    return Scripted(faults[fault])


@pytest.fixture(params=["log", "otlp", "webhook"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes the notifier with a fault at the first attempt."""
    gate = threading.Event()
    with ExitStack() as stack:
        stack.callback(gate.set)

        def states(script: Scripted) -> Callable[[int], list[str]]:
            return lambda count: [alert.state.name for alert in script.wait_told(count)]

        def log(fault: str) -> Addressee:
            script, logger = script_of(fault, gate), logging.getLogger("otel_mlmon.alerts")
            handler = Lines(script)
            level = logger.level
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)
            stack.callback(logger.setLevel, level)
            stack.callback(logger.removeHandler, handler)
            return Addressee(LogNotifier(), states(script))

        def otlp(fault: str) -> Addressee:
            script = script_of(fault, gate)
            notifier = OtlpNotifier(lambda *event: script.notify(FIRING if event[1] == "ERROR" else RESOLVED))
            return Addressee(notifier, states(script))

        def webhook(fault: str) -> Addressee:
            first = {
                "none": Answer(),
                "transient": Answer(status=503),
                "permanent": Answer(status=404),
                "hang": Answer(waits=True),
            }[fault]
            server = stack.enter_context(webhook_server(first, Answer()))

            def told(count: int) -> list[str]:
                skipped = int(fault in ("transient", "permanent"))
                requests = server.wait_for(count + skipped)[skipped:]
                return ["FIRING" if b'"state": "firing"' in request.body else "OK" for request in requests]

            return Addressee(WebhookNotifier(server.url, timeout_s=30), told)

        yield {"log": log, "otlp": otlp, "webhook": webhook}[request.param]


def run(addressee: Addressee, letters: Letters) -> Delivery:
    delivery = Delivery(addressee.notifier, name="n", dead_letters=letters, settings=QUICK)
    delivery.start()
    delivery.submit(FIRING)
    delivery.submit(RESOLVED)
    return delivery


def test_it_delivers_in_order(make: Make) -> None:
    letters = Letters()
    addressee = make("none")
    delivery = run(addressee, letters)
    assert addressee.wait(2) == ["FIRING", "OK"]
    assert delivery.shutdown(10)
    assert (delivery.outcomes(), letters.kept) == ({"delivered": 2}, [])


def test_a_transient_fault_is_tried_again_and_told_once(make: Make) -> None:
    letters = Letters()
    addressee = make("transient")
    delivery = run(addressee, letters)
    assert addressee.wait(2) == ["FIRING", "OK"]
    assert delivery.shutdown(10)
    assert (delivery.outcomes(), letters.kept) == ({"transient": 1, "delivered": 2}, [])


def test_a_permanent_fault_is_a_dead_letter_and_the_next_is_told(make: Make) -> None:
    letters = Letters()
    addressee = make("permanent")
    delivery = run(addressee, letters)
    assert addressee.wait(1) == ["OK"]
    assert delivery.shutdown(10)
    assert letters.kept == [(FIRING, "n", "permanent", "HTTP 404")]


def test_one_that_hangs_runs_into_its_time_out_and_the_others_do_not_wait(make: Make) -> None:
    letters, other = Letters(), Scripted()
    neighbour = Delivery(other, name="other", dead_letters=letters, settings=QUICK)
    neighbour.start()
    addressee = make("hang")
    delivery = run(addressee, letters)
    neighbour.submit(FIRING)
    assert other.wait_told(1, timeout_s=5) == [FIRING]
    addressee.wait(2)
    assert delivery.shutdown(10)
    assert neighbour.shutdown(10)
    assert delivery.outcomes() == {"timeout": 1, "delivered": 2}
