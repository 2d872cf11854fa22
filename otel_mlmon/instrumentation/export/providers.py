"""The providers of each signal: those that the host has set, else our own, which export by OTLP.

Choice: providers of our own stay private. Set as the global ones, they would lock the host out of setting its own,
since OpenTelemetry accepts only the first; so a host that sets its providers before its first inference gets everything
through them, whether it called `instrument()` before or after.

The environment decides as the specification has it: OTEL_EXPORTER_OTLP_*, OTEL_{TRACES,METRICS,LOGS}_EXPORTER,
OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER. Source: opentelemetry-specification,
configuration/sdk-environment-variables.md.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from opentelemetry import _logs, metrics, trace

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.export.metrics import exponential_views
from otel_mlmon.instrumentation.settings import InstrumentationSettings

Signal = Literal["traces", "metrics", "logs"]
P = TypeVar("P")

METRIC_INTERVAL_MS: Final = 10_000
"""Export interval of our own reader, unless OTEL_METRIC_EXPORT_INTERVAL is set: its default of a minute is late for an
alarm."""

_LOG: Final = logging.getLogger("otel_mlmon")
_EXPORTERS: Final[dict[Signal, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_EXPORTER_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
    "urllib3.connectionpool",
)


@dataclass(slots=True, kw_only=True)
class Providers:
    """Holds one provider a signal; None where the environment switched the signal off."""

    tracer: trace.TracerProvider | None = None
    meter: metrics.MeterProvider | None = None
    logger: _logs.LoggerProvider | None = None
    own: list[Any] = field(default_factory=list)
    """The providers that `instrument()` created, which it also flushes and shuts down."""
    owns_meter: bool = False
    resource: Any = None
    """The SDK's resource of the providers that `instrument()` created."""
    warn: Callable[[], None] = lambda: None
    """Logs, once in a process's life, that no collector accepts what our own exporters send."""

    def flush(self, timeout_s: float, *, with_host: bool = False) -> bool:
        """Exports what our own providers hold, and the application's if asked to; returns whether it was done in time.

        Args:
            timeout_s: Seconds.
            with_host: Whether the application's own providers are flushed too.
        """
        host = self._host() if with_host else []
        return _run_within(timeout_s, [provider.force_flush for provider in (*self.own, *host)])

    def shutdown(self, timeout_s: float, *, with_host: bool = False) -> bool:
        """Exports what is left and ends our own providers; returns whether it was done in time.

        The application's providers are flushed only, if asked to.

        The SDK waits up to 20 s for a collector that does not answer and ignores its own time-outs, so it is left to
        daemon threads, which end with the process.
        """
        flushes = [provider.force_flush for provider in self._host()] if with_host else []
        is_done = _run_within(timeout_s, [*(provider.shutdown for provider in self.own), *flushes])
        if not is_done:
            self.warn()
        return is_done

    def _host(self) -> list[Any]:
        providers: tuple[Any, ...] = (self.tracer, self.meter, self.logger)
        return [provider for provider in providers if provider not in self.own and hasattr(provider, "force_flush")]


def find_providers(settings: InstrumentationSettings, *, base: Any, environ: Mapping[str, str]) -> Providers:
    """Finds the providers of the settings, else the global ones, else creates our own with the resource `base`."""
    resource = base and base.merge(_instance_resource(environ))
    exporters = ExporterFactory(environ)
    providers = Providers(
        tracer=settings.tracer_provider,
        meter=settings.meter_provider,
        logger=settings.logger_provider,
        resource=resource,
        warn=exporters.warn_once,
    )
    if settings.tracer_provider is None:
        current = trace.get_tracer_provider()
        providers.tracer = _create(_create_tracer, providers, exporters) if _is_proxy(current) else current
    if settings.meter_provider is None:
        current_meter = metrics.get_meter_provider()
        providers.meter = _create(_create_meter, providers, exporters) if _is_proxy(current_meter) else current_meter
    if settings.logger_provider is None:
        current_logger = _logs.get_logger_provider()
        providers.logger = (
            _create(_create_logger, providers, exporters) if _is_proxy(current_logger) else current_logger
        )
    return providers


def create_resource() -> Any:
    """Creates the resource that `find_providers` needs to create providers.

    Made early, with the SDK's modules loaded: its detectors run on threads, which the end of a process refuses, and a
    script may end before its first second.
    """
    import opentelemetry.sdk._logs
    import opentelemetry.sdk.trace  # noqa: F401 - the metrics' are loaded with this module
    from opentelemetry.sdk.resources import Resource

    return Resource.create()


def has_host_providers() -> bool:
    """Returns whether the host has set a provider for every signal."""
    return not any(
        map(_is_proxy, (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()))
    )


def is_host_provider(provider: object, settings: InstrumentationSettings, providers: Providers | None) -> bool:
    """Returns whether `provider` is one of the application's that are used, or will be once there is something."""
    if providers is not None:
        return provider not in providers.own and provider in (providers.tracer, providers.meter, providers.logger)
    return provider in (
        settings.tracer_provider or trace.get_tracer_provider(),
        settings.meter_provider or metrics.get_meter_provider(),
        settings.logger_provider or _logs.get_logger_provider(),
    )


def _instance_resource(environ: Mapping[str, str]) -> Any:
    """Makes a new `service.instance.id`, so that a forked child is not its parent, unless the environment has one."""
    from opentelemetry.sdk.resources import Resource

    has_id = semconv.SERVICE_INSTANCE_ID in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource({} if has_id else {semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4())})


def _is_proxy(provider: object) -> bool:
    """Returns whether no provider is set: it is then the API's proxy, whose class is private for metrics and logs."""
    return type(provider).__name__.lstrip("_") in {
        "ProxyTracerProvider",
        "ProxyMeterProvider",
        "ProxyLoggerProvider",
    }


class ExporterFactory:
    """Makes the OTLP exporters that the environment asks for; their failures are one warning instead of many.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._pid = os.getpid()
        self._has_warned = threading.Event()

    def make(self, signal: Signal) -> Any:
        """Makes the exporter of a signal; None if the environment switched it off or names one that is not ours."""
        setting = self._environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() or "otlp"
        names = {name.strip() for name in setting.split(",")}
        if "otlp" not in names:
            if names != {"none"}:
                _LOG.warning(
                    "OTEL_%s_EXPORTER=%s is not supported by otel_mlmon's own providers: "
                    "set a provider before instrument().",
                    signal.upper(), setting,
                )  # fmt: skip
            return None
        module, name = _EXPORTERS[signal]
        transport = "grpc" if self._protocol(signal) == "grpc" else "http"
        if transport == "http":
            # Else `requests` imports it in its first export, and a fork just then leaves a child that cannot ever.
            importlib.import_module("netrc")
        exporter = getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{module}"), name)()
        exporter.export = self._silence(exporter.export)
        return exporter

    def _protocol(self, signal: Signal) -> str:
        for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            protocol = self._environ.get(variable, "").strip().lower()
            if protocol in {"grpc", "http/protobuf"}:
                return protocol
            if protocol:
                _LOG.warning("%s=%s is not supported; grpc is used.", variable, protocol)
        return "grpc"

    def _silence(self, export: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(export)
        def export_silently(*arguments: Any, **keywords: Any) -> Any:
            # A forked child inherits exporters full of its parent's totals, and has its own.
            if os.getpid() != self._pid:
                return None
            try:
                with _SILENCE:
                    result = export(*arguments, **keywords)
            except OSError:
                # Exporters of 1.39 raise if no collector listens, and the SDK logs the traceback.
                self.warn_once()
                return None
            if getattr(result, "name", "SUCCESS") != "SUCCESS":
                self.warn_once()
            return result

        return export_silently

    def warn_once(self) -> None:
        """Logs once that no collector accepts telemetry."""
        if self._has_warned.is_set():
            return
        self._has_warned.set()
        endpoint = self._environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or "the default OTLP endpoint"
        _LOG.warning(
            "No collector accepts telemetry at %s: it is lost until one does. "
            "Your code runs on; set OTEL_EXPORTER_OTLP_ENDPOINT to the collector's address.",
            endpoint,
        )


class _Silence(threading.local):
    """Silences the exporters' loggers on a thread while one of our exporters exports there, and there only.

    The loggers are shared with the host's own exporters, so a level would silence those too.
    """

    depth = 0

    def __enter__(self) -> None:
        for name in _EXPORTER_LOGGERS:
            logger = logging.getLogger(name)
            if self.filter not in logger.filters:
                logger.addFilter(self.filter)
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1

    @staticmethod
    def filter(_: logging.LogRecord) -> bool:
        return not _SILENCE.depth


_SILENCE: Final = _Silence()


def _create(
    create: Callable[[Providers, ExporterFactory], P | None], providers: Providers, exporters: ExporterFactory
) -> P | None:
    """Creates a provider; None if its exporter cannot be made, as by a variable that the SDK cannot read.

    Not tried again: each try leaves threads, and the other signals would wait for it.
    """
    with guard("exporters"):
        return create(providers, exporters)
    return None


def _create_tracer(providers: Providers, exporters: ExporterFactory) -> trace.TracerProvider | None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = exporters.make("traces")
    if exporter is None:
        return None
    # The SDK's default sampler takes every call that we chose, or what OTEL_TRACES_SAMPLER says.
    provider = TracerProvider(resource=providers.resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    providers.own.append(provider)
    return provider


def _create_meter(providers: Providers, exporters: ExporterFactory) -> metrics.MeterProvider | None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = exporters.make("metrics")
    if exporter is None:
        return None
    has_interval = bool(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip())
    reader = PeriodicExportingMetricReader(
        exporter, export_interval_millis=None if has_interval else METRIC_INTERVAL_MS
    )
    provider = MeterProvider(
        metric_readers=[reader], resource=providers.resource, views=exponential_views(), shutdown_on_exit=False
    )
    providers.own.append(provider)
    providers.owns_meter = True
    return provider


def _create_logger(providers: Providers, exporters: ExporterFactory) -> _logs.LoggerProvider | None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    exporter = exporters.make("logs")
    if exporter is None:
        return None
    provider = LoggerProvider(resource=providers.resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    providers.own.append(provider)
    return provider


def _run_within(timeout_s: float, functions: list[Callable[[], Any]]) -> bool:
    """Runs functions at once on daemon threads; returns whether all ended in time. The others keep running."""
    deadline_s = time.monotonic() + timeout_s
    threads = [
        threading.Thread(target=_run_silently, args=(function,), daemon=True, name="otel_mlmon-exit")
        for function in functions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _run_silently(function: Callable[[], Any]) -> None:
    with guard("export"), _SILENCE:
        function()
