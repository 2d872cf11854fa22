"""What a model is fed from: the columns of a table, or arrays by name (npz, npy).

A column of a CSV file stays text until it is known what it is for: `01` may be a number or a postcode.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import numbers_in, word_of
from otel_mlmon.table.files import TABLE_SUFFIXES, read_table
from otel_mlmon.table.table import Column

ARRAY_SUFFIXES: Final = (".npz", ".npy")

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a file's time is as it stands there, of whatever zone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """What a file holds."""

    name: str
    """The file's own, for messages."""
    columns: Mapping[str, NDArray[Any]]
    """By name; the same first length all. A table's are of shape (n,), words as objects with None for missing."""
    is_table: bool
    place: Callable[[int], str]
    """Where a row, from 0, stands, as a person finds it."""

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values()), ()))

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
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        table = read_table(path, keeps_text=True)
        columns = {name: _values(column) for name, column in table.columns.items()}
        data = Data(name=table.source, columns=columns, is_table=True, place=table.place)
    elif suffix in ARRAY_SUFFIXES:
        data = Data(name=str(path), columns=_arrays(path), is_table=False, place=lambda row: f"{path}: row {row}")
    else:
        raise DataError(f"{path}: the ending must be one of {' '.join((*TABLE_SUFFIXES, *ARRAY_SUFFIXES))}")
    lengths = {name: len(values) for name, values in data.columns.items()}
    if not data.rows:
        raise DataError(f"{path}: holds no rows")
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: the arrays are not of one length: {_listed(lengths)}")
    return data


def numbers(data: Data, column: str) -> NDArray[np.float64]:
    """A column of numbers, shape (n,), NaN where one is missing; truth values of Parquet are 1 and 0.

    Raises:
        DataError: A value is no number; names its place.
    """
    values = data.columns[column]
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    cells = [value if isinstance(value, str) else _cell(value) for value in values.tolist()]
    found = numbers_in(cells)
    if isinstance(found, int):
        raise DataError(f"{data.place(found)}: column {column}: {cells[found]!r} is not a number")
    return found


def texts(data: Data, column: str) -> list[str | None]:
    """A column of texts; None where one is missing, and a whole number without a point."""
    return [word_of(value) for value in data.columns[column].ravel().tolist()]


def _values(column: Column) -> NDArray[Any]:
    """Of a table's column: numbers, truth values or texts."""
    if column.times_ns is not None:
        return _objects([_moment(time_ns) for time_ns in column.times_ns.tolist()])
    if column.numbers is not None:
        return column.numbers
    words = column.words or ()
    return _objects([None if word is None else word == "True" for word in words] if column.is_truth else words)


def _moment(time_ns: int) -> str | None:
    is_missing = time_ns == np.iinfo(np.int64).min
    return None if is_missing else str(_EPOCH + timedelta(microseconds=time_ns // 1000))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "nan" if value is None else str(value)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: np.atleast_1d(loaded)}
        with loaded as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}") from error


def _objects(values: Sequence[object]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())
