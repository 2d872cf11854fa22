"""Turns the data points of a time series into increments of each pane, and these into sketches of the streams.

Points are pending until their pane closes and are then consumed in the order of their time, so the order and the number
of times in which they arrive change nothing. A cumulative series is identified by its start time as well: a new start
is a new series. Rules:

- The first total of a cumulative series is an increment only if counting began after this process did; else it only
  is only a starting point (`initial_value: auto` of the Collector's `cumulative_to_delta`).
- Totals of one start do not fall, whatever their times say and in whatever order they come: the largest is the last
  one. One that exceeds it adds what it exceeds it by, one that does not is an old one, and is in the last one already.
  So a clock that jumps back and forth, retries that overtake each other, and two writers under one identity and start
  (of whom the one that counts more is counted) never count anything twice.
- A total that falls was reset only where its start is unknown, and both its time and its arrival are later; all of it
  is an increment then. A sender that knows its start says so by a new one.
- A total in other buckets than before is only a new starting point.
- A repeated delta is recognised by its time: the last `MAX_CONSUMED_KEYS` exactly, an older one where its interval is
  counted already. It may be another one that overlaps; then it is rejected, since it might be counted twice.
- Choice: delta points of one series that overlap without being equal are all counted. The Collector drops them; but
  they come from workers forked under one resource identity, and what those counted did happen.

Source: opentelemetry-specification, metrics/data-model.md, Resets and Gaps, Overlap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter, itemgetter
from typing import Final, Literal, NamedTuple, TypeAlias

from otel_mlmon import semconv, streams
from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey

MAX_CONSUMED_KEYS: Final = 8
"""Consumed points, those of the latest times, by which a repeated one is recognised for certain."""

MAX_COVERED: Final = 64
"""Intervals of time that a series of deltas is known to have counted; beyond them the oldest gap counts as counted."""

DELTA: Final = -1
"""The start of a series of deltas, in its key."""

OK: Final = "ok"
FAILED: Final = "failed"

COUNTERS: Final = frozenset(
    metric.name for metric in (semconv.PREDICTIONS, semconv.UNCOUNTED, semconv.MISSING_VALUES, semconv.CATEGORY)
)
"""Metrics whose points are whole numbers; those of the others are histograms."""

_HEAD_STREAMS: Final = {
    semconv.CONFIDENCE.name: semconv.STREAM_CONFIDENCE,
    semconv.VALUE.name: semconv.STREAM_VALUE,
}
_INPUTS: Final = frozenset(metric.name for metric in (semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY))


class SeriesKey(NamedTuple):
    """The identity of one time series of one sender."""

    series: str
    start_ns: int
    """When a cumulative series began, 0 if unknown; `DELTA` for a series of deltas."""


PointKey = tuple[int, int]
"""Start and time of a point, Unix nanoseconds."""


@dataclass(slots=True, kw_only=True, eq=False)
class PendingPoints:
    """Data points of one request that wait until their pane closes: of one metric of a model, sender and interval."""

    request: int
    """The number of the request that brought them."""
    sender: str
    key: PointKey
    """The start and the time of all points, by which each of their series knows them."""
    is_cumulative: bool
    pane_end_ns: int
    time_ns: int
    """The event time, by which totals are ordered: that of the arrival where the sender's clock was ahead."""
    received_ns: int
    """When they were received, by our clock."""
    series: list[TimeSeries]
    """The series of each point, none of them twice."""
    table: SketchTable | None
    """The table of their histograms; None for counters."""
    numbers: list[int]
    """The row of each histogram in the table, or the value of each counter."""
    exemplars: dict[int, tuple[TraceExemplar, ...]] = field(default_factory=dict)
    """The trace exemplars of the points that have any, by position."""
    _positions: dict[TimeSeries, int] | None = None
    """The positions of the series; None before any was looked for."""

    @property
    def metric(self) -> str:
        """The name of the metric that all series are of."""
        return self.series[0].state.metric if self.series else ""

    @property
    def order(self) -> tuple[int, int, int]:
        """The key that sorts points by their time, and points of one time by their start."""
        return self.time_ns, self.key[1], self.key[0]

    def add(self, series: TimeSeries, number: int, exemplars: tuple[TraceExemplar, ...] = ()) -> None:
        """Adds a data point of a series that has no other one of this time."""
        series.pending[self.key] = self
        if exemplars:
            self.exemplars[len(self.series)] = exemplars
        if self._positions:  # not all of them found anew: a request has very many points
            self._positions[series] = len(self.series)
        self.series.append(series)
        self.numbers.append(number)

    def link_series(self) -> None:
        """Adds the data points to their series, which have no other one of this time."""
        key = self.key
        for series in self.series:
            series.pending[key] = self

    def find_value(self, series: TimeSeries) -> PointValue:
        """Returns the value of the pending data point of a series."""
        if len(self.numbers) == 1:
            return PointValue.from_number(self.table, self.numbers[0])
        if not self._positions:
            self._positions = {member: position for position, member in enumerate(self.series)}
        return PointValue.from_number(self.table, self.numbers[self._positions[series]])

    def list_values(self) -> list[PointValue]:
        """Returns the value of each data point."""
        return [PointValue.from_number(self.table, number) for number in self.numbers]


class SeriesIdentity(NamedTuple):
    """The part of a series that never changes, such as its metric and its stream."""

    series: str
    start_ns: int
    metric: str
    name: str
    category: str


class CountedTimes(NamedTuple):
    """Holds the times by which a series recognises data points that it counted already."""

    keys: tuple[PointKey, ...] = ()
    """The `MAX_CONSUMED_KEYS` consumed points of the latest times, in the order of time."""
    covered: tuple[tuple[int, int], ...] = ()
    """For deltas: the intervals of time that are counted, start and end, at most `MAX_COVERED`, in order."""

    def add(self, times: Sequence[tuple[PointKey, bool]]) -> CountedTimes:
        """Returns the times with those of more points: of each its key, and whether it is a delta that counts it."""
        keys = (*self.keys, *[key for key, _ in times])
        if any(earlier[1] >= later[1] for earlier, later in pairwise(keys)):
            keys = tuple(sorted(keys, key=lambda key: (key[1], key[0])))
        intervals = [key for key, is_interval in times if is_interval]
        covered = join_intervals(self.covered, intervals) if intervals else self.covered
        return CountedTimes(keys[-MAX_CONSUMED_KEYS:], covered)


@dataclass(slots=True, kw_only=True)
class SeriesState:
    """The stored state of a series: its last total, and the data points counted last."""

    key: SeriesKey
    sender: str
    model: ModelKey
    metric: str
    name: str
    """The label, feature, output or error type; empty if the metric is not split."""
    category: str
    updated_ns: int
    """When a point was last consumed, by our clock."""
    newest_ns: int = 0
    """The largest time of its points."""
    total: PointValue | None = None
    """The total that was consumed last."""
    total_ns: int = 0
    """The largest time of a total that was consumed, Unix nanoseconds."""
    total_received_ns: int = 0
    """When `total` was received, by our clock."""
    counted: CountedTimes = CountedTimes()  # noqa: RUF009 - it never changes
    """Times of the points that were consumed; one object of all series that go on alike."""
    identity: SeriesIdentity = field(init=False)
    """The part of it that never changes."""

    def __post_init__(self) -> None:
        self.identity = SeriesIdentity(*self.key, self.metric, self.name, self.category)


CompletenessCheck: TypeAlias = Callable[[SeriesState, int, int], bool]
"""Whether a first total of a series, of a start and a time, was counted since this process started, and not yet."""


@dataclass(slots=True, eq=False)
class TimeSeries:
    """One time series of a sender: its last total, and its pending data points."""

    state: SeriesState
    pending: dict[PointKey, PendingPoints] = field(default_factory=dict)
    """The group of pending points with a point of the series, by the key of that point."""
    resets: int = 0
    """Resets since the caller last set it to 0."""
    streams: tuple[str, ...] = field(init=False)
    """The streams that it feeds."""
    is_counter: bool = field(init=False)
    """Whether its points are whole numbers."""
    number_stream: str = field(init=False)
    """The stream of which its histograms are the numbers, and nothing else; empty if there is none."""

    def __post_init__(self) -> None:
        self.streams = list_streams(self.state.metric, self.state.name, self.state.category)
        self.is_counter = self.state.metric in COUNTERS
        is_of_numbers = len(self.streams) == 1 and self.streams[0] != semconv.STREAM_ERRORS
        self.number_stream = self.streams[0] if is_of_numbers else ""

    def find_repetition(self, key: PointKey, value: PointValue) -> Literal["duplicate", "overlap"] | None:
        """Returns the outcome of a data point that was counted before; None if it is new.

        `overlap`: another value for the very same time, of two writers that look like one; or a delta whose time is
        counted already, too long ago to tell a repeated point from another one.
        """
        consumed, covered = self.state.counted
        pending = self.pending.get(key)
        if pending is None and (not consumed or key[1] > consumed[-1][1]):
            return None
        if pending is not None:
            return "duplicate" if pending.find_value(self).sketch == value.sketch else "overlap"
        if key in consumed:
            return "duplicate"
        if self.state.key.start_ns != DELTA or len(consumed) < MAX_CONSUMED_KEYS or key[1] > consumed[0][1]:
            return None
        start_ns, time_ns = key
        place = bisect_right(covered, start_ns, key=itemgetter(0))  # no two of them touch
        is_covered = place > 0 and time_ns <= covered[place - 1][1]
        return "overlap" if is_covered or start_ns <= 0 else None

    def can_subtract(self, table: SketchTable | None, number: int) -> bool:
        """Returns whether a cumulative total, in columns, has the form of the last one, or is the first."""
        last = self.state.total
        if self.pending:
            last = max(self.pending.values(), key=lambda points: points.time_ns).find_value(self)
        if last is None:
            return True
        if table is None or last.table is None:
            return table is last.table
        return table.bounds[number] == last.table.bounds[last.row]

    def advance_total(self, points: PendingPoints, total: PointValue) -> None:
        """Takes the next total of a cumulative series, one in the same buckets that exceeds the last one."""
        state = self.state
        state.total = total
        if points.time_ns > state.total_ns:
            state.total_ns = points.time_ns
        if points.received_ns > state.total_received_ns:
            state.total_received_ns = points.received_ns

    def count_total(
        self, points: PendingPoints, value: PointValue, difference: PointValue | None, *, is_complete: CompletenessCheck
    ) -> PointValue | None:
        """Takes the next total of a cumulative series; returns its increment, None if the total before is unknown.

        Args:
            points: What it came with.
            value: The total.
            difference: What the total exceeds the last one by; None where that is not computed yet.
            is_complete: Whether a first total counts from its start on.
        """
        state = self.state
        last = _CumulativeTotal(state.total, state.total_ns, state.total_received_ns)
        following = _CumulativeTotal(value, points.time_ns, points.received_ns)
        is_first_counted = last.value is None and is_complete(state, *points.key)
        last, increment, is_reset = _advance_total(
            last, following, difference, has_start=state.key.start_ns > 0, is_first_counted=is_first_counted
        )
        state.total, state.total_ns, state.total_received_ns = last
        self.resets += is_reset
        return increment

    def count_pending_values(self, *, is_complete: CompletenessCheck) -> int:
        """Counts the values that the pending data points will add to their panes, as far as is known now."""
        if self.state.key.start_ns == DELTA:
            values = [points.find_value(self) for points in self.pending.values()]
            return sum([(counter or 0) if table is None else table.numbers[row] for counter, table, row in values])
        state, count = self.state, 0
        last = _CumulativeTotal(state.total, state.total_ns, state.total_received_ns)
        for points in sorted(self.pending.values(), key=attrgetter("order")):
            following = _CumulativeTotal(points.find_value(self), points.time_ns, points.received_ns)
            is_first_counted = last.value is None and is_complete(state, *points.key)
            last, increment, _ = _advance_total(
                last, following, None, has_start=state.key.start_ns > 0, is_first_counted=is_first_counted
            )
            count += increment.total if increment is not None else 0
        return count


def have_totals_alike(members: Iterable[TimeSeries], *, is_counter: bool) -> bool:
    """Returns whether all totals of series so far, if any, are counters, or else exponential histograms."""
    waiting = {id(points): points for series in members for points in series.pending.values()}.values()
    totals = [series.state.total for series in members if series.state.total is not None]
    by_table = groupby(totals, key=attrgetter("table"))
    columns = [(points.table, points.numbers) for points in waiting]
    columns += [(table, [total.row for total in group]) for table, group in by_table]
    if is_counter:
        return all(table is None for table, _ in columns)
    return all(table is not None and table.is_exponential(rows) for table, rows in columns)


class _CumulativeTotal(NamedTuple):
    """A total of a cumulative series."""

    value: PointValue | None
    """None before the first."""
    time_ns: int
    received_ns: int


def _advance_total(
    last: _CumulativeTotal,
    total: _CumulativeTotal,
    difference: PointValue | None,
    *,
    has_start: bool,
    is_first_counted: bool,
) -> tuple[_CumulativeTotal, PointValue | None, bool]:
    """Computes where a cumulative series stands after its next total, the increment, and whether it was reset.

    Args:
        last: Where the series stands.
        total: The next total.
        difference: What it exceeds the last total by; None where that is not computed yet.
        has_start: Whether the start of the series is known, so that a reset would have begun another series.
        is_first_counted: Whether a first total is an increment.
    """
    value = total.value
    following = _CumulativeTotal(value, max(last.time_ns, total.time_ns), max(last.received_ns, total.received_ns))
    if last.value is None or value is None:
        return following, value if is_first_counted else None, False
    has_form = value.has_same_form(last.value)
    increment = difference
    if increment is None and has_form:
        increment = value.subtract(last.value)
    # One that was received before the last total is an old one too, where a clock was set back between the two.
    is_old = total.time_ns <= last.time_ns or total.received_ns < last.received_ns or (has_start and has_form)
    if is_old and (increment is None or not increment.total):
        return last, None, False
    if increment is None:
        return following, value if has_form else None, True
    return following, increment, False


def join_intervals(
    covered: tuple[tuple[int, int], ...], intervals: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Returns sorted, disjoint intervals of time with some more, at least one, those that touch joined."""
    # What ends before the first of them begins stays as it is.
    untouched = bisect_left(covered, min(intervals)[0], key=itemgetter(1))
    joined = list(covered[:untouched])
    for first, last in sorted([*covered[untouched:], *intervals]):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    excess = max(len(joined) - MAX_COVERED, 0)
    joined[: excess + 1] = [(joined[0][0], joined[excess][1])]
    return tuple(joined)


def list_streams(metric: str, name: str, category: str = "") -> tuple[str, ...]:
    """Returns the names of the streams to which the data points of a metric belong; empty if there are none.

    Args:
        metric: Its name.
        name: What it is split by: for inputs the feature, for predictions the label, for other outputs their name.
        category: What it is split by further: for predictions the output of a model of several heads.
    """
    if metric in _INPUTS:
        return (f"{semconv.STREAM_INPUT_PREFIX}{name}",)
    if metric == semconv.PREDICTIONS.name:
        return (streams.name_head_stream(semconv.STREAM_LABEL, category),)
    if metric in _HEAD_STREAMS:
        return (streams.name_head_stream(_HEAD_STREAMS[metric], name),)
    if metric == semconv.ITEM_CONFIDENCE.name:
        return (streams.name_item_stream(name),)
    return (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS) if metric == semconv.DURATION.name else ()
