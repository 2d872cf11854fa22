"""The rolling windows of all streams of a model version: running sums over closed panes, side by side in one array.

A pane is added, and one that is too old subtracted, in a few array operations, however many streams there are. A stream
has a column for each of its bins. Where its bins change it gets other columns, and the former ones serve no one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import add
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.window.packed_numbers import ScaledSums, scale_sums
from otel_mlmon.processor.window.pane_stack import PaneStack
from otel_mlmon.processor.window.window import NO_NUMBERS, NumberSum, PaneLayout, PaneTable
from otel_mlmon.sketch.moments import compute_mean
from otel_mlmon.types import Counts, Indices, Ints

_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)
_NARROW: Final = ((1 << 8, np.uint8), (1 << 16, np.uint16), (1 << 32, np.uint32))


class _StreamPlaces(NamedTuple):
    """The places of the streams of a pane's layout in the arrays of the rolling windows."""

    columns: slice | Indices
    streams: Indices
    run: slice | Indices
    """The streams, as a slice where they follow each other."""


class _PaneRow(NamedTuple):
    """A pane in the rolling windows, packed as small as it can be."""

    start_ns: int
    end_ns: int
    places: _StreamPlaces
    counts: NDArray[Any]
    number_counts: NDArray[Any]
    sums: ScaledSums

    def add_to(self, late: PaneTable) -> PaneTable:
        """Returns late counts of the pane with those that it has: a backlog makes no more rows than it has panes."""
        return PaneTable(
            layout=late.layout,
            counts=self.counts + late.counts,
            number_counts=list(map(add, self.number_counts.tolist(), late.number_counts)),
            sums=list(map(add, self.sums.list_units(), late.sums)),
        )


@dataclass(frozen=True, slots=True)
class RollingSums:
    """The counts and means of all streams of a model version in the rolling window, as they were at one moment."""

    _streams: Mapping[str, int]
    _columns: Sequence[tuple[int, int]]
    _counts: Counts
    _sums: Sequence[int]
    _number_counts: Sequence[int]
    _row_counts: Sequence[int]
    _starts_ns: Sequence[int]
    _means: dict[int, float] = field(default_factory=dict)
    """By stream, once they were asked for."""

    def counts(self, name: str) -> Counts:
        """Returns the counts of a stream, shape (K,), or (0,) before its first pane; they never change."""
        stream = self._streams.get(name)
        if stream is None:
            return _NO_COUNTS
        first, end = self._columns[stream]
        return self._counts[first:end]

    def list_windows(self, names: Sequence[str], default_ns: int) -> list[tuple[Counts, int, NumberSum]]:
        """Returns counts, start and numbers of several streams, as `counts` and `start_ns` have them."""
        nothing = _NO_COUNTS, default_ns, NO_NUMBERS
        counts, columns, starts_ns = self._counts, self._columns, self._starts_ns
        sums, number_counts, row_counts = self._sums, self._number_counts, self._row_counts
        return [
            nothing
            if place is None
            else (
                counts[columns[place][0] : columns[place][1]],
                starts_ns[place] if row_counts[place] else default_ns,
                NumberSum(sums[place], number_counts[place]),
            )
            for place in map(self._streams.get, names)
        ]

    def mean(self, name: str) -> float:
        """Returns the mean of the numbers of a stream; NaN without any."""
        stream = self._streams.get(name)
        if stream is None:
            return float("nan")
        mean = self._means.get(stream)
        if mean is None:
            mean = self._means[stream] = compute_mean(self._sums[stream], self._number_counts[stream])
        return mean

    def start_ns(self, name: str, default_ns: int) -> int:
        """Returns the start of the oldest pane with values of a stream, or `default_ns` if there is none."""
        stream = self._streams.get(name)
        return self._starts_ns[stream] if stream is not None and self._row_counts[stream] else default_ns


@dataclass(slots=True)
class RollingWindows:
    """The counts of all streams of a model version in the panes of the rolling window.

    Memory: a pane takes about 20 bytes a stream, and 1 to 4 a bin.
    """

    length_ns: int
    """Length of the window: panes that end this long before the newest, or earlier, are removed."""
    _rows: deque[_PaneRow] = field(default_factory=deque)
    _streams: dict[str, int] = field(default_factory=dict)
    """The number of each stream by name."""
    _columns: list[tuple[int, int]] = field(default_factory=list)
    """By stream, its first column and the one after its last."""
    _places: dict[PaneLayout, _StreamPlaces] = field(default_factory=dict)
    _counts: Counts = field(default_factory=lambda: _NO_COUNTS)
    """The sums of all rows by column. It is replaced and never changed, since parts of it are handed on."""
    _sums: list[int] = field(default_factory=list)
    """By stream, the exact sum of its numbers, in units of 2^-1074."""
    _number_counts: Ints = field(default_factory=lambda: _NO_COUNTS.copy())
    _row_counts: Ints = field(default_factory=lambda: _NO_COUNTS.copy())
    """By stream, how many rows have it."""
    _starts_ns: Ints = field(default_factory=lambda: _NO_COUNTS.copy())
    """By stream, the start of the oldest row that has it."""
    _present: RollingSums | None = None
    """The sums as they are; None since any changed."""

    def add(self, table: PaneTable, start_ns: int, end_ns: int) -> None:
        """Adds a pane, or late counts of one; a stream has the same bins in all panes until it is cleared."""
        if not table.layout.names:
            return
        self._present = None
        places = self._places.get(table.layout) or self._place_streams(table.layout)
        columns, streams, run = places
        number_counts = np.asarray(table.number_counts, dtype=np.int64)
        index = len(self._rows)
        while index and self._rows[index - 1].end_ns > end_ns:
            index -= 1
        is_first = self._row_counts[run] == 0
        if index < len(self._rows):
            is_first |= self._starts_ns[run] > start_ns
        position = self._find_row(index, end_ns, places)
        if position is not None:
            self._rows[position] = _narrow_pane(self._rows[position].add_to(table), start_ns, end_ns, places)
        else:
            self._rows.insert(index, _narrow_pane(table, start_ns, end_ns, places))
            self._row_counts[run] += 1
        counts = self._counts.copy()
        counts[columns] += table.counts
        self._counts = counts
        self._number_counts[run] += number_counts
        if is_first.any():
            self._starts_ns[streams[is_first]] = start_ns
        self._add_sums(places, table.sums)

    def add_stack(self, stack: PaneStack) -> None:
        """Adds stored panes, of which none has a row yet: the same as to add them one by one, in a few operations."""
        if not stack.layout.names:
            return
        self._present = None
        places = self._places.get(stack.layout) or self._place_streams(stack.layout)
        columns, streams, run = places
        first_ns = stack.times_ns[0][0]
        is_first = (self._row_counts[run] == 0) | (self._starts_ns[run] > first_ns)
        self._starts_ns[streams[is_first]] = first_ns
        is_last = not self._rows or self._rows[-1].end_ns <= stack.times_ns[0][1]
        numbers, shift = stack.sums
        self._rows.extend(
            _PaneRow(start_ns, end_ns, places, counts, number_counts, ScaledSums(sums, shift))
            for (start_ns, end_ns), counts, number_counts, sums in zip(
                stack.times_ns, stack.counts, stack.number_counts, numbers, strict=True
            )
        )
        if not is_last:
            self._rows = deque(sorted(self._rows, key=lambda row: row.end_ns))
        counts = self._counts.copy()
        counts[columns] += stack.counts.sum(axis=0, dtype=np.int64)
        self._counts = counts
        self._number_counts[run] += stack.number_counts.sum(axis=0, dtype=np.int64)
        self._row_counts[run] += len(stack.times_ns)
        self._add_sums(places, stack.sums.add_rows())

    def has_layout(self, layout: PaneLayout) -> bool:
        """Returns whether a pane of the same streams over the same bins was added, and none was cleared since."""
        return layout in self._places

    def evict(self, now_ns: int) -> None:
        """Removes the panes that are older than the rolling window is long."""
        limit_ns = now_ns - self.length_ns
        if not self._rows or self._rows[0].end_ns > limit_ns:
            return
        self._present = None
        counts = self._counts.copy()
        is_moved = np.zeros(len(self._sums), dtype=np.bool_)
        while self._rows and self._rows[0].end_ns <= limit_ns:
            row = self._rows.popleft()
            columns, streams, run = row.places
            counts[columns] -= row.counts
            self._number_counts[run] -= row.number_counts
            self._row_counts[run] -= 1
            is_moved[run] = True
            for stream, units in zip(streams.tolist(), row.sums.list_units(), strict=True):
                self._sums[stream] -= units
        self._counts = counts
        is_moved &= self._row_counts > 0
        for row in self._rows:
            if not is_moved.any():
                break
            streams = row.places.streams
            self._starts_ns[streams[is_moved[streams]]] = row.start_ns
            is_moved[streams] = False

    def clear(self, name: str) -> None:
        """Removes a stream, as its bins are no longer those of the reference."""
        if self._streams.pop(name, None) is not None:
            self._present = None
            self._places.clear()

    def sums(self) -> RollingSums:
        """Returns the counts and means of all streams as they are now."""
        if self._present is None:
            self._present = RollingSums(
                self._streams.copy(),
                self._columns,  # of which none changes
                self._counts,
                self._sums.copy(),
                self._number_counts.tolist(),
                self._row_counts.tolist(),
                self._starts_ns.tolist(),
            )
        return self._present

    def _add_sums(self, places: _StreamPlaces, sums: Sequence[int]) -> None:
        if isinstance(places.run, slice):
            self._sums[places.run] = map(add, self._sums[places.run], sums)
            return
        for stream, units in zip(places.streams.tolist(), sums, strict=True):
            self._sums[stream] += units

    def _find_row(self, index: int, end_ns: int, places: _StreamPlaces) -> int | None:
        """Returns the position before `index` of the row of a pane with the same streams and bins; None without one."""
        for position in range(index - 1, -1, -1):
            row = self._rows[position]
            if row.end_ns != end_ns:
                break
            if row.places is places:
                return position
        return None

    def _place_streams(self, layout: PaneLayout) -> _StreamPlaces:
        """Returns the places of the streams of a layout, after adding those that are new."""
        streams = []
        for name, size in zip(layout.names, layout.sizes, strict=True):
            stream = self._streams.get(name)
            if stream is None or self._columns[stream][1] - self._columns[stream][0] != size:
                stream = self._streams[name] = len(self._columns)
                end = self._columns[-1][1] if self._columns else 0
                self._columns.append((end, end + size))
            streams.append(stream)
        added = len(self._columns) - len(self._sums)
        if added:
            self._sums += [0] * added
            self._counts = _lengthen_array(self._counts, self._columns[-1][1])
            self._number_counts = _lengthen_array(self._number_counts, len(self._sums))
            self._row_counts = _lengthen_array(self._row_counts, len(self._sums))
            self._starts_ns = _lengthen_array(self._starts_ns, len(self._sums))
        ranges = [self._columns[stream] for stream in streams]
        columns: slice | Indices = slice(ranges[0][0], ranges[-1][1])
        if any(end != first for (_, end), (first, _) in pairwise(ranges)):
            columns = np.concatenate([np.arange(first, end) for first, end in ranges])
        indices, run = np.array(streams, dtype=np.intp), slice(streams[0], streams[-1] + 1)
        is_run = streams == list(range(run.start, run.stop))
        places = self._places[layout] = _StreamPlaces(columns, indices, run if is_run else indices)
        return places


def _narrow_pane(table: PaneTable, start_ns: int, end_ns: int, places: _StreamPlaces) -> _PaneRow:
    """Returns a pane as a row that takes little room: the numbers in narrow types, and the sums without their zeros."""
    number_counts = _narrow_ints(np.asarray(table.number_counts, dtype=np.int64))
    return _PaneRow(start_ns, end_ns, places, _narrow_ints(table.counts), number_counts, scale_sums(table.sums))


def _narrow_ints(values: Ints) -> NDArray[Any]:
    """Returns whole numbers of 0 and above in the narrowest type that holds all of them."""
    largest = int(values.max(initial=0))
    return values.astype(next((dtype for limit, dtype in _NARROW if largest < limit), np.int64))


def _lengthen_array(array: NDArray[Any], size: int) -> NDArray[Any]:
    return np.concatenate((array, np.zeros(size - array.size, dtype=array.dtype)))
