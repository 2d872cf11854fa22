from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any

import grpc
import pytest

from otel_mlmon import semconv
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.processor.serve.otlp import OtlpForwarder, OtlpProtocol
from tests.support.otlp_requests import NOW_NS
from tests.support.otlp_server import Fault, OtlpServer

RESOURCE = {"service.name": "otel-mlmon-processor", "service.instance.id": "p1"}
GAUGES = [
    MetricValue(metric=semconv.DRIFT_SCORE, value=0.25, attributes={"ml.drift.stream": "latency"}),
    MetricValue(metric=semconv.DRIFT_SCORE, value=0.5, attributes={"ml.drift.stream": "errors"}),
    MetricValue(metric=semconv.ALERT_STATE, value=2, attributes={"ml.alert.rule": "latency"}),
]


def make(
    server: OtlpServer, protocol: OtlpProtocol, read: Any = lambda: GAUGES, interval_s: float = 3600
) -> OtlpForwarder:
    endpoint = server.grpc_address if protocol == "grpc" else server.http_url
    return OtlpForwarder(endpoint, protocol=protocol, read=read, interval_s=interval_s, resource=RESOURCE)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_gauges_and_events_arrive_under_the_processors_scope(protocol: OtlpProtocol) -> None:
    with OtlpServer() as server:
        exporter = make(server, protocol)
        attributes: dict[str, str | int] = {"ml.model.name": "fraud", "ml.alert.severity": "critical", "n": 3}
        exporter.emit_event("ml.alert", "WARN", "fraud is slow", attributes, NOW_NS)
        assert exporter.shutdown(10.0)
        points = [
            (
                scope.name,
                metric.name,
                metric.unit,
                {pair.key: pair.value.string_value for pair in point.attributes},
                point.as_double or point.as_int,
            )
            for scope, metric, point in server.points()
        ]
        records = list(server.log_records())
    assert points == [
        ("otel_mlmon.processor", "ml.drift.score", "{score}", {"ml.drift.stream": "latency"}, 0.25),
        ("otel_mlmon.processor", "ml.drift.score", "{score}", {"ml.drift.stream": "errors"}, 0.5),
        ("otel_mlmon.processor", "ml.alert.state", "{state}", {"ml.alert.rule": "latency"}, 2),
    ]
    [(scope, record)] = records
    assert scope.name == semconv.PROCESSOR_SCOPE
    assert (record.event_name, record.severity_text, record.severity_number) == ("ml.alert", "WARN", 13)
    assert (record.body.string_value, record.time_unix_nano) == ("fraud is slow", NOW_NS)
    assert {pair.key for pair in record.attributes} == set(attributes)
    resource = server.of("metrics")[0].resource_metrics[0].resource
    assert {pair.key: pair.value.string_value for pair in resource.attributes}.items() >= RESOURCE.items()


def test_what_is_sent_on_is_dropped_when_it_comes_back() -> None:
    with OtlpServer() as server:
        assert make(server, "grpc").shutdown(10.0)
        decoded = decode_metrics(server.of("metrics")[0])
    assert (decoded.loop_dropped, decoded.points) == (3, 3)


def test_gauges_are_read_again_at_every_interval() -> None:
    calls: list[int] = []

    def read() -> Iterable[MetricValue]:
        calls.append(1)
        return GAUGES if len(calls) <= len(semconv.PROCESSOR_METRICS) else GAUGES[:1]

    with OtlpServer() as server:
        exporter = make(server, "grpc", read, interval_s=0.05)
        server.wait_for(lambda received: len(received.requests) >= 2)
        exporter.shutdown(10.0)
        first, second = server.of("metrics")[:2]
    names = [
        [metric.name for metric in message.resource_metrics[0].scope_metrics[0].metrics] for message in (first, second)
    ]
    assert names == [["ml.drift.score", "ml.alert.state"], ["ml.drift.score"]]


@pytest.mark.guarded
def test_a_reader_that_fails_sends_nothing_and_harms_nobody() -> None:
    def read() -> Iterable[MetricValue]:
        raise ZeroDivisionError

    with OtlpServer() as server:
        exporter = make(server, "grpc", read)
        exporter.emit_event("ml.alert", "INFO", "still here", {}, NOW_NS)
        assert exporter.shutdown(10.0)
        assert [record.body.string_value for _, record in server.log_records()] == ["still here"]
        assert list(server.points()) == []


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_dead_endpoint_does_not_hold_up_the_end(protocol: OtlpProtocol) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        exporter = OtlpForwarder(endpoint, protocol=protocol, read=lambda: GAUGES, interval_s=3600, resource=RESOURCE)
        exporter.emit_event("ml.alert", "ERROR", "nobody hears", {}, NOW_NS)
        began_s = time.monotonic()
        exporter.shutdown(0.5)
        assert time.monotonic() - began_s < 2.0


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_endpoint_that_hangs_does_not_hold_up_the_end(protocol: OtlpProtocol) -> None:
    with OtlpServer(delay_s=60.0) as server:
        exporter = make(server, protocol)
        began_s = time.monotonic()
        exporter.shutdown(0.5)
        assert time.monotonic() - began_s < 2.0


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_is_refused_for_now_is_sent_again(protocol: OtlpProtocol) -> None:
    fault = Fault(http_status=429, grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.2, times=1)
    with OtlpServer(fault=fault) as server:
        exporter = make(server, protocol, interval_s=0.05)
        server.wait_for(lambda received: len(received.requests) >= 1)
        exporter.shutdown(10.0)
        first_s, second_s = server.arrivals_s[:2]
    assert second_s - first_s >= 0.15
