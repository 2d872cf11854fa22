from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, MeterProvider
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.predictions import (
    ClassificationHead,
    PredictedLabels,
    PredictionConfidences,
    Predictions,
)
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import BulkUnavailableReasons
from otel_mlmon.instrumentation.export.call_sampler import prioritize_calls
from otel_mlmon.instrumentation.export.metrics import MAX_EXEMPLARS, MetricWriter, pick_exemplar_values
from otel_mlmon.instrumentation.lifecycle import Handle
from otel_mlmon.testing import capture
from otel_mlmon.types import ModelKey
from tests.support import models
from tests.support.otlp_server import OtlpServer

Told = set[tuple[float, int, int]]
DELTA: dict[type, AggregationTemporality] = {
    SdkHistogram: AggregationTemporality.DELTA,
    Counter: AggregationTemporality.DELTA,
}
EXPONENTIAL = View(instrument_name="ml.inference.duration", aggregation=ExponentialBucketHistogramAggregation())


def told(points: Sequence[Any]) -> Told:
    """Value, trace and span of the exemplars of data points."""
    return {(found.value, found.trace_id, found.span_id) for point in points for found in point.exemplars}


def metrics_of(reader: InMemoryMetricReader) -> dict[str, Sequence[Any]]:
    """Data points by metric."""
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else []
    return {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}


Exported = Callable[[], Sequence[ReadableSpan]]


@contextmanager
def instrumented(
    meter_provider: MeterProvider, sampler: Sampler = ALWAYS_ON
) -> Iterator[tuple[Handle, TracerProvider, Exported]]:
    """Every call with a span, on providers of the test's own."""
    spans = InMemorySpanExporter()
    tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    handle = otel_mlmon.instrument(
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=LoggerProvider(shutdown_on_exit=False),
        span_ratio=1.0,
        spans_per_second=1e9,
        flush_interval_s=60.0,
    )
    try:
        yield handle, tracer_provider, spans.get_finished_spans
    finally:
        handle.shutdown(10)
        meter_provider.shutdown()


def inferences(exported: Exported) -> list[dict[str, Any]]:
    """Attributes and ids of the spans of inferences."""
    return [
        {**(span.attributes or {}), "trace": span.context.trace_id, "span": span.context.span_id}
        for span in exported()
        if span.name.startswith("predict") and span.context
    ]


def row(*values: float) -> dict[str, np.ndarray]:
    return {"input": np.array([values], dtype=np.float32)}


@pytest.fixture
def session() -> Any:
    return ort.InferenceSession(models.softmax(classes=2, name="iris"))


def calls(session: Any, handle: Handle, tracer_provider: TracerProvider) -> None:
    """One in a trace of the host's, and one outside any, which says something else."""
    with tracer_provider.get_tracer("host").start_as_current_span("request"):
        session.run(None, row(3, 0))
    session.run(None, row(0, 1))
    assert handle.flush(10)


@pytest.mark.parametrize("kind", ["cumulative", "delta", "exponential"])
def test_durations_confidences_and_labels_name_the_spans_of_their_calls(session: Any, kind: str) -> None:
    reader = InMemoryMetricReader(preferred_temporality=DELTA if kind == "delta" else None)
    provider = MeterProvider([reader], views=[EXPONENTIAL] if kind == "exponential" else [], shutdown_on_exit=False)
    with instrumented(provider) as (handle, tracer_provider, exported):
        # Twice, since the first values of all may be shown while another thread still writes them.
        calls(session, handle, tracer_provider)
        calls(session, handle, tracer_provider)
        found, spans = metrics_of(reader), inferences(exported)
        assert len(spans) == 4
        told_by = {(span["ml.inference.duration"], span["trace"], span["span"]) for span in spans}
        durations = told(found["ml.inference.duration"])
        # The slowest call of a trace of the host's is known by the host's span at first.
        assert {found[:2] for found in durations} <= {found[:2] for found in told_by}
        newest = spans[-2:]  # which stay, of each bucket and of each label
        last = newest[-1]
        assert (last["ml.inference.duration"], last["trace"], last["span"]) in durations
        confidences = {(span["ml.prediction.confidence"], span["trace"], span["span"]) for span in newest}
        assert told(found["ml.prediction.confidence"]) == confidences
        labels = {point.attributes["ml.prediction.label"]: told([point]) for point in found["ml.predictions"]}
        assert labels == {span["ml.prediction.label"]: {(1, span["trace"], span["span"])} for span in newest}


def test_over_otlp(session: Any) -> None:
    exporter_module = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    with OtlpServer() as server:
        exporter = exporter_module.OTLPMetricExporter(endpoint=f"{server.http_url}/v1/metrics")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        with instrumented(MeterProvider([reader], shutdown_on_exit=False)) as (handle, tracer_provider, exported):
            calls(session, handle, tracer_provider)
            calls(session, handle, tracer_provider)
            reader.force_flush()
            found = {
                (metric.name, e.as_double or e.as_int, e.trace_id, e.span_id)
                for _, metric, point in server.points()
                for e in point.exemplars
            }
            last = inferences(exported)[-1]
            ids = last["trace"].to_bytes(16, "big"), last["span"].to_bytes(8, "big")
            assert found >= {
                ("ml.inference.duration", last["ml.inference.duration"], *ids),
                ("ml.prediction.confidence", last["ml.prediction.confidence"], *ids),
                ("ml.predictions", 1, *ids),
            }


def test_prometheuss_reader_has_no_exemplars_even_in_openmetrics() -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client.openmetrics.exposition")
    registry = pytest.importorskip("prometheus_client").REGISTRY
    provider = MeterProvider([exporter.PrometheusMetricReader()], shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[0.5])
    histogram.record(0.25, {}, sampled(0xABC))
    text = client.generate_latest(registry).decode()
    assert "h_bucket" in text
    assert " # {" not in text  # where OpenMetrics has exemplars
    provider.shutdown()


def sampled(trace_id: int) -> Context:
    span = NonRecordingSpan(SpanContext(trace_id, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    return trace.set_span_in_context(span, Context())


def test_exemplars_of_a_batch_are_a_few_calls_evenly_over_the_ranks() -> None:
    calls = 101
    durations_ns = np.random.default_rng(3).permutation(np.arange(1, calls + 1) * 1_000_000)
    predictions = Predictions(
        model=ModelIdentity(name="m", version="", runtime_version="", provider=""),
        operation="run",
        started_ns=np.arange(calls),
        duration_ns=durations_ns,
        contexts=[Context()] * calls,
        errors=[None] * 100 + ["ValueError"],
        batch_sizes=np.ones(calls, dtype=np.int64),
        heads={
            "": ClassificationHead(
                labels=PredictedLabels(
                    codes=np.array([0, 1, 1, 0]), calls=np.array([3, 4, 5, 100]), table=["cat", "dog"]
                ),
                confidences=PredictionConfidences(np.array([0.0, 0.5]), np.array([7, 9])),
            )
        },
    )
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics = MetricWriter(provider, drain=lambda: None, sessions=list)
    metrics.write_snapshot(
        MetricSnapshot(
            model=ModelKey("m"),
            durations_s={
                "": durations_ns[:100] / 1e9,
                "ValueError": durations_ns[100:] / 1e9,
            },
            confidences={"": np.array([0.0, 0.5])},
            labels={"": {"cat": 2, "dog": 2}},
        )
    )
    offers: list[tuple[Any, ...]] = []
    span_contexts = {call: sampled(call + 1) for call in range(calls) if call != 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "offer_exemplar", lambda instrument, *offer: offers.append((instrument.name, *offer)))
        metrics.add_exemplars(predictions, prioritize_calls(predictions), span_contexts, offset_ns=7)
        metrics.add_exemplars(predictions, prioritize_calls(predictions), {}, offset_ns=7)
        guard("exemplars").is_open = True
        metrics.add_exemplars(predictions, prioritize_calls(predictions), span_contexts, offset_ns=7)
        guard("exemplars").reset_stage()
        metrics.unavailable_reasons = BulkUnavailableReasons("", "a reason")
        metrics.add_exemplars(predictions, prioritize_calls(predictions), span_contexts, offset_ns=7)
    provider.shutdown()
    base = {"ml.model.name": "m"}
    order = sorted((duration_ns, call) for call, duration_ns in enumerate(durations_ns[:100].tolist()) if call != 5)
    ranks = [int(rank) for rank in np.linspace(0, 98, MAX_EXEMPLARS)]
    assert (ranks[0], ranks[-1], len(ranks)) == (0, 98, MAX_EXEMPLARS)

    def offer(metric: semconv.Metric, value: float, attributes: dict[str, str], call: int) -> tuple[Any, ...]:
        return metric.name, value, {**base, **attributes}, span_contexts[call], call + int(durations_ns[call]) + 7

    assert offers == [
        *(offer(semconv.DURATION, order[rank][0] / 1e9, {}, order[rank][1]) for rank in ranks),
        offer(semconv.DURATION, durations_ns[100] / 1e9, {"error.type": "ValueError"}, 100),
        offer(semconv.CONFIDENCE, 0.0, {}, 7),
        offer(semconv.CONFIDENCE, 0.5, {}, 9),
        offer(semconv.PREDICTIONS, 1.0, {"ml.prediction.label": "cat"}, 100),
        offer(semconv.PREDICTIONS, 1.0, {"ml.prediction.label": "dog"}, 4),
    ]


@pytest.mark.parametrize("count", [1, MAX_EXEMPLARS, MAX_EXEMPLARS + 1, 1000])
def test_the_spread_keeps_both_extremes_and_no_more_than_it_may(count: int) -> None:
    values = [(float(value), value) for value in np.random.default_rng(count).permutation(count).tolist()]
    spread = pick_exemplar_values(values)
    assert len(spread) == min(count, MAX_EXEMPLARS)
    assert {min(values), max(values)} <= set(spread) <= set(values)
    if count <= MAX_EXEMPLARS:
        assert spread == values
    else:
        assert spread == sorted(set(spread))


def test_a_span_that_the_sampler_refuses_is_told_nowhere(session: Any) -> None:
    reader = InMemoryMetricReader()
    with instrumented(MeterProvider([reader], shutdown_on_exit=False), ALWAYS_OFF) as (handle, *_):
        session.run(None, row(3, 0))
        assert handle.flush(10)
        found = metrics_of(reader)
        assert {name: told(points) for name, points in found.items()} == {name: set() for name in found}
        assert "ml.inference.duration" in found


def test_a_span_of_the_hosts_around_a_flush_or_a_collection_is_told_nowhere(session: Any) -> None:
    with capture(span_ratio=0.0, spans_per_second=0.0, flush_interval_s=60.0) as captured:
        session.run(None, row(3, 0))
        captured.flush()
        session.run(None, row(3, 0))
        with captured.tracer_provider.get_tracer("host").start_as_current_span("unrelated"):
            captured.flush()
            found = {name: told(metric.data.data_points) for name, metric in captured.metrics().items()}
        assert found == {name: set() for name in found}
        assert {"ml.predictions", "ml.input.samples", "ml.sessions.active"} <= found.keys()


def test_the_hosts_random_state_is_not_touched() -> None:
    """The SDK's reservoirs of fixed size draw from `random` once they are full: a counter's at the second exemplar."""
    provider = MeterProvider([InMemoryMetricReader()], views=[EXPONENTIAL], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    counter, histogram = meter.create_counter("c"), meter.create_histogram("ml.inference.duration")
    counter.add(5, {})
    random.seed(1)
    before = random.getstate()
    for value in range(1, 50):
        bulk.record_values_at_once(histogram, np.array([float(value)]), {}, (float(value), sampled(0xABC)))
        bulk.offer_exemplar(histogram, float(value), {}, sampled(0xABC), 1)
        bulk.offer_exemplar(counter, 1, {}, sampled(0xABC), 1)
    assert random.getstate() == before
    provider.shutdown()


def test_attributes_that_were_not_recorded_get_no_exemplar() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("test").create_counter("c")
    counter.add(5, {"label": "_OTHER"})
    bulk.offer_exemplar(counter, 1, {"label": "secret"}, sampled(0xABC), 1)
    (point,) = metrics_of(reader)["c"]
    assert (dict(point.attributes), point.exemplars) == ({"label": "_OTHER"}, [])
    provider.shutdown()


def test_a_filter_that_takes_nothing_is_told(session: Any) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
    with instrumented(provider) as (handle, *_):
        session.run(None, row(3, 0))
        assert handle.flush(10)
        status = handle.status()
        assert (
            status.exemplars_unavailable_reason
            == "the SDK's exemplar filter is always_off (OTEL_METRICS_EXEMPLAR_FILTER)"
        )
        assert status.bulk_unavailable_reason == ""
        assert told(metrics_of(reader)["ml.inference.duration"]) == set()
