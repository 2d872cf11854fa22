"""Tables from files: CSV by Python's `csv`, whose quoting rules are widely tested, and Parquet by pyarrow.

CSV is a line of names, then a line a row; the delimiter is a comma, a semicolon or a tab. A blank line is no row, but
in a file of one column it is a missing value. It is read in pieces, each turned into numbers at once, so that memory
holds 8 bytes a number and not its text. A column that turns out to be text only after a piece of numbers is read once
more: `1.0` is spelled `1.0` wherever it stands. Source: RFC 4180.

Pyarrow is an extra, since it weighs 120 MB: `pip install "otel-mlmon[parquet]"`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.table.cells import parse_numbers, parse_texts
from otel_mlmon.table.table import (
    ProgressCallback,
    Table,
    TableColumn,
    build_column,
    build_text_column,
    check_column_names,
    ignore_progress,
)
from otel_mlmon.types import Floats

PARQUET_SUFFIXES: Final = (".parquet", ".pq")
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".txt", *PARQUET_SUFFIXES)

ROWS_A_PIECE: Final = 20_000
DELIMITERS: Final = ",;\t"
MAX_CELL_BYTES: Final = 1 << 20

_BOOLEAN_TEXTS: Final = frozenset({"true", "false"})


def read_table(path: Path, progress: ProgressCallback = ignore_progress, *, is_text: bool = False) -> Table:
    """Reads the table in a file whose ending, in any case, is one of `TABLE_SUFFIXES`.

    Args:
        path: The file.
        progress: Called for each piece.
        is_text: Whether every column of a CSV file is text: a number may be a name, such as the postcode `01`.

    Raises:
        DataError: The file cannot be read, or is not what its ending says; names the place.
        DependencyMissingError: It is Parquet, and pyarrow is not installed.
    """
    try:
        if path.suffix.lower() in PARQUET_SUFFIXES:
            return _read_parquet(path, progress)
        return _read_csv(path, progress, is_text=is_text)
    except OSError as error:
        # pyarrow's own message names the file once more.
        raise DataError(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error


def find_line(path: Path, row: int) -> int:
    """Finds the line of a CSV file, from 1, on which row `row`, from 0, ends; quoted cells may hold several lines."""
    with _open_csv(path) as (_, reader):
        width = len(next(reader))
        last = -1
        for cells in reader:
            last += bool(cells) or width == 1
            if last == row:
                break
        return int(reader.line_num)


def _read_csv(path: Path, progress: ProgressCallback, *, is_text: bool) -> Table:
    csv.field_size_limit(MAX_CELL_BYTES)
    try:
        builders = _read_columns(path, progress, {}, is_text=is_text)
        incomplete = {builder.name: builder.first_text_row for builder in builders if builder.has_lost_text}
        if incomplete:
            builders = _read_columns(path, progress, incomplete, is_text=False)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{_find_undecodable_line(path)}: not UTF-8 text") from error
    columns = {builder.name: builder.build(is_all_text=is_text) for builder in builders}
    rows = next(iter(columns.values())).rows
    return Table(source=str(path), columns=columns, rows=rows, locate=lambda row: f"{path}:{find_line(path, row)}")


@contextmanager
def _open_csv(path: Path) -> Iterator[tuple[TextIO, Any]]:
    """Opens a file and a reader of its rows, the names first."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = max(DELIMITERS, key=file.readline().count)
        file.seek(0)
        yield file, csv.reader(file, delimiter=delimiter, strict=True)


def _read_columns(
    path: Path, progress: ProgressCallback, first_text_rows: Mapping[str, int], *, is_text: bool
) -> list[_ColumnBuilder]:
    """Reads the columns of a CSV file; those of `first_text_rows`, or all, as text from the first row on."""
    size_bytes, rows = path.stat().st_size, 0
    with _open_csv(path) as (file, reader):
        names = _read_rows(path, reader, 1)
        if not names or not names[0]:
            raise DataError(f"{path}:1: no column names: the file holds no rows")
        check_column_names(names[0], f"{path}:1")
        builders = [
            _ColumnBuilder(
                name=name, is_text=is_text or name in first_text_rows, first_text_row=first_text_rows.get(name, -1)
            )
            for name in names[0]
        ]
        for piece in _read_pieces(path, reader, len(builders)):
            for builder, cells in zip(builders, zip(*piece, strict=True), strict=True):
                builder.add(cells, rows)
            rows += len(piece)
            progress(f"reading {path.name}", min(file.buffer.tell(), size_bytes), size_bytes)
    return builders


def _read_pieces(path: Path, reader: Any, width: int) -> Iterator[list[list[str]]]:
    """Yields rows by the piece, each of `width` cells."""
    start = 0
    while rows := _read_rows(path, reader, ROWS_A_PIECE):
        piece = [row or [""] for row in rows] if width == 1 else [row for row in rows if row]
        if set(map(len, piece)) - {width}:
            index = next(index for index, cells in enumerate(piece) if len(cells) != width)
            line = find_line(path, start + index)
            raise DataError(f"{path}:{line}: {len(piece[index])} cells, but the first line names {width}")
        if piece:
            yield piece
            start += len(piece)


def _read_rows(path: Path, reader: Any, limit: int) -> list[list[str]]:
    try:
        return list(islice(reader, limit))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error


def _find_undecodable_line(path: Path) -> int:
    # The error's own position counts from wherever its buffer began.
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, start=1) if not _is_utf8(line)), 1)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class _ColumnBuilder:
    """Collects one column piece by piece."""

    name: str
    is_text: bool
    """Whether a cell so far was not a number."""
    first_text_row: int
    numbers: list[Floats] = field(default_factory=list)
    """The pieces, while every cell is a number."""
    texts: list[str | None] = field(default_factory=list)

    @property
    def has_lost_text(self) -> bool:
        """Whether the column is text, and its first cells were kept as numbers only."""
        return self.is_text and bool(self.numbers)

    def add(self, cells: tuple[str, ...], row: int) -> None:
        """Adds a piece whose first row is `row`."""
        if not self.is_text:
            numbers = parse_numbers(cells)
            if not isinstance(numbers, int):
                self.numbers.append(numbers)
                return
            self.is_text, self.first_text_row = True, row + numbers
        if not self.numbers:
            self.texts += parse_texts(cells)

    def build(self, *, is_all_text: bool) -> TableColumn:
        """Builds the column; only texts that are not text by request may be booleans."""
        if not self.is_text:
            return TableColumn(name=self.name, numbers=np.concatenate(self.numbers) if self.numbers else np.zeros(0))
        is_boolean = not is_all_text and all(
            text is None or text.strip().lower() in _BOOLEAN_TEXTS for text in self.texts
        )
        return TableColumn(
            name=self.name, texts=tuple(self.texts), first_text_row=self.first_text_row, is_boolean=is_boolean
        )


def _read_parquet(path: Path, progress: ProgressCallback) -> Table:
    """Reads the columns of a Parquet file; nested ones are left out."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyMissingError(
            f'{path}: Parquet needs pyarrow: pip install "otel-mlmon[parquet]", or save the data as CSV'
        ) from error
    columns: dict[str, TableColumn] = {}
    try:
        with parquet.ParquetFile(path) as file:
            entries = [entry for entry in file.schema_arrow if not pa.types.is_nested(entry.type)]
            check_column_names([entry.name for entry in entries], str(path))
            for done, entry in enumerate(entries):
                values = file.read(columns=[entry.name]).column(entry.name)
                columns[entry.name] = _convert_arrow(entry.name, values, pa)
                progress(f"reading {path.name}", done + 1, len(entries))
            rows = int(file.metadata.num_rows)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    return Table(source=str(path), columns=columns, rows=rows, locate=lambda row: f"{path}: row {row}")


def _convert_arrow(name: str, values: Any, pa: Any) -> TableColumn:
    """Converts a column; decimals are numbers, dates are points in time, dictionaries the values they stand for."""
    arrow_type = values.type
    if pa.types.is_timestamp(arrow_type) or pa.types.is_date(arrow_type):
        # A year such as 9999, for what never ends, does not fit into nanoseconds: such a column is text, as in CSV.
        with suppress(pa.ArrowInvalid):
            # Missing ones become NaT, the smallest whole number, which no reader of times takes for one.
            return build_column(name, values.cast(pa.timestamp("ns")).to_numpy())
    if pa.types.is_boolean(arrow_type):
        cells = (None if value is None else str(value) for value in values.to_pylist())
        return build_text_column(name, cells, is_boolean=True)
    if pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type) or pa.types.is_decimal(arrow_type):
        return build_column(name, np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64))
    if pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type):
        return build_text_column(name, parse_texts(["" if cell is None else cell for cell in values.to_pylist()]))
    return build_column(name, np.array([*values.to_pylist(), None], dtype=object)[:-1])
