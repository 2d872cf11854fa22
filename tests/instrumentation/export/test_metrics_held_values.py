"""Values of inputs are held until there are enough of them that none can be told."""

from __future__ import annotations

import struct

import numpy as np
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_mlmon import semconv
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.decode.predictions import InputSummary
from otel_mlmon.instrumentation.export.metrics import MetricWriter, make_exponential_views
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.types import ModelKey

INCOME = 52_340.75


def _snapshot(count: int) -> MetricSnapshot:
    return MetricSnapshot(
        model=ModelKey("loan", "1"),
        values={"amount": np.full(count, INCOME)},
        inputs=InputSummary(features={"income": np.full(count, INCOME)}, samples=count),
    )


def test_nine_values_wait_for_the_tenth_and_no_byte_of_one_leaves() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], views=make_exponential_views(), shutdown_on_exit=False)
    writer = MetricWriter(provider, drain=lambda: None, sessions=list, min_new_values=10)

    def counts() -> dict[str, int]:
        data = reader.get_metrics_data()
        assert data is not None
        content = encode_metrics(data).SerializeToString()
        assert struct.pack("<d", INCOME) not in content
        points = {
            metric.name: metric.data.data_points[0]
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            if metric.name in (semconv.FEATURE.name, semconv.VALUE.name)
        }
        return {name: getattr(point, "count", -1) for name, point in points.items()}

    writer.write_snapshot(_snapshot(4))
    writer.write_snapshot(_snapshot(5))
    assert counts() == {}
    writer.write_snapshot(_snapshot(1))
    assert counts() == {semconv.FEATURE.name: 10, semconv.VALUE.name: 10}
    writer.write_snapshot(_snapshot(9))
    assert counts() == {semconv.FEATURE.name: 10, semconv.VALUE.name: 10}
    before = JOURNAL.read_totals(semconv.VALUES_DROPPED.name).get((("reason", "too_few"),), 0)
    writer.drop_held_values()
    after = JOURNAL.read_totals(semconv.VALUES_DROPPED.name)[("reason", "too_few"),]
    assert after - before == 18
    writer.stop_callbacks()
    provider.shutdown()
