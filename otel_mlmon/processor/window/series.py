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

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from otel_mlmon import semconv, streams
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import Categories, StreamSketch
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


class PointValue(NamedTuple):
    """The value of a data point in one of three forms: a counter or one of two histograms; the others are None."""

    counter: int | None = None
    explicit: Histogram | None = None
    exponential: ExponentialHistogram | None = None

    @classmethod
    def from_sketch(cls, sketch: Sketch) -> PointValue:
        """Wraps the sketch of a data point as a value in one of three forms."""
        if isinstance(sketch, Histogram):
            return cls(explicit=sketch)
        return cls(counter=sketch) if isinstance(sketch, int) else cls(exponential=sketch)

    @property
    def total(self) -> int:
        """The number of values that a data point counts."""
        if self.counter is not None:
            return self.counter
        sketch = self.explicit if self.explicit is not None else self.exponential
        return sketch.total if sketch is not None else 0

    def has_form_of(self, other: PointValue) -> bool:
        """Returns whether two totals can be subtracted: the same kind of sketch, over the same bounds."""
        if self.explicit is not None and other.explicit is not None:
            return self.explicit.bounds == other.explicit.bounds
        return [part is None for part in self] == [part is None for part in other]

    def subtract(self, earlier: PointValue) -> PointValue | None:
        """Returns the increment since an earlier total of the same form; None if the series was reset."""
        if self.counter is not None and earlier.counter is not None:
            return PointValue(counter=self.counter - earlier.counter) if self.counter >= earlier.counter else None
        if self.explicit is not None and earlier.explicit is not None:
            explicit = self.explicit.subtract(earlier.explicit)
            return PointValue(explicit=explicit) if explicit is not None else None
        if self.exponential is not None and earlier.exponential is not None:
            exponential = self.exponential.subtract(earlier.exponential)
            return PointValue(exponential=exponential) if exponential is not None else None
        return None


class Point(NamedTuple):
    """A data point that waits until its pane closes."""

    pane_end_ns: int
    time_ns: int
    """Its event time, by which totals are ordered: that of its arrival where its sender's clock was ahead."""
    received_ns: int
    """When it was received, by our clock."""
    value: PointValue
    exemplars: tuple[str, ...] = ()
    request: int = 0
    """The number of the request that brought it."""


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
    consumed: list[PointKey] = field(default_factory=list)
    """The `MAX_CONSUMED_KEYS` consumed points of the latest times, in the order of time."""
    covered: list[tuple[int, int]] = field(default_factory=list)
    """Of deltas: the intervals of time that are counted, start and end, at most `MAX_COVERED`, in order."""


CompletenessCheck: TypeAlias = Callable[[SeriesState, int, int], bool]
"""Whether a first total of a series, of a start and a time, was counted since this process started, and not yet."""


@dataclass(slots=True, eq=False)
class Series:
    """One time series of a sender: its last total, and its pending data points."""

    state: SeriesState
    pending: dict[PointKey, Point] = field(default_factory=dict)
    resets: int = 0
    """Resets since the caller last set it to 0."""
    streams: tuple[str, ...] = field(init=False)
    """The streams that it feeds."""

    def __post_init__(self) -> None:
        self.streams = list_streams(self.state.metric, self.state.name, self.state.category)

    def find_repetition(self, key: PointKey) -> Literal["duplicate", "overlap"] | None:
        """Returns the outcome of a data point that was counted before; None if it is new.

        `overlap`: a delta whose time is counted already, too long ago to tell a repeated point from another one.
        """
        if key in self.pending or key in self.state.consumed:
            return "duplicate"
        consumed = self.state.consumed
        if self.state.key.start_ns != DELTA or len(consumed) < MAX_CONSUMED_KEYS or key[1] > consumed[0][1]:
            return None
        start_ns, time_ns = key
        is_covered = any(first <= start_ns and time_ns <= last for first, last in self.state.covered)
        return "overlap" if is_covered or start_ns <= 0 else None

    def can_subtract(self, total: PointValue) -> bool:
        """Returns whether a cumulative total has the form of the last one, or is the first."""
        last = self.state.total
        if self.pending:
            last = max(self.pending.values(), key=lambda point: point.time_ns).value
        return last is None or total.has_form_of(last)

    def consume(
        self, pane_end_ns: int, *, is_complete: CompletenessCheck
    ) -> list[tuple[PointKey, Point, PointValue | None]]:
        """Removes the pending data points of panes up to `pane_end_ns`, and returns each with its increment or None.

        Args:
            pane_end_ns: End of the pane that closes.
            is_complete: Whether a first total counts from its start on.
        """
        entries = [(key, point) for key, point in self.pending.items() if point.pane_end_ns <= pane_end_ns]
        if len(entries) > 1:
            entries.sort(key=lambda entry: (entry[1].time_ns, entry[0][1], entry[0][0]))
        is_delta = self.state.key.start_ns == DELTA
        consumed: list[tuple[PointKey, Point, PointValue | None]] = []
        for key, point in entries:
            del self.pending[key]
            self._note_consumed(key, point)
            consumed.append((key, point, point.value if is_delta else self._increment(key, point, is_complete)))
        return consumed

    def count_pending(self, *, is_complete: CompletenessCheck) -> int:
        """Counts the values that the pending data points will add to their panes, as far as is known now."""
        if self.state.key.start_ns == DELTA:
            return sum(point.value.total for point in self.pending.values())
        state, count = self.state, 0
        last = _Total(state.total, state.total_ns, state.total_received_ns)
        for key, point in sorted(self.pending.items(), key=lambda item: (item[1].time_ns, item[0][1])):
            is_first_counted = last.value is None and is_complete(state, *key)
            last, increment, _ = _step(last, point, has_start=state.key.start_ns > 0, is_first_counted=is_first_counted)
            count += increment.total if increment is not None else 0
        return count

    def _note_consumed(self, key: PointKey, point: Point) -> None:
        consumed = self.state.consumed
        if not consumed or (consumed[-1][1], consumed[-1][0]) <= (key[1], key[0]):
            consumed.append(key)
        else:
            insort(consumed, key, key=lambda other: (other[1], other[0]))
        del consumed[:-MAX_CONSUMED_KEYS]
        if self.state.key.start_ns == DELTA and key[0] > 0 and key[1] == point.time_ns:
            cover(self.state.covered, *key)

    def _increment(self, key: PointKey, point: Point, is_complete: CompletenessCheck) -> PointValue | None:
        state = self.state
        last = _Total(state.total, state.total_ns, state.total_received_ns)
        is_first_counted = last.value is None and is_complete(state, *key)
        last, increment, is_reset = _step(
            last, point, has_start=state.key.start_ns > 0, is_first_counted=is_first_counted
        )
        state.total, state.total_ns, state.total_received_ns = last
        self.resets += is_reset
        return increment


class _Total(NamedTuple):
    """The last total of a cumulative series."""

    value: PointValue | None
    """None before the first."""
    time_ns: int
    received_ns: int


def _step(
    last: _Total, point: Point, *, has_start: bool, is_first_counted: bool
) -> tuple[_Total, PointValue | None, bool]:
    """Computes a cumulative series' next total from a data point, the increment, and whether it was reset.

    Args:
        last: Where the series stands.
        point: The next point.
        has_start: Whether the start of the series is known, so that a reset would have begun another series.
        is_first_counted: Whether a first total is an increment.
    """
    value = point.value
    following = _Total(value, max(last.time_ns, point.time_ns), max(last.received_ns, point.received_ns))
    if last.value is None:
        return following, value if is_first_counted else None, False
    has_form = value.has_form_of(last.value)
    increment = value.subtract(last.value) if has_form else None
    # One that was received before the last total is an old one too, where a clock was set back between the two.
    is_old = point.time_ns <= last.time_ns or point.received_ns < last.received_ns or (has_start and has_form)
    if is_old and (increment is None or not increment.total):
        return last, None, False
    if increment is None:
        return following, value if has_form else None, True
    return following, increment, False


def cover(covered: list[tuple[int, int]], start_ns: int, end_ns: int) -> None:
    """Adds a time interval to a list of sorted, disjoint intervals, and joins those that touch."""
    if covered and covered[-1][0] <= start_ns <= covered[-1][1]:
        covered[-1] = covered[-1][0], max(covered[-1][1], end_ns)
        return
    joined: list[tuple[int, int]] = []
    for first, last in sorted([*covered, (start_ns, end_ns)]):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    if len(joined) > MAX_COVERED:
        joined[:2] = [(joined[0][0], joined[1][1])]
    covered[:] = joined


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


@dataclass(slots=True)
class _Parts:
    """The sketches of many series that together are one stream."""

    exponential: list[ExponentialHistogram] = field(default_factory=list)
    explicit: dict[tuple[float, ...], list[Histogram]] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)
    missing: int = 0

    def add_class(self, label: str, count: int) -> None:
        """Adds a number of values of one class."""
        if count:
            self.categories[label] = self.categories.get(label, 0) + count

    def sketch(self) -> StreamSketch:
        """Returns the sum of all added sketches and counts."""
        return StreamSketch(
            exponential=ExponentialHistogram.merge_all(self.exponential) if self.exponential else None,
            explicit={bounds: Histogram.merge_all(parts) for bounds, parts in self.explicit.items()},
            categories=Categories(counts=self.categories),
            missing=self.missing,
        )


def add_increments(increments: Iterable[tuple[Series, PointValue]]) -> dict[str, StreamSketch]:
    """Adds up the increments of many series to one sketch for each stream."""
    streams: dict[str, _Parts] = {}
    for series, (counter, explicit, exponential) in increments:
        state = series.state
        for name in series.streams:
            parts = streams.get(name)
            if parts is None:
                parts = streams[name] = _Parts()
            if counter is not None:
                if state.metric == semconv.MISSING_VALUES.name:
                    parts.missing += counter
                else:
                    parts.add_class(state.category if state.metric == semconv.CATEGORY.name else state.name, counter)
            elif name == semconv.STREAM_ERRORS:
                # The metric of a failed call carries its error type, and nothing else splits it.
                parts.add_class(FAILED if state.name else OK, PointValue(None, explicit, exponential).total)
            elif exponential is not None:
                parts.exponential.append(exponential)
            elif explicit is not None:
                parts.explicit.setdefault(explicit.bounds, []).append(explicit)
    return {name: parts.sketch() for name, parts in streams.items()}


def merge_streams(panes: Iterable[Mapping[str, StreamSketch]]) -> dict[str, StreamSketch]:
    """Merges the sketches of several parts of a pane, stream by stream, exactly as if counted by one process."""
    parts: dict[str, list[StreamSketch]] = {}
    for pane in panes:
        for stream, sketch in pane.items():
            parts.setdefault(stream, []).append(sketch)
    return {stream: StreamSketch.merge_all(sketches) for stream, sketches in parts.items()}
