"""Arrays with one row a stream, that grow together."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SMALLEST: Final = 4

Place = slice | NDArray[np.intp]
"""Some of the rows: what an array is indexed by."""


class Rows:
    """Named arrays over the same rows; a row not touched yet is zero.

    Args:
        columns: Shape of a row and its type, by name.
    """

    def __init__(self, **columns: tuple[tuple[int, ...], Any]) -> None:
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.zeros((SMALLEST, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._capacity = SMALLEST

    def __getitem__(self, name: str) -> NDArray[Any]:
        """All rows of one array; good until the next `clear`."""
        return self._arrays[name]

    def clear(self, row: int) -> None:
        """Make `row` zero, and be there."""
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


def in_one_piece(rows: NDArray[np.intp]) -> Place:
    """`rows`, as a slice where they follow each other: nothing is copied to read them then."""
    if rows.size and rows[-1] - rows[0] == rows.size - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
