"""Makes the OpenTelemetry exporters that environment variables name, as OpenTelemetry's distribution does.

OTEL_{TRACES,METRICS,LOGS}_EXPORTER is a list of names of entry points, `opentelemetry_{traces,metrics,logs}_exporter`;
`none` is nothing, and `otlp`, the default, is that of the protocol in OTEL_EXPORTER_OTLP_PROTOCOL. Source:
opentelemetry-specification, configuration/sdk-environment-variables.md and protocol/exporter.md.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, Literal

from otel_mlmon.guard import guard
from otel_mlmon.options import suggest_name

Signal = Literal["traces", "metrics", "logs"]

_LOG: Final = logging.getLogger("otel_mlmon")
_PROTOCOLS: Final[dict[str, str]] = {
    "grpc": "otlp_proto_grpc",
    "http/protobuf": "otlp_proto_http",
    "http/json": "otlp_json_http",
}
"""The entry point of each protocol."""
_PACKAGES: Final[dict[str, str]] = {
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
    "otlp_json_http": "opentelemetry-exporter-otlp-json-http",
    "prometheus": "opentelemetry-exporter-prometheus",
    "zipkin": "opentelemetry-exporter-zipkin",
    "jaeger": "opentelemetry-exporter-otlp",
    "logging": "opentelemetry-sdk",
}
"""The package that brings an entry point."""
_EXPORTER_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.json.http._log_exporter",
    "opentelemetry.exporter.otlp.json.http.metric_exporter",
    "opentelemetry.exporter.otlp.json.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
    "urllib3.connectionpool",
)


class ExporterFactory:
    """Makes the exporters that environment variables name, and warns once a signal if they cannot export.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._warned: set[Signal] = set()
        self._replaced: set[str] = set()
        """Variables whose protocol has no exporter here."""

    def make_exporters(self, signal: Signal) -> list[Any]:
        """Makes the exporters of one signal (metrics, traces or logs); warns of those that cannot be made."""
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        setting = self._environ.get(variable, "").strip() or "otlp"
        names = dict.fromkeys(name.strip().lower() for name in setting.split(",") if name.strip())
        exporters = []
        for name in names:
            if name == "none":
                continue
            with guard("exporters"):
                exporter = self._make_exporter(signal, name, variable)
                if exporter is not None:
                    exporters.append(exporter)
        return exporters

    def _make_exporter(self, signal: Signal, name: str, variable: str) -> Any:
        entry_name = _PROTOCOLS[self._choose_otlp_protocol(signal)] if name == "otlp" else name
        group = f"opentelemetry_{signal}_exporter"
        entry = next(iter(entry_points(group=group, name=entry_name)), None)
        if entry is None:
            package = _PACKAGES.get(entry_name)
            names = ["none", "otlp", *(other.name for other in entry_points(group=group))]
            remedy = f" pip install {package}" if package else suggest_name(name, names)
            _LOG.warning(
                "%s=%s: no exporter of this name is installed, so %s are not exported to it.%s",
                variable, name, signal, remedy,
            )  # fmt: skip
            return None
        if entry_name in {"otlp_proto_http", "otlp_json_http"}:
            # Else `requests` and `urllib3` import these in a first export, and a fork just then leaves a child that
            # cannot ever.
            for module in ("netrc", "encodings.idna"):
                importlib.import_module(module)
        exporter = entry.load()()
        if hasattr(exporter, "export"):
            exporter.export = self._silence_export(signal, exporter.export)
        return exporter

    def _choose_otlp_protocol(self, signal: Signal) -> str:
        for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            protocol = self._environ.get(variable, "").strip().lower()
            if protocol == "http/json" and not entry_points(
                group=f"opentelemetry_{signal}_exporter", name=_PROTOCOLS[protocol]
            ):
                if variable not in self._replaced:
                    self._replaced.add(variable)
                    _LOG.warning(
                        "%s=http/json: no exporter of it is installed; http/protobuf is used. pip install %s",
                        variable, _PACKAGES[_PROTOCOLS[protocol]],
                    )  # fmt: skip
                return "http/protobuf"
            if protocol in _PROTOCOLS:
                return protocol
            if protocol:
                _LOG.warning(
                    "%s=%s is not supported; grpc is used.%s", variable, protocol, suggest_name(protocol, _PROTOCOLS)
                )
        return "grpc"

    def _silence_export(self, signal: Signal, export: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(export)
        def export_silently(*arguments: Any, **keywords: Any) -> Any:
            # A forked child inherits exporters full of its parent's totals, and has its own.
            if os.getpid() != self._pid:
                return None
            try:
                with SILENCE:
                    result = export(*arguments, **keywords)
            except OSError:
                # Exporters of 1.39 raise if no collector listens, and the SDK logs the traceback.
                self.warn_of_missing_collector(signal)
                return None
            if getattr(result, "name", "SUCCESS") != "SUCCESS":
                self.warn_of_missing_collector(signal)
            return result

        return export_silently

    def warn_of_missing_collector(self, signal: Signal) -> None:
        """Logs once that no collector accepts the metrics, traces or logs."""
        with self._lock:
            if signal in self._warned:
                return
            self._warned.add(signal)
        variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        endpoints = (self._environ.get(variable, "").strip() for variable in variables)
        _LOG.warning(
            "No collector accepts %s at %s: they are lost until one does. "
            "Your code runs on; set OTEL_EXPORTER_OTLP_ENDPOINT to the collector's address, "
            "or OTEL_%s_EXPORTER=none.",
            signal, next(filter(None, endpoints), "the default OTLP endpoint"), signal.upper(),
        )  # fmt: skip


class _ExporterSilence(threading.local):
    """Suppresses the log lines of OpenTelemetry's exporters while one of our exporters runs on the thread.

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
        return not SILENCE.depth


SILENCE: Final = _ExporterSilence()
"""Silences the loggers of OpenTelemetry's exporters on this thread, in a `with` block."""
