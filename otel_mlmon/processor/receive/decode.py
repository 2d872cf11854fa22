"""Decodes OTLP metrics requests into data points, and checks every rule of the data model that a point can break.

A point becomes a `DataPoint`, or is rejected with a reason, or is ignored (it is of another metric, or has no recorded
value), or is dropped because it is the processor's own output coming back; each point is counted once.

Source: opentelemetry-proto, metrics.proto; opentelemetry-specification, metrics/data-model.md.
Choice: a broken point is rejected alone; an explicit histogram without buckets has one, open on both sides; a minimum
above the maximum makes both unknown; what a sender can make long has a limit, since what is read of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ScopeMetrics

from otel_mlmon import semconv
from otel_mlmon.processor.receive.attributes import PointError
from otel_mlmon.processor.receive.data_point import DecodedRequest
from otel_mlmon.processor.receive.encoded import MetricsRequest
from otel_mlmon.processor.receive.identities import ScopeContext, obtain_scope_context
from otel_mlmon.processor.receive.points import MetricContext, PointCollector
from otel_mlmon.processor.receive.sketches import ADD_VALUE

_DELTA, _CUMULATIVE = 1, 2

_USED: Final = (
    semconv.DURATION, semconv.BATCH, semconv.PREDICTIONS, semconv.UNCOUNTED, semconv.CONFIDENCE, semconv.VALUE,
    semconv.ITEMS, semconv.ITEM_CONFIDENCE, semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY, semconv.SAMPLES,
)  # fmt: skip
_METRICS: Final[Mapping[str, semconv.Metric]] = {metric.name: metric for metric in _USED}
_LOOP_PREFIXES: Final = ("ml.drift.", "ml.alert.")


def decode_metrics(request: Any) -> DecodedRequest:
    """Decodes and checks every data point of a metrics request, a `MetricsRequest` or a message of OTLP's own class.

    Runs on: any thread; keeps no state but caches of pure functions.

    Raises:
        MalformedError: The attributes of a point are no attributes.
    """
    if not isinstance(request, MetricsRequest):
        request = MetricsRequest.FromString(request.SerializeToString())
    collector = PointCollector()
    for resource_metrics in request.resource_metrics:
        resource = resource_metrics.resource.SerializeToString(deterministic=True)
        for scope_metrics in resource_metrics.scope_metrics:
            if scope_metrics.scope.name == semconv.PROCESSOR_SCOPE:
                collector.loop_dropped += sum(map(_count_metric_points, scope_metrics.metrics))
            else:
                _decode_scope_metrics(collector, scope_metrics, resource_metrics.resource, resource)
    return DecodedRequest(
        items=tuple(collector.list_items()),
        ignored=collector.ignored,
        loop_dropped=collector.loop_dropped,
        faults=dict(collector.faults),
    )


def count_points(request: Any) -> int:
    """Counts the data points of a metrics request without looking at them."""
    scopes = (scope for resource in request.resource_metrics for scope in resource.scope_metrics)
    return sum(_count_metric_points(metric) for scope in scopes for metric in scope.metrics)


def _decode_scope_metrics(
    collector: PointCollector, scope_metrics: ScopeMetrics, resource: Any, raw_resource: bytes
) -> None:
    context: ScopeContext | None = None
    for metric in scope_metrics.metrics:
        definition = _METRICS.get(metric.name)
        if definition is not None:
            try:
                context = context or obtain_scope_context(scope_metrics.scope, resource, raw_resource)
            except PointError as error:
                collector.faults[str(error)] += _count_metric_points(metric)
            else:
                _decode_metric(collector, metric, definition, context)
        elif metric.name.startswith(_LOOP_PREFIXES):
            collector.loop_dropped += _count_metric_points(metric)
        else:
            collector.ignored += _count_metric_points(metric)


def _decode_metric(
    collector: PointCollector, metric: Metric, definition: semconv.Metric, context: ScopeContext
) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    fault = _find_metric_fault(kind, data, definition)
    if fault is not None:
        collector.faults[fault] += len(data.data_points)
        return
    shared = MetricContext(kind, definition, context, data.aggregation_temporality == _CUMULATIVE)
    if kind == "exponential_histogram":
        collector.add_encoded(list(data.data_points), shared)
    else:
        collector.add_messages(data.data_points, shared)


def _find_metric_fault(kind: str, data: Any, definition: semconv.Metric) -> str | None:
    """Returns the reason for which all points of a metric are rejected; None if they are not."""
    is_counter = definition.instrument == "counter"
    if kind != "sum" if is_counter else kind not in ADD_VALUE:
        return "wrong_type"
    if data.aggregation_temporality not in (_DELTA, _CUMULATIVE):
        return "no_temporality"
    if is_counter and not data.is_monotonic:
        return "not_monotonic"
    return None


def _count_metric_points(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0
