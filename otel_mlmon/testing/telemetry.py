"""Builds the OTLP metrics requests that an application would send, for tests of a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.sketch.exponential import BIAS, ExponentialHistogram
from otel_mlmon.types import Floats, ModelKey

_DELTA: Final = 1


class MetricsRequestBuilder:
    """Builds the OTLP metrics request of one sender about one model, with the deltas of one interval.

    Args:
        model: Name, version and environment of the model.
        sender: `service.instance.id` of the process that sends.
        start_ns: Start of the interval, Unix nanoseconds.
        end_ns: Its end.
    """

    def __init__(self, model: ModelKey, *, sender: str, start_ns: int, end_ns: int) -> None:
        self.request = ExportMetricsServiceRequest()
        resource_metrics = self.request.resource_metrics.add()
        resource = {"service.instance.id": sender, "deployment.environment.name": model.environment}
        _set_resource_attributes(resource_metrics.resource, resource)
        self._metrics = resource_metrics.scope_metrics.add()
        self._metrics.scope.name = semconv.SCOPE
        self._model = {semconv.MODEL_NAME: model.name, semconv.MODEL_VERSION: model.version}
        self._times = {"start_time_unix_nano": start_ns, "time_unix_nano": end_ns}

    def add_counter_point(self, metric: semconv.Metric, count: int, attributes: Mapping[str, str]) -> None:
        """Adds a data point of a counter to the request; `count` is 0 or above."""
        data = self._add_metric(metric).sum
        data.aggregation_temporality, data.is_monotonic = _DELTA, True
        data.data_points.add(as_int=count, attributes=self._build_attributes(attributes), **self._times)

    def add_histogram_point(
        self, metric: semconv.Metric, values: Sequence[float], attributes: Mapping[str, str]
    ) -> None:
        """Adds a histogram of finite values to the request, with the buckets that the metric has."""
        numbers: Floats = np.asarray(values, dtype=np.float64)
        fields = {
            "count": numbers.size,
            "sum": float(numbers.sum()),
            "attributes": self._build_attributes(attributes),
            **self._times,
        }
        if metric.bounds is not None:
            buckets = np.bincount(np.searchsorted(metric.bounds, numbers), minlength=len(metric.bounds) + 1)
            data = self._add_metric(metric).histogram
            data.data_points.add(explicit_bounds=metric.bounds, bucket_counts=buckets.tolist(), **fields)
        else:
            data = self._add_metric(metric).exponential_histogram
            _fill_exponential_point(data.data_points.add(**fields), ExponentialHistogram.from_values(numbers))
        data.aggregation_temporality = _DELTA

    def _add_metric(self, metric: semconv.Metric) -> Any:
        return self._metrics.metrics.add(name=metric.name, unit=metric.unit)

    def _build_attributes(self, attributes: Mapping[str, str]) -> list[dict[str, Any]]:
        return _list_key_values({**self._model, **attributes})


def _fill_exponential_point(point: Any, histogram: ExponentialHistogram) -> None:
    point.scale = histogram.scale
    ordinals, counts = histogram.ordinals, histogram.counts
    point.zero_count = int(counts[ordinals == 0].sum())
    for buckets, sign in ((point.positive, 1), (point.negative, -1)):
        is_on_side = ordinals * sign > 0
        if is_on_side.any():
            indices = ordinals[is_on_side] * sign - BIAS
            buckets.offset = int(indices.min())
            buckets.bucket_counts.extend(np.bincount(indices - indices.min(), counts[is_on_side]).astype(int).tolist())


def _list_key_values(attributes: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in attributes.items() if value]


def _set_resource_attributes(resource: Any, attributes: Mapping[str, str]) -> None:
    for key, value in attributes.items():
        if value:
            resource.attributes.add(key=key).value.string_value = value
