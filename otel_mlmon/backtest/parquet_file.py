"""Parquet, by pyarrow, which is an extra: `pip install "otel-mlmon[parquet]"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from otel_mlmon.backtest.table import Column, Progress, Table, column_of
from otel_mlmon.errors import ConfigurationError, DependencyMissingError


def read_parquet(path: Path, progress: Progress) -> Table:
    """The file as columns; nested ones are left out.

    Raises:
        DependencyMissingError: pyarrow is not installed.
        ConfigurationError: It is not a Parquet file.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise DependencyMissingError(
            f'{path}: Parquet needs pyarrow: pip install "otel-mlmon[parquet]", or save the data as CSV'
        ) from error
    columns: dict[str, Column] = {}
    try:
        with parquet.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            for done, field in enumerate(fields):
                values = file.read(columns=[field.name]).column(field.name)
                columns[field.name] = _column(field.name, values, pa)
                progress(f"reading {path.name}", done + 1, len(fields))
            rows = int(file.metadata.num_rows)
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"{path}: not a Parquet file: {error}") from error
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
    return column_of(name, np.array([*values.to_pylist(), None], dtype=object)[:-1])
