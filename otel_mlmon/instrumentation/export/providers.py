"""Where the signals go: the providers that the host has set, else our own, which export by OTLP.

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

Signal = Literal["traces", "metrics", "logs"]
P = TypeVar("P")

METRIC_INTERVAL_MS: Final = 10_000
"""Of our own reader, unless OTEL_METRIC_EXPORT_INTERVAL says another: the default of a minute is late for an alarm."""

_LOG: Final = logging.getLogger("otel_mlmon")
_EXPORTERS: Final[dict[Signal, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_NOISY: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
    "urllib3.connectionpool",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """Providers given by the caller."""

    tracer: trace.TracerProvider | None = None
    meter: metrics.MeterProvider | None = None
    logger: _logs.LoggerProvider | None = None

    def differences(self, other: Given) -> list[str]:
        """The arguments of `instrument()` by which `other` gives a provider that is not the one here."""
        pairs = {
            "tracer_provider": (self.tracer, other.tracer),
            "meter_provider": (self.meter, other.meter),
            "logger_provider": (self.logger, other.logger),
        }
        return [name for name, (here, there) in pairs.items() if there is not None and there is not here]


@dataclass(slots=True, kw_only=True)
class Providers:
    """One provider a signal; None where the environment switched the signal off."""

    tracer: trace.TracerProvider | None = None
    meter: metrics.MeterProvider | None = None
    logger: _logs.LoggerProvider | None = None
    owned: list[Any] = field(default_factory=list)
    """Those we created, to be flushed and shut down by us."""
    owns_meter: bool = False
    resource: Any = None
    """The SDK's resource of those we created."""
    warn: Callable[[], None] = lambda: None
    """Says, once in a process's life, that what our own exporters send is not accepted."""

    def flush(self, timeout_s: float) -> bool:
        """Export what our own providers hold; whether all of it was done in time."""
        return _all_within(timeout_s, [provider.force_flush for provider in self.owned])

    def shutdown(self, timeout_s: float) -> bool:
        """Export the rest and end our own providers; whether it was done in time.

        The SDK waits up to 20 s for a collector that does not answer and ignores its own time-outs, so it is left to
        daemon threads, which end with the process.
        """
        is_done = _all_within(timeout_s, [provider.shutdown for provider in self.owned])
        if not is_done:
            self.warn()
        return is_done


def find(
    given: Given,
    *,
    base: Any,
    environ: Mapping[str, str],
) -> Providers:
    """The given providers, else the global ones, else our own, of the resource `base`."""
    resource = base and base.merge(_instance(environ))
    exporters = Exporters(environ)
    found = Providers(
        tracer=given.tracer, meter=given.meter, logger=given.logger, resource=resource, warn=exporters.warn_once
    )
    if given.tracer is None:
        current = trace.get_tracer_provider()
        found.tracer = _own(_own_tracer, found, exporters) if _is_proxy(current) else current
    if given.meter is None:
        current_meter = metrics.get_meter_provider()
        found.meter = _own(_own_meter, found, exporters) if _is_proxy(current_meter) else current_meter
    if given.logger is None:
        current_logger = _logs.get_logger_provider()
        found.logger = _own(_own_logger, found, exporters) if _is_proxy(current_logger) else current_logger
    return found


def base_resource() -> Any:
    """What `find` needs to create providers.

    Made early, with the SDK's modules loaded: its detectors run on threads, which the end of a process refuses, and a
    script may end before its first second.
    """
    import opentelemetry.sdk._logs
    import opentelemetry.sdk.trace  # noqa: F401 - the metrics' are loaded with this module
    from opentelemetry.sdk.resources import Resource

    return Resource.create()


def are_set() -> bool:
    """Whether the host has set a provider for every signal."""
    return not any(
        map(_is_proxy, (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()))
    )


def _instance(environ: Mapping[str, str]) -> Any:
    """A new `service.instance.id`, so that a forked child is not its parent; what the environment says stays."""
    from opentelemetry.sdk.resources import Resource

    is_said = semconv.SERVICE_INSTANCE_ID in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource({} if is_said else {semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4())})


def _is_proxy(provider: object) -> bool:
    """Whether nobody set a provider: the API's stand-in, private for metrics and logs, says so by its name."""
    return type(provider).__name__.lstrip("_") in {
        "ProxyTracerProvider",
        "ProxyMeterProvider",
        "ProxyLoggerProvider",
    }


class Exporters:
    """OTLP exporters by the environment, which fail with one warning instead of a flood.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._pid = os.getpid()
        self._has_warned = threading.Event()

    def make(self, signal: Signal) -> Any:
        """The exporter of a signal; None if the environment switched it off or names one that is not ours."""
        wanted = self._environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() or "otlp"
        names = {name.strip() for name in wanted.split(",")}
        if "otlp" not in names:
            if names != {"none"}:
                _LOG.warning("OTEL_%s_EXPORTER=%s needs a provider of your own.", signal.upper(), wanted)
            return None
        module, name = _EXPORTERS[signal]
        transport = "grpc" if self._protocol(signal) == "grpc" else "http"
        if transport == "http":
            # Else `requests` imports it in its first export, and a fork just then leaves a child that cannot ever.
            importlib.import_module("netrc")
        exporter = getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{module}"), name)()
        exporter.export = self._quiet(exporter.export)
        return exporter

    def _protocol(self, signal: Signal) -> str:
        for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            said = self._environ.get(variable, "").strip().lower()
            if said in {"grpc", "http/protobuf"}:
                return said
            if said:
                _LOG.warning("%s=%s is not supported; grpc is used.", variable, said)
        return "grpc"

    def _quiet(self, export: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(export)
        def quiet(*arguments: Any, **keywords: Any) -> Any:
            # A forked child inherits exporters full of its parent's totals, and has its own.
            if os.getpid() != self._pid:
                return None
            try:
                with _QUIET:
                    result = export(*arguments, **keywords)
            except OSError:
                # Exporters of 1.39 let through that nobody listens, and the SDK logs its traceback.
                self.warn_once()
                return None
            if getattr(result, "name", "SUCCESS") != "SUCCESS":
                self.warn_once()
            return result

        return quiet

    def warn_once(self) -> None:
        """Say that nobody takes telemetry, unless it was said."""
        if self._has_warned.is_set():
            return
        self._has_warned.set()
        endpoint = self._environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or "the default OTLP endpoint"
        _LOG.warning(
            "No collector accepts telemetry at %s: it is lost until one does. "
            "Your code runs on; OTEL_EXPORTER_OTLP_ENDPOINT says where the collector is.",
            endpoint,
        )


class _Quiet(threading.local):
    """While one of our exporters exports on a thread, the exporters' loggers are silent there, and there only.

    The loggers are shared with the host's own exporters, so a level would silence those too.
    """

    depth = 0

    def __enter__(self) -> None:
        for name in _NOISY:
            logger = logging.getLogger(name)
            if self.filter not in logger.filters:
                logger.addFilter(self.filter)
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1

    @staticmethod
    def filter(_: logging.LogRecord) -> bool:
        return not _QUIET.depth


_QUIET: Final = _Quiet()


def _own(make: Callable[[Providers, Exporters], P | None], found: Providers, exporters: Exporters) -> P | None:
    """A provider of our own; None if its exporter cannot be made, as by a variable that the SDK cannot read.

    Not tried again: each try leaves threads, and the other signals would wait for it.
    """
    with guard("exporters"):
        return make(found, exporters)
    return None


def _own_tracer(found: Providers, exporters: Exporters) -> trace.TracerProvider | None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = exporters.make("traces")
    if exporter is None:
        return None
    # The SDK's default sampler takes every call that we chose, or what OTEL_TRACES_SAMPLER says.
    provider = TracerProvider(resource=found.resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    found.owned.append(provider)
    return provider


def _own_meter(found: Providers, exporters: Exporters) -> metrics.MeterProvider | None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = exporters.make("metrics")
    if exporter is None:
        return None
    is_said = bool(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip())
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=None if is_said else METRIC_INTERVAL_MS)
    provider = MeterProvider(
        metric_readers=[reader], resource=found.resource, views=exponential_views(), shutdown_on_exit=False
    )
    found.owned.append(provider)
    found.owns_meter = True
    return provider


def _own_logger(found: Providers, exporters: Exporters) -> _logs.LoggerProvider | None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    exporter = exporters.make("logs")
    if exporter is None:
        return None
    provider = LoggerProvider(resource=found.resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    found.owned.append(provider)
    return provider


def _all_within(timeout_s: float, works: list[Callable[[], Any]]) -> bool:
    """Do all `works` at once on daemon threads; whether they ended in time. Those that did not are left alone."""
    deadline_s = time.monotonic() + timeout_s
    threads = [threading.Thread(target=_quietly, args=(work,), daemon=True, name="otel_mlmon-exit") for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _quietly(work: Callable[[], Any]) -> None:
    with guard("export"), _QUIET:
        work()
