from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.types import ModelKey


def test_whoever_closes_leaves_its_successor_on_the_same_provider_alone() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    drained: list[str] = []
    first = MetricWriter(provider, drain=lambda: drained.append("first"), sessions=list)
    second = MetricWriter(provider, drain=lambda: drained.append("second"), sessions=lambda: [ModelKey("m", "")])

    def active() -> list[Any]:
        data = reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data and data.resource_metrics else []
        return [getattr(point, "value", point) for metric in metrics for point in metric.data.data_points]

    first.stop_callbacks()
    assert active() == [1]
    assert set(drained) == {"second"}
    second.stop_callbacks()
    drained.clear()
    assert (active(), drained) == ([], [])
    provider.shutdown()
