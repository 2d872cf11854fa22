"""Growing arrays with one row a stream."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Indices

INITIAL_CAPACITY: Final = 4

RowIndex = slice | Indices
"""Some of the rows: what an array is indexed by."""


class RowArrays:
    """Named arrays over the same rows; a row that was never written is zero.

    Args:
        columns: Shape of a row and its type, by name.
    """

    def __init__(self, **columns: tuple[tuple[int, ...], Any]) -> None:
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.zeros((INITIAL_CAPACITY, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._capacity = INITIAL_CAPACITY

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Returns all rows of one array; valid until the next `clear`."""
        return self._arrays[name]

    def clear(self, row: int) -> None:
        """Sets `row` of every array to zero, growing them if it is beyond their end."""
        if row >= self._capacity:
            self._grow(max(row + 1, 2 * self._capacity))
        for array in self._arrays.values():
            array[row] = 0

    def _grow(self, capacity: int) -> None:
        for name, array in self._arrays.items():
            larger = np.zeros((capacity, *array.shape[1:]), array.dtype)
            larger[: self._capacity] = array
            self._arrays[name] = larger
        self._capacity = capacity


def as_slice(rows: Indices) -> RowIndex:
    """Returns `rows` as a slice if they follow each other, so that reading them copies nothing."""
    if rows.size and rows[-1] - rows[0] == rows.size - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
