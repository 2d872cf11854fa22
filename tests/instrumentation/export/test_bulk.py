from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    SumAggregation,
    View,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import (
    BulkUnavailableReasons,
    check_bulk_recording,
    consume_values_one_by_one,
    make_comparable_point,
)
from otel_mlmon.sketch.exponential import MAX_HIDDEN_SCALE, ExponentialHistogram
from otel_mlmon.sketch.moments import Moments

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=0, max_size=60)
EXPONENTIAL = View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())


def _collected(parts: list[list[float]], view: View | None, write: Any, temporality: Any = None) -> list[Any]:
    """The data points of two readers after each part."""
    readers = [InMemoryMetricReader(preferred_temporality=temporality), InMemoryMetricReader()]
    provider = MeterProvider(metric_readers=readers, views=[view] if view else [], shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[-1.0, 0.0, 5.0])
    found: list[Any] = []
    for part in parts:
        write(histogram, np.array(part, dtype=np.float64), {"key": "a", "other": "b"})
        for reader in readers:
            data = reader.get_metrics_data()
            metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
            found.append([point for metric in metrics for point in metric.data.data_points])
    provider.shutdown()
    return found


def _assert_same(one: list[Any], other: list[Any]) -> None:
    for bulk_points, points in zip(one, other, strict=True):
        mine, theirs = [make_comparable_point(p) for p in bulk_points], [make_comparable_point(p) for p in points]
        assert [p[:2] + p[3:] for p in mine] == [p[:2] + p[3:] for p in theirs]
        assert [p[2] for p in mine] == pytest.approx([p[2] for p in theirs], rel=1e-9, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(VALUES, min_size=1, max_size=3),
    view=st.sampled_from(
        [
            None,
            View(
                instrument_name="h",
                aggregation=ExplicitBucketHistogramAggregation([0.0, 1.0]),
                attribute_keys={"key"},
            ),
            View(instrument_name="h", aggregation=DropAggregation()),
        ]
    ),
    temporality=st.sampled_from([None, {SdkHistogram: AggregationTemporality.DELTA}]),
)
def test_bulk_leaves_what_record_leaves(parts: list[list[float]], view: View | None, temporality: Any) -> None:
    one = _collected(parts, view, bulk.record_values_at_once, temporality)
    _assert_same(one, _collected(parts, view, consume_values_one_by_one, temporality))
    # The public way refuses negative values and is the same for all others.
    positive = [[value for value in part if value >= 0] for part in parts]
    _assert_same(
        _collected(positive, view, bulk.record_values_at_once), _collected(parts, view, bulk.record_values_one_by_one)
    )


@settings(deadline=None, max_examples=60)
@given(values=VALUES, max_size=st.sampled_from([4, 160]), delta=st.booleans())
def test_bulk_fills_exponential_buckets_as_record_does(values: list[float], max_size: int, delta: bool) -> None:
    view = View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation(max_size=max_size))
    temporality = {SdkHistogram: AggregationTemporality.DELTA} if delta else None
    one = _collected([values], view, bulk.record_values_at_once, temporality)
    _assert_same(one, _collected([values], view, consume_values_one_by_one, temporality))


def _sketch(point: Any) -> ExponentialHistogram:
    return ExponentialHistogram.from_buckets(
        scale=point.scale,
        zero_count=point.zero_count,
        positive_offset=point.positive.offset,
        positive_counts=np.array(point.positive.bucket_counts),
        negative_offset=point.negative.offset,
        negative_counts=np.array(point.negative.bucket_counts),
        moments=Moments(),
    )


@settings(deadline=None, max_examples=100)
@given(st.lists(VALUES, min_size=2, max_size=4))
def test_collections_between_lose_no_exponential_bucket(parts: list[list[float]]) -> None:
    """Of the same values collected once, whose way through the SDK is not the one that fails (see `bulk._prepare`)."""
    everything = [value for part in parts for value in part]
    between = _collected(parts, EXPONENTIAL, bulk.record_values_at_once)[-1]
    once = _collected([everything], EXPONENTIAL, consume_values_one_by_one)[-1]
    assert len(between) == len(once)
    for point, expected in zip(between, once, strict=True):
        assert (point.count, point.zero_count, point.min, point.max) == (
            expected.count, expected.zero_count, expected.min, expected.max,
        )  # fmt: skip
        one, other = _sketch(point), _sketch(expected)
        scale = min(one.scale, other.scale)
        assert one.at_scale(scale) == other.at_scale(scale)


def test_the_self_test_passes_on_this_sdk() -> None:
    assert check_bulk_recording() == BulkUnavailableReasons("", "")


def test_a_view_that_makes_a_sum_is_honoured() -> None:
    reader = InMemoryMetricReader()
    view = View(instrument_name="h", aggregation=SumAggregation())
    provider = MeterProvider(metric_readers=[reader], views=[view], shutdown_on_exit=False)
    bulk.record_values_at_once(provider.get_meter("test").create_histogram("h"), np.array([1.0, 2.0, 3.0, 4.0]), {})
    data = reader.get_metrics_data()
    assert data is not None
    assert data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].value == 10.0  # type: ignore[union-attr]
    provider.shutdown()


def test_the_slowest_calls_trace_is_the_exemplar() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[0.5])
    context = trace.set_span_in_context(span)
    bulk.record_values_at_once(histogram, np.array([0.1, 0.9, 0.2]), {}, (0.9, context))
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert [(e.value, e.trace_id) for e in point.exemplars] == [(0.9, 0xABC)]
    provider.shutdown()


def test_other_implementations_are_told_apart() -> None:
    provider = MeterProvider(shutdown_on_exit=False)
    meter = provider.get_meter("test")
    assert bulk.is_sdk_instrument(meter.create_histogram("h"))
    assert isinstance(meter.create_counter("c"), Counter)

    class Foreign(Histogram):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
            self.seen.append(amount)

    foreign = Foreign()
    assert not bulk.is_sdk_instrument(foreign)
    bulk.record_values_one_by_one(foreign, np.array([1.0, -2.0, 3.0]), {})
    assert foreign.seen == [1.0, 3.0]
    provider.shutdown()


@pytest.mark.parametrize("record", [bulk.record_values_at_once, bulk.record_values_one_by_one])
@pytest.mark.parametrize("view", [None, EXPONENTIAL, View(instrument_name="h", aggregation=SumAggregation())])
def test_the_one_exemplar_is_that_of_the_call_and_no_other_value_has_one(record: Any, view: View | None) -> None:
    flags = TraceFlags(TraceFlags.SAMPLED)
    span = NonRecordingSpan(SpanContext(trace_id=7, span_id=9, is_remote=False, trace_flags=flags))
    exemplar = (4.5, trace.set_span_in_context(span))
    write: Any = lambda histogram, values, attributes: record(histogram, values, attributes, exemplar)  # noqa: E731
    (point,) = _collected([[1.0, 2.0, 3.0, 4.0, 4.5]], view, write)[0]
    found = [(exemplar.value, exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars]
    assert found == [(4.5, 7, 9)]


def test_of_no_values_none_is_left_out() -> None:
    counts: list[int] = []
    for record in (bulk.record_values_at_once, bulk.record_values_one_by_one):
        write: Any = lambda histogram, values, attributes: counts.append(record(histogram, values, attributes))  # noqa: B023, E731
        assert _collected([[]], None, write) == [[], []]
    assert counts == [0, 0]


def test_values_that_were_recorded_finely_are_as_wide_as_hidden_ones_after_a_zero() -> None:
    def write(histogram: Any, values: Any, attributes: Any) -> None:
        histogram.record(3.1, attributes)
        bulk.record_values_at_once(histogram, values, attributes, are_hidden=True)

    (point,) = _collected([[0.0]], EXPONENTIAL, write)[0]
    assert (point.scale, point.zero_count, point.count) == (MAX_HIDDEN_SCALE, 1, 2)
    base = 2.0**2.0**-point.scale
    (index,) = np.flatnonzero(point.positive.bucket_counts) + point.positive.offset
    assert base**index < 3.1 <= base ** (index + 1)
