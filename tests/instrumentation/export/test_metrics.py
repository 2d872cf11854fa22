from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_mlmon import semconv
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.internal_events import JOURNAL, ValuesWithheld
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


def values_of(reader: InMemoryMetricReader) -> dict[str, list[float]]:
    """What a reader collects of each metric: totals, or counts of values."""
    data = reader.get_metrics_data()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data and data.resource_metrics else []
    return {
        metric.name: [point.value if hasattr(point, "value") else point.count for point in metric.data.data_points]
        for metric in metrics
    }


def test_a_snapshot_of_nothing_writes_nothing() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    writer = MetricWriter(provider, drain=lambda: None, sessions=list)
    writer.write_snapshot(MetricSnapshot(model=ModelKey("m", "1")))
    assert values_of(reader) == {}
    provider.shutdown()


def test_what_one_provider_has_counted_another_does_not_count_again_and_reports_no_zeros() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    providers = [MeterProvider([reader], shutdown_on_exit=False) for reader in readers]
    first = MetricWriter(providers[0], drain=lambda: None, sessions=list)
    JOURNAL.emit_event(ValuesWithheld(count=3))
    dropped = semconv.VALUES_DROPPED.name
    assert values_of(readers[0]) == {dropped: [3]}
    second = MetricWriter(providers[1], drain=lambda: None, sessions=list, earlier=first)
    assert [values_of(reader) for reader in readers] == [{dropped: [3]}, {}]
    JOURNAL.emit_event(ValuesWithheld(count=2))
    assert [values_of(reader) for reader in readers] == [{dropped: [3]}, {dropped: [2]}]
    second.stop_callbacks()
    for provider in providers:
        provider.shutdown()
