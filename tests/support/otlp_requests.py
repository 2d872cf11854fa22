"""Builds OTLP metric requests by hand, for tests of receivers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

NOW_NS = 1_800_000_000_000_000_000
START_NS = NOW_NS - 60_000_000_000
DELTA, CUMULATIVE = 1, 2


def request(
    metric: str,
    kind: str,
    fill: Callable[[Any], None],
    *,
    points: int = 1,
    attributes: Mapping[str, str] | None = None,
    scope: str = "otel_mlmon",
    resource: Mapping[str, str] | None = None,
    temporality: int = CUMULATIVE,
    is_monotonic: bool = True,
) -> ExportMetricsServiceRequest:
    """Builds a request with one metric of one scope and `points` points, which `fill` completes."""
    message = ExportMetricsServiceRequest()
    resource_metrics = message.resource_metrics.add()
    for key, value in (resource or {}).items():
        resource_metrics.resource.attributes.add(key=key).value.string_value = value
    scope_metrics = resource_metrics.scope_metrics.add()
    scope_metrics.scope.name = scope
    entry = scope_metrics.metrics.add(name=metric)
    data = getattr(entry, kind)
    data.SetInParent()
    if kind != "gauge":
        data.aggregation_temporality = temporality
    if kind == "sum":
        data.is_monotonic = is_monotonic
    for _ in range(points):
        point = data.data_points.add(start_time_unix_nano=START_NS, time_unix_nano=NOW_NS)
        for key, value in (attributes if attributes is not None else {"ml.model.name": "fraud"}).items():
            point.attributes.add(key=key).value.string_value = value
        fill(point)
    return message


def counter(value: int) -> Callable[[Any], None]:
    """Fills a point of a sum."""

    def fill(point: Any) -> None:
        point.as_int = value

    return fill


def histogram(bounds: list[float], counts: list[int], **fields: Any) -> Callable[[Any], None]:
    """Fills a point of an explicit histogram; `fields` win."""

    def fill(point: Any) -> None:
        point.explicit_bounds.extend(bounds)
        point.bucket_counts.extend(counts)
        for name, value in {"count": sum(counts), **fields}.items():
            setattr(point, name, value)

    return fill


def exponential(
    scale: int,
    positive: tuple[int, list[int]] = (0, []),
    negative: tuple[int, list[int]] = (0, []),
    zero_count: int = 0,
    **fields: Any,
) -> Callable[[Any], None]:
    """Fills a point of an exponential histogram; a range is an offset and its counts; `fields` win."""

    def fill(point: Any) -> None:
        point.scale = scale
        point.zero_count = zero_count
        for buckets, (offset, counts) in ((point.positive, positive), (point.negative, negative)):
            buckets.offset = offset
            buckets.bucket_counts.extend(counts)
        total = sum(positive[1]) + sum(negative[1]) + zero_count
        for name, value in {"count": total, **fields}.items():
            setattr(point, name, value)

    return fill


def predictions(count: int = 1, *, points: int = 1) -> ExportMetricsServiceRequest:
    """Builds the simplest valid request."""
    attributes = {"ml.model.name": "fraud", "ml.prediction.label": "spam"}
    return request("ml.predictions", "sum", counter(count), points=points, attributes=attributes)


_NUMBERS = itertools.count(1)


def new_predictions(*, points: int = 1) -> bytes:
    """Builds a request as `predictions` does, of the same length, that differs from all others in its times."""
    message = predictions(points=points)
    shift_ns = next(_NUMBERS)
    for point in message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points:
        point.time_unix_nano += shift_ns
    return bytes(message.SerializeToString())
