"""Whatever reader and view the host has, values that go in at once come out as those that go in one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource

from otel_mlmon import semconv
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.decode.predictions import InputSummary
from otel_mlmon.instrumentation.export.bulk_self_test import BulkUnavailableReasons
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.types import ModelKey
from tests.support.otlp_server import OtlpServer

Found = dict[str, Any]
NONE = BulkUnavailableReasons("", "")
DELTA = {SdkHistogram: AggregationTemporality.DELTA, Counter: AggregationTemporality.DELTA}
FEATURE, DURATION = semconv.FEATURE.name, semconv.DURATION.name

VIEWS: dict[str, tuple[View, ...]] = {
    "none": (),
    "renamed": (View(instrument_name=DURATION, name="latency"),),
    "dropped": (View(instrument_name=DURATION, aggregation=DropAggregation()),),
    "filtered": (View(instrument_name=FEATURE, attribute_keys={semconv.MODEL_NAME}),),
    "bounds": (View(instrument_name=FEATURE, aggregation=ExplicitBucketHistogramAggregation([0.5, 2.0])),),
    "exponential": (View(instrument_name=FEATURE, aggregation=ExponentialBucketHistogramAggregation()),),
    "twice": (View(instrument_name=DURATION), View(instrument_name=DURATION, name="latency")),
}


def snapshots() -> list[MetricSnapshot]:
    """Two intervals of one model, all values 0 or above, which `record` takes too."""
    rng = np.random.default_rng(7)
    return [
        MetricSnapshot(
            model=ModelKey("m", "1"),
            durations_s={"": rng.lognormal(-9, 1, 300)},
            labels={"": {"a": 200, "b": 100}},
            inputs=InputSummary(features={name: rng.lognormal(0, 2, 300) for name in ("x", "y")}, samples=300),
        )
        for _ in range(2)
    ]


def histogram(point: Any, metric: str) -> tuple[Any, ...]:
    """Count, sum, extremes and filled buckets of a data point, of the SDK or of OTLP.

    Of values that are hidden only what both ways tell: one by one, they are the middles of fixed buckets.
    """
    if metric == FEATURE:
        return (point.count,) if hasattr(point, "scale") else (point.count, tuple(point.bucket_counts))
    if hasattr(point, "scale"):
        sides = tuple(
            {side.offset + index: count for index, count in enumerate(side.bucket_counts) if count}
            for side in (point.positive, point.negative)
        )
        return point.count, pytest.approx(point.sum), point.min, point.max, point.scale, point.zero_count, sides
    return point.count, pytest.approx(point.sum), point.min, point.max, tuple(point.bucket_counts)


def write(provider: MeterProvider, *, is_bulk: bool, collect: Callable[[], object]) -> None:
    metrics = MetricWriter(provider, drain=lambda: None, sessions=lambda: ())
    assert metrics.unavailable_reasons == NONE
    metrics.unavailable_reasons = NONE if is_bulk else BulkUnavailableReasons("asked for", "asked for")
    for snapshot in snapshots():
        metrics.write_snapshot(snapshot)
        collect()


def in_memory(views: tuple[View, ...], *, is_bulk: bool, temporality: Any = None) -> Found:
    reader = InMemoryMetricReader(preferred_temporality=temporality)
    provider = MeterProvider([reader], views=views, shutdown_on_exit=False, resource=Resource.get_empty())
    series: Found = {}

    def collect() -> None:
        data = reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            for point in metric.data.data_points:
                key = f"{metric.name} {sorted((point.attributes or {}).items())}"
                series.setdefault(key, []).append(
                    point.value if hasattr(point, "value") else histogram(point, metric.name)
                )

    write(provider, is_bulk=is_bulk, collect=collect)
    provider.shutdown()
    return series


def in_memory_delta(views: tuple[View, ...], *, is_bulk: bool) -> Found:
    return in_memory(views, is_bulk=is_bulk, temporality=DELTA)


def over_otlp(views: tuple[View, ...], *, is_bulk: bool, temporality: Any = None) -> Found:
    exporter_module = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    with OtlpServer() as server:
        exporter = exporter_module.OTLPMetricExporter(
            endpoint=f"{server.http_url}/v1/metrics", preferred_temporality=temporality
        )
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        provider = MeterProvider([reader], views=views, shutdown_on_exit=False, resource=Resource.get_empty())
        write(provider, is_bulk=is_bulk, collect=provider.force_flush)
        provider.shutdown()
        series: Found = {}
        for _, metric, point in server.points():
            key = f"{metric.name} {sorted((pair.key, pair.value.string_value) for pair in point.attributes)}"
            series.setdefault(key, []).append(
                point.as_int if hasattr(point, "as_int") else histogram(point, metric.name)
            )
        return series


def over_otlp_delta(views: tuple[View, ...], *, is_bulk: bool) -> Found:
    return over_otlp(views, is_bulk=is_bulk, temporality=DELTA)


def prometheus(views: tuple[View, ...], *, is_bulk: bool) -> Found:
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    reader = exporter.PrometheusMetricReader()
    provider = MeterProvider([reader], views=views, shutdown_on_exit=False, resource=Resource.get_empty())
    texts: list[str] = []
    write(provider, is_bulk=is_bulk, collect=lambda: texts.append(client.generate_latest().decode()))
    provider.shutdown()
    samples = (line.rpartition(" ") for line in texts[-1].splitlines() if line.startswith(("ml_", "latency")))
    return {
        name: pytest.approx(float(value)) for name, _, value in samples if not name.startswith("ml_input_feature_sum")
    }


READERS = (in_memory, in_memory_delta, over_otlp, over_otlp_delta, prometheus)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: str(reader.__name__))
@pytest.mark.parametrize("view", VIEWS)
def test_at_once_is_as_one_by_one(reader: Callable[..., Found], view: str) -> None:
    if reader is prometheus and view == "exponential":
        pytest.skip("the Prometheus exporter of OpenTelemetry has no exponential histograms")
    one = reader(VIEWS[view], is_bulk=True)
    assert one == reader(VIEWS[view], is_bulk=False)
    names = {key.split()[0].split("{")[0].replace("_", ".") for key in one}
    assert any(name.startswith(FEATURE) for name in names)
    assert any(name.startswith("latency") for name in names) == (view in {"renamed", "twice"})
    assert any(name.startswith(DURATION) for name in names) == (view not in {"renamed", "dropped"})


def test_prometheus_gets_features_with_explicit_bounds() -> None:
    series = prometheus((), is_bulk=True)
    bounds = [key for key in series if key.startswith("ml_input_feature_ratio_bucket") and 'ml_feature_name="x"' in key]
    assert len(bounds or [key for key in series if key.startswith("ml_input_feature_bucket")]) > 20


def test_negative_values_that_record_refuses_are_counted() -> None:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    metrics = MetricWriter(provider, drain=lambda: None, sessions=lambda: ())
    negative = MetricSnapshot(model=ModelKey("m", ""), inputs=InputSummary(features={"x": np.array([-1.0, 2.0, -3.0])}))
    metrics.write_snapshot(negative)
    assert JOURNAL.read_totals(semconv.VALUES_DROPPED.name) == {}
    metrics.unavailable_reasons = BulkUnavailableReasons("asked for", "asked for")
    metrics.write_snapshot(negative)
    assert JOURNAL.read_totals(semconv.VALUES_DROPPED.name) == {((semconv.REASON, "negative"),): 2}
    provider.shutdown()
