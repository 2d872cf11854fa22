"""One model version: its open panes, its streams, and its last panes for latency and throughput."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.window.binning import latency_count
from otel_mlmon.processor.window.moving_reference import HOUR_NS, History, Hour
from otel_mlmon.processor.window.reference import Baseline
from otel_mlmon.processor.window.rolling import Rolling, Slot
from otel_mlmon.processor.window.series import Point, PointKey, Series, SeriesKey, count_of
from otel_mlmon.processor.window.settings import ModelSettings, WindowSettings
from otel_mlmon.processor.window.stream import Stream, StreamSummary
from otel_mlmon.processor.window.streams import FAILED, merged, stream_sketches
from otel_mlmon.processor.window.window import StreamKey, Window
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

MAX_EXEMPLARS: Final = 4
"""Trace ids a window; the smallest are kept, which is a random choice, and the same whatever the order."""


class Recent(NamedTuple):
    """What a pane says about the service itself."""

    start_ns: int
    end_ns: int
    duration: StreamSketch
    """Seconds, failed calls included."""
    failed: int


class ClosedPane(NamedTuple):
    """What has to be kept of a pane to have its rolling windows again."""

    model: ModelKey
    recent: Recent
    slots: tuple[tuple[str, int, Slot], ...]
    """Stream, generation of its bins, and what it counted."""
    hours: tuple[tuple[str, int, int, Hour], ...] = ()
    """Stream, generation of its bins, the hour, and what was counted in it so far, of references that move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One model version as it stands, for people."""

    model: ModelKey
    updated_ns: int
    """End of the last closed pane, Unix nanoseconds; 0 before the first."""
    duration: StreamSketch
    """Of the calls in the last `short_panes` panes, seconds."""
    p50_s: float
    """NaN without calls."""
    p95_s: float
    p99_s: float
    latency_threshold_s: float
    over_ratio: float
    """Share of those calls over the latency budget, [0, 1]; NaN without calls."""
    error_ratio: float
    """Share of those calls that failed, [0, 1]; NaN without calls."""
    calls: int
    calls_per_s: float
    predictions: int
    """Counted in closed panes since this version was first seen."""
    streams: tuple[StreamSummary, ...]
    """By name."""
    calibration: Calibration | None = None
    """How often this version was right on labelled data; None if that is not known."""


@dataclass(slots=True, kw_only=True)
class Model:
    """State of one model version."""

    key: ModelKey
    settings: ModelSettings
    windows: WindowSettings
    arrived_ns: int
    """When a point last arrived, by our clock."""
    watermark_ns: int = 0
    """The largest event time seen."""
    closed_ns: int = 0
    """Panes up to here are closed, and points for them are late."""
    first_ns: int = 0
    """Start of the first pane with points."""
    last_ns: int = 0
    """End of the last pane with points."""
    predictions: int = 0
    open: dict[int, dict[SeriesKey, Series]] = field(default_factory=dict)
    """By end of the pane: the series that have points in it."""
    streams: dict[str, Stream] = field(default_factory=dict)
    recent: deque[Recent] = field(default_factory=deque)

    def arrived(self, series: Series, end_ns: int, time_ns: int, now_ns: int) -> None:
        """A point of `series` waits for the pane that ends at `end_ns`."""
        self.open.setdefault(end_ns, {})[series.key] = series
        self.watermark_ns = max(self.watermark_ns, time_ns)
        self.arrived_ns = now_ns

    def due(self, now_ns: int) -> list[int]:
        """Ends of the open panes to close now, and move `closed_ns` past them."""
        pane_ns, lateness_ns = self.windows.pane_ns, self.windows.lateness_ns
        until = (self.watermark_ns - lateness_ns) // pane_ns * pane_ns
        if self.open and now_ns - self.arrived_ns >= pane_ns + lateness_ns:
            until = max(until, *self.open)
        self.closed_ns = max(self.closed_ns, until)
        return sorted(end_ns for end_ns in self.open if end_ns <= self.closed_ns)

    def watch(self, stream: str) -> Stream:
        """The stream of that name, made if it is not there."""
        known = self.streams.get(stream)
        if known is None:
            known = self.streams[stream] = self.stream_of(stream, Baseline(stream=stream, settings=self.settings))
        return known

    def stream_of(self, stream: str, baseline: Baseline) -> Stream:
        """A stream of this model, with an empty rolling window."""
        moving, is_budget = self.settings.history, stream in (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS)
        history = None
        if moving is not None and not is_budget:
            history = History(settings=moving, name="\0".join((*self.key, stream)), learn=self.settings.learn)
        return Stream(
            key=StreamKey(self.key, stream),
            baseline=baseline,
            rolling=Rolling(self.windows.rolling_ns),
            history=history,
        )

    def follow(self, settings: ModelSettings) -> list[Stream]:
        """Go by other settings; the streams whose reference is another one now."""
        self.settings = settings
        return [stream for stream in self.streams.values() if stream.follow(settings)]

    def close_pane(
        self,
        end_ns: int,
        *,
        keeps_first: Callable[[int, int], bool],
        taken: Callable[[Series, PointKey, Point], None],
        changed: Callable[[Stream], None],
    ) -> tuple[list[Window], ClosedPane]:
        """Close one pane: one window a stream that has values in it, by name.

        Args:
            end_ns: End of the pane; panes close in the order of time.
            keeps_first: As `Series.take` has it.
            taken: Told each point that is used up.
            changed: Told each stream whose reference grew or changed.
        """
        sketches, exemplars = self._gather(end_ns, keeps_first, taken)
        start_ns = end_ns - self.windows.pane_ns
        self.first_ns = self.first_ns or start_ns
        self.last_ns = end_ns
        windows: list[Window] = []
        for name in sorted({*self.streams, *sketches}):
            with guard("window"):
                stream = self.watch(name)
                window, is_changed = stream.close(
                    sketches.get(name),
                    start_ns=start_ns,
                    end_ns=end_ns,
                    exemplars=tuple(sorted(exemplars.get(name, ()))[:MAX_EXEMPLARS]),
                )
                windows += [window] if window is not None else []
                if is_changed:
                    changed(stream)
        return windows, self._closed(sketches, start_ns, end_ns)

    def summary(self) -> ModelSummary:
        """For people."""
        duration = merged({"": pane.duration} for pane in self.recent).get("", StreamSketch())
        calls = duration.numbers
        covered_ns = min(self.windows.short_panes * self.windows.pane_ns, self.last_ns - self.first_ns)
        over = int(latency_count(duration, self.settings.latency_threshold_s)[1])
        return ModelSummary(
            model=self.key,
            updated_ns=self.last_ns,
            duration=duration,
            p50_s=duration.quantile(0.5),
            p95_s=duration.quantile(0.95),
            p99_s=duration.quantile(0.99),
            latency_threshold_s=self.settings.latency_threshold_s,
            over_ratio=over / calls if calls else float("nan"),
            error_ratio=sum(pane.failed for pane in self.recent) / calls if calls else float("nan"),
            calls=calls,
            calls_per_s=calls / (covered_ns / 1e9) if covered_ns else 0.0,
            predictions=self.predictions,
            streams=tuple(self.streams[name].summary() for name in sorted(self.streams)),
            calibration=self.settings.calibration,
        )

    def remember(self, recent: Recent) -> None:
        """Add a pane to those that the summary is made of."""
        self.recent.append(recent)
        while self.recent[0].end_ns <= recent.end_ns - self.windows.short_panes * self.windows.pane_ns:
            self.recent.popleft()

    def _gather(
        self,
        end_ns: int,
        keeps_first: Callable[[int, int], bool],
        taken: Callable[[Series, PointKey, Point], None],
    ) -> tuple[dict[str, StreamSketch], dict[str, set[str]]]:
        """StreamSketch and trace ids of each stream in a pane."""
        parts: list[dict[str, StreamSketch]] = []
        exemplars: dict[str, set[str]] = {}
        for series in self.open.pop(end_ns).values():
            for key, point, added in series.take(end_ns, keeps_first=keeps_first):
                taken(series, key, point)
                if added is None or not count_of(added):
                    continue
                part = dict(stream_sketches(series.metric, series.name, series.category, added))
                parts.append(part)
                for stream in part if point.exemplars else ():
                    exemplars.setdefault(stream, set()).update(point.exemplars)
        return merged(parts), exemplars

    def _closed(self, sketches: dict[str, StreamSketch], start_ns: int, end_ns: int) -> ClosedPane:
        labels, values = sketches.get(semconv.STREAM_LABEL), sketches.get(semconv.STREAM_VALUE)
        self.predictions += labels.total if labels is not None else values.total if values is not None else 0
        errors = sketches.get(semconv.STREAM_ERRORS, StreamSketch())
        recent = Recent(
            start_ns=start_ns,
            end_ns=end_ns,
            duration=sketches.get(semconv.STREAM_LATENCY, StreamSketch()),
            failed=errors.categories.counts.get(FAILED, 0),
        )
        self.remember(recent)
        newest = ((name, stream, stream.rolling.newest) for name, stream in self.streams.items())
        slots = tuple(
            (name, stream.baseline.generation, slot)
            for name, stream, slot in newest
            if slot is not None and slot.end_ns == end_ns
        )
        hours = tuple(
            (name, stream.baseline.generation, hour, stream.history.hours[hour])
            for name, stream in self.streams.items()
            if stream.history is not None
            for hour in ((end_ns - 1) // HOUR_NS,)
            if hour in stream.history.hours
        )
        return ClosedPane(model=self.key, recent=recent, slots=slots, hours=hours)
