"""Adds received data points to the panes of their time, or gives the reason why a point is not counted.

A point from the future belongs to the pane of its arrival. A new series needs room, and its stream and model too.

Runs on: the state thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.errors import OverloadedError
from otel_mlmon.processor.receive.data_point import DataPoint, PointGroup, PointIdentity, TraceExemplar
from otel_mlmon.processor.window.expiry import remove_ended_series
from otel_mlmon.processor.window.model_windows import ModelWindows
from otel_mlmon.processor.window.outcome import WARNING_SHARE, PointOutcome, ResourceLimit
from otel_mlmon.processor.window.progress import ModelProgress
from otel_mlmon.processor.window.series import (
    COUNTERS,
    DELTA,
    PendingPoints,
    PointKey,
    SeriesKey,
    SeriesState,
    TimeSeries,
    have_totals_alike,
    list_streams,
)
from otel_mlmon.processor.window.state import WindowState
from otel_mlmon.processor.window.versions import begin_introduction
from otel_mlmon.sketch.table import Bounds
from otel_mlmon.types import ModelKey

FREE_AFTER_NS: Final = 300_000_000_000
"""Silence of a sender after which its series make room where there is none."""
FREE_INTERVAL_NS: Final = 10_000_000_000
"""Interval at which room is sought where there is none, at most."""
RETRY_AFTER_S: Final = 1.0
"""When a request may be sent again that found no room for its points: senders without a queue wait for 10 s at most."""
CLOCK_SLACK_NS: Final = 5_000_000_000
"""The tolerated difference, either way, between a sender's clock and the processor's."""


@dataclass(slots=True, kw_only=True)
class _Arrival:
    """Points of a request that are to be added to their pane: what is the same of all of them."""

    points: PointGroup
    series_start_ns: int
    """The start in the keys of their series."""
    event_ns: int
    """The event time of the points: that of the arrival where the sender's clock is ahead."""
    end_ns: int
    """End of their pane."""
    received_ns: int
    is_clamped: bool
    is_late: bool
    is_too_late: bool
    added: PendingPoints | None = None
    """The points of it that were added to their pane one by one; None before the first."""

    @property
    def key(self) -> PointKey:
        """The key of each point in its series."""
        return self.points.start_ns, self.points.time_ns


def _find_explicit_bounds(point: DataPoint) -> Bounds | None:
    """Returns the bounds of an explicit histogram; None for other points."""
    table = point.value.table
    return None if table is None else table.bounds[point.value.row]


class PointIntake:
    """Adds received data points to the panes of their models.

    Args:
        state: What they are added to.
        models: How many model versions there may be; points of new ones beyond are rejected.
        streams: How many drift streams over all models, likewise.
        series: How many series over all senders, likewise.
    """

    def __init__(
        self, state: WindowState, *, models: ResourceLimit, streams: ResourceLimit, series: ResourceLimit
    ) -> None:
        self._state = state
        self._models = models
        self._streams = streams
        self._series = series
        self._bounds = ResourceLimit("max_bounds", state.windows.max_bounds, "bounds of the histograms of a stream")
        self._pending = ResourceLimit(
            "max_pending_points",
            state.windows.max_pending_points,
            "points of open panes",
            consequence="panes close without waiting for late data, and requests are refused and come again",
            remedy="lower windows.pane, windows.lateness or windows.idle_after",
        )
        self._most_bounds = 0
        """The most bounds of one stream since limits were reported."""
        self._frees_ns = 0
        self.resumed_ns = 0
        """When this process loaded the state: nothing becomes stale while no processor runs."""
        self.clamped = 0
        """Points from the future, counted as of now."""

    @property
    def has_room(self) -> bool:
        """Whether the points of one more request may wait for their panes, however many these are."""
        return self._state.pending_points < self._state.windows.max_pending_points

    def add_points(self, groups: Iterable[PointGroup], now_ns: int) -> Counter[PointOutcome]:
        """Adds the points of one request, received at `now_ns`; returns how many came to which outcome.

        Raises:
            OverloadedError: Too many points wait until their pane closes; none of these was added.
        """
        outcomes = Counter[PointOutcome]()
        find_series: Callable[[Any], TimeSeries | None] = self._state.series.get
        for number, points in enumerate(groups):
            if number == 0 and not self.has_room:
                raise OverloadedError("Too many points wait until their pane closes.", retry_after_s=RETRY_AFTER_S)
            arrival = self._begin_arrival(points, now_ns)
            start_ns = arrival.series_start_ns
            members = [find_series((identity[5], start_ns)) for identity in points.identities]
            known = [series for series in members if series is not None]
            if len(known) == len(members) and self._fits_as_usual(known, arrival):
                self._add_together(known, arrival)
                outcomes["late" if arrival.is_late else "accepted"] += len(known)
            else:
                outcomes.update(self._add_one_by_one(arrival))
        if self._state.pending_points >= WARNING_SHARE * self._state.windows.max_pending_points:
            self._pending.report(self._state.pending_points)
        return outcomes

    def report_limits(self) -> None:
        """Warns of limits on models, streams, series and waiting points that are nearly or wholly reached."""
        state = self._state
        self._models.report(len(state.models))
        self._streams.report(state.stream_count)
        self._series.report(len(state.series))
        streams = (stream for model in state.models.values() for stream in model.streams.values())
        self._most_bounds = max((len(stream.bounds) for stream in streams), default=0)
        self._bounds.report(self._most_bounds)
        self._pending.report(state.pending_points)

    def is_complete(self, series: SeriesState, start_ns: int, time_ns: int) -> bool:
        """Returns whether the first total of a series counts only what came since this process started.

        One that began longer ago than a series is remembered may be that of a series that was removed.
        """
        ended = self._state.ended.get(series.sender)
        is_since_start = start_ns >= self._state.started_ns - CLOCK_SLACK_NS
        is_recent = time_ns - start_ns <= self._state.windows.stale_after_ns
        is_new = ended is None or start_ns > ended.newest_ns
        return is_since_start and is_recent and is_new and 0 < start_ns < time_ns

    def _begin_arrival(self, points: PointGroup, now_ns: int) -> _Arrival:
        """Returns what is the same of all points of a group: where and when they belong."""
        state = self._state
        time_ns, pane_ns = points.time_ns, state.windows.pane_ns
        is_clamped = time_ns > now_ns + CLOCK_SLACK_NS
        if is_clamped:
            time_ns = now_ns
        end_ns = -(-time_ns // pane_ns) * pane_ns
        model = state.models.get(points.identities[0].model)
        return _Arrival(
            points=points,
            series_start_ns=points.start_ns if points.is_cumulative else DELTA,
            event_ns=time_ns,
            end_ns=end_ns,
            received_ns=now_ns,
            is_clamped=is_clamped,
            is_late=model is not None and end_ns <= model.progress.closed_ns,
            is_too_late=end_ns <= now_ns - state.windows.amend_for_ns,
        )

    def _fits_as_usual(self, members: Sequence[TimeSeries], arrival: _Arrival) -> bool:
        """Returns whether points can be added without a look at each: no one is refused, repeated or out of order."""
        points = arrival.points
        table, newest_ns = points.table, max([series.state.newest_ns for series in members])
        return (
            not arrival.is_too_late
            and newest_ns < points.time_ns
            and newest_ns <= arrival.event_ns
            and members[0].is_counter is (table is None)
            and len(set(members)) == len(members)
            and (table is None or table.is_exponential(points.numbers))
            and (not points.is_cumulative or have_totals_alike(members, is_counter=table is None))
        )

    def _add_together(self, members: list[TimeSeries], arrival: _Arrival) -> None:
        """Adds all points of a group to their pane; `members` are their series."""
        points = arrival.points
        self.clamped += len(members) if arrival.is_clamped else 0
        self._link_points(arrival, members, points.numbers, points.exemplars)
        for series in members:
            series.state.newest_ns = points.time_ns

    def _add_one_by_one(self, arrival: _Arrival) -> list[PointOutcome]:
        """Adds to their pane those points of a group that can be; returns the outcome of each."""
        find_series: Callable[[Any], TimeSeries | None] = self._state.series.get
        outcomes: list[PointOutcome] = []
        for point in arrival.points.list_points():
            series = find_series((point.identity.series, arrival.series_start_ns))
            outcomes.append(
                self._add_first_point(point, arrival) if series is None else self._add_point(series, point, arrival)
            )
        return outcomes

    def _add_point(self, series: TimeSeries, point: DataPoint, arrival: _Arrival) -> PointOutcome:
        """Adds a further point of a series; returns the outcome, which may be a reason not to add it."""
        value, newest_ns = point.value, series.state.newest_ns
        self.clamped += arrival.is_clamped
        # Nothing later than the newest was there before.
        repetition = series.find_repetition(arrival.key, value) if point.time_ns <= newest_ns else None
        if repetition is not None:
            return repetition
        if series.is_counter is not (value.table is None):
            return "mismatch"
        if arrival.is_too_late:
            return "too_late"
        bounds = _find_explicit_bounds(point)
        if bounds is not None and not self._has_bounds_room(bounds, point, arrival):
            return self._refuse_point("too_many_bounds", point.identity.model, arrival.received_ns)
        is_counted = not point.is_cumulative or series.can_subtract(value.table, value.number)
        outcome: PointOutcome = "out_of_order" if arrival.event_ns < newest_ns else "accepted"
        self._add_to_pane(series, point, arrival, bounds)
        if not is_counted:
            return "starting_point"
        return "late" if arrival.is_late else outcome

    def _add_first_point(self, point: DataPoint, arrival: _Arrival) -> PointOutcome:
        """Adds the first point of a series; returns the outcome, which may be a reason not to add it."""
        identity = point.identity
        self.clamped += arrival.is_clamped
        if not list_streams(identity.metric, identity.key, identity.category):
            return "unused"
        if (identity.metric in COUNTERS) is not (point.value.table is None):
            return "mismatch"
        if arrival.is_too_late:
            return "too_late"
        refusal = self._find_refusal(point, arrival.received_ns)
        if refusal is not None:
            return refusal
        bounds = _find_explicit_bounds(point)
        if bounds is not None and not self._has_bounds_room(bounds, point, arrival):
            return self._refuse_point("too_many_bounds", identity.model, arrival.received_ns)
        series = self._add_series(SeriesKey(identity.series, arrival.series_start_ns), identity, arrival.received_ns)
        outcome: PointOutcome = "reset" if self._state.add_series(series) else "accepted"
        is_counted = (
            not point.is_cumulative
            or not point.value.total
            or self.is_complete(series.state, point.start_ns, point.time_ns)
        )
        self._add_to_pane(series, point, arrival, bounds)
        if not is_counted:
            return "starting_point"
        return "late" if arrival.is_late else outcome

    def _add_to_pane(self, series: TimeSeries, point: DataPoint, arrival: _Arrival, bounds: Bounds | None) -> None:
        """Adds one point of a group to its pane; `bounds` as `_find_explicit_bounds` has them."""
        if arrival.added is None:
            arrival.added = self._link_points(arrival, [], [], {})
        arrival.added.add(series, point.value.number, point.exemplars)
        self._state.pending_points += 1
        series.state.newest_ns = max(series.state.newest_ns, point.time_ns)
        if bounds is not None:
            streams = self._state.models[point.identity.model].streams
            streams[series.streams[0]].bounds[bounds] = arrival.received_ns

    def _link_points(
        self,
        arrival: _Arrival,
        members: list[TimeSeries],
        numbers: Sequence[int],
        exemplars: Mapping[int, tuple[TraceExemplar, ...]],
    ) -> PendingPoints:
        """Adds points of a group to the open pane that they belong to, none yet or all of them."""
        state, points = self._state, arrival.points
        identity = points.identities[0]
        model = state.models[identity.model]
        model.note_points(arrival.event_ns, arrival.received_ns, sender=identity.sender)
        pending = PendingPoints(
            request=state.request,
            sender=identity.sender,
            key=arrival.key,
            is_cumulative=points.is_cumulative,
            pane_end_ns=arrival.end_ns,
            time_ns=arrival.event_ns,
            received_ns=arrival.received_ns,
            series=members,
            table=points.table,
            numbers=list(numbers),
            exemplars=dict(exemplars),
        )
        pending.link_series()
        state.pending_points += len(members)
        state.add_points(model, pending)
        return pending

    def _find_refusal(self, point: DataPoint, now_ns: int) -> PointOutcome | None:
        """Returns the reason why a new series cannot be added; None if it can."""
        state, identity = self._state, point.identity
        model = state.models.get(identity.model)
        ended = state.ended.get(identity.sender)
        if ended is not None and not point.is_cumulative and point.time_ns <= ended.newest_ns:
            return "overlap"
        if model is None and not self._models.has_room(len(state.models)):
            self._models.report(len(state.models))
            return "too_many_models"
        names = list_streams(identity.metric, identity.key, identity.category)
        present = model.streams if model is not None else {}
        added = [name for name in names if name not in present]
        settings = model.settings if model is not None else state.find_settings(identity.model)
        inputs = sum(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in (*present, *added)) if added else 0
        refusal: PointOutcome | None = None
        if inputs > settings.max_features and any(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in added):
            refusal = "too_many_features"
        elif added and not self._streams.has_room(state.stream_count, len(added)):
            self._streams.report(state.stream_count)
            refusal = "too_many_streams"
        elif not self._series.has_room(len(state.series)) and not self._free_series(now_ns):
            self._series.report(len(state.series))
            refusal = "too_many_series"
        return None if refusal is None else self._refuse_point(refusal, identity.model, now_ns)

    def _refuse_point(self, refusal: PointOutcome, model: ModelKey, now_ns: int) -> PointOutcome:
        """Counts a refused point; also a model without any room is shown, so that nobody takes it for watched."""
        self._ensure_model(model, now_ns).count_overflow(now_ns)
        self._state.touched.add(model)
        return refusal

    def _has_bounds_room(self, bounds: Bounds, point: DataPoint, arrival: _Arrival) -> bool:
        """Returns whether the bounds of an explicit histogram are known, or find room among those of the stream."""
        identity, state = point.identity, self._state
        model = state.models.get(identity.model)
        if model is None:
            return True
        stream = model.streams.get(list_streams(identity.metric, identity.key, identity.category)[0])
        if stream is None or bounds in stream.bounds:
            return True
        others = stream.count_other_bounds(bounds, stale_ns=arrival.received_ns - state.windows.stale_after_ns)
        if others + 1 > self._most_bounds:
            self._most_bounds = others + 1
            self._bounds.report(min(others + 1, self._bounds.maximum))
        return self._bounds.has_room(others)

    def _free_series(self, now_ns: int) -> bool:
        """Removes series of senders silent for minutes, if there is no room; returns whether there is room then."""
        if now_ns >= self._frees_ns:
            self._frees_ns = now_ns + FREE_INTERVAL_NS
            remove_ended_series(self._state, now_ns, after_ns=FREE_AFTER_NS, resumed_ns=self.resumed_ns)
        return self._series.has_room(len(self._state.series))

    def _ensure_model(self, key: ModelKey, now_ns: int) -> ModelWindows:
        state = self._state
        if key not in state.models:
            state.models[key] = ModelWindows(
                progress=ModelProgress(
                    model=key, received_ns=now_ns, introduction=begin_introduction(state.models, key)
                ),
                settings=state.find_settings(key),
                windows=state.windows,
            )
            state.changes.models.add(key)
        return state.models[key]

    def _add_series(self, key: SeriesKey, identity: PointIdentity, now_ns: int) -> TimeSeries:
        state = self._state
        model = self._ensure_model(identity.model, now_ns)
        for name in list_streams(identity.metric, identity.key, identity.category):
            if name not in model.streams:
                state.changes.streams.add(model.ensure_stream(name).key)
        state.changes.identities.add((identity.model, identity.sender))
        state.changes.series.add((identity.model, identity.sender))
        return TimeSeries(
            SeriesState(
                key=key,
                sender=identity.sender,
                model=identity.model,
                metric=identity.metric,
                name=identity.key,
                category=identity.category,
                updated_ns=now_ns,
            )
        )
