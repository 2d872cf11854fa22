"""From an OTLP metrics request to observations: every rule of the data model that a point can break.

A point becomes an `DataPoint`, or is rejected with a reason, or is ignored (it is not ours, or says that
nothing was recorded), or is dropped because it is the processor's own output coming back; it is counted once.

Source: opentelemetry-proto, metrics.proto; opentelemetry-specification, metrics/data-model.md.
Choice: a broken point costs itself, never its neighbours; an explicit histogram without buckets is legal and
has one bucket, open on both sides; extremes that contradict each other are unknown: its counts still hold.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

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
from otel_mlmon.processor.receive.attributes import Attributes, attributes_of, canonical, first_text, text_of
from otel_mlmon.processor.receive.data_point import DataPoint, Sketch
from otel_mlmon.processor.receive.json import read_json
from otel_mlmon.sketch.exponential import MAX_SCALE, MIN_SCALE, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.types import ModelKey

MAX_COUNT: Final = 2**53
"""A larger count is no longer exact as a float; nobody counted that far."""

MAX_EXPONENTIAL_BUCKETS: Final = 10_000
"""Of one range of one point; SDKs send 160."""

MAX_EXEMPLARS: Final = 4

NAME_CACHE_SIZE: Final = 16_384
"""Series whose name is remembered, at about 1 KiB each."""

_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)
_MAX_TIME_NS: Final = 2**63 - 1
_NO_RECORDED_VALUE: Final = 1
_CUMULATIVE: Final = 2

_OURS: Final[Mapping[str, semconv.Metric]] = {
    metric.name: metric
    for metric in (
        semconv.DURATION,
        semconv.BATCH,
        semconv.PREDICTIONS,
        semconv.CONFIDENCE,
        semconv.VALUE,
        semconv.FEATURE,
        semconv.MISSING_VALUES,
        semconv.CATEGORY,
        semconv.SAMPLES,
    )
}
_LOOP_PREFIXES: Final = ("ml.drift.", "ml.alert.")

_Point: TypeAlias = HistogramDataPoint | ExponentialHistogramDataPoint | NumberDataPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a request held. `accepted + ignored + loop_dropped + rejected` is the number of its points."""

    signal: ClassVar[str] = "metrics"
    observations: tuple[DataPoint, ...]
    accepted: int
    """Points that became observations."""
    ignored: int
    """Points of metrics that are not ours, and points that say that nothing was recorded."""
    loop_dropped: int
    """Points that a processor sent."""
    rejected: int
    """Points that break the data model: the sum of `faults`."""
    faults: dict[str, int]
    """Rejected points by reason."""
    unused: int = 0
    """Log records, which are of another account; none here."""

    @property
    def points(self) -> int:
        """All of them."""
        return self.accepted + self.ignored + self.loop_dropped + self.rejected


class _PointError(Exception):
    """A point that is rejected; its text is the reason, a few fixed words joined by underscores."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    observations: list[DataPoint] = field(default_factory=list)
    ignored: int = 0
    loop_dropped: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class _Source(NamedTuple):
    """What every point of one scope of one resource shares."""

    name: str
    """Of the model, where the point does not say it; empty if nobody does."""
    version: str
    identity: str
    """Canonical: resource, then scope."""


class _Named(NamedTuple):
    """What the attributes of a point say."""

    model: ModelKey
    key: str
    category: str
    series: str


def decode_metrics(request: ExportMetricsServiceRequest) -> Decoded:
    """Every point of `request`, checked.

    Runs on: any thread; keeps no state but caches of pure functions.
    """
    tally = _Tally()
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        canonical_resource = canonical(resource)
        for scope_metrics in resource_metrics.scope_metrics:
            if scope_metrics.scope.name == semconv.PROCESSOR_SCOPE:
                tally.loop_dropped += sum(map(_point_count, scope_metrics.metrics))
            else:
                _scope(tally, scope_metrics, resource, canonical_resource)
    rejected = sum(tally.faults.values())
    return Decoded(
        observations=tuple(tally.observations),
        accepted=len(tally.observations),
        ignored=tally.ignored,
        loop_dropped=tally.loop_dropped,
        rejected=rejected,
        faults=dict(tally.faults),
    )


def decode_metrics_json(line: str | bytes) -> Decoded:
    """One request as the Collector's file exporter writes it: OTLP JSON; other signals hold no points.

    Raises:
        MalformedError: It is not OTLP JSON; says where.
    """
    return decode_metrics(read_json(ExportMetricsServiceRequest(), line))


def _scope(tally: _Tally, scope_metrics: ScopeMetrics, resource: Attributes, canonical_resource: str) -> None:
    source: _Source | None = None
    for metric in scope_metrics.metrics:
        ours = _OURS.get(metric.name)
        if ours is not None:
            source = source or _source(scope_metrics, resource, canonical_resource)
            _metric(tally, metric, ours, source)
        elif metric.name.startswith(_LOOP_PREFIXES):
            tally.loop_dropped += _point_count(metric)
        else:
            tally.ignored += _point_count(metric)


def _source(scope_metrics: ScopeMetrics, resource: Attributes, canonical_resource: str) -> _Source:
    scope = attributes_of(scope_metrics.scope.attributes)
    parts = (canonical_resource, scope_metrics.scope.name, scope_metrics.scope.version, canonical(scope))
    return _Source(
        name=first_text(semconv.MODEL_NAME, scope, resource) or first_text("service.name", resource),
        version=first_text(semconv.MODEL_VERSION, scope, resource),
        identity=ascii(parts),
    )


def _metric(tally: _Tally, metric: Metric, ours: semconv.Metric, source: _Source) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    fault = _metric_fault(kind, data, ours)
    if fault is not None:
        tally.faults[fault] += len(data.data_points)
        return
    sketch_of = _SKETCHES[kind]
    is_cumulative = data.aggregation_temporality == _CUMULATIVE
    for point in data.data_points:
        if point.flags & _NO_RECORDED_VALUE:
            tally.ignored += 1
            continue
        try:
            observation = _observation(point, ours, source, sketch_of, is_cumulative=is_cumulative)
        except _PointError as error:
            tally.faults[str(error)] += 1
        else:
            tally.observations.append(observation)


def _metric_fault(kind: str, data: Any, ours: semconv.Metric) -> str | None:
    """Why none of a metric's points can be taken."""
    is_counter = ours.instrument == "counter"
    if kind not in _SKETCHES or (kind == "sum") is not is_counter:
        return "wrong_type"
    if data.aggregation_temporality not in (1, _CUMULATIVE):
        return "no_temporality"
    if is_counter and not data.is_monotonic:
        return "not_monotonic"
    return None


def _observation(
    point: Any,
    ours: semconv.Metric,
    source: _Source,
    sketch_of: Callable[[Any], Sketch],
    *,
    is_cumulative: bool,
) -> DataPoint:
    time_ns = point.time_unix_nano
    start_ns = point.start_time_unix_nano
    if not time_ns:
        raise _PointError("no_time")
    if time_ns > _MAX_TIME_NS or start_ns > time_ns:
        raise _PointError("bad_time")
    named = _named(point.attributes, ours, source)
    return DataPoint(
        model=named.model,
        metric=ours.name,
        key=named.key,
        category=named.category,
        series=named.series,
        start_ns=start_ns,
        time_ns=time_ns,
        is_cumulative=is_cumulative,
        sketch=sketch_of(point),
        exemplars=_trace_ids(point) if point.exemplars else (),
    )


def _named(pairs: Iterable[KeyValue], ours: semconv.Metric, source: _Source) -> _Named:
    texts = tuple([(pair.key, pair.value.string_value) for pair in pairs])
    if all(text for _, text in texts):
        return _named_by_texts(texts, ours.name, source)
    return _name(attributes_of(pairs), ours, source)


@functools.lru_cache(maxsize=NAME_CACHE_SIZE)
def _named_by_texts(texts: tuple[tuple[str, str], ...], metric: str, source: _Source) -> _Named:
    """Names repeat with every export. Texts only: as keys of a cache, 1, 1.0 and True would be the same."""
    return _name(dict(texts), _OURS[metric], source)


def _name(attributes: Attributes, ours: semconv.Metric, source: _Source) -> _Named:
    name = first_text(semconv.MODEL_NAME, attributes) or source.name
    if not name:
        raise _PointError("no_model_name")
    split = ours.attributes
    if split and split[0] == semconv.FEATURE_NAME and split[0] not in attributes:
        raise _PointError("no_feature_name")
    identity = ascii((source.identity, ours.name, canonical(attributes)))
    return _Named(
        model=ModelKey(name, first_text(semconv.MODEL_VERSION, attributes) or source.version),
        key=text_of(attributes.get(split[0])) if split else "",
        category=text_of(attributes.get(split[1])) if len(split) > 1 else "",
        series=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
    )


# ---------------------------------------------------------------- sketches


def _histogram(point: HistogramDataPoint) -> Histogram:
    bounds = tuple(point.explicit_bounds)
    counts = list(point.bucket_counts) or ([] if bounds else [point.count])
    if len(counts) != len(bounds) + 1:
        raise _PointError("bucket_mismatch")
    bounds = _checked_bounds(bounds)
    _check_count(point.count, sum(counts))
    return Histogram(bounds=bounds, counts=np.array(counts, dtype=np.int64), moments=_moments(point))


def _exponential(point: ExponentialHistogramDataPoint) -> ExponentialHistogram:
    scale = point.scale
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise _PointError("bad_scale")
    positive, negative = point.positive, point.negative
    above, below = _range(positive, scale), _range(negative, scale)
    _check_count(point.count, sum(above) + sum(below) + point.zero_count)
    return ExponentialHistogram.from_buckets(
        scale=scale,
        zero_count=point.zero_count,
        positive_offset=positive.offset,
        positive_counts=np.array(above, dtype=np.int64) if above else _NO_COUNTS,
        negative_offset=negative.offset,
        negative_counts=np.array(below, dtype=np.int64) if below else _NO_COUNTS,
        moments=_moments(point),
    )


def _range(buckets: ExponentialHistogramDataPoint.Buckets, scale: int) -> list[int]:
    """The counts of one range; its buckets must lie where a float can: between 2^-1075 and 2^1024."""
    if not buckets.bucket_counts:
        return []
    if len(buckets.bucket_counts) > MAX_EXPONENTIAL_BUCKETS:
        raise _PointError("too_many_buckets")
    counts = list(buckets.bucket_counts)
    lowest, highest = _index_range(scale)
    if buckets.offset < lowest or buckets.offset + len(counts) - 1 > highest:
        raise _PointError("bad_offset")
    return counts


def _counter(point: NumberDataPoint) -> int:
    kind = point.WhichOneof("value")
    if kind is None:
        raise _PointError("no_value")
    value = point.as_int if kind == "as_int" else point.as_double
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise _PointError("bad_value")
    if value > MAX_COUNT:
        raise _PointError("too_large")
    return int(value)


_SKETCHES: Final[Mapping[str, Callable[[Any], Sketch]]] = {
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "sum": _counter,
}


def _check_count(count: int, in_buckets: int) -> None:
    if count != in_buckets:
        raise _PointError("count_mismatch")
    if count > MAX_COUNT:
        raise _PointError("too_large")


@functools.cache
def _index_range(scale: int) -> tuple[int, int]:
    factor = 2.0**scale
    return math.floor(-1075 * factor) - 1, math.ceil(1024 * factor)


@functools.lru_cache(maxsize=1024)
def _checked_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """The bounds, one object for all points that share them.

    Raises:
        _PointError: They are not finite and strictly increasing; a NaN compares false, so it fails too.
    """
    if not all(map(math.isfinite, bounds)) or not all(low < high for low, high in pairwise(bounds)):
        raise _PointError("bounds_not_increasing")
    return bounds


def _moments(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> Moments:
    minimum = point.min if point.HasField("min") else -math.inf
    maximum = point.max if point.HasField("max") else math.inf
    if not minimum <= maximum:  # NaN, or the wrong way round: they say nothing
        minimum, maximum = -math.inf, math.inf
    return Moments.from_total(
        count=point.count,
        total=point.sum,
        minimum=minimum if minimum != -math.inf else math.inf,
        maximum=maximum if maximum != math.inf else -math.inf,
    )


def _trace_ids(point: _Point) -> tuple[str, ...]:
    ids = (exemplar.trace_id for exemplar in point.exemplars)
    return tuple(islice(dict.fromkeys(id_.hex() for id_ in ids if len(id_) == 16 and any(id_)), MAX_EXEMPLARS))


def _point_count(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0
