"""Parquet, by pyarrow, which is an extra, since it weighs 120 MB: `pip install "otel-mlmon[parquet]"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.table.cells import words_in
from otel_mlmon.table.table import Column, Progress, Table, column_of, demand_different, no_progress


def read_parquet(path: Path, progress: Progress = no_progress) -> Table:
    """The file as columns; nested ones are left out.

    Raises:
        DependencyMissingError: pyarrow is not installed.
        DataError: It is not a Parquet file.
        OSError: It cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyMissingError(
            f'{path}: Parquet needs pyarrow: pip install "otel-mlmon[parquet]", or save the data as CSV'
        ) from error
    columns: dict[str, Column] = {}
    try:
        with parquet.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            demand_different([field.name for field in fields], str(path))
            for done, field in enumerate(fields):
                values = file.read(columns=[field.name]).column(field.name)
                columns[field.name] = _column(field.name, values, pa)
                progress(f"reading {path.name}", done + 1, len(fields))
            rows = int(file.metadata.num_rows)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    return Table(source=str(path), columns=columns, rows=rows, place=lambda row: f"{path}: row {row}")


def _column(name: str, values: Any, pa: Any) -> Column:
    """Of an arrow column; decimals are numbers, dates are points in time, dictionaries what they stand for."""
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # Missing ones become NaT, the smallest whole number, which no reader of times takes for one.
        return column_of(name, values.cast(pa.timestamp("ns")).to_numpy())
    if pa.types.is_boolean(kind):
        words = tuple(None if value is None else str(value) for value in values.to_pylist())
        return Column(name=name, words=words, first_word=0, is_truth=True)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column_of(name, np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64))
    cells = values.to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = tuple(words_in(["" if cell is None else cell for cell in cells]))
        first = next((row for row, word in enumerate(words) if word is not None), 0)
        return Column(name=name, words=words, first_word=first)
    return column_of(name, np.array([*cells, None], dtype=object)[:-1])
