"""Decodes metrics requests attribute by attribute with OTLP's own classes: an oracle for the fast decoder.

An oracle: what `receive/decode.py` makes of a request must be equal to what this makes of it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
)

from otel_mlmon import semconv
from otel_mlmon.processor.receive.attributes import (
    Attributes,
    PointError,
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
    TraceExemplar,
    group_points,
)
from otel_mlmon.processor.receive.encoded import MAX_COUNT
from otel_mlmon.processor.receive.sketches import MAX_BUCKETS
from otel_mlmon.sketch.exponential import MAX_SCALE, MIN_SCALE, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.table import AnyHistogram, PointValue
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


def decode_plainly(request: ExportMetricsServiceRequest) -> DecodedRequest:
    """Decodes and checks every point of `request`.

    Runs on: any thread; keeps no state but caches of pure functions.
    """
    collector = _PlainCollector()
    for resource_metrics in request.resource_metrics:
        resource = read_attributes(resource_metrics.resource.attributes)
        canonical_resource = encode_canonical_text(resource)
        for scope_metrics in resource_metrics.scope_metrics:
            if scope_metrics.scope.name == semconv.PROCESSOR_SCOPE:
                collector.loop_dropped += sum(map(_metric_size, scope_metrics.metrics))
            else:
                _decode_scope(collector, scope_metrics, resource, canonical_resource)
    return DecodedRequest(
        items=tuple(group_points(collector.points)),
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
    scope = read_attributes(scope_metrics.scope.attributes)
    parts = (canonical_resource, scope_metrics.scope.name, scope_metrics.scope.version, encode_canonical_text(scope))
    model = read_model_key(scope, resource, default=read_service_key(resource))
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
    decode_sketch = _PLAIN_SKETCHES[kind]
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
    if kind not in _PLAIN_SKETCHES or (kind == "sum") is not is_counter:
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
    decode_sketch: Callable[[Any], AnyHistogram | int],
    *,
    is_cumulative: bool,
) -> DataPoint:
    time_ns = point.time_unix_nano
    start_ns = point.start_time_unix_nano
    if not time_ns:
        raise PointError("no_time")
    if time_ns > _MAX_TIME_NS or start_ns > time_ns:
        raise PointError("bad_time")
    return DataPoint(
        identity=_identify(point.attributes, definition, context),
        start_ns=start_ns,
        time_ns=time_ns,
        is_cumulative=is_cumulative,
        value=PointValue.from_sketch(decode_sketch(point)),
        exemplars=_read_exemplars(point) if point.exemplars else (),
    )


def _identify(pairs: Iterable[KeyValue], definition: semconv.Metric, context: _PlainContext) -> PointIdentity:
    return _identify_attributes(read_attributes(pairs), definition, context)


def _identify_attributes(attributes: Attributes, definition: semconv.Metric, context: _PlainContext) -> PointIdentity:
    model = read_model_key(attributes, default=context.model)
    if not model.name:
        raise PointError("no_model_name")
    split = definition.attributes
    if definition.name in _NAMED and split[0] not in attributes:
        raise PointError(_NAMED[definition.name])
    identity = ascii((context.identity, definition.name, encode_canonical_text(attributes)))
    return PointIdentity(
        model=model,
        metric=definition.name,
        key=read_attribute_name(attributes, split[0]) if split else "",
        category=read_attribute_name(attributes, split[1]) if len(split) > 1 else "",
        sender=context.sender,
        series=hash_text(identity),
    )


def _read_exemplars(point: Any) -> tuple[TraceExemplar, ...]:
    values: dict[str, float] = {}
    for exemplar in point.exemplars:
        trace_id, value = exemplar.trace_id, exemplar.as_double
        if len(trace_id) == 16 and any(trace_id):
            known = values.setdefault(trace_id.hex(), 0.0)
            values[trace_id.hex()] = value if known < value < math.inf else known
    largest = sorted(values, key=values.__getitem__, reverse=True)[:MAX_EXEMPLARS]
    return tuple(TraceExemplar(trace_id, values[trace_id]) for trace_id in largest)


def _metric_size(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0


def _decode_histogram(point: HistogramDataPoint) -> Histogram:
    bounds = tuple(point.explicit_bounds)
    counts = list(point.bucket_counts) or ([] if bounds else [point.count])
    if len(counts) != len(bounds) + 1:
        raise PointError("bucket_mismatch")
    bounds = _checked_bounds(bounds)
    _check_count(point.count, sum(counts))
    return Histogram(bounds=bounds, counts=np.array(counts, dtype=np.int64), moments=_moments(point))


def _decode_exponential(point: ExponentialHistogramDataPoint) -> ExponentialHistogram:
    scale = point.scale
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise PointError("bad_scale")
    positive, negative = point.positive, point.negative
    positive_counts, negative_counts = _bucket_counts(positive, scale), _bucket_counts(negative, scale)
    _check_count(point.count, sum(positive_counts) + sum(negative_counts) + point.zero_count)
    return ExponentialHistogram.from_buckets(
        scale=scale,
        zero_count=point.zero_count,
        positive_offset=positive.offset,
        positive_counts=np.array(positive_counts, dtype=np.int64),
        negative_offset=negative.offset,
        negative_counts=np.array(negative_counts, dtype=np.int64),
        moments=_moments(point),
    )


def _bucket_counts(buckets: ExponentialHistogramDataPoint.Buckets, scale: int) -> list[int]:
    """Returns the counts of one range, whose buckets must lie where a float can: between 2^-1075 and 2^1024."""
    if not buckets.bucket_counts:
        return []
    if len(buckets.bucket_counts) > MAX_BUCKETS:
        raise PointError("too_many_buckets")
    counts = list(buckets.bucket_counts)
    lowest, highest = _index_range(scale)
    if buckets.offset < lowest or buckets.offset + len(counts) - 1 > highest:
        raise PointError("bad_offset")
    return counts


def _decode_counter(point: NumberDataPoint) -> int:
    kind = point.WhichOneof("value")
    if kind is None:
        raise PointError("no_value")
    value = point.as_int if kind == "as_int" else point.as_double
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise PointError("bad_value")
    if value > MAX_COUNT:
        raise PointError("too_large")
    return int(value)


def _check_count(count: int, bucket_total: int) -> None:
    if count != bucket_total:
        raise PointError("count_mismatch")
    if count > MAX_COUNT:
        raise PointError("too_large")


@functools.cache
def _index_range(scale: int) -> tuple[int, int]:
    return math.floor(-1075 * 2.0**scale) - 1, math.ceil(1024 * 2.0**scale)


@functools.lru_cache(maxsize=1024)
def _checked_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Returns the bounds, as one object for all points that share them.

    Raises:
        PointError: They are not finite and strictly increasing; a NaN compares false, so it fails too.
    """
    if not all(map(math.isfinite, bounds)) or not all(low < high for low, high in pairwise(bounds)):
        raise PointError("bounds_not_increasing")
    return bounds


def _moments(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> Moments:
    minimum = point.min if point.HasField("min") else -math.inf
    maximum = point.max if point.HasField("max") else math.inf
    if not minimum <= maximum:  # NaN, or in the wrong order
        minimum, maximum = -math.inf, math.inf
    return Moments.from_total(
        count=point.count,
        total=point.sum,
        minimum=minimum if minimum != -math.inf else math.inf,
        maximum=maximum if maximum != math.inf else -math.inf,
    )


_PLAIN_SKETCHES: Final[Mapping[str, Callable[[Any], AnyHistogram | int]]] = {
    "histogram": _decode_histogram,
    "exponential_histogram": _decode_exponential,
    "sum": _decode_counter,
}
