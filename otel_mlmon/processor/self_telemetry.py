"""Counts the processor's own work in the metrics of `semconv.PROCESSOR_SELF_METRICS`, for `/metrics`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from otel_mlmon.semconv import Metric

_SeriesKey: TypeAlias = "tuple[Metric, tuple[tuple[str, str], ...]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """The present value of one series of a metric."""

    metric: Metric
    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)


class SelfTelemetry:
    """The counters of the processor's own work, all metrics of `semconv.PROCESSOR_SELF_METRICS`.

    Runs on: any thread. A lock is held for one update of a dictionary.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[_SeriesKey] = Counter()

    def add(self, metric: Metric, count: int = 1, **attributes: str) -> None:
        """Adds a count, 0 or above, to one of the processor's own counters."""
        key = metric, tuple(sorted(attributes.items()))
        with self._lock:
            self._totals[key] += count

    def values(self) -> list[MetricValue]:
        """Returns the totals of the processor's own counters, sorted by name and attributes."""
        with self._lock:
            totals = dict(self._totals)
        ranked = sorted(totals.items(), key=lambda item: (item[0][0].name, item[0][1]))
        return [
            MetricValue(metric=metric, attributes=dict(attributes), value=total)
            for (metric, attributes), total in ranked
        ]
