"""Finds the column with the time of each row of a table, and sorts the rows by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from otel_mlmon.backtest.counting import WindowCountPlan
from otel_mlmon.backtest.summary import SAMPLE_CELLS
from otel_mlmon.backtest.times import SAMPLE_TEXTS, are_times, find_time_unit_ns, is_time_name, parse_times
from otel_mlmon.table.cells import is_missing_value, is_text_type, parse_cell_numbers
from otel_mlmon.table.read import open_duckdb, stream_query_batches
from otel_mlmon.table.table import Table, TableColumn

if TYPE_CHECKING:
    import pyarrow as pa


def find_time_column(table: Table) -> TableColumn | None:
    """Returns the only column of a table that holds points in time; None if there is none, or several."""
    candidates = [
        column
        for column in table.columns.values()
        if column.kind == "time" or (column.kind == "number" and is_time_name(column.name)) or column.kind == "text"
    ]
    sample = _read_first_batch(table, [column.name for column in candidates])
    times = [column for column in candidates if column.kind == "time" or _has_times(column, sample.get(column.name))]
    return times[0] if len(times) == 1 else None


def _read_first_batch(table: Table, names: Sequence[str]) -> dict[str, pa.Array]:
    batch = next(iter(table.scan(names)), None) if names else None
    return {} if batch is None else dict(zip(names, batch.columns, strict=True))


def _has_times(column: TableColumn, array: pa.Array | None) -> bool:
    if array is None:
        return False
    if is_text_type(array.type):
        cells = array.slice(0, SAMPLE_CELLS).to_pylist()
        texts = [cell for cell in cells if cell is not None and not is_missing_value(cell)][:SAMPLE_TEXTS]
        if are_times(texts):
            return True
        if not is_time_name(column.name):
            return False
    return _find_column_time_unit(array, column) is not None


def find_time_unit(table: Table, column: TableColumn) -> int | None:
    """Returns the unit of a column of numeric times, in nanoseconds, from its first values; None if none fits."""
    sample = _read_first_batch(table, [column.name])
    return _find_column_time_unit(sample[column.name], column) if sample and column.kind in ("number", "text") else None


def _find_column_time_unit(array: pa.Array, column: TableColumn) -> int | None:
    values, first_text = parse_cell_numbers(array, column.decimal)
    present = values[np.isfinite(values)]
    if first_text >= 0 or not present.size:
        return None
    return find_time_unit_ns(float(present.min()), float(present.max()))


def sort_rows_by_time(plan: WindowCountPlan, table: Table) -> Table:
    """Returns a table with its rows sorted by time; rows of the same time keep their order."""
    if plan.time is None:
        return table
    import pyarrow as pa

    time, names = plan.time, plan.column_names

    def scan_timed_batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in table.scan(names):
            times_ns = parse_times(batch.column(names.index(time.name)), time, plan.unit_ns).values_ns
            columns = [*batch.columns, pa.array(times_ns), pa.array(np.arange(row, row + len(batch)))]
            yield pa.RecordBatch.from_arrays(columns, names=[f"c{index}" for index in range(len(columns))])
            row += len(batch)

    def scan_columns(_names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        connection = open_duckdb()
        batches = scan_timed_batches()
        first = next(batches)
        reader = pa.RecordBatchReader.from_batches(first.schema, _chain_batches(first, batches))
        connection.register("unsorted", reader)
        columns = ", ".join(f"c{index}" for index in range(len(names)))
        query = f"SELECT {columns} FROM unsorted ORDER BY c{len(names)}, c{len(names) + 1}"  # noqa: S608 - our names
        for batch in stream_query_batches(connection, query):
            yield pa.RecordBatch.from_arrays(batch.columns, names=names)

    return replace(table, scan=scan_columns)


def _chain_batches(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others
