"""Runs a whole processor: receivers, notifiers, OTLP exporter and web port around one pipeline.

It starts from the inside out, so that nothing arrives before it can be stored, and stops from the outside in, so that
everything that arrived is stored: receivers, then the state, then notifiers and exporter, then the web port.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.errors import StoreError
from otel_mlmon.processor import own_metrics
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.alert.silence import SilenceRequest
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.config.section import TlsSection, Token
from otel_mlmon.processor.connections import TlsFiles
from otel_mlmon.processor.notify.dead_letters import AlertDeadLetters
from otel_mlmon.processor.notify.delivery import DeliverySettings
from otel_mlmon.processor.notify.dispatcher import Dispatcher
from otel_mlmon.processor.notify.notifier import LogSeverity
from otel_mlmon.processor.notify_trial import create_notifiers
from otel_mlmon.processor.pipeline import ProcessorPipeline, StateItem
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.data_point import Rejections
from otel_mlmon.processor.receive.grpc import GrpcReceiver
from otel_mlmon.processor.receive.http import HttpReceiver
from otel_mlmon.processor.receive.load import WorkTimeMeter
from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.otlp import OtlpForwarder
from otel_mlmon.processor.serve.prometheus import create_metrics_page
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.processor.serve.silences import SilenceControl
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.state.thread import TICK_S, StateThread
from otel_mlmon.processor.window.reference_export import RelearnRequest
from otel_mlmon.processor.window.window import SHORT_PANES
from otel_mlmon.types import ModelKey
from otel_mlmon.version import __version__

DEAD_LETTERS: Final = "dead-letters"

RELOAD_TIMEOUT_S: Final = 30.0
"""How long what has arrived may take to be stored at a reload."""
ADMIN_TIMEOUT_S: Final = 20.0
"""How long a request of the administrator waits for its commit."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddresses:
    """The network addresses that the processor listens on; None for a port that is switched off."""

    grpc: str | None
    http: str | None
    web: str | None


_StateThread: TypeAlias = "StateThread[tuple[StateItem, ...], Rejections]"


class Service:
    """A whole processor, from its receivers to its notifiers and its web port.

    Args:
        config: The configuration file.

    Raises:
        ConfigurationError: A reference profile or an address in it cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._telemetry = own_metrics.create_telemetry()
        self._meter = WorkTimeMeter()
        self._exporter: OtlpForwarder | None = None
        self._dispatcher, self._pipeline, self._state_thread = self._create_state(config, ProcessorSettings(config))
        self._reloading = threading.Lock()
        receiver, web = config.receiver, config.web
        self._admission = RequestAdmission(
            lambda items, max_wait_s: self._state_thread.submit(items, max_wait_s=max_wait_s),
            max_request_bytes=receiver.max_request_bytes,
            max_pending_bytes=receiver.max_pending_bytes,
            has_room=lambda: self._pipeline.pending_points < self._config.limits.max_pending_points,
            count_repeated=self._count_repeated_points,
            meter=self._meter,
            dead_letters=config.storage.path / DEAD_LETTERS / "requests",
        )
        secured: dict[str, Any] = {"tls": _build_tls_files(receiver.tls), "token": _reveal_token(receiver.token)}
        self._grpc = GrpcReceiver(self._admission, receiver.grpc, **secured) if receiver.grpc else None
        self._http = HttpReceiver(self._admission, receiver.http, **secured) if receiver.http else None
        self._access = _build_web_access(config)
        app = create_app(
            lambda: self._pipeline.read(),
            create_metrics_page(self._list_metric_values),
            lambda: self._state_thread.is_ready,
            lambda: self._pipeline.references(),
            relearn=self._relearn_references,
            silences=SilenceControl(
                lambda: self._pipeline.silences(),
                self._apply_silence,
                models=lambda: self._pipeline.read()["models"],
                rules=RULES.list_names(),
            ),
            access=lambda: self._access,
            setup=self._build_setup_document,
            history=self._pipeline.history,
        )
        has_token = web.read_token is not None
        tls = _build_tls_files(web.tls)
        self._web = WebServer(app, web.listen, tls=tls, has_token=has_token) if web.listen else None
        self._addresses = ServiceAddresses(grpc=None, http=None, web=None)
        self._identity: dict[str, str] = {}
        """Resource attributes that tell this processor from others."""

    def start(self) -> ServiceAddresses:
        """Starts the processor: loads the state, then listens on its ports.

        Raises:
            StoreError: The state cannot be used.
            PortUnavailableError: An address cannot be listened on. Every part that was started is stopped again.
        """
        try:
            self._state_thread.start()
            self._addresses = ServiceAddresses(
                web=self._web.start() if self._web else None,
                grpc=self._grpc.start() if self._grpc else None,
                http=self._http.start() if self._http else None,
            )
        except BaseException:
            self.shutdown(timeout_s=2.0)
            raise
        return self._addresses

    def reload(self, config: Config) -> tuple[str, ...]:
        """Applies another configuration without closing a socket; returns the keys that only a restart changes.

        The state is stored and loaded again, as a restart does it: windows, references, evidence and alerts go on.
        Requests that come meanwhile are answered with "unavailable", and senders send them again.

        Raises:
            ConfigurationError: The configuration cannot be used; nothing has changed.
            StoreError: The state could not be stored or loaded again. The processor is not ready, refuses what comes so
                that senders try again, and shows what it knew last; another reload tries again.
        """
        with self._reloading:
            postponed, config = _keep_fixed_keys(self._config, config)
            settings = ProcessorSettings(config)
            for option, section in (("receiver.tls", config.receiver.tls), ("web.tls", config.web.tls)):
                tls = _build_tls_files(section)
                if tls is not None:
                    tls.check_files(option)
            state = self._create_state(config, settings)
            _, pipeline, thread = state
            if not self._state_thread.shutdown(RELOAD_TIMEOUT_S):
                raise StoreError(f"what has arrived was not stored within {RELOAD_TIMEOUT_S:g} s")
            pipeline.history = self._pipeline.history
            thread.start()
            self._config = config
            self._dispatcher, self._pipeline, self._state_thread = state
            self._access = _build_web_access(config)
            for receiver in (self._grpc, self._http):
                if receiver is not None:
                    receiver.reload(
                        token=_reveal_token(config.receiver.token), tls=_build_tls_files(config.receiver.tls)
                    )
            if self._web is not None:
                self._web.reload(_build_tls_files(config.web.tls))
            return postponed

    def shutdown(self, timeout_s: float) -> bool:
        """Stops the processor within `timeout_s` seconds; returns whether all was stored, notified and exported."""
        ends_s = time.monotonic() + timeout_s

        def remaining_s() -> float:
            return max(0.0, ends_s - time.monotonic())

        for receiver in (self._grpc, self._http):
            if receiver is not None:
                receiver.stop(min(1.0, remaining_s()))
        is_complete = self._state_thread.shutdown(remaining_s())
        is_complete &= self._dispatcher.is_complete
        if self._exporter is not None:
            is_complete &= self._exporter.shutdown(remaining_s())
        if self._web is not None:
            self._web.stop(max(0.1, remaining_s()))
        return is_complete

    def _start_exporter(self, instance_id: str) -> None:
        """Starts the OTLP exporter under the id of the state store. Runs on: the state thread, before any alert."""
        if self._identity:
            return  # at a reload
        self._identity = {semconv.SERVICE_INSTANCE_ID: instance_id, semconv.HOST_NAME: socket.gethostname()}
        _LOG.info("This processor is service.instance.id=%s on host %s.", *self._identity.values())
        forward = self._config.forward
        if forward.endpoint:
            self._exporter = OtlpForwarder(
                forward.endpoint,
                protocol=forward.protocol,
                read=lambda: self._pipeline.gauges(),
                interval_s=forward.interval_s,
                resource={"service.name": "otel-mlmon-processor", "service.version": __version__, **self._identity},
            )

    def _create_state(
        self, config: Config, settings: ProcessorSettings
    ) -> tuple[Dispatcher, ProcessorPipeline, _StateThread]:
        dispatcher = self._create_dispatcher(config)
        emit_event = self._emit_event if config.forward.endpoint else None
        pipeline = ProcessorPipeline(
            settings,
            dispatcher=dispatcher,
            telemetry=self._telemetry,
            emit_event=emit_event,
            identify=self._start_exporter,
        )
        thread: _StateThread = StateThread(
            pipeline,
            commit_interval_s=config.storage.commit_interval_s,
            tick_s=min(TICK_S, config.windows.pane_s / 2),
            measure=self._meter.measure,
        )
        return dispatcher, pipeline, thread

    def _create_dispatcher(self, config: Config) -> Dispatcher:
        return Dispatcher(
            create_notifiers(config, self._emit_event if config.forward.endpoint else None),
            dead_letters=AlertDeadLetters(config.storage.path / DEAD_LETTERS / "alerts.jsonl"),
            settings=DeliverySettings(give_up_after_s=config.alerts.retry_for_s),
            clock_ns=time.time_ns,
        )

    def _emit_event(
        self,
        name: str,
        severity: LogSeverity,
        body: str,
        attributes: dict[str, str | int | float | bool],
        time_ns: int,
    ) -> None:
        if self._exporter is not None:
            self._exporter.emit_event(name, severity, body, attributes, time_ns)

    def _count_repeated_points(self, outcomes: Mapping[str, int]) -> None:
        for outcome, count in outcomes.items():
            self._telemetry.add(semconv.WINDOW_POINTS, count, outcome=outcome)

    def _relearn_references(self, model: ModelKey, streams: tuple[str, ...]) -> None:
        request = RelearnRequest(model=model, streams=streams)
        self._state_thread.submit((request,)).result(ADMIN_TIMEOUT_S)
        _LOG.warning("Asked on the web port: model %s %s learns the references of %s again.", *model[:2], streams)

    def _apply_silence(self, request: SilenceRequest) -> None:
        self._state_thread.submit((request,)).result(ADMIN_TIMEOUT_S)
        silence = request.silence
        if silence is None:
            _LOG.warning("Asked on the web port: the silence %s ends now.", request.expired_id)
        else:
            _LOG.warning("Asked on the web port: %s %s: %s", silence.model, silence.rule, silence.describe())

    def _build_setup_document(self) -> dict[str, Any]:
        """Returns the JSON document of `/api/v1/setup`: addresses, received points, limits and notifiers."""
        counts, config = self._admission.read_counts, self._config
        versions = [document for models in self._pipeline.read()["versions"].values() for document in models.values()]
        return {
            "instance": {"id": self._identity.get(semconv.SERVICE_INSTANCE_ID, ""), "version": __version__},
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
                    "name": "points that wait until their pane closes",
                    "key": "limits.max_pending_points",
                    "used": self._pipeline.pending_points,
                    "most": config.limits.max_pending_points,
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
                for delivery in self._dispatcher.deliveries.values()
            ],
            "pane_s": config.windows.pane_s,
            "recent_s": SHORT_PANES * config.windows.pane_s,
            "rolling_s": config.windows.rolling_s,
            "alert_for_s": config.alerts.for_s,
        }

    def _list_metric_values(self) -> Iterator[MetricValue]:
        yield MetricValue(metric=semconv.PROCESSOR_INFO, value=1, attributes=self._identity)
        yield from self._pipeline.gauges()
        omitted = self._pipeline.publication.omitted_streams
        yield MetricValue(metric=semconv.GAUGE_STREAMS_OMITTED, value=omitted)
        yield MetricValue(metric=semconv.POINTS_PENDING, value=self._pipeline.pending_points)
        yield from own_metrics.list_failure_values()
        yield from self._telemetry.values()
        yield from own_metrics.list_receiver_values(self._admission)
        yield from own_metrics.list_delivery_values(self._dispatcher.deliveries.values())


FIXED_KEYS: Final = (
    ("receiver", "grpc"),
    ("receiver", "http"),
    ("receiver", "max_request_bytes"),
    ("receiver", "max_pending_bytes"),
    ("storage", None),
    ("forward", None),
    ("web", "listen"),
)
"""Sections, and keys of sections, that a reload does not change: sockets, exporter and store stay as they are."""


def _keep_fixed_keys(present: Config, wanted: Config) -> tuple[tuple[str, ...], Config]:
    """Returns the changed keys that a reload cannot apply, and the new configuration with their old values."""
    postponed: list[str] = []
    for section, key in FIXED_KEYS:
        before, after = getattr(present, section), getattr(wanted, section)
        if key is not None:
            name = type(after).model_fields[key].alias or key
            if getattr(before, key) != getattr(after, key):
                postponed.append(f"{section}.{name}")
            after = after.model_copy(update={key: getattr(before, key)})
        elif before != after:
            postponed.append(section)
            after = before
        wanted = wanted.model_copy(update={section: after})
    for section in ("receiver", "web"):
        before, after = getattr(present, section), getattr(wanted, section)
        if (before.tls.certificate is None) is not (after.tls.certificate is None):
            postponed.append(f"{section}.tls")
            wanted = wanted.model_copy(update={section: after.model_copy(update={"tls": before.tls})})
    return tuple(postponed), wanted


def _reveal_token(token: Token) -> str | None:
    return token.get_secret_value() if token is not None else None


def _build_tls_files(section: TlsSection) -> TlsFiles | None:
    if section.certificate is None or section.key is None:
        return None
    return TlsFiles(certificate=section.certificate, key=section.key, client_ca=section.client_ca)


def _build_web_access(config: Config) -> WebAccess:
    web = config.web
    listen = (web.listen.rpartition(":")[0].strip("[]"),) if web.listen else ()
    return WebAccess(
        hosts=(*listen, *web.hosts),
        read_token=_reveal_token(web.read_token),
        admin_token=_reveal_token(web.admin_token),
    )
