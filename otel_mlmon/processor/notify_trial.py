"""Creates the notifiers of a configuration, and sends a test alert through them as a real one is sent.

The alert says that it is a test, in its title, in its reason, and as `is_test` for programs. It is attempted as any
alert is, for a shorter time, and nothing of it is stored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Alert, AlertCause, RuleState
from otel_mlmon.processor.alert.rules.rule import NO_DATA, RULES
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.notify.delivery import DeliverySettings
from otel_mlmon.processor.notify.dispatcher import Dispatcher, OutboxEntry
from otel_mlmon.processor.notify.notifier import NOTIFIERS, EmitEvent, Notifier
from otel_mlmon.processor.serve.otlp import OtlpForwarder
from otel_mlmon.processor.settings import build_addresses
from otel_mlmon.version import __version__

REASON: Final = "This is a test, sent by hand with `otel-mlmon alert test`. Nothing is wrong."
POLL_S: Final = 0.05
_STREAMS: Final = {
    "latency": semconv.STREAM_LATENCY,
    "errors": semconv.STREAM_ERRORS,
    "confidence": semconv.STREAM_CONFIDENCE,
    "data_drift": "input.example",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """The outcome of a test alert at one notifier."""

    notifier: str
    is_delivered: bool
    attempts: int
    detail: str = ""
    """Why it was not delivered; empty if it was."""


def create_notifiers(config: Config, emit_event: EmitEvent | None) -> dict[str, Notifier]:
    """Creates the notifiers of a configuration, by name, without those that have no recipient configured.

    Args:
        config: The checked configuration.
        emit_event: Sends OTLP events to `forward.endpoint`; None while that is null.
    """
    created = {
        name: NOTIFIERS.load_plugin(entry.name).create(entry.section, emit_event)
        for name, entry in config.alerts.named_notifiers().items()
    }
    return {name: notifier for name, notifier in created.items() if notifier is not None}


def build_test_alert(config: Config, *, rule: str, model: str, now_ns: int) -> Alert:
    """Builds an alert that says that it is a test, with an invented cause."""
    is_silent = rule == NO_DATA
    cause = AlertCause(
        stream=_STREAMS.get(rule, "prediction.label"),
        value=0.3,
        bound=0.02,
        reference="invented: 10 %",
        current="40 %",
        current_count=1000,
        reference_count=5000,
        onset_ns=now_ns - 60 * 10**9,
        bins=("a", "b", "c"),
        reference_shares=(0.1, 0.6, 0.3),
        current_shares=(0.4, 0.4, 0.2),
        summary="total variation 30 %, tolerated 2 % (invented for a test)",
    )
    return Alert(
        model=model,
        version="",
        rule=rule,
        title=f"TEST, nothing is wrong ({RULES.load_plugin(rule).title})",
        state=RuleState.NO_DATA if is_silent else RuleState.FIRING,
        previous=RuleState.OK,
        severity="warning",
        first_severity="warning",
        time_ns=now_ns,
        incident_ns=now_ns,
        onset_ns=cause.onset_ns,
        causes=() if is_silent else (cause,),
        reason=REASON,
        sequence=1,
        addresses=build_addresses(config),
        is_test=True,
    )


def send_test_alert(config: Config, alert: Alert, names: Iterable[str], *, timeout_s: float) -> Iterator[TrialOutcome]:
    """Sends a test alert through the given notifiers, and yields the outcome at each of them.

    Args:
        config: The checked configuration.
        alert: What is sent.
        names: The notifiers, as `AlertsSection.named_notifiers` has them.
        timeout_s: How long attempts are made; the last one may take its own time-out longer.
    """
    exporter, letters = _create_otlp_forwarder(config), _TrialDeadLetters()
    notifiers = create_notifiers(config, None if exporter is None else exporter.emit_event)
    chosen = {name: notifiers[name] for name in names if name in notifiers}
    dispatcher = Dispatcher(
        chosen,
        dead_letters=letters,
        settings=DeliverySettings(give_up_after_s=timeout_s),
        clock_ns=time.time_ns,
        shutdown_s=1.0,
    )
    dispatcher.start(())
    dispatcher.submit(OutboxEntry(alert=alert, notifiers=tuple(chosen), queued_ns=time.time_ns()))
    waiting = set(chosen)
    while waiting:
        waiting -= {name for name, _ in dispatcher.pop_settled()}
        time.sleep(POLL_S if waiting else 0.0)
    dispatcher.shutdown()
    is_sent = exporter is None or (exporter.shutdown(timeout_s) and not exporter.failed_exports)
    for name in names:
        if name not in chosen:
            detail = "forward.endpoint is not set, so it has nowhere to send alerts to"
            yield TrialOutcome(notifier=name, is_delivered=False, attempts=0, detail=detail)
            continue
        outcomes = dispatcher.deliveries[name].outcomes()
        attempts = sum(count for outcome, count in outcomes.items() if not outcome.startswith(("dead", "renew", "sup")))
        detail = letters.details.get(name, "")
        if not is_sent and name.partition("-")[0] == "otlp":
            detail = f"forward.endpoint did not take it within {timeout_s:g} s; see the log"
        yield TrialOutcome(notifier=name, is_delivered=not detail, attempts=attempts, detail=detail)


class _TrialDeadLetters:
    """Collects why a test alert was not delivered, by notifier."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.details: dict[str, str] = {}

    def write(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:  # noqa: ARG002 (the Protocol's)
        with self._lock:
            self.details[notifier] = ": ".join(filter(None, (reason.replace("_", " "), detail)))


def _create_otlp_forwarder(config: Config) -> OtlpForwarder | None:
    forward = config.forward
    if not forward.endpoint:
        return None
    return OtlpForwarder(
        forward.endpoint,
        protocol=forward.protocol,
        read=tuple,
        interval_s=forward.interval_s,
        resource={"service.name": "otel-mlmon-processor", "service.version": __version__},
    )
