"""Finds the OpenTelemetry provider of each signal, set by the host, or creates one that exports by OTLP.

Choice: providers of our own stay private. Set as the global ones, they would lock the host out of setting its own,
since OpenTelemetry accepts only the first. A host that sets its providers before its first inference gets everything
through them, whether it called `instrument()` before or after; one that sets them later gets what is not written yet,
and ours of that signal then exports what it holds, and ends.

The environment decides as the specification has it: OTEL_EXPORTER_OTLP_*, OTEL_{TRACES,METRICS,LOGS}_EXPORTER,
OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER. Source: opentelemetry-specification,
configuration/sdk-environment-variables.md.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from opentelemetry import _logs, metrics, trace

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.export.exporters import SILENCE, ExporterFactory, Signal
from otel_mlmon.instrumentation.export.metrics import make_exponential_views
from otel_mlmon.instrumentation.settings import InstrumentationSettings

P = TypeVar("P")

_LOG: Final = logging.getLogger("otel_mlmon")

_KINDS: Final[dict[Signal, str]] = {"traces": "tracer", "metrics": "meter", "logs": "logger"}
"""The kind of provider of each signal."""

METRIC_INTERVAL_MS: Final = 10_000
"""Export interval of our own reader, unless OTEL_METRIC_EXPORT_INTERVAL is set: its default of a minute is late for an
alarm."""


@dataclass(slots=True, kw_only=True)
class SignalProviders:
    """Holds the tracer, meter and logger provider in use; None for a signal that the environment switches off."""

    tracer: trace.TracerProvider | None = None
    meter: metrics.MeterProvider | None = None
    logger: _logs.LoggerProvider | None = None
    own: list[Any] = field(default_factory=list)
    """The providers that `instrument()` created, which it also flushes and shuts down."""
    push_readers: list[Any] = field(default_factory=list)
    """The metric readers that `instrument()` created and that export by themselves: a flush makes one that is scraped,
    as by Prometheus, show each value twice."""
    owns_meter: bool = False
    resource: Any = None
    """The SDK's resource of the providers that `instrument()` created."""
    warn: Callable[[Signal], None] = lambda _: None
    """Logs once that no collector accepts a signal."""
    ending: list[tuple[Signal, threading.Thread]] = field(default_factory=list)
    """The threads on which replaced providers of our own export what they hold."""

    def replace_provider(self, signal: Signal, provider: Any) -> None:
        """Replaces our own provider of a signal by one that the application has set; ours exports what it holds."""
        kind = _KINDS[signal]
        earlier = getattr(self, kind)
        setattr(self, kind, provider)
        if signal == "metrics":
            self.owns_meter, self.push_readers = False, []
        if earlier in self.own:
            self.own.remove(earlier)
            self.ending.append((signal, _start_thread(earlier.shutdown)))
        _LOG.info("The application has set a %s provider: %s go through it from now on.", kind, signal)

    def flush_providers(self, timeout_s: float, *, with_host: bool = False) -> bool:
        """Exports what the providers hold; returns whether that was done in time.

        Args:
            timeout_s: Seconds.
            with_host: Whether the application's own providers are flushed too.
        """
        host = self._list_host_providers() if with_host else []
        own = [provider for provider in self.own if provider is not self.meter]
        deadline_s = time.monotonic() + timeout_s
        is_done = not _run_within_time(timeout_s, [sender.force_flush for sender in (*own, *self.push_readers, *host)])
        return not self._wait_for_replaced_providers(deadline_s) and is_done

    def shut_down_providers(self, timeout_s: float, *, with_host: bool = False) -> bool:
        """Exports what is left and ends our own providers; returns whether that was done in time.

        The application's providers are flushed only, if asked to.

        The SDK waits up to 20 s for a collector that does not answer and ignores its own time-outs, so it is left to
        daemon threads, which end with the process.
        """
        host = self._list_host_providers() if with_host else []
        deadline_s = time.monotonic() + timeout_s
        late = _run_within_time(
            timeout_s, [*(own.shutdown for own in self.own), *(other.force_flush for other in host)]
        )
        signals: dict[Signal, Any] = {"traces": self.tracer, "metrics": self.meter, "logs": self.logger}
        for signal, provider in signals.items():
            if provider in self.own and provider.shutdown in late:
                self.warn(signal)
        unended = self._wait_for_replaced_providers(deadline_s)
        for signal in unended:
            self.warn(signal)
        return not late and not unended

    def _wait_for_replaced_providers(self, deadline_s: float) -> list[Signal]:
        """Waits until replaced providers have ended; returns the signals of those that still export."""
        for _, thread in self.ending:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self.ending = [entry for entry in self.ending if entry[1].is_alive()]
        return [signal for signal, _ in self.ending]

    def _list_host_providers(self) -> list[Any]:
        providers: tuple[Any, ...] = (self.tracer, self.meter, self.logger)
        return [provider for provider in providers if provider not in self.own and hasattr(provider, "force_flush")]


def find_providers(settings: InstrumentationSettings, *, base: Any, environ: Mapping[str, str]) -> SignalProviders:
    """Returns the providers from the settings, the application's global ones, or else new ones of our own."""
    resource = base and base.merge(_make_instance_resource(environ))
    exporters = ExporterFactory(environ)
    providers = SignalProviders(
        tracer=settings.tracer_provider,
        meter=settings.meter_provider,
        logger=settings.logger_provider,
        resource=resource,
        warn=exporters.warn_of_missing_collector,
    )
    if settings.tracer_provider is None:
        current = trace.get_tracer_provider()
        providers.tracer = (
            _create_provider(_create_tracer_provider, providers, exporters)
            if _is_placeholder_provider(current)
            else current
        )
    if settings.meter_provider is None:
        current_meter = metrics.get_meter_provider()
        providers.meter = (
            _create_provider(_create_meter_provider, providers, exporters)
            if _is_placeholder_provider(current_meter)
            else current_meter
        )
    if settings.logger_provider is None:
        current_logger = _logs.get_logger_provider()
        providers.logger = (
            _create_provider(_create_logger_provider, providers, exporters)
            if _is_placeholder_provider(current_logger)
            else current_logger
        )
    return providers


def create_otel_resource() -> Any:
    """Creates the OpenTelemetry resource of providers of our own.

    Made early, with the SDK's modules loaded: its detectors run on threads, which the end of a process refuses, and a
    script may end before its first second.
    """
    import opentelemetry.sdk._logs
    import opentelemetry.sdk.trace  # noqa: F401 - the metrics' are loaded with this module
    from opentelemetry.sdk.resources import Resource

    return Resource.create()


def has_host_providers() -> bool:
    """Returns whether the application has set a provider for each of traces, metrics and logs."""
    return not any(
        map(
            _is_placeholder_provider,
            (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()),
        )
    )


def is_host_provider(provider: object, settings: InstrumentationSettings, providers: SignalProviders | None) -> bool:
    """Returns whether a provider is one of the application's that are in use, or will be."""
    if providers is not None:
        used = (providers.tracer, providers.meter, providers.logger)
        late = (find_late_provider(signal, settings, providers) for signal in _KINDS)
        return provider not in providers.own and (provider in used or any(provider is other for other in late))
    return provider in (
        settings.tracer_provider or trace.get_tracer_provider(),
        settings.meter_provider or metrics.get_meter_provider(),
        settings.logger_provider or _logs.get_logger_provider(),
    )


def find_late_provider(signal: Signal, settings: InstrumentationSettings, providers: SignalProviders) -> Any:
    """Returns a provider that the application has set after we created one of our own; None if there is none."""
    kind = _KINDS[signal]
    if getattr(settings, f"{kind}_provider") is not None:
        return None
    current: Any = {
        "traces": trace.get_tracer_provider,
        "metrics": metrics.get_meter_provider,
        "logs": _logs.get_logger_provider,
    }[signal]()
    return None if _is_placeholder_provider(current) or current is getattr(providers, kind) else current


def _make_instance_resource(environ: Mapping[str, str]) -> Any:
    """Makes a resource with a new `service.instance.id`, unless the environment sets one."""
    from opentelemetry.sdk.resources import Resource

    has_id = semconv.SERVICE_INSTANCE_ID in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource({} if has_id else {semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4())})


def _is_placeholder_provider(provider: object) -> bool:
    """Returns whether a global provider is only the placeholder of OpenTelemetry's API, with none set."""
    return type(provider).__name__.lstrip("_") in {
        "ProxyTracerProvider",
        "ProxyMeterProvider",
        "ProxyLoggerProvider",
    }


def _create_provider(
    create: Callable[[SignalProviders, ExporterFactory], P | None],
    providers: SignalProviders,
    exporters: ExporterFactory,
) -> P | None:
    """Creates a provider with its exporters; None if an exporter cannot be made.

    Not tried again: each try leaves threads, and the other signals would wait for it.
    """
    with guard("exporters"):
        return create(providers, exporters)
    return None


def _create_tracer_provider(providers: SignalProviders, exporters: ExporterFactory) -> trace.TracerProvider | None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    chosen = exporters.make_exporters("traces")
    if not chosen:
        return None
    # The SDK's default sampler takes every call that we chose, or what OTEL_TRACES_SAMPLER says.
    provider = TracerProvider(resource=providers.resource, shutdown_on_exit=False)
    for exporter in chosen:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    providers.own.append(provider)
    return provider


def _create_meter_provider(providers: SignalProviders, exporters: ExporterFactory) -> metrics.MeterProvider | None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    chosen = exporters.make_exporters("metrics")
    if not chosen:
        return None
    has_interval = bool(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip())
    interval_ms = None if has_interval else METRIC_INTERVAL_MS
    # A pull exporter, as for Prometheus, is a reader itself.
    readers = [
        exporter
        if isinstance(exporter, MetricReader)
        else PeriodicExportingMetricReader(exporter, export_interval_millis=interval_ms)
        for exporter in chosen
    ]
    # Prometheus's reader fails on exponential histograms, and with it the whole page.
    views = [] if any(isinstance(exporter, MetricReader) for exporter in chosen) else make_exponential_views()
    provider = MeterProvider(metric_readers=readers, resource=providers.resource, views=views, shutdown_on_exit=False)
    providers.own.append(provider)
    providers.owns_meter = True
    providers.push_readers = [reader for reader in readers if isinstance(reader, PeriodicExportingMetricReader)]
    return provider


def _create_logger_provider(providers: SignalProviders, exporters: ExporterFactory) -> _logs.LoggerProvider | None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    chosen = exporters.make_exporters("logs")
    if not chosen:
        return None
    provider = LoggerProvider(resource=providers.resource, shutdown_on_exit=False)
    for exporter in chosen:
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    providers.own.append(provider)
    return provider


def _run_within_time(timeout_s: float, functions: list[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """Runs functions in parallel within a time limit; returns those that have not ended by then."""
    deadline_s = time.monotonic() + timeout_s
    threads = list(map(_start_thread, functions))
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return [function for function, thread in zip(functions, threads, strict=True) if thread.is_alive()]


def _start_thread(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=_run_silently, args=(function,), daemon=True, name="otel_mlmon-exit")
    thread.start()
    return thread


def _run_silently(function: Callable[[], Any]) -> None:
    with guard("export"), SILENCE:
        function()
