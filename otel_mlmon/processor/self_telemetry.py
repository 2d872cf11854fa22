"""What the processor counts of itself, by name: added up or set on any thread, read for `/metrics`.

A name `points.accepted` is the metric `otel_mlmon.processor.points.accepted`, in Prometheus
`otel_mlmon_processor_points_accepted_total`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from otel_mlmon.semconv import Metric

PREFIX: Final = "otel_mlmon.processor."

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Reading(NamedTuple):
    """One number: fits what `/metrics` is rendered from."""

    metric: Metric
    attributes: Mapping[str, str]
    value: float


class SelfTelemetry:
    """Counters and gauges.

    Runs on: any thread. A lock is held for one update of a dictionary.

    Args:
        descriptions: A sentence for a name, shown at `/metrics`; a name without one shows itself.
        units: UCUM units of names that have one, such as `s`.
    """

    def __init__(
        self, *, descriptions: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None
    ) -> None:
        self._descriptions = dict(descriptions or {})
        self._units = dict(units or {})
        self._lock = threading.Lock()
        self._counters: dict[_Key, float] = {}
        self._gauges: dict[_Key, float] = {}

    def add(self, name: str, value: float = 1, **attributes: str) -> None:
        """Let the counter `name` grow by `value`, 0 or above."""
        key = _key(name, attributes)
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + value

    def set(self, name: str, value: float, **attributes: str) -> None:
        """Let the gauge `name` be `value`."""
        with self._lock:
            self._gauges[_key(name, attributes)] = value

    def snapshot(self) -> list[Reading]:
        """All numbers now, sorted by name and attributes."""
        with self._lock:
            counters, gauges = dict(self._counters), dict(self._gauges)
        readings = [self._reading(key, value, "counter") for key, value in counters.items()]
        readings += [self._reading(key, value, "gauge") for key, value in gauges.items()]
        return sorted(readings, key=lambda reading: (reading.metric.name, sorted(reading.attributes.items())))

    def _reading(self, key: _Key, value: float, instrument: Literal["counter", "gauge"]) -> Reading:
        name, attributes = key
        metric = Metric(
            name=PREFIX + name,
            instrument=instrument,
            unit=self._units.get(name, "{item}"),
            description=self._descriptions.get(name, name),
        )
        return Reading(metric, dict(attributes), value)


def _key(name: str, attributes: Mapping[str, str]) -> _Key:
    return name, tuple(sorted(attributes.items()))
