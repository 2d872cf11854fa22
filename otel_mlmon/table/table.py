"""OUT Table: rows in batches of Arrow columns, from files or from objects in memory, which are opened here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import format_label, is_text_type

if TYPE_CHECKING:
    import pyarrow as pa

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a part of the work, how much of it is done, and how much there is, in rows or windows."""

ROWS_A_BATCH: Final = 1 << 17
"""The largest number of rows that are handed on together; a block of counting relies on it to be exact."""

CellKind: TypeAlias = Literal["number", "text", "boolean", "time", "unreadable"]
"""The kind of a column's cells by its declared type. A text may still be a number or a point in time."""


def ignore_progress(_part: str, _done: int, _total: int) -> None:
    """Does nothing with a report of progress; the default where no progress bar is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """Describes one column of a table: its name, its declared type, and how its numbers are written."""

    name: str
    kind: CellKind
    type_name: str = ""
    """The type, as its format calls it."""
    decimal: str = "."
    """The character before the fraction of numbers in texts."""
    has_points: bool = False
    """Whether a number among its first texts has a decimal point."""
    has_ambiguous_commas: bool = False
    """Whether its numbers may have a decimal comma, or one between thousands: `1,234`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose rows can be read several times, in batches of Arrow columns."""

    source: str
    """The user's word for it: a file, a folder, or what kind of table it is."""
    columns: Mapping[str, TableColumn]
    rows: int
    """The number of rows; an estimate until `scan` has ended, for files that do not say it."""
    scan: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    """Yields the rows of these columns, in their order, at most `ROWS_A_BATCH` at a time."""
    locate: Callable[[int], str] = field(default=lambda row: f"row {row}")
    """Returns the place of a row, from 0, in its file: `ref.csv:17`."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the results should know."""

    def with_decimal_separator(self, decimal: str | None) -> Table:
        """Returns the table with the decimal separator that the user states for its texts; None changes nothing."""
        if decimal is None:
            return self
        columns = {
            name: column if column.has_points else replace(column, decimal=decimal, has_ambiguous_commas=False)
            for name, column in self.columns.items()
        }
        return replace(self, columns=columns)


def open_memory_table(data: object, source: str) -> Table:
    """Opens a table that is in memory: of Arrow, pandas or polars, or a mapping of names to columns.

    Args:
        data: The table, or a mapping of names to columns.
        source: What it is called in messages.

    Raises:
        DataError: It is none of these, or two columns have the same name.
    """
    import pyarrow as pa

    if isinstance(data, pa.RecordBatchReader):
        content = data.read_all()
    elif isinstance(data, pa.RecordBatch):
        content = pa.Table.from_batches([data])
    elif isinstance(data, Mapping):
        content = _build_arrow_table({str(name): values for name, values in data.items()}, source)
    elif hasattr(data, "iloc") and hasattr(data, "columns"):
        content = _convert_pandas_table(data, source)
    elif hasattr(data, "__arrow_c_stream__"):
        content = pa.table(data)
    else:
        raise DataError(f"{source}: a {type(data).__name__} is no table: a path, Arrow, pandas or polars is")
    check_column_names(content.column_names, source)
    columns = {entry.name: describe_arrow_column(entry.name, entry.type) for entry in content.schema}

    def scan_columns(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from content.select(list(names)).to_batches(max_chunksize=ROWS_A_BATCH)

    return Table(source=source, columns=columns, rows=content.num_rows, scan=scan_columns)


def describe_arrow_column(name: str, kind: pa.DataType) -> TableColumn:
    """Describes a table's column by its name and its Arrow type."""
    import pyarrow as pa

    types = pa.types
    value = kind.value_type if types.is_dictionary(kind) else kind
    cells: CellKind = "unreadable"
    if types.is_boolean(value):
        cells = "boolean"
    elif types.is_integer(value) or types.is_floating(value) or types.is_decimal(value) or types.is_null(value):
        cells = "number"
    elif is_text_type(value):
        cells = "text"
    elif types.is_timestamp(value) or types.is_date(value):
        cells = "time"
    return TableColumn(name=name, kind=cells, type_name=str(value))


def check_column_names(names: Sequence[str], place: str) -> None:
    """Checks that no two columns of a file have the same name.

    Raises:
        DataError: Two are equal.
    """
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise DataError(f"{place}: column {repeated!r} is there twice")


def _convert_pandas_table(data: Any, source: str) -> pa.Table:
    """Converts a pandas DataFrame to an Arrow table; its index does not become a column."""
    names = [str(name) for name in data.columns]
    check_column_names(names, source)
    return _build_arrow_table({name: data.iloc[:, position] for position, name in enumerate(names)}, source)


def _build_arrow_table(columns: Mapping[str, Any], source: str) -> pa.Table:
    import pyarrow as pa

    try:
        arrays = {name: _build_arrow_array(values) for name, values in columns.items()}
    except TypeError as error:
        raise DataError(f"{source}: a column is no list of values: {error}") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{source}: the columns are not of one length: {lengths}")
    return pa.table(arrays)


def _build_arrow_array(values: Any) -> pa.Array:
    """Builds an Arrow array from Python values; values of several types become texts."""
    import pyarrow as pa

    try:
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.ndim == 1:
            return pa.array(values)
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        cells = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(cells, list) and any(isinstance(cell, (list, dict, tuple, set, np.ndarray)) for cell in cells):
            return pa.array([[math.nan]] * len(cells))  # nested: a column that cannot be read
        return pa.array([format_label(cell) for cell in cells], type=pa.string())
