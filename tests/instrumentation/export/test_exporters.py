from __future__ import annotations

import logging
import socket
from importlib.util import find_spec
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from otel_mlmon.instrumentation.export.exporters import ExporterFactory, Signal

REFUSING = ("127.0.0.1", 1)
"""Where nobody listens: a port for which one has to be root, and which no program uses."""


def make(signal: Signal, **environ: str) -> list[Any]:
    exporters = ExporterFactory(environ).make_exporters(signal)
    for exporter in exporters:
        exporter.shutdown()
    return exporters


def has_json_exporter() -> bool:
    """Whether the exporter of http/json is installed: in the releases of `make sdks` it is not."""
    return find_spec("opentelemetry.exporter.otlp.json") is not None


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
@pytest.mark.parametrize(
    ("setting", "modules"),
    [
        ("", ["opentelemetry.exporter.otlp.proto.grpc"]),
        (" ", ["opentelemetry.exporter.otlp.proto.grpc"]),
        ("none", []),
        ("None", []),
        ("otlp", ["opentelemetry.exporter.otlp.proto.grpc"]),
        ("otlp_proto_http", ["opentelemetry.exporter.otlp.proto.http"]),
        ("console", ["opentelemetry.sdk"]),
        ("otlp, console,otlp,", ["opentelemetry.exporter.otlp.proto.grpc", "opentelemetry.sdk"]),
        ("console,none", ["opentelemetry.sdk"]),
    ],
)
def test_which_exporters_a_list_names(
    signal: Signal, setting: str, modules: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    exporters = make(signal, **{f"OTEL_{signal.upper()}_EXPORTER": setting})
    assert [
        type(exporter).__module__.startswith(module) for exporter, module in zip(exporters, modules, strict=True)
    ] == [True] * len(modules)
    assert messages(caplog) == []


def test_console_is_the_sdks() -> None:
    assert type(make("traces", OTEL_TRACES_EXPORTER="console")[0]) is ConsoleSpanExporter
    assert type(make("metrics", OTEL_METRICS_EXPORTER="console")[0]) is ConsoleMetricExporter


@pytest.mark.parametrize(
    ("common", "own", "transport"),
    [
        ("", "", "grpc"),
        ("http/protobuf", "", "http"),
        ("http/protobuf", "grpc", "grpc"),
        ("grpc", "http/protobuf", "http"),
        ("HTTP/protobuf", "", "http"),
    ],
)
def test_the_protocol_of_a_signal_wins_over_the_common_one(
    common: str, own: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    (exporter,) = make("logs", OTEL_EXPORTER_OTLP_PROTOCOL=common, OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=own)
    assert type(exporter).__module__.startswith(f"opentelemetry.exporter.otlp.proto.{transport}")
    assert messages(caplog) == []


def test_http_json_is_used_where_its_exporter_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    factory = ExporterFactory({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    made = [exporter for signal in ("traces", "metrics", "logs") for exporter in factory.make_exporters(signal)]
    for exporter in made:
        exporter.shutdown()
    is_installed = has_json_exporter()
    package = "opentelemetry.exporter.otlp." + ("json.http" if is_installed else "proto.http")
    assert [type(exporter).__module__.startswith(package) for exporter in made] == [True] * 3
    said = [
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/json: no exporter of it is installed; http/protobuf is used. "
        "pip install opentelemetry-exporter-otlp-json-http"
    ]
    assert messages(caplog) == ([] if is_installed else said)


def test_an_unknown_protocol_is_said_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    assert len(make("logs", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuff")) == 1
    assert messages(caplog) == [
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuff is not supported; grpc is used. Did you mean http/protobuf?"
    ]


@pytest.mark.parametrize(
    ("signal", "name", "remedy"),
    [
        ("traces", "zipkin", " pip install opentelemetry-exporter-zipkin"),
        ("metrics", "consol", " Did you mean console?"),
        ("traces", "xyz", ""),
    ],
)
def test_a_missing_exporter_is_said_and_the_others_are_made(
    signal: Signal, name: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    assert len(make(signal, **{variable: f"{name},console"})) == 1
    assert messages(caplog) == [
        f"{variable}={name}: no exporter of this name is installed, so {signal} are not exported to it.{remedy}"
    ]


class Failure:
    name = "FAILURE"


def test_failures_of_our_exporters_are_one_warning_a_signal_and_those_of_others_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noisy = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")

    def export(_: object) -> Failure:
        noisy.error("Failed to export")
        return Failure()

    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://b:2"}
    factory = ExporterFactory(environ)
    traces, logs = factory._silence_export("traces", export), factory._silence_export("logs", export)
    metrics = factory._silence_export("metrics", lambda _: None)
    for quiet in (traces, logs, metrics) * 2:
        quiet([])
    noisy.error("The host's own")
    assert messages(caplog) == [
        f"No collector accepts {signal} at {endpoint}: they are lost until one does. Your code runs on; "
        f"set OTEL_EXPORTER_OTLP_ENDPOINT to the collector's address, or OTEL_{signal.upper()}_EXPORTER=none."
        for signal, endpoint in (("traces", "http://a:1"), ("logs", "http://b:2"))
    ] + ["The host's own"]


def test_an_exporter_that_lets_a_refused_connection_through_is_one_warning_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def export(_: object) -> None:
        socket.create_connection(REFUSING)

    quiet = ExporterFactory({})._silence_export("metrics", export)
    assert [quiet([]), quiet([])] == [None, None]
    (message,) = messages(caplog)
    assert message.startswith("No collector accepts metrics at the default OTLP endpoint")
