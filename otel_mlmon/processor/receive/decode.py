"""Decodes OTLP metrics requests into data points, and checks every rule of the data model that a point can break.

A point becomes a `DataPoint`, or is rejected with a reason, or is ignored (it is of another metric, or has no recorded
value), or is dropped because it is the processor's own output coming back; each point is counted once.

Source: opentelemetry-proto, metrics.proto; opentelemetry-specification, metrics/data-model.md.
Choice: a broken point is rejected alone; an explicit histogram without buckets has one, open on both sides; a minimum
above the maximum makes both unknown; what a sender can make long has a limit, since what is read of it is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ScopeMetrics

from otel_mlmon import semconv
from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.attributes import (
    MAX_ATTRIBUTES_BYTES,
    MAX_CACHED_ATTRIBUTES_BYTES,
    Attributes,
    PointError,
    check_name_lengths,
    encode_canonical_text,
    hash_text,
    read_attribute_name,
    read_attributes,
    read_model_key,
    read_service_key,
)
from otel_mlmon.processor.receive.data_point import (
    DataPoint,
    DecodedRequest,
    PointIdentity,
    group_points,
)
from otel_mlmon.processor.receive.encoded import (
    MAX_COUNT,
    MAX_TIME_NS,
    EncodedValues,
    MetricsRequest,
    parse_exponential_point,
    read_encoded_histogram,
)
from otel_mlmon.processor.receive.sketches import ADD_VALUE, PointValues, read_exemplars
from otel_mlmon.sketch.table import PointValue
from otel_mlmon.types import ModelKey

MAX_CACHED_BYTES: Final = 160 * 2**20
"""How much identities of series may take that are remembered, some 250,000; beyond that all are forgotten."""

_ENTRY_BYTES: Final = 512
"""The bytes that remembering an identity takes besides its attributes."""

_LEAST_ATTRIBUTE_BYTES: Final = 2
"""The bytes that an attribute takes on the wire besides its content."""

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
class _PointCollector:
    points: list[DataPoint] = field(default_factory=list)
    ignored: int = 0
    loop_dropped: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    values: PointValues | None = None
    """Those of histograms that were read from their messages; None before the first."""
    encoded: EncodedValues = field(default_factory=EncodedValues)

    def build_values(self) -> None:
        """Builds the tables of the values so far, and rejects the points whose buckets contradict their own count."""
        for values in (self.values, self.encoded):
            rows = {} if values is None else values.build()
            if values is not None and rows:
                self.faults.update(rows.values())
                table = values.table
                self.points = [
                    point for point in self.points if point.value.table is not table or point.value.row not in rows
                ]
        self.values, self.encoded = None, EncodedValues()


RawAttributes: TypeAlias = tuple[bytes, ...] | bytes
"""The attributes of a point as they were sent: one by one, or as the fields of its message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ScopeContext:
    """Holds the resource and scope that points share; its model fields apply where a point does not have its own."""

    model: ModelKey
    """Its fields are empty where neither scope nor resource sets them."""
    identity: str
    """The canonical text of resource and scope."""
    sender: str
    identities: dict[str, dict[RawAttributes, PointIdentity]] = field(default_factory=dict)
    """By metric and attributes, of the series that were seen."""


class _ContextCache:
    """Caches the contexts of instrumentation scopes, and with them the identities of their series.

    Runs on: any thread; two that add the same entry at once add an equal one.
    """

    def __init__(self) -> None:
        self.contexts: dict[tuple[bytes, bytes], _ScopeContext] = {}
        self.attributes: dict[bytes, bytes] = {}
        """Attributes, each as one object for all series that have it."""
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Counts the bytes of a new cache entry, without `_ENTRY_BYTES`; empties the cache when it is too large."""
        self.size_bytes += size_bytes + _ENTRY_BYTES
        if self.size_bytes > MAX_CACHED_BYTES:
            self.contexts, self.attributes, self.size_bytes = {}, {}, 0


_CACHE: Final = _ContextCache()


def decode_metrics(request: Any) -> DecodedRequest:
    """Decodes and checks every data point of a metrics request, a `MetricsRequest` or a message of OTLP's own class.

    Runs on: any thread; keeps no state but caches of pure functions.

    Raises:
        MalformedError: The attributes of a point are no attributes.
    """
    if not isinstance(request, MetricsRequest):
        request = MetricsRequest.FromString(request.SerializeToString())
    collector = _PointCollector()
    for resource_metrics in request.resource_metrics:
        resource = resource_metrics.resource.SerializeToString(deterministic=True)
        for scope_metrics in resource_metrics.scope_metrics:
            if scope_metrics.scope.name == semconv.PROCESSOR_SCOPE:
                collector.loop_dropped += sum(map(_count_metric_points, scope_metrics.metrics))
            else:
                _decode_scope_metrics(collector, scope_metrics, resource_metrics.resource, resource)
    collector.build_values()
    return DecodedRequest(
        items=tuple(group_points(collector.points)),
        ignored=collector.ignored,
        loop_dropped=collector.loop_dropped,
        faults=dict(collector.faults),
    )


def count_points(request: Any) -> int:
    """Counts the data points of a metrics request without looking at them."""
    scopes = (scope for resource in request.resource_metrics for scope in resource.scope_metrics)
    return sum(_count_metric_points(metric) for scope in scopes for metric in scope.metrics)


def _decode_scope_metrics(
    collector: _PointCollector, scope_metrics: ScopeMetrics, resource: Any, raw_resource: bytes
) -> None:
    context: _ScopeContext | None = None
    for metric in scope_metrics.metrics:
        definition = _METRICS.get(metric.name)
        if definition is not None:
            try:
                context = context or _obtain_scope_context(scope_metrics.scope, resource, raw_resource)
            except PointError as error:
                collector.faults[str(error)] += _count_metric_points(metric)
            else:
                _decode_metric(collector, metric, definition, context)
        elif metric.name.startswith(_LOOP_PREFIXES):
            collector.loop_dropped += _count_metric_points(metric)
        else:
            collector.ignored += _count_metric_points(metric)


def _obtain_scope_context(scope: Any, resource: Any, raw_resource: bytes) -> _ScopeContext:
    key = raw_resource, scope.SerializeToString(deterministic=True)
    context = _CACHE.contexts.get(key)
    if context is not None:
        return context
    size_bytes = sum(map(len, key))
    if size_bytes > MAX_ATTRIBUTES_BYTES:
        raise PointError("attributes_too_large")
    resource_attributes, scope_attributes = read_attributes(resource.attributes), read_attributes(scope.attributes)
    canonical_resource = encode_canonical_text(resource_attributes)
    parts = (canonical_resource, scope.name, scope.version, encode_canonical_text(scope_attributes))
    model = read_model_key(scope_attributes, resource_attributes, default=read_service_key(resource_attributes))
    identity = ascii(parts)
    _CACHE.add(size_bytes + len(identity))
    context = _CACHE.contexts[key] = _ScopeContext(
        model=model, identity=identity, sender=hash_text(ascii(canonical_resource))
    )
    return context


def _decode_metric(
    collector: _PointCollector, metric: Metric, definition: semconv.Metric, context: _ScopeContext
) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    fault = _find_metric_fault(kind, data, definition)
    if fault is not None:
        collector.faults[fault] += len(data.data_points)
        return
    identities = context.identities.setdefault(definition.name, {})
    is_cumulative = data.aggregation_temporality == _CUMULATIVE
    points = data.data_points
    if kind == "exponential_histogram":
        points = _decode_encoded_points(collector, points, definition, context, identities, is_cumulative=is_cumulative)
    for point in points:
        if point.flags & _NO_RECORDED_VALUE:
            collector.ignored += 1
            continue
        try:
            identity = _find_point_identity(point, definition, context, identities)
            if kind == "sum":
                value = _read_counter(point)
            else:
                collector.values = collector.values or PointValues()
                value = ADD_VALUE[kind](collector.values, point)
        except PointError as error:
            collector.faults[str(error)] += 1
            continue
        exemplars = read_exemplars(point) if point.exemplars else ()
        times = point.start_time_unix_nano, point.time_unix_nano
        # A third of the time that `DataPoint(…)` takes.
        collector.points.append(tuple.__new__(DataPoint, (identity, *times, is_cumulative, value, exemplars)))
        if collector.values is not None and collector.values.is_full:
            collector.build_values()


def _decode_encoded_points(
    collector: _PointCollector,
    points: Iterable[bytes],
    definition: semconv.Metric,
    context: _ScopeContext,
    identities: dict[RawAttributes, PointIdentity],
    *,
    is_cumulative: bool,
) -> Iterator[Any]:
    """Decodes exponential histogram points from their bytes; yields as messages those that only protobuf can parse.

    Raises:
        MalformedError: A point is none.
    """
    for point in points:
        histogram = read_encoded_histogram(point)
        if histogram is None:
            yield parse_exponential_point(point)
            continue
        raw, start_ns, time_ns, _ = histogram
        identity = identities.get(raw)
        if identity is None:
            try:
                identity = _obtain_point_identity(
                    tuple(parse_exponential_point(point).attributes), definition, context, identities, key=raw
                )
            except PointError as error:
                collector.faults[str(error)] += 1
                continue
        value = collector.encoded.add(histogram)
        collector.points.append(tuple.__new__(DataPoint, (identity, start_ns, time_ns, is_cumulative, value, ())))
        if collector.encoded.is_full:
            collector.build_values()


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


def _find_point_identity(
    point: Any, definition: semconv.Metric, context: _ScopeContext, identities: dict[RawAttributes, PointIdentity]
) -> PointIdentity:
    """Checks the times of a data point, and returns the identity that its attributes give it."""
    time_ns = point.time_unix_nano
    if not time_ns:
        raise PointError("no_time")
    if time_ns > MAX_TIME_NS or point.start_time_unix_nano > time_ns:
        raise PointError("bad_time")
    attributes = point.attributes
    if len(attributes) > MAX_ATTRIBUTES_BYTES // _LEAST_ATTRIBUTE_BYTES:
        raise PointError("attributes_too_large")
    raw = tuple(attributes)
    identity = identities.get(raw)
    if identity is None:
        identity = _obtain_point_identity(raw, definition, context, identities)
    return identity


def _obtain_point_identity(
    raw: tuple[bytes, ...],
    definition: semconv.Metric,
    context: _ScopeContext,
    identities: dict[RawAttributes, PointIdentity],
    key: RawAttributes | None = None,
) -> PointIdentity:
    """Returns the identity that encoded attributes give a point, and caches it unless the attributes are too long.

    Args:
        raw: The attributes.
        definition: Of the metric.
        context: Of the scope.
        identities: Where it is remembered.
        key: By which; None for the attributes one by one.
    """
    size_bytes = sum(map(len, raw)) + _LEAST_ATTRIBUTE_BYTES * len(raw)
    if size_bytes > MAX_ATTRIBUTES_BYTES:
        raise PointError("attributes_too_large")
    try:
        pairs = [KeyValue.FromString(attribute) for attribute in raw]
    except DecodeError:
        raise MalformedError("The attributes of a point are no attributes.") from None
    identity = _build_point_identity(read_attributes(pairs), definition, context)
    if size_bytes <= MAX_CACHED_ATTRIBUTES_BYTES:
        _CACHE.add(size_bytes)
        if key is None:
            key = tuple(_CACHE.attributes.setdefault(attribute, attribute) for attribute in raw)
        identities[key] = identity
    return identity


def _build_point_identity(attributes: Attributes, definition: semconv.Metric, context: _ScopeContext) -> PointIdentity:
    model = read_model_key(attributes, default=context.model)
    if not model.name:
        raise PointError("no_model_name")
    split = definition.attributes
    if definition.name in _NAMED and split[0] not in attributes:
        raise PointError(_NAMED[definition.name])
    key = read_attribute_name(attributes, split[0]) if split else ""
    category = read_attribute_name(attributes, split[1]) if len(split) > 1 else ""
    check_name_lengths(*model, key, category)
    identity = ascii((context.identity, definition.name, encode_canonical_text(attributes)))
    return PointIdentity(
        model=model,
        metric=definition.name,
        key=key,
        category=category,
        sender=context.sender,
        series=hash_text(identity),
    )


def _read_counter(point: Any) -> PointValue:
    """Returns the value of a counter's data point, which must be a whole number from 0 on.

    Raises:
        PointError: It breaks a rule.
    """
    kind = point.WhichOneof("value")
    if kind is None:
        raise PointError("no_value")
    value = point.as_int if kind == "as_int" else point.as_double
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise PointError("bad_value")
    if value > MAX_COUNT:
        raise PointError("too_large")
    return PointValue(int(value))


def _count_metric_points(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0
