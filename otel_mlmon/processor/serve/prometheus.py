"""Renders metrics as a Prometheus page by prometheus_client, under the names that OpenTelemetry's rules give them.

Dots become underscores and the unit a suffix; counters end in `_total`. Source: OpenTelemetry specification,
compatibility/prometheus_and_openmetrics.md (units in braces have no suffix; values of labels that collide are joined).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.semconv import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_UNIT_SUFFIXES: Final = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": "ratio"}
_INVALID_CHARACTERS: Final = re.compile(r"[^a-zA-Z0-9_]")

_Family = CounterMetricFamily | GaugeMetricFamily


def create_metrics_page(read: Callable[[], Iterable[MetricValue]]) -> Callable[[], bytes]:
    """Returns a function that renders the Prometheus page of the metric values that `read` returns at that moment.

    A metric's series are listed together; metrics are in the order of their first value.
    """
    registry = CollectorRegistry()
    registry.register(_ValueCollector(read))
    return lambda: generate_latest(registry)


def build_prometheus_name(metric: Metric) -> str:
    """Returns the Prometheus name of a metric: `ml_inference_duration_seconds` for `ml.inference.duration` in s."""
    name = _sanitize_label_name(metric.name)
    suffix = _UNIT_SUFFIXES.get(metric.unit)
    if suffix == "ratio" and _is_counter_metric(metric):
        suffix = None
    if suffix and not name.endswith(f"_{suffix}"):
        name += f"_{suffix}"
    return f"{name}_total" if _is_counter_metric(metric) and not name.endswith("_total") else name


class _ValueCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[MetricValue]]) -> None:
        self._read = read

    def collect(self) -> Iterable[_Family]:
        families: dict[str, _Family] = {}
        for entry in self._read():
            name = build_prometheus_name(entry.metric)
            if name not in families:
                kind = CounterMetricFamily if _is_counter_metric(entry.metric) else GaugeMetricFamily
                families[name] = kind(name, entry.metric.description)
            families[name].samples.append(Sample(name, _build_prometheus_labels(entry.attributes), entry.value))
        return families.values()


def _build_prometheus_labels(attributes: Mapping[str, str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        label = _sanitize_label_name(key)
        labels[label] = f"{labels[label]};{value}" if label in labels else value
    return labels


def _sanitize_label_name(name: str) -> str:
    sanitized = re.sub("_{2,}", "_", _INVALID_CHARACTERS.sub("_", name))
    return f"_{sanitized}" if sanitized[:1].isdigit() else sanitized


def _is_counter_metric(metric: Metric) -> bool:
    return metric.instrument in ("counter", "observable_counter")
