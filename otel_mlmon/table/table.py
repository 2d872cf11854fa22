"""OUT Table: rows as columns of numbers or of words, whatever file they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import word_of
from otel_mlmon.types import Floats

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much there is; in bytes or windows, whatever suits."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Nothing is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: `numbers`, or `words` if any of its cells is not a number."""

    name: str
    numbers: Floats | None = None
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
        values: Shape (n,): numbers, truth values, points in time, or anything else as words; None and the words for it
            are missing.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        times = array.astype("datetime64[ns]").astype(np.int64)
        return Column(name=name, numbers=times.astype(np.float64), times_ns=times)
    if array.dtype.kind in "iuf":
        return Column(name=name, numbers=np.ascontiguousarray(array, dtype=np.float64))
    words = tuple(map(word_of, array.tolist()))
    first = next((row for row, word in enumerate(words) if word is not None), 0)
    return Column(name=name, words=words, first_word=first, is_truth=array.dtype.kind == "b")


def demand_different(names: Sequence[str], place: str) -> None:
    """Of the columns of a file.

    Raises:
        DataError: Two have one name.
    """
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise DataError(f"{place}: column {repeated!r} is there twice")
