"""Grows arrays with one row a stream, counts the daily traffic in one of them, and checks and stacks counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.state import DAY_NS, TrafficState
from otel_mlmon.types import Bools, Floats, Indices, Ints

T = TypeVar("T")

INITIAL_CAPACITY: Final = 4

HOURS: Final = 24
HOUR_NS: Final = 3_600_000_000_000

STAGE: Final = "drift"

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


def list_rows(array: NDArray[Any]) -> list[Any]:
    """Returns the rows of an array: of one with a single number a row, numbers of Python."""
    return array.tolist() if array.ndim == 1 else list(array)


def split_rows(values: NDArray[Any], is_used: Bools) -> list[NDArray[Any]]:
    """Splits the values that a mask has chosen of an array, `array[is_used]`, into those of each row."""
    ends = np.count_nonzero(is_used.reshape(len(is_used), -1), axis=1).cumsum().tolist()
    return [values[first:end] for first, end in pairwise([0, *ends])]


def build_rows(kind: type[T], columns: Mapping[str, Iterable[Any]]) -> list[T]:
    """Builds a value of each row of some columns, whose names are the fields of its type."""
    return [kind(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


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

    def states(self, rows: Indices | Sequence[int]) -> list[TrafficState]:
        """Returns the traffic of some streams to be stored; `restore` is the inverse."""
        columns = {name: list_rows(self._arrays[name][rows]) for name in ("first_ns", "last_ns", "hours")}
        return build_rows(TrafficState, columns)

    def restore(self, row: int, state: TrafficState) -> None:
        """Restores the stored traffic of a stream in a row."""
        arrays = self._arrays
        arrays["first_ns"][row], arrays["last_ns"][row] = state.first_ns, state.last_ns
        arrays["hours"][row] = state.hours


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
    fitting = []
    for position, row in enumerate(counts):
        if row.shape == (bins,):
            fitting.append(position)
            continue
        with _GUARD:
            raise BinMismatchError(f"a {name} of shape {row.shape} against {bins} bins")
    positions = np.array(fitting, dtype=np.intp)
    if not fitting:
        return positions, np.zeros((0, bins))
    rows = np.concatenate([counts[position] for position in fitting]).reshape(-1, bins)
    is_good = find_valid_rows(rows)
    if is_good.all():
        return positions, rows
    with _GUARD:
        check_counts(rows[~is_good], bins)
    return positions[is_good], rows[is_good]


def sum_rows(rows: Sequence[NDArray[Any]]) -> list[int]:
    """Sums each of several arrays of counts, which may have different lengths."""
    if len({row.shape for row in rows}) == 1 and rows[0].size:
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
