"""Runs a whole processor: sockets, notifiers, exporter and web port around one pipeline.

It starts from the inside out, so that nothing arrives before it can be stored, and stops from the outside in, so that
everything that arrived is stored: receivers, then the state, then notifiers and exporter, then the web port.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.notify.dead_letters import AlertDeadLetters
from otel_mlmon.processor.notify.delivery import Delivery
from otel_mlmon.processor.notify.notifier import NOTIFIERS
from otel_mlmon.processor.pipeline import ProcessorPipeline
from otel_mlmon.processor.receive.admission import Admission
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.grpc import GrpcReceiver
from otel_mlmon.processor.receive.http import HttpReceiver
from otel_mlmon.processor.receive.load import WorkMeter
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.otlp import Exporter
from otel_mlmon.processor.serve.prometheus import create_page
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.state.thread import TICK_S, StateThread
from otel_mlmon.processor.window.reference_export import RelearnRequest
from otel_mlmon.types import ModelKey

DEAD_LETTERS: Final = "dead-letters"
RELEARN_TIMEOUT_S: Final = 20.0
"""How long a request to learn again waits for its commit."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The addresses that the processor listens on; None for a socket that is switched off."""

    grpc: str | None
    http: str | None
    web: str | None


class Service:
    """A whole processor.

    Args:
        config: The configuration file.

    Raises:
        ConfigurationError: A reference profile or an address in it cannot be used.
    """

    def __init__(self, config: Config) -> None:
        settings = Settings(config)
        self._telemetry = SelfTelemetry()
        self._pipeline = ProcessorPipeline(settings, notify=self._notify, telemetry=self._telemetry)
        meter = WorkMeter()
        self._state_thread: StateThread[tuple[TelemetryItem | RelearnRequest, ...], Rejections] = StateThread(
            self._pipeline,
            commit_interval_s=config.storage.commit_interval_s,
            tick_s=min(TICK_S, config.windows.pane_s / 2),
            measure=meter.measure,
        )
        self._admission = Admission(
            self._state_thread.submit,
            max_request_bytes=config.receiver.max_request_bytes,
            max_pending_bytes=config.receiver.max_pending_bytes,
            meter=meter,
            dead_letters=config.storage.path / DEAD_LETTERS / "requests",
        )
        self._grpc = GrpcReceiver(self._admission, config.receiver.grpc) if config.receiver.grpc else None
        self._http = HttpReceiver(self._admission, config.receiver.http) if config.receiver.http else None
        app = create_app(
            self._pipeline.read,
            create_page(self._metric_values),
            lambda: self._state_thread.is_ready,
            self._pipeline.references,
            relearn=self._relearn,
            setup=self._setup,
            history=self._pipeline.history,
            admin_token=config.web.admin_token.get_secret_value() if config.web.admin_token is not None else None,
        )
        self._web = WebServer(app, config.web.listen) if config.web.listen else None
        self._config = config
        self._exporter: Exporter | None = None
        self._deliveries: list[Delivery] = []
        self._addresses = Addresses(grpc=None, http=None, web=None)

    def start(self) -> Addresses:
        """Loads the state, then listens.

        Raises:
            StoreError: The state cannot be used.
            PortUnavailableError: An address cannot be listened on. Every part that was started is stopped again.
        """
        try:
            self._start_outputs()
            self._state_thread.start()
            self._addresses = Addresses(
                web=self._web.start() if self._web else None,
                grpc=self._grpc.start() if self._grpc else None,
                http=self._http.start() if self._http else None,
            )
        except BaseException:
            self.shutdown(timeout_s=2.0)
            raise
        return self._addresses

    def shutdown(self, timeout_s: float) -> bool:
        """Stops in order, within `timeout_s` seconds; returns whether everything was stored, notified and exported."""
        ends_s = time.monotonic() + timeout_s

        def remaining_s() -> float:
            return max(0.0, ends_s - time.monotonic())

        for receiver in (self._grpc, self._http):
            if receiver is not None:
                receiver.stop(min(1.0, remaining_s()))
        is_complete = self._state_thread.shutdown(remaining_s())
        for delivery in self._deliveries:
            is_complete &= delivery.shutdown(remaining_s())
        if self._exporter is not None:
            is_complete &= self._exporter.shutdown(remaining_s())
        if self._web is not None:
            self._web.stop(max(0.1, remaining_s()))
        return is_complete

    def _start_outputs(self) -> None:
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

    def _relearn(self, model: ModelKey, streams: tuple[str, ...]) -> None:
        request = RelearnRequest(model=model, streams=streams)
        self._state_thread.submit((request,)).result(RELEARN_TIMEOUT_S)
        _LOG.warning("Asked on the web port: model %s %s learns the references of %s again.", *model[:2], streams)

    def _setup(self) -> dict[str, Any]:
        """Returns the document of `/api/v1/setup`: how this processor is set up, what arrived, and who is told."""
        counts, config = self._admission.counts, self._config
        versions = [document for models in self._pipeline.read()["versions"].values() for document in models.values()]
        return {
            "addresses": {**asdict(self._addresses), "results sent to": config.forward.endpoint},
            "received": {
                "points": {"accepted": counts.accepted, "refused": counts.refused, "ignored": counts.ignored},
                "rejected": dict(counts.rejected),
            },
            "limits": [
                {
                    "name": "streams",
                    "key": "limits.max_streams",
                    "used": sum(len(document["streams"]) for document in versions),
                    "most": config.limits.max_streams,
                },
                {
                    "name": "bytes of requests that wait",
                    "key": "receiver.max_pending_bytes",
                    "used": self._admission.pending_bytes,
                    "most": config.receiver.max_pending_bytes,
                },
            ],
            "notifiers": [
                {
                    "name": delivery.name,
                    "kind": delivery.name.rpartition("-")[0],
                    "pending": delivery.pending(),
                    "outcomes": delivery.outcomes(),
                }
                for delivery in self._deliveries
            ],
            "pane_s": config.windows.pane_s,
        }

    def _metric_values(self) -> Iterator[MetricValue]:
        yield from self._pipeline.gauges()
        for failure, total in JOURNAL.totals(semconv.FAILURES.name).items():
            yield MetricValue(metric=semconv.FAILURES, value=total, attributes=dict(failure))
        yield from self._telemetry.values()
        yield from self._receiver_values()
        for delivery in self._deliveries:
            attributes = {semconv.NOTIFIER: delivery.name}
            pending = delivery.pending()
            yield MetricValue(metric=semconv.NOTIFICATIONS_PENDING, value=pending, attributes=attributes)
            for outcome, count in delivery.outcomes().items():
                outcome_attributes = {**attributes, semconv.OUTCOME: outcome}
                yield MetricValue(metric=semconv.NOTIFICATIONS, value=count, attributes=outcome_attributes)

    def _receiver_values(self) -> Iterator[MetricValue]:
        counts = self._admission.counts
        yield MetricValue(metric=semconv.REQUESTS_PENDING, value=self._admission.pending_bytes)
        yield MetricValue(metric=semconv.QUEUE_DURATION, value=self._admission.queue_s)
        yield MetricValue(metric=semconv.REQUESTS_MALFORMED, value=counts.malformed)
        yield MetricValue(metric=semconv.REQUESTS_DEAD_LETTERS, value=counts.dead_letters)
        points = {
            "accepted": counts.accepted,
            "refused": counts.refused,
            "ignored": counts.ignored,
            "loop_dropped": counts.loop_dropped,
            "rejected": counts.rejected_total,
        }
        for metric, key, totals in (
            (semconv.RECEIVED_POINTS, semconv.OUTCOME, points),
            (semconv.REJECTED_POINTS, semconv.REASON, counts.rejected),
            (semconv.REQUESTS_REFUSED, semconv.REASON, counts.unread_requests),
            (semconv.REQUESTS_REFUSED_BYTES, semconv.REASON, counts.unread_bytes),
            (semconv.RECEIVED_UNUSED, semconv.SIGNAL, counts.unused),
        ):
            for value, total in totals.items():
                yield MetricValue(metric=metric, value=total, attributes={key: value})
