"""Whether this release of the SDK is laid out as `bulk` reads it, proven against `record` on private providers."""

from __future__ import annotations

import functools
import logging
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
TOLD: Final = 3.0
"""The value that has a trace."""

_LOG: Final = logging.getLogger("otel_mlmon")
_OTHER_LAYOUT: Final = (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)


class Trouble(NamedTuple):
    """Why a way of ours into the SDK is not taken; each empty if it is."""

    values: str
    """In which `bulk.inject` and `record` differ."""
    exemplars: str
    """In which `bulk.offer` and `record` differ."""


@functools.cache
def self_test() -> Trouble:
    """What is wrong, found out and logged once a process: the SDK does not change while it runs."""
    values = _trouble(is_told=False)
    if values:
        _LOG.warning("Values go into metrics one after the other, which takes 500 times as long: %s.", values)
    return Trouble(values, values or _trouble(is_told=True))


def comparable(point: Any) -> tuple[Any, ...]:
    """Everything of a data point but the times; sums agree but for the order of addition."""
    buckets = (
        (point.scale, point.zero_count, _filled(point.positive), _filled(point.negative))
        if hasattr(point, "scale")
        else tuple(point.bucket_counts)
    )
    told = [(exemplar.value, exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars]
    return (dict(point.attributes), point.count, round(point.sum, 6), point.min, point.max, buckets, told)


def consume_all(instrument: Any, values: Floats, attributes: bulk.Attributes) -> None:
    """What `record` does below its refusal of negative values, which the aggregations hold well."""
    for value in values.tolist():
        _consume(instrument, value, attributes, Context())


def _trouble(*, is_told: bool) -> str:
    release = f"opentelemetry-sdk {sdk_version}"
    with guard("bulk_self_test"):
        try:
            at_once, one_by_one = (_points(is_bulk=is_bulk, is_told=is_told) for is_bulk in (True, False))
        except _OTHER_LAYOUT as error:
            # Of private providers and values of ours: the text holds nothing of the host's.
            return f"{release} is laid out in another way: {type(error).__name__}: {error}"
        differing = [name for name in at_once if at_once[name] != one_by_one[name]]
        return f"{release} gives other {' and '.join(differing)} histograms than by `record`" if differing else ""
    return f"{release} fails in the self-test"


def _points(*, is_bulk: bool, is_told: bool) -> dict[str, tuple[Any, ...]]:
    """A data point of each kind of histogram, filled at once or one by one."""
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
            (bulk.inject if is_bulk else consume_all)(instrument, part, ATTRIBUTES)
        _tell(instrument, is_bulk=is_bulk, is_told=is_told)
    data = reader.get_metrics_data()
    provider.shutdown()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
    return {metric.name: comparable(metric.data.data_points[0]) for metric in metrics}


def _tell(instrument: Any, *, is_bulk: bool, is_told: bool) -> None:
    """One value more, with a trace if `is_told`."""
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(int(is_told))))
    context = trace.set_span_in_context(span, Context())
    if not is_bulk:
        _consume(instrument, TOLD, ATTRIBUTES, context)
        return
    bulk.inject(instrument, np.array([TOLD]), ATTRIBUTES)
    if is_told:
        bulk.offer(instrument, TOLD, ATTRIBUTES, context, time.time_ns())


def _consume(instrument: Any, value: float, attributes: bulk.Attributes, context: Context) -> None:
    measurement = bulk.private("measurement", "Measurement")(
        value, time.time_ns(), instrument, context, dict(attributes)
    )
    instrument._measurement_consumer.consume_measurement(measurement)


def _filled(buckets: Any) -> dict[int, int]:
    """Counts by index; how many empty buckets follow the last depends on the order of the values, and says nothing."""
    return {buckets.offset + index: count for index, count in enumerate(buckets.bucket_counts) if count}
