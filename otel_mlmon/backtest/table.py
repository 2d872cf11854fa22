"""OUT Table: rows as columns of numbers or of words, whatever file they came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

MISSING_WORDS: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nat"})
"""Cells that hold no value, in lower case."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much there is; in bytes or windows, whatever suits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: `numbers`, or `words` if any of its cells is not a number."""

    name: str
    numbers: Numbers | None = None
    """Shape (n,), NaN where missing; infinite ones count as missing too."""
    words: tuple[str | None, ...] | None = None
    """None where missing."""
    first_word: int = -1
    """The row, from 0, of the first cell that is not a number."""
    is_truth: bool = False
    """Whether the words are true and false, which is a category even where it is written 0 and 1."""
    times_ns: NDArray[np.int64] | None = None
    """Unix nanoseconds, where the file itself says that these are points in time."""

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.numbers) if self.numbers is not None else len(self.words or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length."""

    source: str
    """The file, as it was named."""
    columns: Mapping[str, Column]
    rows: int
    place: Callable[[int], str] = field(default=lambda row: f"row {row}")
    """Where a row, from 0, is found: `ref.csv:17`."""


def column_of(name: str, values: NDArray[np.generic] | Sequence[object]) -> Column:
    """A column of values as numpy or Python has them.

    Args:
        name: Of the column.
        values: Shape (n,): numbers, truth values, points in time, or anything else as words; None is missing.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        times = array.astype("datetime64[ns]").astype(np.int64)
        return Column(name=name, numbers=times.astype(np.float64), times_ns=times)
    if array.dtype.kind in "iuf":
        return Column(name=name, numbers=np.ascontiguousarray(array, dtype=np.float64))
    words = tuple(None if value is None or value != value else str(value) for value in array.tolist())
    first = next((row for row, word in enumerate(words) if word is not None), 0)
    return Column(name=name, words=words, first_word=first, is_truth=array.dtype.kind == "b")


def numbers_in(cells: Sequence[str]) -> Numbers | int:
    """`cells` as numbers, NaN where missing, shape (n,); or the first cell that is not a number, from 0."""
    try:
        return _floats(cells)
    except ValueError:
        pass
    filled = ["nan" if cell.strip().lower() in MISSING_WORDS else cell for cell in cells]
    try:
        return _floats(filled)
    except ValueError:
        return next(index for index, cell in enumerate(filled) if not _is_number(cell))


def words_in(cells: Sequence[str]) -> list[str | None]:
    """`cells` as words, None where missing."""
    return [None if cell.lower() in MISSING_WORDS else cell for cell in map(str.strip, cells)]


def word_of(number: float) -> str | None:
    """A number as the label of a category: `6` for 6.0, None where it is missing."""
    return f"{number:.17g}" if math.isfinite(number) else None


def _floats(cells: Sequence[str]) -> Numbers:
    """Raises ValueError if one is not a number; Python reads `1_0` as 10, which in data is a word."""
    if "_" in "".join(cells):
        raise ValueError
    return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
