"""Tests at the start whether recording many values at once agrees with OpenTelemetry's SDK in this release."""

from __future__ import annotations

import functools
import logging
import math
import time
from typing import Any, Final, NamedTuple

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.types import Floats

ATTRIBUTES: Final = {"key": "value"}
TRACED_VALUE: Final = 3.0

_LOG: Final = logging.getLogger("otel_mlmon")
_OTHER_LAYOUT: Final = (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)


class BulkUnavailableReasons(NamedTuple):
    """Says why the SDK cannot record values at once, or exemplars; each reason is empty where it can."""

    bulk: str
    """The difference between `bulk.record_values_at_once` and `record`."""
    exemplars: str
    """The difference between `bulk.offer_exemplar` and `record`."""


@functools.cache
def check_bulk_recording() -> BulkUnavailableReasons:
    """Tests once a process whether values can be recorded at once with this release of OpenTelemetry's SDK."""
    reason = _compare_recorded_values(is_traced=False)
    if reason:
        _LOG.warning("Values are recorded in metrics one by one, which takes 500 times as long: %s.", reason)
    return BulkUnavailableReasons(reason, reason or _compare_recorded_values(is_traced=True))


def make_comparable_point(point: Any) -> tuple[Any, ...]:
    """Returns a metric data point without its times, rounded so that it can be compared with another one."""
    buckets = (
        (point.scale, point.zero_count, _list_filled_buckets(point.positive), _list_filled_buckets(point.negative))
        if hasattr(point, "scale")
        else tuple(point.bucket_counts)
    )
    exemplars = [(exemplar.value, exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars]
    return (dict(point.attributes), point.count, round(point.sum, 6), point.min, point.max, buckets, exemplars)


def consume_values_one_by_one(instrument: Any, values: Floats, attributes: bulk.Attributes) -> None:
    """Records values one by one, also negative ones, which the SDK's public method refuses."""
    for value in values.tolist():
        _consume_measurement(instrument, value, attributes, Context())


def _compare_recorded_values(*, is_traced: bool) -> str:
    """Records values at once and one by one; returns how the results differ, or an empty text."""
    release = f"opentelemetry-sdk {sdk_version}"
    with guard("bulk_self_test"):
        try:
            at_once, one_by_one = (
                _record_test_values(is_bulk=is_bulk, is_traced=is_traced) for is_bulk in (True, False)
            )
        except _OTHER_LAYOUT as error:
            # The error comes from our own test providers and values: the text holds no data of the host.
            return f"{release} is laid out in another way: {type(error).__name__}: {error}"
        differing = [name for name in at_once if at_once[name] != one_by_one[name]]
        if not is_traced:
            differing += _list_unhidden_kinds(at_once)
        return f"{release} gives other {' and '.join(differing)} histograms than by `record`" if differing else ""
    return f"{release} fails in the self-test"


def _list_unhidden_kinds(expected: dict[str, tuple[Any, ...]]) -> list[str]:
    """Lists the kinds of histogram that would show the extremes of private values, or lose values."""
    hidden = _record_test_values(is_bulk=True, is_traced=False, are_hidden=True)
    return [
        f"hidden {name}"
        for name, (_, count, _, low, high, _, _) in hidden.items()
        if (count, low, high) != (expected[name][1], math.inf, -math.inf)
    ]


def _record_test_values(*, is_bulk: bool, is_traced: bool, are_hidden: bool = False) -> dict[str, tuple[Any, ...]]:
    """Records the same values in a histogram of each kind, at once or one by one, and collects the data points."""
    values = np.concatenate([np.geomspace(1e-6, 1e3, 40), -np.geomspace(1e-3, 5.0, 10), np.zeros(3), np.ones(5)])
    reader = InMemoryMetricReader()
    view = View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider(
        metric_readers=[reader],
        views=[view],
        shutdown_on_exit=False,
        resource=Resource.get_empty(),
        exemplar_filter=TraceBasedExemplarFilter(),
    )
    meter = provider.get_meter("otel_mlmon.self_test")
    for name in ("explicit", "exponential"):
        instrument: Any = meter.create_histogram(name)
        # In two steps, since the second finds buckets that exist.
        for part in (values[::2], values[1::2]):
            if is_bulk:
                bulk.record_values_at_once(instrument, part, ATTRIBUTES, are_hidden=are_hidden)
            else:
                consume_values_one_by_one(instrument, part, ATTRIBUTES)
        _record_traced_value(instrument, is_bulk=is_bulk, is_traced=is_traced, are_hidden=are_hidden)
    data = reader.get_metrics_data()
    provider.shutdown()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
    return {metric.name: make_comparable_point(metric.data.data_points[0]) for metric in metrics}


def _record_traced_value(instrument: Any, *, is_bulk: bool, is_traced: bool, are_hidden: bool) -> None:
    """Records one more value within a span, so that it becomes an exemplar."""
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(int(is_traced))))
    context = trace.set_span_in_context(span, Context())
    if not is_bulk:
        _consume_measurement(instrument, TRACED_VALUE, ATTRIBUTES, context)
        return
    bulk.record_values_at_once(instrument, np.array([TRACED_VALUE]), ATTRIBUTES, are_hidden=are_hidden)
    if is_traced:
        bulk.offer_exemplar(instrument, TRACED_VALUE, ATTRIBUTES, context, time.time_ns())


def _consume_measurement(instrument: Any, value: float, attributes: bulk.Attributes, context: Context) -> None:
    measurement = bulk.import_private_name("measurement", "Measurement")(
        value, time.time_ns(), instrument, context, dict(attributes)
    )
    instrument._measurement_consumer.consume_measurement(measurement)


def _list_filled_buckets(buckets: Any) -> dict[int, int]:
    """Returns the counts of the buckets that are not empty, by their index."""
    return {buckets.offset + index: count for index, count in enumerate(buckets.bucket_counts) if count}
