"""The decoder of metrics requests as it was before it was made fast: attribute by attribute, by OTLP's own classes.

An oracle: what `receive/decode.py` makes of a request must be equal to what this makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ScopeMetrics

from otel_mlmon import semconv
from otel_mlmon.processor.receive.attributes import (
    Attributes,
    PointError,
    attributes_of,
    canonical_text,
    hash_text,
    name_of,
)
from otel_mlmon.processor.receive.data_point import DataPoint, Sketch
from otel_mlmon.processor.receive.decode import DecodedRequest, read_model_key, service_key
from otel_mlmon.processor.receive.sketches import SKETCHES
from otel_mlmon.types import ModelKey

MAX_EXEMPLARS: Final = 4

_MAX_TIME_NS: Final = 2**63 - 1
_NO_RECORDED_VALUE: Final = 1
_DELTA, _CUMULATIVE = 1, 2

_USED: Final = (
    semconv.DURATION, semconv.BATCH, semconv.PREDICTIONS, semconv.UNCOUNTED, semconv.CONFIDENCE, semconv.VALUE,
    semconv.ITEMS, semconv.ITEM_CONFIDENCE, semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY, semconv.SAMPLES,
)  # fmt: skip
_METRICS: Final[Mapping[str, semconv.Metric]] = {metric.name: metric for metric in _USED}
_NAMED: Final = {
    **{metric.name: "no_feature_name" for metric in (semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY)},
    semconv.ITEM_CONFIDENCE.name: "no_output_name",
}
"""Metrics that say nothing without their first attribute, and the reason by which a point without it is rejected."""

_LOOP_PREFIXES: Final = ("ml.drift.", "ml.alert.")


@dataclass(slots=True, kw_only=True)
class _PlainCollector:
    points: list[DataPoint] = field(default_factory=list)
    ignored: int = 0
    loop_dropped: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class _PlainContext(NamedTuple):
    """Holds the resource and scope that points share; its model fields apply where a point does not have its own."""

    model: ModelKey
    """Its fields are empty where neither scope nor resource sets them."""
    identity: str
    """The canonical text of resource and scope."""
    sender: str


class _PlainIdentity(NamedTuple):
    """Holds the model and the series that the attributes of a point identify."""

    model: ModelKey
    key: str
    category: str
    series: str


def decode_plainly(request: ExportMetricsServiceRequest) -> DecodedRequest:
    """Decodes and checks every point of `request`.

    Runs on: any thread; keeps no state but caches of pure functions.
    """
    collector = _PlainCollector()
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        canonical_resource = canonical_text(resource)
        for scope_metrics in resource_metrics.scope_metrics:
            if scope_metrics.scope.name == semconv.PROCESSOR_SCOPE:
                collector.loop_dropped += sum(map(_metric_size, scope_metrics.metrics))
            else:
                _decode_scope(collector, scope_metrics, resource, canonical_resource)
    return DecodedRequest(
        items=tuple(collector.points),
        ignored=collector.ignored,
        loop_dropped=collector.loop_dropped,
        faults=dict(collector.faults),
    )


def _decode_scope(
    collector: _PlainCollector, scope_metrics: ScopeMetrics, resource: Attributes, canonical_resource: str
) -> None:
    context: _PlainContext | None = None
    for metric in scope_metrics.metrics:
        definition = _METRICS.get(metric.name)
        if definition is not None:
            context = context or _scope_context(scope_metrics, resource, canonical_resource)
            _decode_metric(collector, metric, definition, context)
        elif metric.name.startswith(_LOOP_PREFIXES):
            collector.loop_dropped += _metric_size(metric)
        else:
            collector.ignored += _metric_size(metric)


def _scope_context(scope_metrics: ScopeMetrics, resource: Attributes, canonical_resource: str) -> _PlainContext:
    scope = attributes_of(scope_metrics.scope.attributes)
    parts = (canonical_resource, scope_metrics.scope.name, scope_metrics.scope.version, canonical_text(scope))
    model = read_model_key(scope, resource, default=service_key(resource))
    return _PlainContext(model=model, identity=ascii(parts), sender=hash_text(ascii(canonical_resource)))


def _decode_metric(
    collector: _PlainCollector, metric: Metric, definition: semconv.Metric, context: _PlainContext
) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    fault = _metric_fault(kind, data, definition)
    if fault is not None:
        collector.faults[fault] += len(data.data_points)
        return
    decode_sketch = SKETCHES[kind]
    is_cumulative = data.aggregation_temporality == _CUMULATIVE
    for point in data.data_points:
        if point.flags & _NO_RECORDED_VALUE:
            collector.ignored += 1
            continue
        try:
            decoded = _decode_point(point, definition, context, decode_sketch, is_cumulative=is_cumulative)
        except PointError as error:
            collector.faults[str(error)] += 1
        else:
            collector.points.append(decoded)


def _metric_fault(kind: str, data: Any, definition: semconv.Metric) -> str | None:
    """Returns the reason for which all points of a metric are rejected, or None."""
    is_counter = definition.instrument == "counter"
    if kind not in SKETCHES or (kind == "sum") is not is_counter:
        return "wrong_type"
    if data.aggregation_temporality not in (_DELTA, _CUMULATIVE):
        return "no_temporality"
    if is_counter and not data.is_monotonic:
        return "not_monotonic"
    return None


def _decode_point(
    point: Any,
    definition: semconv.Metric,
    context: _PlainContext,
    decode_sketch: Callable[[Any], Sketch],
    *,
    is_cumulative: bool,
) -> DataPoint:
    time_ns = point.time_unix_nano
    start_ns = point.start_time_unix_nano
    if not time_ns:
        raise PointError("no_time")
    if time_ns > _MAX_TIME_NS or start_ns > time_ns:
        raise PointError("bad_time")
    identity = _identify(point.attributes, definition, context)
    return DataPoint(
        model=identity.model,
        metric=definition.name,
        key=identity.key,
        category=identity.category,
        sender=context.sender,
        series=identity.series,
        start_ns=start_ns,
        time_ns=time_ns,
        is_cumulative=is_cumulative,
        sketch=decode_sketch(point),
        exemplars=_trace_ids(point) if point.exemplars else (),
    )


def _identify(pairs: Iterable[KeyValue], definition: semconv.Metric, context: _PlainContext) -> _PlainIdentity:
    return _identify_attributes(attributes_of(pairs), definition, context)


def _identify_attributes(attributes: Attributes, definition: semconv.Metric, context: _PlainContext) -> _PlainIdentity:
    model = read_model_key(attributes, default=context.model)
    if not model.name:
        raise PointError("no_model_name")
    split = definition.attributes
    if definition.name in _NAMED and split[0] not in attributes:
        raise PointError(_NAMED[definition.name])
    identity = ascii((context.identity, definition.name, canonical_text(attributes)))
    return _PlainIdentity(
        model=model,
        key=name_of(attributes, split[0]) if split else "",
        category=name_of(attributes, split[1]) if len(split) > 1 else "",
        series=hash_text(identity),
    )


def _trace_ids(point: Any) -> tuple[str, ...]:
    ids = (exemplar.trace_id for exemplar in point.exemplars)
    valid = (trace_id.hex() for trace_id in ids if len(trace_id) == 16 and any(trace_id))
    return tuple(islice(dict.fromkeys(valid), MAX_EXEMPLARS))


def _metric_size(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0
