"""The processor as a process has it: sockets, notifiers, exporter and web port around one pipeline.

Started from the inside out, so that nothing arrives before it can be kept; stopped from the outside in, so that
everything that arrived is kept: receivers, then the state, then what tells others, then the web port.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.notify.dead_letters import AlertDeadLetters
from otel_mlmon.processor.notify.delivery import Delivery
from otel_mlmon.processor.notify.notifier import NOTIFIERS
from otel_mlmon.processor.pipeline import Pipeline
from otel_mlmon.processor.receive.admission import Admission
from otel_mlmon.processor.receive.data_point import TelemetryItem
from otel_mlmon.processor.receive.grpc import GrpcReceiver
from otel_mlmon.processor.receive.http import HttpReceiver
from otel_mlmon.processor.self_telemetry import SelfTelemetry
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.otlp import Exporter
from otel_mlmon.processor.serve.prometheus import Sample, render
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.state.thread import TICK_S, StateThread
from otel_mlmon.semconv import FAILURES, PROCESSOR_METRICS

DEAD_LETTERS: Final = "dead-letters"
_METRICS: Final = {metric.name: metric for metric in PROCESSOR_METRICS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the processor listens; None where it does not."""

    grpc: str | None
    http: str | None
    web: str | None


class Service:
    """A whole processor.

    Args:
        config: What the operator wrote.

    Raises:
        ConfigurationError: A reference profile or an address in it cannot be used.
    """

    def __init__(self, config: Config) -> None:
        settings = Settings(config)
        self._telemetry = SelfTelemetry()
        self._pipeline = Pipeline(settings, notify=self._notify, telemetry=self._telemetry)
        self._owner: StateThread[tuple[TelemetryItem, ...]] = StateThread(
            self._pipeline,
            commit_interval_s=config.storage.commit_interval_s,
            tick_s=min(TICK_S, config.windows.pane_s / 2),
        )
        self._intake = Admission(
            self._owner.submit,
            max_request_bytes=config.receiver.max_request_bytes,
            max_pending_bytes=config.receiver.max_pending_bytes,
            dead_letters=config.storage.path / DEAD_LETTERS / "requests",
        )
        self._grpc = GrpcReceiver(self._intake, config.receiver.grpc) if config.receiver.grpc else None
        self._http = HttpReceiver(self._intake, config.receiver.http) if config.receiver.http else None
        app = create_app(self._pipeline.read, self._page, lambda: self._owner.is_ready, self._pipeline.references)
        self._web = WebServer(app, config.web.listen) if config.web.listen else None
        self._config = config
        self._exporter: Exporter | None = None
        self._deliveries: list[Delivery] = []

    def start(self) -> Addresses:
        """Load the state, then listen.

        Raises:
            StoreError: The state cannot be used.
            PortUnavailableError: An address cannot be listened on. What was started is stopped again.
        """
        try:
            self._start_telling()
            self._owner.start()
            return Addresses(
                web=self._web.start() if self._web else None,
                grpc=self._grpc.start() if self._grpc else None,
                http=self._http.start() if self._http else None,
            )
        except BaseException:
            self.shutdown(timeout_s=2.0)
            raise

    def shutdown(self, timeout_s: float) -> bool:
        """Stop in order, within the deadline; whether everything that arrived was kept and told."""
        ends_s = time.monotonic() + timeout_s

        def left_s() -> float:
            return max(0.0, ends_s - time.monotonic())

        for receiver in (self._grpc, self._http):
            if receiver is not None:
                receiver.stop(min(1.0, left_s()))
        is_whole = self._owner.shutdown(left_s())
        for delivery in self._deliveries:
            is_whole &= delivery.shutdown(left_s())
        if self._exporter is not None:
            is_whole &= self._exporter.shutdown(left_s())
        if self._web is not None:
            self._web.stop(max(0.1, left_s()))
        return is_whole

    def _start_telling(self) -> None:
        forward = self._config.forward
        if forward.endpoint:
            self._exporter = Exporter(
                forward.endpoint,
                protocol=forward.protocol,
                read=self._pipeline.gauges,
                interval_s=forward.interval_s,
                resource={"service.name": "otel-mlmon-processor", "service.instance.id": uuid.uuid4().hex},
            )
        emit_event = self._exporter.emit_event if self._exporter else None
        dead_letters = AlertDeadLetters(self._config.storage.path / DEAD_LETTERS / "alerts.jsonl")
        for index, entry in enumerate(self._config.alerts.notify):
            notifier = NOTIFIERS.load(entry.name).create(entry.section, emit_event)
            if notifier is not None:
                delivery = Delivery(notifier, name=f"{entry.name}-{index}", dead_letters=dead_letters)
                delivery.start()
                self._deliveries.append(delivery)

    def _notify(self, alert: Alert) -> None:
        for delivery in self._deliveries:
            delivery.submit(alert)

    def _page(self) -> str:
        """`/metrics`."""
        self._count_self()
        return render([*self._samples(), *(Sample(*reading) for reading in self._telemetry.snapshot())])

    def _samples(self) -> Iterator[Sample]:
        for gauge in self._pipeline.gauges():
            yield Sample(_METRICS[gauge.metric], gauge.attributes, gauge.value)
        for attributes, total in JOURNAL.totals(FAILURES.name).items():
            yield Sample(FAILURES, dict(attributes), total)

    def _count_self(self) -> None:
        """What others count, read when somebody asks."""
        counts = self._intake.counts
        told = self._telemetry.set
        told("requests.pending.bytes", self._intake.pending_bytes)
        told("requests.malformed", counts.malformed)
        told("requests.dead_letters", counts.dead_letters)
        for name in ("accepted", "refused", "ignored", "loop_dropped"):
            told("received.points", getattr(counts, name), outcome=name)
        told("received.points", counts.rejected_total, outcome="rejected")
        for reason, count in counts.rejected.items():
            told("rejected.points", count, reason=reason)
        for signal, count in counts.unused.items():
            told("received.unused", count, signal=signal)
        for delivery in self._deliveries:
            told("notifications.pending", delivery.pending(), notifier=delivery.name)
            for outcome, count in delivery.outcomes().items():
                told("notifications", count, notifier=delivery.name, outcome=outcome)
