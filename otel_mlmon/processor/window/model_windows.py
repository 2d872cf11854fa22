"""The windows of one model version: its open panes, its streams, and recent panes for latency and throughput."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from otel_mlmon import semconv, streams
from otel_mlmon.guard import guard
from otel_mlmon.processor.window.consumption import ConsumedPoints, consume_points
from otel_mlmon.processor.window.moving_reference import MovingReference
from otel_mlmon.processor.window.pane_stack import PaneStack
from otel_mlmon.processor.window.pane_values import PaneValues, add_increments
from otel_mlmon.processor.window.pane_windows import PaneCounter, build_pane_table, build_windows
from otel_mlmon.processor.window.progress import ModelProgress, SenderWatermarks, StreamPresence, update_presences
from otel_mlmon.processor.window.reference import ModelWindowSettings, ReferenceState, StreamReference
from otel_mlmon.processor.window.reference_export import ModelReference, build_model_reference
from otel_mlmon.processor.window.rolling import RollingWindows
from otel_mlmon.processor.window.series import (
    FAILED,
    CompletenessCheck,
    PendingPoints,
)
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.summary import (
    ModelSummary,
    StreamSummaries,
    StreamSummary,
    summarize_closed_panes,
)
from otel_mlmon.processor.window.window import (
    ModelPane,
    PaneCounts,
    PaneTable,
    StreamKey,
    StreamWindow,
    WindowSettings,
    add_model_pane,
)
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

OVERFLOW_SHOWN_NS: Final = 600_000_000_000
"""How long after its last point the stream of what found no room is shown."""
NEVER_NS: Final = 2**63
_PREDICTION_METRICS: Final = frozenset({semconv.PREDICTIONS.name, semconv.VALUE.name})


class ClosedPane(NamedTuple):
    """The result of closing one pane: its counts, and a window for each stream."""

    windows: list[StreamWindow]
    """The windows by stream: one for each stream with values in the pane or in its rolling window."""
    pane: ModelPane
    groups: list[PendingPoints]
    """The points of the pane."""
    changed: list[StreamKey]
    """Streams whose reference grew or changed."""


@dataclass(slots=True, kw_only=True)
class ModelWindows:
    """Makes the windows of all streams of one model version, pane by pane."""

    progress: ModelProgress
    settings: ModelWindowSettings
    windows: WindowSettings
    open_panes: dict[int, dict[int, list[PendingPoints]]] = field(default_factory=dict)
    """The points of each open pane, by its end, and by the number of the request that brought them."""
    streams: dict[str, StreamWindows] = field(default_factory=dict)
    presences: dict[str, StreamPresence] = field(default_factory=dict)
    """By stream that ever had values."""
    last_panes: deque[ModelPane] = field(default_factory=deque)
    resumed_ns: int = 0
    """When this process loaded it, by our clock: what was sent while none ran comes after it."""
    senders: SenderWatermarks = field(init=False)
    rolling: RollingWindows = field(init=False)
    """The rolling windows of all streams."""
    counter: PaneCounter = field(default_factory=PaneCounter)
    overflow_points: int = 0
    """Points that found no room for a new stream or series, since this process started."""
    overflow_ns: int = 0
    """When the last of them was received, by our clock."""
    closed_summary: ModelSummary | None = None
    """The summary of the closed panes; None since anything in it changed."""
    exported_reference: ModelReference | None = None
    """The references of all streams; None since any changed."""
    known_streams: tuple[StreamSummary, ...] = ()
    """The summaries of all streams by name, without rolling windows; empty since any changed."""
    stream_faults: dict[str, str] = field(default_factory=dict)
    """Why the latest pane of a stream was not judged, as `known_streams` have it."""
    has_points: bool = True
    """Whether points came since panes were last closed."""
    due_ns: int = 0
    """When time alone closes panes or ends a sender's watermark, at the earliest, by our clock."""

    def __post_init__(self) -> None:
        self.rolling = RollingWindows(self.windows.rolling_ns)
        self.senders = SenderWatermarks(self.progress.model, self.windows.idle_after_ns)

    @property
    def key(self) -> ModelKey:
        """The key of the model version: name, version and environment."""
        return self.progress.model

    def note_points(self, time_ns: int, now_ns: int, *, sender: str) -> None:
        """Records that a sender's points of an event time were received now."""
        self.has_points = True
        self.senders.add_point(sender, time_ns, now_ns)
        self.progress.watermark_ns = max(self.progress.watermark_ns, time_ns)
        self.progress.received_ns = now_ns

    def count_overflow(self, now_ns: int) -> None:
        """Records a data point for whose stream or series there was no room."""
        self.overflow_points += 1
        self.closed_summary = None
        self.overflow_ns = self.progress.received_ns = now_ns

    def is_due(self, now_ns: int) -> bool:
        """Returns whether any pane of the model may close now."""
        return self.has_points or now_ns >= self.due_ns

    def mark_pane_closed(self) -> None:
        """Records that all due panes are closed, and when time alone may close others."""
        self.has_points = False
        silent_ns = self.windows.pane_ns + self.windows.lateness_ns
        dues = [max(self.progress.received_ns, self.resumed_ns) + silent_ns] if self.open_panes else []
        received_ns = self.senders.oldest_received_ns()
        if received_ns is not None:
            dues.append(max(received_ns, self.resumed_ns) + self.windows.idle_after_ns)
        self.due_ns = min(dues, default=NEVER_NS)

    def compute_closing_time(self, now_ns: int, *, lateness_ns: int) -> int:
        """Returns the end of the last pane that may be closed now, as the watermark has passed it and its lateness.

        All may be when this process ran and received no point for as long as a pane and the allowed lateness.
        """
        pane_ns, progress = self.windows.pane_ns, self.progress
        until_ns = (self.senders.compute_watermark(progress.watermark_ns) - lateness_ns) // pane_ns * pane_ns
        if self.open_panes and now_ns - max(progress.received_ns, self.resumed_ns) >= pane_ns + lateness_ns:
            until_ns = max(until_ns, *self.open_panes)
        return max(until_ns, progress.closed_ns)

    def ensure_stream(self, name: str, state: ReferenceState | None = None) -> StreamWindows:
        """Returns the model's stream of a name, which is added if it does not exist yet.

        Args:
            name: Of the stream.
            state: What was stored of its reference.
        """
        if name in self.streams:
            return self.streams[name]
        self._mark_streams_changed()
        moving, is_allowance = self.settings.moving, name in (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS)
        stream = self.streams[name] = StreamWindows(
            key=StreamKey(self.key, name),
            learned=StreamReference(stream=name, settings=self.settings, state=state or ReferenceState()),
            rolling=self.rolling,
        )
        if moving is not None and not is_allowance:
            identity = "\0".join((*self.key, name))
            stream.moving = MovingReference(settings=moving, name=identity, min_values=self.settings.learn)
        return stream

    def apply_settings(self, settings: ModelWindowSettings) -> list[StreamKey]:
        """Applies other settings to the model, and returns the streams that get another reference by them."""
        self.settings = settings
        self._mark_streams_changed()
        return [stream.key for stream in self.streams.values() if stream.apply_settings(settings)]

    def relearn(self, names: Iterable[str]) -> list[StreamKey]:
        """Starts to learn the references of streams again, and returns those that can learn."""
        self._mark_streams_changed()
        present = [self.streams[name] for name in names if name in self.streams]
        return [stream.key for stream in present if stream.relearn()]

    def remove_stream(self, name: str) -> None:
        """Removes a stream of the model."""
        del self.streams[name]
        self.rolling.clear(name)
        self._mark_streams_changed()

    def close_pane(self, end_ns: int, *, is_complete: CompletenessCheck) -> ClosedPane:
        """Closes one pane of the model; panes close in the order of time.

        Args:
            end_ns: End of the pane.
            is_complete: As `TimeSeries.consume` has it.
        """
        self.closed_summary = None
        values, exemplars, groups = self._consume_points(end_ns, is_complete)
        start_ns = end_ns - self.windows.pane_ns
        self.progress.first_ns = self.progress.first_ns or start_ns
        self.progress.last_ns = end_ns
        predictions = count_predictions(values.totals)
        activity = predictions or values.totals.get(semconv.STREAM_LATENCY, 0)
        self.presences, absences = update_presences(self.presences, self.streams, values.totals, activity, end_ns)
        if self.progress.introduction is not None:
            self.progress.introduction.add(values.build_all_sketches(), activity)
        self.rolling.evict(end_ns)
        for name in sorted(values.totals.keys() - self.streams.keys()):
            with guard("window"):
                self.ensure_stream(name)
        panes = self.counter.count_panes(self.streams.values(), values, absences, start_ns, end_ns)
        table = build_pane_table(panes)
        self.rolling.add(table, start_ns, end_ns)
        windows = build_windows(panes, self.rolling.sums(), (start_ns, end_ns), exemplars, absences)
        if panes.changed or self.settings.moving is not None:
            self._mark_streams_changed()
        self.progress.predictions += predictions
        pane = self._build_pane(values, table, start_ns, end_ns)
        self._add_recent_pane(pane)
        return ClosedPane(windows, pane, groups, panes.changed)

    def amend_pane(self, end_ns: int, *, is_complete: CompletenessCheck) -> ClosedPane:
        """Adds late data points to the counts of a closed pane, but to no evidence and no reference.

        Args:
            end_ns: End of the pane.
            is_complete: As `TimeSeries.consume` has it.
        """
        self.closed_summary = None
        values, _, groups = self._consume_points(end_ns, is_complete)
        start_ns, progress = end_ns - self.windows.pane_ns, self.progress
        progress.first_ns = min(progress.first_ns or start_ns, start_ns)
        progress.last_ns = progress.last_ns or end_ns
        predictions = count_predictions(values.totals)
        progress.predictions += predictions
        progress.late_predictions += predictions
        counts: dict[str, PaneCounts] = {}
        for name, sketch in values.build_all_sketches().items():
            with guard("window"):
                amended = self.ensure_stream(name).amend_pane(sketch, start_ns=start_ns, end_ns=end_ns)
                if amended is not None:
                    counts[name] = amended
        if len(counts) > 1:  # in the order of the streams, as those that came in time
            counts = {name: counts[name] for name in self.streams if name in counts}
        table = PaneTable.build(counts)
        if end_ns > progress.last_ns - self.rolling.length_ns:
            self.rolling.add(table, start_ns, end_ns)
        pane = self._build_pane(values, table, start_ns, end_ns)
        self._add_recent_pane(pane)
        return ClosedPane([], pane, groups, [])

    def restore_panes(self, stack: PaneStack) -> None:
        """Adds stored panes of the model to the rolling windows and the summary."""
        oldest_ns = self._find_recent_end()
        for pane in stack.select_panes(lambda _, end_ns: end_ns > oldest_ns).split():
            self._add_recent_pane(pane)
        if not self.rolling.has_layout(stack.layout):
            stack = stack.select_streams(
                [name for name, *bins in zip(*stack.layout, strict=True) if self._has_bins(name, *bins)]
            )
        self.rolling.add_stack(stack)

    def _has_bins(self, name: str, generation: int, size: int) -> bool:
        return name in self.streams and self.streams[name].has_bins(generation, size)

    def finish_restore(self) -> None:
        """Advances rolling windows and moving references to the time of the last closed pane."""
        self._mark_streams_changed()
        self.rolling.evict(self.progress.last_ns)
        for stream in self.streams.values():
            stream.update_reference(self.progress.last_ns)

    def summary(self, *, is_complete: CompletenessCheck) -> ModelSummary:
        """Returns a summary of the model version for people; `is_complete` as `consume_points` has it."""
        if self.closed_summary is None:
            self.closed_summary = summarize_closed_panes(
                self.last_panes, self.progress, self.settings, self.windows, streams=self._summarize_streams()
            )
        open_predictions, progress = self._count_open_predictions(is_complete), self.progress
        return replace(
            self.closed_summary,
            predictions=progress.predictions + open_predictions,
            open_predictions=open_predictions,
            late_predictions=progress.late_predictions,
        )

    def reference(self) -> ModelReference:
        """Returns the references that the streams of the model version are compared with."""
        if self.exported_reference is None:
            self.exported_reference = build_model_reference(self.key, self.settings, self.streams)
        return self.exported_reference

    def _build_pane(self, values: PaneValues, table: PaneTable, start_ns: int, end_ns: int) -> ModelPane:
        return ModelPane(
            model=self.key,
            start_ns=start_ns,
            end_ns=end_ns,
            duration=values.build_sketch(semconv.STREAM_LATENCY) or StreamSketch(),
            failed=values.count_class(semconv.STREAM_ERRORS, FAILED),
            streams=table,
        )

    def _add_recent_pane(self, pane: ModelPane) -> None:
        """Adds a pane, or late points of one, to the panes from which latency and throughput are computed."""
        add_model_pane(self.last_panes, pane)
        oldest_ns = self._find_recent_end()
        while self.last_panes and self.last_panes[0].end_ns <= oldest_ns:
            self.last_panes.popleft()

    def _find_recent_end(self) -> int:
        """Finds the end of the newest pane that latency and throughput are no longer computed from."""
        return self.progress.last_ns - self.windows.short_panes * self.windows.pane_ns

    def _count_open_predictions(self, is_complete: CompletenessCheck) -> int:
        """Counts the predictions in open panes: labels, or else values; of several outputs the most."""
        totals: dict[tuple[str, str], int] = {}
        groups = [points for pane in self.open_panes.values() for groups in pane.values() for points in groups]
        members = {series for points in groups if points.metric in _PREDICTION_METRICS for series in points.series}
        for series in members:
            state = series.state
            head = state.category if state.metric == semconv.PREDICTIONS.name else state.name
            count = series.count_pending_values(is_complete=is_complete)
            totals[state.metric, head] = totals.get((state.metric, head), 0) + count
        labels = [total for (metric, _), total in totals.items() if metric == semconv.PREDICTIONS.name]
        return max(labels or totals.values(), default=0)

    def _summarize_streams(self) -> StreamSummaries:
        faults = {name: stream.fault for name, stream in self.streams.items() if stream.fault}
        if not self.known_streams or faults != self.stream_faults:
            self.known_streams = tuple(self.streams[name].summary() for name in sorted(self.streams))
            self.stream_faults = faults
        is_overflow_shown = self.progress.received_ns - self.overflow_ns < OVERFLOW_SHOWN_NS
        points = self.overflow_points if is_overflow_shown else 0
        return StreamSummaries(self.known_streams, self.rolling.sums(), overflow_points=points)

    def _mark_streams_changed(self) -> None:
        self.closed_summary = self.exported_reference = None
        self.known_streams = ()
        self.counter.forget_group()

    def _consume_points(
        self, end_ns: int, is_complete: CompletenessCheck
    ) -> tuple[PaneValues, dict[str, set[str]], list[PendingPoints]]:
        """Takes the points of a pane; returns the values, the trace ids by stream, and the points."""
        groups = [points for groups in self.open_panes.pop(end_ns).values() for points in groups]
        consumed = consume_points(groups, is_complete=is_complete)
        values = add_increments(self.key, consumed.increments)
        return values, self._list_traces(consumed), consumed.groups

    def _list_traces(self, consumed: ConsumedPoints) -> dict[str, set[str]]:
        """Lists the trace ids of the points of a pane by stream: of slow calls, of failed calls, and of values."""
        traces: dict[str, set[str]] = {}
        for part in consumed.increments:
            counted = part.list_counted_series() if part.points.exemplars else ()
            for position, exemplars in part.points.exemplars.items():
                series = part.points.series[position]
                for stream in series.streams if series in counted else ():
                    if stream != semconv.STREAM_ERRORS or series.state.name:  # of failed calls alone
                        least = self.settings.latency_threshold_s if stream == semconv.STREAM_LATENCY else -1.0
                        found = (trace_id for trace_id, value in exemplars if value > least)
                        traces.setdefault(stream, set()).update(found)
        return traces


def count_predictions(totals: Mapping[str, int]) -> int:
    """Counts the predictions of a pane: labels, or else values; of several outputs the most.

    Args:
        totals: The number of values by stream.
    """
    for family in (semconv.STREAM_LABEL, semconv.STREAM_VALUE):
        names = [name for name in totals if name.startswith(family)]
        counts = [totals[name] for name in names if streams.find_stream_family(name) == family]
        if counts:
            return max(counts)
    return 0
