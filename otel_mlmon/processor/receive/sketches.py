"""Decodes the value of a data point, a histogram or a counter, and checks all rules that it can break by itself.

Source: opentelemetry-proto, metrics.proto; opentelemetry-specification, metrics/data-model.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
)

from otel_mlmon.processor.receive.attributes import PointError
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.exponential import MAX_SCALE, MIN_SCALE, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments

MAX_COUNT: Final = 2**53
"""The largest count that is exact as a float."""

MAX_BUCKETS: Final = 10_000
"""The most buckets of a point, of an exponential histogram those of one range; SDKs send 160."""

MAX_CACHED_BOUNDS: Final = 512
"""Longer bounds are checked each time, and are not remembered."""


def _decode_histogram(point: HistogramDataPoint) -> Histogram:
    explicit_bounds, bucket_counts = point.explicit_bounds, point.bucket_counts
    if len(explicit_bounds) >= MAX_BUCKETS or len(bucket_counts) > MAX_BUCKETS:
        raise PointError("too_many_buckets")
    bounds = tuple(explicit_bounds)
    counts = list(bucket_counts) or ([] if bounds else [point.count])
    if len(counts) != len(bounds) + 1:
        raise PointError("bucket_mismatch")
    bounds = _intern_bounds(bounds) if len(bounds) <= MAX_CACHED_BOUNDS else _check_bounds(bounds)
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
    """Returns the counts of one range of buckets, which must lie between 2^-1075 and 2^1024 as floats do."""
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
def _intern_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Returns checked histogram bounds as one object for all data points that share them.

    Raises:
        PointError: They are no bounds.
    """
    return _check_bounds(bounds)


def _check_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Returns histogram bounds unchanged if they are valid.

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


SKETCHES: Final[Mapping[str, Callable[[Any], Sketch]]] = {
    "histogram": _decode_histogram,
    "exponential_histogram": _decode_exponential,
    "sum": _decode_counter,
}
