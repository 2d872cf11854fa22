"""Hidden values: of inputs and regressions only the buckets leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_mlmon import semconv
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.sketch.exponential import MAX_HIDDEN_SCALE, ExponentialHistogram
from otel_mlmon.sketch.histogram import compute_bucket_middles
from otel_mlmon.sketch.moments import Moments

BOUNDS = (-10.0, -1.0, 0.0, 2.5, 100.0)
PARTS = st.lists(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=40), min_size=1, max_size=4)
Record = Callable[..., int]


def _collect(parts: list[list[float]], *, is_exponential: bool, is_delta: bool, record: Record) -> list[Any]:
    reader = InMemoryMetricReader(preferred_temporality={Histogram: AggregationTemporality.DELTA} if is_delta else None)
    views = [View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())] if is_exponential else []
    provider = MeterProvider(metric_readers=[reader], views=views, shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=list(BOUNDS))
    points: list[Any] = []
    for part in parts:
        record(histogram, np.array(part), {}, are_hidden=True)
        data = reader.get_metrics_data()
        points += data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points if data else []
    provider.shutdown()
    return points


def _sketch_of(point: Any) -> ExponentialHistogram:
    return ExponentialHistogram.from_buckets(
        scale=point.scale,
        zero_count=point.zero_count,
        positive_offset=point.positive.offset,
        positive_counts=np.array(point.positive.bucket_counts, dtype=np.int64),
        negative_offset=point.negative.offset,
        negative_counts=np.array(point.negative.bucket_counts, dtype=np.int64),
        moments=Moments(),
    )


@settings(deadline=None, max_examples=80)
@given(parts=PARTS, is_delta=st.booleans())
def test_exponential_points_tell_no_more_than_their_buckets(parts: list[list[float]], is_delta: bool) -> None:
    points = _collect(parts, is_exponential=True, is_delta=is_delta, record=bulk.record_values_at_once)
    for number, point in enumerate(points):
        values = np.concatenate(parts[number : number + 1] if is_delta else parts[: number + 1])
        assert (point.count, point.min, point.max) == (values.size, math.inf, -math.inf)
        assert point.scale <= MAX_HIDDEN_SCALE
        expected, sketch = ExponentialHistogram.from_values(values), _sketch_of(point)
        scale = min(expected.scale, sketch.scale)
        assert sketch.at_scale(scale).counts.tolist() == expected.at_scale(scale).counts.tolist()
        assert sketch.at_scale(scale).ordinals.tolist() == expected.at_scale(scale).ordinals.tolist()
        # A middle is within half a bucket of every value of it: (base - 1) / 2 of the lower bound.
        tolerance = (2**2.0**-point.scale - 1) / 2 + 1e-9
        assert point.sum == pytest.approx(values.sum(), abs=tolerance * np.abs(values).sum() + 1e-300)


@settings(deadline=None, max_examples=60)
@given(parts=PARTS, is_delta=st.booleans())
def test_two_sets_of_values_in_the_same_buckets_leave_the_same_point(parts: list[list[float]], is_delta: bool) -> None:
    middles = [
        # The last bucket has no middle: any value beyond its bound will do.
        np.append(compute_bucket_middles(np.array(BOUNDS))[:-1], 1e12)[np.searchsorted(BOUNDS, part)].tolist()
        for part in parts
    ]
    points, points_of_middles = (
        _collect(values, is_exponential=False, is_delta=is_delta, record=bulk.record_values_at_once)
        for values in (parts, middles)
    )
    assert [(p.count, p.sum, p.min, p.max, tuple(p.bucket_counts)) for p in points] == [
        (p.count, p.sum, p.min, p.max, tuple(p.bucket_counts)) for p in points_of_middles
    ]


def test_ten_equal_values_are_told_to_the_width_of_a_bucket() -> None:
    (point,) = _collect([[52_340.75] * 10], is_exponential=True, is_delta=False, record=bulk.record_values_at_once)
    assert point.scale == MAX_HIDDEN_SCALE
    assert point.sum / 10 != 52_340.75
    assert point.sum / 10 == pytest.approx(52_340.75, rel=4e-4)


def test_values_that_are_recorded_one_by_one_are_the_middles_of_buckets() -> None:
    points = _collect([[3.1, 4.2, 7e9]], is_exponential=True, is_delta=False, record=bulk.record_values_one_by_one)
    assert (points[0].min, points[0].max, points[0].sum) == (3.5, semconv.VALUE_BOUNDS[-1], 3.5 + 3.5 + 5e6)
