"""OUT Table: rows as columns of numbers or of texts, whatever file they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import format_label
from otel_mlmon.types import Floats

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a part of the work, how much of it is done, and how much there is, in any unit."""


def ignore_progress(_part: str, _done: int, _total: int) -> None:
    """Ignores the progress of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """One column: `numbers`, or `texts` if any of its cells is not a number."""

    name: str
    numbers: Floats | None = None
    """Shape (n,), NaN where missing; infinite numbers count as missing too."""
    texts: tuple[str | None, ...] | None = None
    """None where missing."""
    first_text_row: int = -1
    """The row, from 0, of the first cell that is not a number."""
    is_boolean: bool = False
    """Whether the texts are true and false, which is a category even where it is written 0 and 1."""
    times_ns: NDArray[np.int64] | None = None
    """Unix nanoseconds, if the file's own types declare points in time."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.numbers) if self.numbers is not None else len(self.texts or ())

    @property
    def first_text(self) -> str | None:
        """The first cell that is not a number."""
        return (self.texts or ("",))[max(self.first_text_row, 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length."""

    source: str
    """The file, as the user named it."""
    columns: Mapping[str, TableColumn]
    rows: int
    locate: Callable[[int], str] = field(default=lambda row: f"row {row}")
    """Returns the place of a row, from 0, in its file: `ref.csv:17`."""


def build_column(name: str, values: NDArray[np.generic] | Sequence[object]) -> TableColumn:
    """Builds a column of values as numpy or Python has them.

    Args:
        name: The name of the column.
        values: Shape (n,): numbers, booleans, points in time, or anything else as texts; None and the texts for a
            missing value are missing.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        times_ns = array.astype("datetime64[ns]").astype(np.int64)
        return TableColumn(name=name, numbers=times_ns.astype(np.float64), times_ns=times_ns)
    if array.dtype.kind in "iuf":
        return TableColumn(name=name, numbers=np.ascontiguousarray(array, dtype=np.float64))
    return build_text_column(name, map(format_label, array.tolist()), is_boolean=array.dtype.kind == "b")


def build_text_column(name: str, cells: Iterable[str | None], *, is_boolean: bool = False) -> TableColumn:
    """Builds a column of texts, None where missing."""
    texts = tuple(cells)
    first = next((row for row, text in enumerate(texts) if text is not None), 0)
    return TableColumn(name=name, texts=texts, first_text_row=first, is_boolean=is_boolean)


def check_column_names(names: Sequence[str], place: str) -> None:
    """Checks that the names of the columns in a file differ.

    Raises:
        DataError: Two are equal.
    """
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise DataError(f"{place}: column {repeated!r} is there twice")
