"""OUT Observation: one data point of prediction telemetry, checked, in our own types; OUT ModelLoaded, beside it.

A point is named by who counted it (`series`), what it is about (`model`, `metric`, `key`) and when (`start_ns`,
`time_ns`). The same point decoded twice is equal, so a repeated export can be told apart and changes nothing.
Source: opentelemetry-specification, metrics/data-model.md (timeseries, single-writer, temporality).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.types import ModelKey

Sketch: TypeAlias = Histogram | ExponentialHistogram | int
"""What was counted; an int is the value of a counter, 0 or above."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One data point."""

    model: ModelKey
    metric: str
    """A name of `semconv.APPLICATION_METRICS`."""
    key: str = ""
    """The label, feature name, output name or error type that the metric is split by; empty if it is not."""
    category: str = ""
    """The feature's value, for `ml.input.category` only."""
    series: str
    """Who counted: 32 hex digits of resource, scope, metric and all attributes. One writer a series."""
    start_ns: int
    """When counting began, Unix nanoseconds; 0 if unknown."""
    time_ns: int
    """When the point was taken, Unix nanoseconds, above 0."""
    is_cumulative: bool
    """Whether the sketch counts from `start_ns` on; else it counts since the series' point before."""
    sketch: Sketch
    exemplars: tuple[str, ...] = ()
    """Trace ids, 32 hex digits each, at most 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded:
    """A process loaded a model, and says what reference it carries."""

    model: ModelKey
    reference: str
    """The text of its reference profile, not looked at; empty if it carries none."""


Received: TypeAlias = Observation | ModelLoaded
"""What a request may hold."""
