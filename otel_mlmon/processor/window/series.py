"""Turns the points of one time series into the increments of each pane, and those into sketches of the drift streams.

Points are pending until their pane closes and are then consumed in the order of their time, so the order and the number
of times in which they arrive change nothing. A cumulative series is identified by its start time as well: a new start
is a new series. Rules:

- The first total of a cumulative series is an increment only if counting began after this process did; else it only
  is only a starting point (`initial_value: auto` of the Collector's `cumulative_to_delta`).
- A total that falls was reset; all of it is an increment.
- A total in other buckets than before is only a new starting point.
- Choice: delta points of one series that overlap without being equal are all counted. The Collector drops them; but
  they come from workers forked under one resource identity, and what those counted did happen.

Source: opentelemetry-specification, metrics/data-model.md, Resets and Gaps, Overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon import semconv, streams
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import Categories, StreamSketch
from otel_mlmon.types import ModelKey

MAX_CONSUMED_KEYS: Final = 8
"""Consumed points by which a repeated one is still recognised as a duplicate; older ones count as late."""

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
    """Identifies one time series of one writer."""

    series: str
    start_ns: int
    """When a cumulative series began, 0 if unknown; `DELTA` for a series of deltas."""


PointKey = tuple[int, int]
"""Start and time of a point, Unix nanoseconds."""


class PointValue(NamedTuple):
    """Holds the value of a point in the one of three forms that it has; the others are None."""

    counter: int | None = None
    explicit: Histogram | None = None
    exponential: ExponentialHistogram | None = None

    @classmethod
    def from_sketch(cls, sketch: Sketch) -> PointValue:
        """Wraps the value of a data point."""
        if isinstance(sketch, Histogram):
            return cls(explicit=sketch)
        return cls(counter=sketch) if isinstance(sketch, int) else cls(exponential=sketch)

    @property
    def total(self) -> int:
        """How many values it counts."""
        if self.counter is not None:
            return self.counter
        sketch = self.explicit if self.explicit is not None else self.exponential
        return sketch.total if sketch is not None else 0

    def has_form_of(self, other: PointValue) -> bool:
        """Whether one total can be subtracted from the other: the same kind of sketch, over the same bounds."""
        if self.explicit is not None and other.explicit is not None:
            return self.explicit.bounds == other.explicit.bounds
        return [part is None for part in self] == [part is None for part in other]

    def subtract(self, earlier: PointValue) -> PointValue | None:
        """Returns the counts after `earlier`, a former total of the same form; None if it was reset."""
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
    """Holds a point until its pane closes."""

    pane_end_ns: int
    value: PointValue
    exemplars: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class SeriesState:
    """Holds the stored state of a series: its last total and the points consumed last."""

    key: SeriesKey
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
    """The time of `total`, Unix nanoseconds."""
    consumed: list[PointKey] = field(default_factory=list)
    """The last `MAX_CONSUMED_KEYS` points that were consumed."""


@dataclass(slots=True, eq=False)
class Series:
    """One time series: its last total, and its pending points."""

    state: SeriesState
    pending: dict[PointKey, Point] = field(default_factory=dict)
    resets: int = 0
    """Resets since the caller last set it to 0."""

    def has_point(self, key: PointKey) -> bool:
        """Whether the point is pending, or one of the last that were consumed."""
        return key in self.pending or key in self.state.consumed

    def consume(
        self, pane_end_ns: int, *, is_complete: Callable[[int, int], bool]
    ) -> Iterator[tuple[PointKey, Point, PointValue | None]]:
        """Removes the points of panes up to `pane_end_ns`, and yields each with its increment; None if it has none.

        Args:
            pane_end_ns: End of the pane that closes.
            is_complete: Whether a first total, of a start and a time, was counted since this process started.
        """
        keys = [key for key, point in self.pending.items() if point.pane_end_ns <= pane_end_ns]
        for key in sorted(keys, key=lambda key: (key[1], key[0])):
            point = self.pending.pop(key)
            self.state.consumed = [*self.state.consumed, key][-MAX_CONSUMED_KEYS:]
            is_delta = self.state.key.start_ns == DELTA
            yield key, point, point.value if is_delta else self._increment(key, point.value, is_complete)

    def _increment(
        self, key: PointKey, total: PointValue, is_complete: Callable[[int, int], bool]
    ) -> PointValue | None:
        start_ns, time_ns = key
        if time_ns <= self.state.total_ns:
            return None  # a clock that was in the future: its later point was consumed first, and includes this one
        earlier, self.state.total, self.state.total_ns = self.state.total, total, time_ns
        if earlier is None:
            return total if is_complete(start_ns, time_ns) else None
        if not total.has_form_of(earlier):
            self.resets += 1
            return None
        increment = total.subtract(earlier)
        if increment is None:
            self.resets += 1
            return total
        return increment


def list_streams(metric: str, name: str, category: str = "") -> tuple[str, ...]:
    """Returns the names of the streams that a metric feeds; empty if it feeds none.

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


def sketch_streams(metric: str, name: str, category: str, increment: PointValue) -> dict[str, StreamSketch]:
    """Converts an increment into a sketch for each of the streams that its metric feeds."""
    names = list_streams(metric, name, category)
    return dict(zip(names, _build_sketches(metric, name, category, increment), strict=True))


def merge_streams(panes: Iterable[Mapping[str, StreamSketch]]) -> dict[str, StreamSketch]:
    """Merges parts of a pane, stream by stream: bit for bit what one process that saw all of it would hold."""
    merged: dict[str, StreamSketch] = {}
    for pane in panes:
        for stream, sketch in pane.items():
            merged[stream] = merged[stream].merge(sketch) if stream in merged else sketch
    return merged


def _build_sketches(metric: str, name: str, category: str, increment: PointValue) -> tuple[StreamSketch, ...]:
    if increment.counter is None:
        explicit = {increment.explicit.bounds: increment.explicit} if increment.explicit is not None else {}
        numbers = StreamSketch(explicit=explicit, exponential=increment.exponential)
        if metric != semconv.DURATION.name:
            return (numbers,)
        # The metric of a failed call carries its error type, and nothing else splits it.
        return numbers, _count_class(FAILED if name else OK, numbers.numbers)
    if metric == semconv.MISSING_VALUES.name:
        return (StreamSketch(missing=increment.counter),)
    return (_count_class(category if metric == semconv.CATEGORY.name else name, increment.counter),)


def _count_class(label: str, count: int) -> StreamSketch:
    return StreamSketch(categories=Categories(counts={label: count} if count else {}))
