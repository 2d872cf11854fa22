"""Files of data: a table (CSV, Parquet) as columns by name, or arrays by name (npz).

A column of a CSV file stays text until it is known what it is for: `01` may be a number or a postcode. The empty field
and the usual words for nothing are missing values.
Choice: CSV by the standard library, whose quoting rules are the ones people test with; Parquet by pyarrow, which is an
extra, since it weighs 120 MB.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError, DependencyMissingError

NOTHING: Final = frozenset({"", "nan", "none", "null", "na", "n/a"})
"""Fields that mean a missing value, in lower case and without space around."""

TABLES: Final = (".csv", ".parquet")
ARRAYS: Final = (".npz", ".npy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """What a file holds."""

    name: str
    """The file's own, for messages."""
    columns: Mapping[str, NDArray[Any]]
    """By name; the same first length all. A table's are of shape (n,), texts as objects with None for missing."""
    is_table: bool
    lines: Sequence[int] = ()
    """Of a text file: the line that each row ends in."""

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values()), ()))

    def place(self, row: int) -> str:
        """Where a row stands, as a person finds it."""
        return f"{self.name}:{self.lines[row]}" if self.lines else f"{self.name}, row {row}"

    def without(self, column: str) -> Data:
        """All but one column."""
        columns = {name: values for name, values in self.columns.items() if name != column}
        return replace(self, columns=columns)

    def only(self, columns: Sequence[str]) -> Data:
        """These columns, in this order.

        Raises:
            DataError: One is not there.
        """
        absent = next((name for name in columns if name not in self.columns), None)
        if absent is not None:
            raise DataError(f"{self.name} has no column {absent}; it has {', '.join(self.columns)}")
        return replace(self, columns={name: self.columns[name] for name in columns})


def read(path: Path) -> Data:
    """A file by its ending.

    Raises:
        DataError: It cannot be read, holds no rows, or its rows or columns are not of one length.
        DependencyMissingError: It is Parquet and pyarrow is not installed.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz, ".npy": _read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: the ending must be one of {' '.join((*TABLES, *ARRAYS))}")
    try:
        data = reader(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    lengths = {name: len(values) for name, values in data.columns.items()}
    if not data.rows:
        raise DataError(f"{path}: holds no rows")
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: the arrays are not of one length: {_listed(lengths)}")
    return data


def numbers(data: Data, column: str) -> NDArray[np.float64]:
    """A column of numbers, NaN where one is missing.

    Raises:
        DataError: A value is no number; names its place.
    """
    values = data.columns[column]
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values.tolist()):
        if is_missing(value):
            continue
        try:
            found[row] = float(value)
        except (TypeError, ValueError):
            raise DataError(f"{data.place(row)}: column {column}: {value!r} is not a number") from None
    return found


def texts(data: Data, column: str) -> list[str | None]:
    """A column of texts; None where one is missing, and a whole number without a point."""
    return [None if is_missing(value) else text_of(value) for value in data.columns[column].ravel().tolist()]


def is_missing(value: object) -> bool:
    """None, NaN, or a word for nothing."""
    if isinstance(value, str):
        return value.strip().lower() in NOTHING
    return value is None or value != value


def text_of(value: object) -> str:
    """As a label reads: `3` for 3, 3.0 and True's own word."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _read_csv(path: Path) -> Data:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows, lines = [], []
            for row in reader:
                if not row and len(header) > 1:
                    continue  # an empty line; of a single column it is a missing value
                rows.append(_csv_row(path, reader.line_num, row or [""], header))
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from error
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: column {twice} is there twice")
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    return Data(
        name=str(path),
        columns={name: _objects(column) for name, column in zip(header, columns, strict=True)},
        is_table=True,
        lines=lines,
    )


def _csv_row(path: Path, line: int, row: list[str], header: Sequence[str]) -> list[str]:
    if len(row) != len(header):
        raise DataError(f"{path}:{line}: {len(row)} fields where the first line names {len(header)} columns")
    return row


def _read_parquet(path: Path) -> Data:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyMissingError('Parquet needs pyarrow: pip install "otel-mlmon[parquet]"') from error
    try:
        table = parquet.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {error}") from error
    columns = {name: _arrow(table.column(name)) for name in table.column_names}
    return Data(name=str(path), columns=columns, is_table=True)


def _arrow(column: Any) -> NDArray[Any]:
    """Numbers as numbers, NaN for null; everything else as objects, None for null."""
    values: NDArray[Any] = column.to_numpy()
    return values if values.dtype.kind in "biuf" else _objects(column.to_pylist())


def _read_npz(path: Path) -> Data:
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: np.atleast_1d(archive[name]) for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}") from error
    return Data(name=str(path), columns=columns, is_table=False)


def _read_npy(path: Path) -> Data:
    try:
        values = np.atleast_1d(np.load(path, allow_pickle=False))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return Data(name=str(path), columns={path.stem: values}, is_table=False)


def _objects(values: Sequence[object]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())
