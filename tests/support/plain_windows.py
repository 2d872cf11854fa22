"""Closes panes one stream at a time, and adds every rolling window up anew: an oracle for the code that has columns.

It is told which panes close, and is given what is pending for them. References, moving ones too, it learns for itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.window.model_windows import ModelWindows, count_predictions
from otel_mlmon.processor.window.moving_reference import MovingReference
from otel_mlmon.processor.window.pane_windows import MAX_EXEMPLARS
from otel_mlmon.processor.window.progress import StreamAbsence, StreamPresence
from otel_mlmon.processor.window.reference import StreamReference
from otel_mlmon.processor.window.series import DELTA, CompletenessCheck, PendingPoints, TimeSeries
from otel_mlmon.processor.window.stream import find_text_fault
from otel_mlmon.processor.window.window import NumberSum, PaneCounts, StreamKey, StreamWindow
from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey
from tests.support.plain_sketches import merge_streams, sketch_streams

NO_COUNTS = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class PlainStream:
    """One stream: its reference, and the panes of its rolling window."""

    learned: StreamReference
    moving: MovingReference | None
    panes: list[PaneCounts] = field(default_factory=list)


@dataclass(slots=True)
class PlainModel:
    """One model version, the panes of which are closed after the real one's."""

    key: ModelKey
    streams: dict[str, PlainStream] = field(default_factory=dict)
    presences: dict[str, StreamPresence] = field(default_factory=dict)

    def close_pane(
        self, model: ModelWindows, series: Iterable[TimeSeries], end_ns: int, is_complete: CompletenessCheck
    ) -> list[StreamWindow]:
        """Returns the windows of a pane that closes, from copies of the series that have points in it."""
        sketches, exemplars = take_points(series, end_ns, is_complete, model.settings.latency_threshold_s)
        self.add_streams(model)
        predictions = count_predictions({name: sketch.total for name, sketch in sketches.items()})
        activity = predictions or sketches.get(semconv.STREAM_LATENCY, StreamSketch()).total
        for name in {*self.streams, *sketches}:
            presence = self.presences.get(name, StreamPresence(end_ns))
            total = sketches[name].total if name in sketches else 0
            self.presences[name] = presence.add(total, activity, end_ns)
        windows = []
        for name in sorted(self.streams):
            absence = self.presences[name].find_absence(end_ns) if activity else None
            traces = tuple(sorted(exemplars.get(name, ()))[:MAX_EXEMPLARS])
            windows += self.close_stream(model, name, sketches.get(name), end_ns, traces, absence)
        return windows

    def add_streams(self, model: ModelWindows) -> None:
        """Adds the streams that the real model has, with references that know nothing yet."""
        for name, real in model.streams.items():
            if name not in self.streams:
                moving = real.moving and MovingReference(
                    settings=real.moving.settings, name=real.moving.name, min_values=real.moving.min_values
                )
                self.streams[name] = PlainStream(StreamReference(stream=name, settings=model.settings), moving)

    def close_stream(
        self,
        model: ModelWindows,
        name: str,
        sketch: StreamSketch | None,
        end_ns: int,
        traces: tuple[str, ...],
        absence: StreamAbsence | None,
    ) -> list[StreamWindow]:
        """Returns the window of one stream, if there is one."""
        stream, start_ns = self.streams[name], end_ns - model.windows.pane_ns
        stream.panes = [pane for pane in stream.panes if pane.end_ns > end_ns - model.windows.rolling_ns]
        learned = stream.learned
        is_learned = learned.reference is None or learned.reference.origin == "learned"
        if sketch is None or find_text_fault(learned.state.sketch, sketch, is_learned=is_learned):
            sketch = StreamSketch()
        has_rolling = any(pane.counts.any() for pane in stream.panes)
        if not sketch.total and absence is None and not has_rolling:
            return []
        calibration = model.settings.calibration if name == semconv.STREAM_CONFIDENCE else None
        window = StreamWindow(
            stream=StreamKey(self.key, name),
            start_ns=start_ns,
            end_ns=end_ns,
            reference=None,
            pane=NO_COUNTS,
            pane_numbers=NumberSum.from_moments(sketch.moments),
            rolling=NO_COUNTS,
            rolling_start_ns=start_ns,
            exemplars=traces,
            absence=absence,
            calibration=calibration,
        )
        if learned.reference is None:
            if sketch.total:
                learned.learn_reference(sketch, end_ns=end_ns)
            return [window.replace(learned=learned.state.sketch.total)]
        return [self.count_pane(stream, window, sketch)]

    def count_pane(self, stream: PlainStream, window: StreamWindow, sketch: StreamSketch) -> StreamWindow:
        """Completes the window of a stream that has a reference."""
        learned, moving = stream.learned, stream.moving
        if learned.fit_bins(sketch):
            stream.panes.clear()
            if moving is not None:
                moving.clear()
        assert learned.reference is not None
        pane = build_pane(window, learned, sketch)
        reference = learned.reference
        if moving is not None:
            reference = moving.find_reference(window.end_ns, learned.reference.bins) or reference
            if sketch.total:
                moving.add(pane)
            pane = pane._replace(counts=moving.adjust_counts(window.end_ns, pane.counts))
        if sketch.total:
            stream.panes.append(pane)
        return window.replace(reference=reference, pane=pane.counts, **add_up(stream, window.start_ns))

    def amend_pane(
        self, model: ModelWindows, series: Iterable[TimeSeries], end_ns: int, is_complete: CompletenessCheck
    ) -> None:
        """Adds what came late for a pane to the rolling windows."""
        sketches, _ = take_points(series, end_ns, is_complete, model.settings.latency_threshold_s)
        self.add_streams(model)
        for name, sketch in sketches.items():
            stream = self.streams[name]
            binning, reference = stream.learned.binning, stream.learned.reference
            if reference is None or binning is None or binning.find_required_grid(sketch) is not None:
                continue
            start_ns = end_ns - model.windows.pane_ns
            pane = PaneCounts(start_ns, end_ns, 0, binning.count(sketch), *sum_of(sketch))
            if sketch.total and end_ns > model.progress.last_ns - model.windows.rolling_ns:
                stream.panes.append(pane)
                stream.panes.sort(key=lambda present: present.end_ns)


def sum_of(sketch: StreamSketch) -> tuple[int, ExactSum]:
    """How many numbers there are, and their sum."""
    return sketch.moments.count, sketch.moments.exact_sum


def build_pane(window: StreamWindow, learned: StreamReference, sketch: StreamSketch) -> PaneCounts:
    """Counts a pane over the bins of its stream."""
    assert learned.binning is not None
    return PaneCounts(window.start_ns, window.end_ns, 0, learned.binning.count(sketch), *sum_of(sketch))


def add_up(stream: PlainStream, start_ns: int) -> dict[str, Any]:
    """Adds up the panes of a rolling window; without any there are no counts, or zeros if there were some before."""
    panes = stream.panes
    moments = Moments(
        count=sum(pane.number_count for pane in panes), exact_sum=sum((pane.exact_sum for pane in panes), ExactSum())
    )
    return {
        "rolling": np.sum([pane.counts for pane in panes], axis=0) if panes else NO_COUNTS,
        "rolling_start_ns": panes[0].start_ns if panes else start_ns,
        "rolling_numbers": NumberSum.from_moments(moments),
    }


def take_points(
    group: Iterable[TimeSeries], end_ns: int, is_complete: CompletenessCheck, threshold_s: float
) -> tuple[dict[str, StreamSketch], dict[str, set[str]]]:
    """Takes the points of a pane out of series, one by one; returns each stream's sketch and trace ids."""
    parts: list[dict[str, StreamSketch]] = []
    exemplars: dict[str, set[str]] = {}
    for series in group:
        state = series.state
        due = [points for points in series.pending.values() if points.pane_end_ns == end_ns]
        for points in sorted(due, key=lambda points: (points.time_ns, points.key[1], points.key[0])):
            del series.pending[points.key]
            (position,) = [number for number, one in enumerate(points.series) if one.state.key == state.key]
            value, traces = points.find_value(points.series[position]), points.exemplars.get(position, ())
            is_delta = state.key.start_ns == DELTA
            increment = value if is_delta else series.count_total(points, value, None, is_complete=is_complete)
            if increment is None or not increment.total:
                continue
            parts.append(sketch_streams(state.metric, state.name, state.category, increment))
            for name in series.streams:
                for exemplar in traces:
                    is_example = {
                        semconv.STREAM_ERRORS: bool(state.name),
                        semconv.STREAM_LATENCY: exemplar.value > threshold_s,
                    }
                    if is_example.get(name, True):
                        exemplars.setdefault(name, set()).add(exemplar.trace_id)
    return merge_streams(parts), exemplars


def copy_series(panes: Mapping[int, Mapping[int, Sequence[PendingPoints]]]) -> dict[int, list[TimeSeries]]:
    """Copies the series of open panes by the panes' ends, in order; taking their points leaves the real ones alone."""
    present = {
        end_ns: dict.fromkeys(
            series for groups in panes[end_ns].values() for points in groups for series in points.series
        )
        for end_ns in sorted(panes)
    }
    copies = {
        series: TimeSeries(copy.copy(series.state), dict(series.pending))
        for group in present.values()
        for series in group
    }
    return {end_ns: [copies[series] for series in group] for end_ns, group in present.items()}
