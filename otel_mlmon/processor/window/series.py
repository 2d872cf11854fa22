"""From the points of one series to what was counted in each pane.

Points wait until their pane closes and are then taken in the order of their time, so the order and the
number of times in which they arrive change nothing. A cumulative series is told apart by its start time as
well: a new start is a new count. Rules:

- The first point of a cumulative series is kept whole only if counting began after this process did, else
it only
  says where counting stands (`initial_value: auto` of the Collector's `cumulative_to_delta`).
- A running total that falls was reset; all of it is new.
- A running total in other buckets than before says only where counting stands now.
- Choice: delta points of one series that overlap without being equal are all kept. The Collector drops
them; but they
  come from workers forked under one resource identity, and what those counted did happen.

Source: opentelemetry-specification, metrics/data-model.md, Resets and Gaps, Overlap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.types import ModelKey

REMEMBERED: Final = 8
"""Taken points that a repeated one is still recognised by; older ones count as late."""


class SeriesKey(NamedTuple):
    """One count by one writer."""

    series: str
    start_ns: int
    """When a cumulative count began, 0 if unknown; `DELTA` for a series of deltas."""


DELTA: Final = -1

PointKey = tuple[int, int]
"""Start and time, Unix nanoseconds."""


@dataclass(slots=True)
class Point:
    """A point that waits for its pane to close."""

    pane_end_ns: int
    sketch: Sketch
    exemplars: tuple[str, ...]
    is_stored: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Series:
    """One series: where it stands, and its points that wait."""

    key: SeriesKey
    model: ModelKey
    metric: str
    name: str
    """The label, feature, output or error type; empty if the metric is not split."""
    category: str
    seen_ns: int
    """When a point was last taken, by our clock."""
    base: Sketch | None = None
    """The running total that was taken last."""
    base_ns: int = 0
    """Its time."""
    newest_ns: int = 0
    waiting: dict[PointKey, Point] = field(default_factory=dict)
    taken: deque[PointKey] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    resets: int = 0
    """Restarts found while taking."""

    def take(
        self, pane_end_ns: int, *, keeps_first: Callable[[int, int], bool]
    ) -> Iterator[tuple[PointKey, Point, Sketch | None]]:
        """Remove the points of panes up to `pane_end_ns`, with what each adds; None if it adds nothing.

        Args:
            pane_end_ns: End of the pane that closes.
            keeps_first: Whether a first running total, of a start and a time, was all counted under our eyes.
        """
        due = [key for key, point in self.waiting.items() if point.pane_end_ns <= pane_end_ns]
        for key in sorted(due, key=lambda key: (key[1], key[0])):
            point = self.waiting.pop(key)
            self.taken.append(key)
            is_delta = self.key.start_ns == DELTA
            yield key, point, point.sketch if is_delta else self._increment(key, point.sketch, keeps_first)

    def _increment(self, key: PointKey, total: Sketch, keeps_first: Callable[[int, int], bool]) -> Sketch | None:
        start_ns, time_ns = key
        if time_ns <= self.base_ns:
            return None  # a clock that was in the future: its later point was taken first, and holds this one
        before, self.base, self.base_ns = self.base, total, time_ns
        if before is None:
            return total if keeps_first(start_ns, time_ns) else None
        if _ways(before) != _ways(total):
            self.resets += 1
            return None
        added = _since(total, before)
        if added is None:
            self.resets += 1
            return total
        return added


def count_of(sketch: Sketch) -> int:
    """How many values a sketch holds."""
    return sketch if isinstance(sketch, int) else sketch.total


def _ways(sketch: Sketch) -> object:
    """What must be equal for one running total to be taken from another."""
    return sketch.bounds if isinstance(sketch, Histogram) else type(sketch)


def _since(total: Sketch, before: Sketch) -> Sketch | None:
    if isinstance(total, int) and isinstance(before, int):
        return total - before if total >= before else None
    if isinstance(total, Histogram) and isinstance(before, Histogram):
        return total.subtract(before)
    if isinstance(total, ExponentialHistogram) and isinstance(before, ExponentialHistogram):
        return total.subtract(before)
    raise BinMismatchError(f"{type(total).__name__} against {type(before).__name__}")
