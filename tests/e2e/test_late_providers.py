"""An application that sets its own providers after its first calls, and after ours have exported: nothing twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from otel_mlmon import semconv
from tests.support.otlp_server import OtlpServer
from tests.support.processes import run_python

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent
BEFORE, WAITING, AFTER = 7, 5, 11

PROGRAM = """
import os, sys
import numpy as np, onnxruntime as ort, otel_mlmon
from otel_mlmon.internal_events import JOURNAL, RecordsDropped
from tests.support import models
handle = otel_mlmon.instrument(sentry="off", flush_interval_s=60.0, span_ratio=1.0, spans_per_second=1000.0)
session = ort.InferenceSession(models.softmax(name="m"))
def run(calls):
    for _ in range(calls):
        session.run(None, {"input": np.array([[3, 0, 0, 0.5]], np.float32)})
run(int(sys.argv[1]))
JOURNAL.emit_event(RecordsDropped(reason="buffer_full", count=100))
assert handle.flush(30)
run(int(sys.argv[2]))
JOURNAL.emit_event(RecordsDropped(reason="buffer_full", count=20))

from opentelemetry import metrics, trace, _logs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
url, own = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"], Resource.create({"service.name": "own"})
if "metrics" in sys.argv[4]:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(url + "/v1/metrics"), 60000)
    metrics.set_meter_provider(MeterProvider([reader], resource=own))
if "traces" in sys.argv[4]:
    tracers = TracerProvider(resource=own)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url + "/v1/traces")))
    trace.set_tracer_provider(tracers)
if "logs" in sys.argv[4]:
    loggers = LoggerProvider(resource=own)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(url + "/v1/logs")))
    _logs.set_logger_provider(loggers)
if "flushed" in sys.argv[4]:
    assert handle.flush(30)
run(int(sys.argv[3]))
JOURNAL.emit_event(RecordsDropped(reason="buffer_full", count=3))
"""


def totals(server: OtlpServer) -> dict[str, Counter[str]]:
    """Calls, drops, labels, spans and sessions by the service that sent them; of metrics the last of each process."""
    latest: dict[tuple[str, str, str], int] = {}
    for request in server.of("metrics"):
        for resource in request.resource_metrics:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            sender = (attributes["service.name"], attributes.get(semconv.SERVICE_INSTANCE_ID, ""))
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == semconv.DURATION.name:
                    latest[(*sender, "calls")] = sum(point.count for point in metric.histogram.data_points)
                elif metric.name in {semconv.RECORDS_DROPPED.name, semconv.PREDICTIONS.name}:
                    total = sum(point.as_int for point in metric.sum.data_points)
                    latest[(*sender, "dropped" if metric.name == semconv.RECORDS_DROPPED.name else "labels")] = total
    found: dict[str, Counter[str]] = {}
    for (service, _, what), count in latest.items():
        found.setdefault(service, Counter())[what] += count
    for request in server.of("traces"):
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            service = attributes["service.name"]
            found.setdefault(service, Counter())["spans"] += sum(len(scope.spans) for scope in resource.scope_spans)
    return found


@pytest.mark.parametrize("signals", ["metrics traces logs", "metrics", "traces", "metrics traces logs flushed"])
def test_what_is_not_written_goes_to_the_providers_of_the_application(signals: str) -> None:
    with OtlpServer() as server:
        done = run_python(
            ["-c", PROGRAM, str(BEFORE), str(WAITING), str(AFTER), signals],
            cwd=ROOT,
            OTEL_SERVICE_NAME="ours",
            OTEL_EXPORTER_OTLP_ENDPOINT=server.http_url,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_METRIC_EXPORT_INTERVAL="60000",
            OTEL_MLMON_SHUTDOWN_TIMEOUT_S="20",
            PYTHONPATH=str(ROOT),
        )
        assert (done.returncode, done.stderr) == (0, "100 inference records were dropped: buffer_full.\n")
        found = totals(server)
    late, everything = WAITING + AFTER, BEFORE + WAITING + AFTER
    ours, own = found["ours"], found.get("own", Counter())
    calls = (BEFORE, late) if "metrics" in signals else (everything, 0)
    assert ((ours["calls"], own["calls"]), (ours["labels"], own["labels"])) == (calls, calls)
    # Drops are counted when they are collected: those that came before the application's provider stay with ours.
    assert ours["dropped"] + own["dropped"] == 123
    assert (own["dropped"] > 0) == ("flushed" in signals)
    assert (ours["spans"], own["spans"]) == ((BEFORE, late) if "traces" in signals else (everything, 0))
