"""Immutable summaries of model versions and streams for people, which any thread may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, ReferenceOrigin
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
    current: Counts
    """The counts of the rolling window, by bin; empty while there are no bins."""
    current_mean: float
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
    """Those in panes that are still open."""
    late_predictions: int
    """Those that came after their pane had closed: counted, and no evidence."""
    streams: tuple[StreamSummary, ...]
    """By name."""
    calibration: Calibration | None = None
    """How often this version was right on labelled data; None if that is not known."""
    providers: tuple[ExecutionProviderUse, ...] = ()
    """The execution providers that processes run it on, the one reported last first."""


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
