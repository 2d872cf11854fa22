"""Builds data points and panes by hand, with a clock that is set and a sender that counts like an SDK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import (
    DataPoint,
    PointGroup,
    PointIdentity,
    TraceExemplar,
    group_points,
)
from otel_mlmon.processor.state.repository import Repository
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.outcome import PointOutcome
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.window import StreamWindow, WindowSettings
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.table import AnyHistogram, PointValue
from otel_mlmon.types import ModelKey

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND
"""A multiple of every pane length used here."""
MODEL = ModelKey("digits", "1")


@dataclass
class Clock:
    """A clock in Unix nanoseconds that stands still until it is set."""

    now_ns: int = T0

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Bench:
    """A window aggregator with a clock, and every window that it has made."""

    settings: ModelWindowSettings = field(default_factory=lambda: ModelWindowSettings(learn=100))
    windows: WindowSettings = field(
        default_factory=lambda: WindowSettings(pane_s=10.0, lateness_s=20.0, rolling_s=60.0)
    )
    clock: Clock = field(default_factory=Clock)
    max_streams: int = 10_000
    max_series: int = 100_000
    max_models: int = 1_000
    out: list[StreamWindow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.panes = self._aggregator()

    def reload(self, repository: Repository) -> None:
        """Loads the saved state into a new aggregator, as after a restart."""
        self.panes = self._aggregator()
        self.panes.load(repository)

    def _aggregator(self) -> WindowAggregator:
        return WindowAggregator(
            settings_for=lambda _: self.settings,
            windows=self.windows,
            max_streams=self.max_streams,
            max_series=self.max_series,
            max_models=self.max_models,
            clock_ns=self.clock,
        )

    def add(self, observation: DataPoint) -> str:
        """Adds a data point at its own time, or later."""
        self.clock.now_ns = max(self.clock.now_ns, observation.time_ns)
        return self.panes.add(observation)

    def add_request(self, observations: Iterable[DataPoint]) -> Counter[PointOutcome]:
        """Adds the data points of one request; returns the outcomes."""
        return self.panes.add_points(group_points(observations))

    def flush(self) -> list[StreamWindow]:
        """Closes all open panes, as if the models fell silent."""
        self.clock.now_ns += 3600 * SECOND
        closed = self.panes.close_panes(self.clock.now_ns)
        self.out += closed
        return closed


def point(
    metric: str,
    sketch: AnyHistogram | int,
    *,
    at_s: float,
    since_s: float = 0.0,
    key: str = "",
    category: str = "",
    series: str = "",
    is_cumulative: bool = False,
    model: ModelKey = MODEL,
    exemplars: tuple[str, ...] = (),
    exemplar_value: float = 0.0,
    sender: str = "sender",
) -> DataPoint:
    """Builds a data point at `T0 + at_s` that counts since `T0 + since_s`."""
    identity = PointIdentity(model, metric, key, category, sender, series or f"{metric}/{key}/{category}/{model}")
    traces = tuple(TraceExemplar(trace_id, exemplar_value) for trace_id in exemplars)
    start_ns, time_ns = T0 + round(since_s * SECOND), T0 + round(at_s * SECOND)
    return DataPoint(identity, start_ns, time_ns, is_cumulative, PointValue.from_sketch(sketch), traces)


def list_points(items: Iterable[object]) -> list[DataPoint]:
    """Lists the data points of all groups among items, one by one."""
    return [point for item in items if isinstance(item, PointGroup) for point in item.list_points()]


def label(count: int, *, at_s: float, label: str = "a", **more: object) -> DataPoint:
    """Builds a data point of `count` predictions of one label."""
    return point(semconv.PREDICTIONS.name, count, at_s=at_s, key=label, **more)  # type: ignore[arg-type]


def durations(*seconds: float, bounds: tuple[float, ...] = semconv.DURATION_BOUNDS_S) -> Histogram:
    """Counts call durations in a histogram as an SDK does."""
    return Histogram.from_values(np.array(seconds, dtype=np.float64), bounds)


def numbers(*values: float) -> ExponentialHistogram:
    """Counts numeric values in a histogram as an SDK does."""
    return ExponentialHistogram.from_values(np.array(values, dtype=np.float64))


def facts(windows: list[StreamWindow], keep: Callable[[StreamWindow], bool] = lambda _: True) -> list[object]:
    """Converts windows to values that compare."""
    return [
        (
            window.stream,
            window.start_ns,
            window.end_ns,
            None
            if window.reference is None
            else (
                window.reference.bins,
                window.reference.counts.tolist(),
                repr(window.reference.mean),
                window.reference.origin,
            ),
            window.learned,
            window.pane.tolist(),
            repr(window.pane_mean),
            window.rolling.tolist(),
            window.rolling_start_ns,
            repr(window.rolling_mean),
            window.exemplars,
        )
        for window in windows
        if keep(window)
    ]
