"""Immutable summaries of model versions and streams for people, which any thread may read.

The thread that owns the state hands over what never changes: the streams as they are known, and the sums of their
rolling windows. The summaries of the single streams are made of it when someone asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from otel_mlmon.processor.window.binning import count_over_threshold
from otel_mlmon.processor.window.progress import ModelProgress
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.rolling import RollingSums
from otel_mlmon.processor.window.window import (
    HistogramBins,
    ModelPane,
    ReferenceCounts,
    ReferenceOrigin,
    WindowSettings,
)
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts, ModelKey

OVERFLOW: Final = "overflow"
"""The stream that stands for all that found no room."""

_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)
_NO_BINS: Final = HistogramBins(names=(), is_ordered=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamSummary:
    """A summary of one stream for people: its reference, its rolling window, and its bins.

    Runs on: any thread.
    """

    stream: str
    learn: int
    """Values that learning takes."""
    sketch: StreamSketch
    """The counts that the reference is learned from so far, or was learned from."""
    reference: ReferenceCounts | None
    """None while it is learned."""
    current: Counts = field(default_factory=lambda: _NO_COUNTS)
    """The counts of the rolling window, by bin; empty while there are no bins."""
    current_mean: float = float("nan")
    """In the stream's own unit, NaN if unknown."""
    fault: str = ""
    """Why the latest pane was not judged; empty if it was."""

    @property
    def learned(self) -> int:
        """The number of values from which the stream's reference was learned, or is being learned so far."""
        return self.sketch.total

    @property
    def origin(self) -> ReferenceOrigin | Literal[""]:
        """The origin of the stream's reference; empty while it is learned."""
        return self.reference.origin if self.reference is not None else ""

    @property
    def is_stationary(self) -> bool | None:
        """Whether both halves of the learned reference are distributed alike; None where that is unknown."""
        return self.reference.is_stationary if self.reference is not None else None

    @property
    def reference_count(self) -> int:
        """The number of values in the stream's reference; 0 while it is learned."""
        return self.reference.total if self.reference is not None else 0

    @property
    def current_count(self) -> int:
        """The number of values in the stream's rolling window."""
        return int(self.current.sum())

    @property
    def bins(self) -> HistogramBins:
        """The bins of the stream's histogram; none while the reference is learned."""
        return self.reference.bins if self.reference is not None else _NO_BINS

    @property
    def reference_shares(self) -> tuple[float, ...]:
        """The share of the reference's values in each bin."""
        return _compute_shares(self.reference.counts) if self.reference is not None else ()

    @property
    def current_counts(self) -> tuple[int, ...]:
        """The number of the rolling window's values in each bin; none while there are no bins."""
        return tuple(self._find_binned_counts.tolist())

    @property
    def current_shares(self) -> tuple[float, ...]:
        """The share of the rolling window's values in each bin; zeros while the window is empty."""
        return _compute_shares(self._find_binned_counts)

    @property
    def reference_mean(self) -> float:
        """The mean of the reference's values in the stream's own unit; NaN if unknown."""
        return self.reference.mean if self.reference is not None else float("nan")

    @property
    def _find_binned_counts(self) -> Counts:
        if self.reference is None:
            return _NO_COUNTS
        return self.current if self.current.size else np.zeros(self.reference.bins.count, dtype=np.int64)


class StreamSummaries:
    """The summaries of the streams of a model version at one moment, by name, each made when it is asked for.

    Runs on: any thread.

    Args:
        known: The streams, without their rolling windows where `sums` has these.
        sums: The rolling windows; None where the summaries are complete.
        overflow_points: Points for which there was no room, shown as one stream more; 0 for none.
    """

    __slots__ = ("_known", "_overflow_points", "_sums")

    def __init__(
        self, known: tuple[StreamSummary, ...], sums: RollingSums | None = None, *, overflow_points: int = 0
    ) -> None:
        self._known, self._sums, self._overflow_points = known, sums, overflow_points

    def __len__(self) -> int:
        return len(self._known) + bool(self._overflow_points)

    def __iter__(self) -> Iterator[StreamSummary]:
        """Yields the summary of every stream, as it was at that moment."""
        yield from map(self._add_window, self._known)
        if self._overflow_points:
            yield summarize_overflow(self._overflow_points)

    def __repr__(self) -> str:
        return f"StreamSummaries({tuple(self)!r})"

    def find(self, name: str) -> StreamSummary | None:
        """Returns the summary of one stream; None if there is no stream of this name."""
        return next((self._add_window(stream) for stream in self._known if stream.stream == name), None)

    def has_streams_of(self, other: StreamSummaries) -> bool:
        """Returns whether the summaries are of the same streams as others, whatever they say."""
        if self._known is not other._known:
            names, others = ([stream.stream for stream in summaries._known] for summaries in (self, other))
            if names != others:
                return False
        return len(self) == len(other)

    def _add_window(self, stream: StreamSummary) -> StreamSummary:
        if self._sums is None:
            return stream
        name = stream.stream
        return replace(stream, current=self._sums.counts(name), current_mean=self._sums.mean(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A summary of one model version for people: its streams, latency, throughput and lost data points."""

    model: ModelKey
    updated_ns: int
    """End of the last closed pane, Unix nanoseconds; 0 before the first."""
    duration: StreamSketch
    """Durations of the calls in the last `short_panes` panes, seconds."""
    p50_s: float
    """NaN without calls."""
    p95_s: float
    p99_s: float
    latency_threshold_s: float
    over_ratio: float
    """Share of those calls over the latency threshold, [0, 1]; NaN without calls."""
    error_ratio: float
    """Share of those calls that failed, [0, 1]; NaN without calls."""
    calls: int
    calls_per_s: float
    predictions: int
    """Predictions counted since the first point of this version, those in open panes so far among them."""
    open_predictions: int
    """Predictions in panes that are still open."""
    late_predictions: int
    """Predictions that came after their pane had closed: counted, and no evidence."""
    streams: StreamSummaries
    calibration: Calibration | None = None
    """How often this version was right on labelled data; None if that is not known."""
    providers: tuple[ExecutionProviderUse, ...] = ()
    """The execution providers that processes run it on, the one reported last first."""


def summarize_closed_panes(
    panes: Collection[ModelPane],
    progress: ModelProgress,
    settings: ModelWindowSettings,
    windows: WindowSettings,
    *,
    streams: StreamSummaries,
) -> ModelSummary:
    """Returns a summary of a model version by its closed panes; predictions are not counted yet.

    Args:
        panes: The last ones, of which latency, throughput and error ratio are.
        progress: How far the model version is.
        settings: Of the model.
        windows: How long panes are.
        streams: The summaries of its streams.
    """
    duration = StreamSketch.merge_all([StreamSketch(), *(pane.duration for pane in panes)])
    calls = duration.numbers
    covered_ns = min(windows.short_panes * windows.pane_ns, progress.last_ns - progress.first_ns)
    over = int(count_over_threshold(duration, settings.latency_threshold_s)[1])
    return ModelSummary(
        model=progress.model,
        updated_ns=progress.last_ns,
        duration=duration,
        p50_s=duration.quantile(0.5),
        p95_s=duration.quantile(0.95),
        p99_s=duration.quantile(0.99),
        latency_threshold_s=settings.latency_threshold_s,
        over_ratio=over / calls if calls else float("nan"),
        error_ratio=sum(pane.failed for pane in panes) / calls if calls else float("nan"),
        calls=calls,
        calls_per_s=calls / (covered_ns / 1e9) if covered_ns else 0.0,
        predictions=0,
        open_predictions=0,
        late_predictions=0,
        streams=streams,
        calibration=settings.calibration,
    )


def summarize_overflow(points: int) -> StreamSummary:
    """Returns a summary of the data points for which a model had no room, as a stream that cannot be judged."""
    return StreamSummary(
        stream=OVERFLOW,
        learn=0,
        sketch=StreamSketch(),
        reference=None,
        current=np.array([points], dtype=np.int64),
        current_mean=float("nan"),
        fault=f"{points} points of this model found no room and were rejected: see `limits` in the configuration",
    )


def _compute_shares(counts: Counts) -> tuple[float, ...]:
    return tuple((counts / max(int(counts.sum()), 1)).tolist())
