"""Grows arrays with one row a stream, counts the daily traffic in one of them, and checks and stacks counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.state import DAY_NS, TrafficColumns
from otel_mlmon.types import Bools, Floats, Indices, Ints

INITIAL_CAPACITY: Final = 4

HOURS: Final = 24
HOUR_NS: Final = 3_600_000_000_000

STAGE: Final = "drift"

_TRAFFIC: Final = ("first_ns", "last_ns", "hours")

_GUARD: Final = guard(STAGE)

RowIndex = slice | Indices
"""Some of the rows: what an array is indexed by."""


class RowArrays:
    """Holds several named arrays that grow together, with one row a stream; a row never written is zero.

    Args:
        columns: Shape of a row and its type, by name.
    """

    def __init__(self, **columns: tuple[tuple[int, ...], Any]) -> None:
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.zeros((INITIAL_CAPACITY, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._capacity = INITIAL_CAPACITY
        self._used = 0
        """Rows from here on were never cleared, and so never written: they are zero."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Returns all rows of a named array; valid until the next `clear`."""
        return self._arrays[name]

    def pack(self, rows: Indices | Sequence[int], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Returns copies of some rows of some of the arrays, by name."""
        index = np.asarray(rows, dtype=np.intp)
        return {name: self._arrays[name][index] for name in names}

    def restore(self, rows: Indices | Sequence[int], columns: object, names: Iterable[str]) -> None:
        """Sets some rows of the arrays of these names to the attributes of an object."""
        index = np.asarray(rows, dtype=np.intp)
        for name in names:
            self._arrays[name][index] = getattr(columns, name)

    def clear(self, row: int) -> None:
        """Sets one row of every array to zero, after growing them where the row is beyond their end."""
        if row >= self._capacity:
            self._grow_arrays(max(row + 1, 2 * self._capacity))
        if row >= self._used:
            self._used = row + 1
            return
        for array in self._arrays.values():
            array[row] = 0

    def _grow_arrays(self, capacity: int) -> None:
        for name, array in self._arrays.items():
            larger = np.zeros((capacity, *array.shape[1:]), array.dtype)
            larger[: self._capacity] = array
            self._arrays[name] = larger
        self._capacity = capacity


def convert_to_slice(rows: Indices) -> RowIndex:
    """Converts row numbers to a slice if they follow each other, so that reading copies nothing; else returns them."""
    if rows.size and rows[-1] - rows[0] == rows.size - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def count_used(is_used: Bools) -> Ints:
    """Counts how many values of each row of an array a mask chooses; those are `array[is_used]`, row by row."""
    counts: Ints = np.count_nonzero(is_used.reshape(len(is_used), -1), axis=1)
    return counts


def list_positions(counts: Ints) -> tuple[Indices, Indices]:
    """Returns of values that lie row by row, so many in each, their rows and their positions in these.

    Args:
        counts: The number of values of each row, 0 or above, shape (S,).

    Returns:
        Two arrays of shape (Σ counts,).
    """
    ends = counts.cumsum()
    return np.repeat(np.arange(counts.size), counts), np.arange(counts.sum()) - np.repeat(ends - counts, counts)


class DailyTraffic:
    """The number of values of many streams in the last 24 hours, one stream a row."""

    def __init__(self) -> None:
        self._arrays = RowArrays(hours=((HOURS,), np.float64), first_ns=((), np.int64), last_ns=((), np.int64))

    def start(self, row: int) -> None:
        """Starts to count the values of a stream in a row."""
        self._arrays.clear(row)

    def add(self, rows: Indices, items: Floats, end_ns: Ints) -> None:
        """Adds the number of values of some streams in one pane each, in the order of time.

        Args:
            rows: Shape (S,).
            items: Values in the pane, shape (S,).
            end_ns: End of the pane, Unix nanoseconds, shape (S,).
        """
        arrays, index, hour = self._arrays, convert_to_slice(rows), end_ns // HOUR_NS
        passed = np.minimum(hour - arrays["last_ns"][index] // HOUR_NS, HOURS)
        for step in range(int(passed.max(initial=0))):
            is_behind = passed > step
            arrays["hours"][rows[is_behind], (hour[is_behind] - step) % HOURS] = 0.0
        arrays["hours"][rows, hour % HOURS] += items
        first_ns = arrays["first_ns"][index]
        arrays["first_ns"][index] = np.where(first_ns == 0, end_ns, first_ns)
        arrays["last_ns"][index] = end_ns

    def items_per_day(self, rows: Indices, *, is_over: bool) -> Floats:
        """Returns the values of the last 24 hours, shape (S,), projected for streams younger than a day.

        Args:
            rows: Shape (S,).
            is_over: Whether no more comes, so that a part of a day stays one.
        """
        arrays = self._arrays
        items: Floats = arrays["hours"][rows].sum(-1)
        if is_over:
            return items
        age_ns = np.clip(arrays["last_ns"][rows] - arrays["first_ns"][rows], HOUR_NS, DAY_NS)
        scaled: Floats = items * (DAY_NS / age_ns)
        return scaled

    def is_young(self, rows: Indices) -> Bools:
        """Returns which streams have been counted for less than an hour, shape (S,)."""
        arrays = self._arrays
        young: Bools = arrays["last_ns"][rows] - arrays["first_ns"][rows] < HOUR_NS
        return young

    def pack(self, rows: Indices | Sequence[int]) -> TrafficColumns:
        """Returns the traffic of some streams for storage; `restore` is the inverse."""
        return TrafficColumns(**self._arrays.pack(rows, _TRAFFIC))

    def restore(self, rows: Sequence[int], columns: TrafficColumns) -> None:
        """Restores the stored traffic of streams in rows that were started."""
        self._arrays.restore(rows, columns, _TRAFFIC)


def check_counts(counts: NDArray[Any], bins: int) -> Floats:
    """Returns counts as float64, shape (S, K), after checking that they are finite and not negative.

    Raises:
        BinMismatchError: They are not rows of K counts.
        ValueError: One is negative or not finite.
    """
    if counts.ndim != 2 or not bins or counts.shape[1] != bins:
        raise BinMismatchError(f"counts of shape {counts.shape[1:]} against a reference of shape {(bins,)}")
    values: Floats = counts.astype(np.float64)
    if not find_valid_rows(values).all():
        raise ValueError("counts must be finite and not negative")
    return values


def find_valid_rows(rows: NDArray[Any]) -> Bools:
    """Returns for each row whether all its numbers are finite and 0 or above, shape (S,)."""
    return np.asarray((rows.min(-1) >= 0.0) & np.isfinite(rows.sum(-1)))


def stack_counts(name: str, counts: Sequence[NDArray[Any]], bins: int) -> tuple[Indices, NDArray[Any]]:
    """Returns the positions of the valid arrays of K counts, and these stacked to one; reports others to the guard."""
    shapes = [row.shape for row in counts]
    fitting = [position for position, shape in enumerate(shapes) if shape == (bins,)]
    for shape in shapes if len(fitting) < len(shapes) else ():
        with _GUARD:
            if shape != (bins,):
                raise BinMismatchError(f"a {name} of shape {shape} against {bins} bins")
    positions = np.array(fitting, dtype=np.intp)
    if not fitting:
        return positions, np.zeros((0, bins))
    fits = counts if len(fitting) == len(counts) else [counts[position] for position in fitting]
    rows = np.concatenate(fits).reshape(-1, bins)
    is_good = find_valid_rows(rows)
    if is_good.all():
        return positions, rows
    with _GUARD:
        check_counts(rows[~is_good], bins)
    return positions[is_good], rows[is_good]


def sum_rows(rows: Sequence[NDArray[Any]]) -> list[int]:
    """Sums each of several arrays of counts, which may have different lengths."""
    if len({row.size for row in rows}) == 1 and rows[0].size:
        totals: list[int] = np.concatenate(rows).reshape(len(rows), -1).sum(-1).astype(np.int64).tolist()
        return totals
    return [int(row.sum()) for row in rows]


def split_into_rounds(streams: Sequence[Hashable]) -> Sequence[Sequence[int]]:
    """Splits positions into rounds so that no stream is twice in a round and its panes keep their order."""
    if len(set(streams)) == len(streams):
        return [range(len(streams))]
    counts: dict[Hashable, int] = {}
    rounds: list[list[int]] = []
    for position, stream in enumerate(streams):
        count = counts.get(stream, 0)
        counts[stream] = count + 1
        if count == len(rounds):
            rounds.append([])
        rounds[count].append(position)
    return rounds
