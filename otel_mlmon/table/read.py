"""Reads tables from CSV, Parquet and JSON-lines files with DuckDB, one file after the other, in bounded memory.

Every file is a query of its own, so that a fault names its file, and files of one table may differ in the order of
their columns. All cells of CSV and JSON are handed on as text: what they mean is decided by `cells`, which DuckDB's own
sniffing, from the first rows, could not do for the last. No extension is installed or loaded at run time.

DuckDB and Arrow are an extra, since they weigh 180 MB: `pip install "otel-mlmon[backtest]"`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final

from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.table.csv import MIXED_LINES, CsvDialect, detect_csv_dialect, explain_csv_fault, find_line_of_row
from otel_mlmon.table.files import TableFile, TableFileSet, find_table_files
from otel_mlmon.table.table import (
    ROWS_A_BATCH,
    Table,
    TableColumn,
    check_column_names,
    describe_arrow_column,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_LIMIT: Final = "400MB"
"""The memory that DuckDB may use; what it sorts beyond goes to the disk."""

_NESTED: Final = re.compile(r"STRUCT|MAP|UNION|\[\d*\]$")
_INSTALL: Final = 'needs DuckDB and Arrow: pip install "otel-mlmon[backtest]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFileReader:
    """Describes one opened file of a table: its columns, and the DuckDB query that reads it."""

    file: TableFile
    columns: tuple[TableColumn, ...]
    """The names as they stand in the file, those of its path after them."""
    query: str
    """The table function of DuckDB whose columns are those of the file, in their order."""
    rows: int
    """The number of rows; an estimate for text."""
    dialect: CsvDialect | None = None


@dataclass(slots=True)
class FileRowCounts:
    """Counts the rows of each file of a table as they are read, to tell later which file a row is from."""

    by_file: list[int] = field(default_factory=list)


def read_table(location: str, *, encoding: str | None = None, decimal: str | None = None) -> Table:
    """Opens a table whose rows are in one file, in all files of a folder, or in those that match a pattern.

    Args:
        location: As `find_table_files` has it.
        encoding: Of CSV without a byte order mark, one of `ENCODINGS`; UTF-8 by default.
        decimal: What separates fractions in texts, a point or a comma; by default seen from the first rows.

    Raises:
        DataError: A file cannot be read, or its columns are not those of the first one; names the place.
        DependencyMissingError: DuckDB or Arrow is not installed.
    """
    files = find_table_files(location)
    connection = open_duckdb(files.filesystem)
    readers: list[TableFileReader] = []
    notes: list[str] = []
    for file in files.files:
        try:
            if len(files.files) > 1 and _is_empty_file(files, file):
                notes.append(f"{file.path} is empty.")
                continue
            readers.append(_open_table_file(connection, files, file, encoding))
        except OSError as error:
            raise DataError(f"{file.path}: {os.strerror(error.errno) if error.errno else error}") from error
    if not readers:
        raise DataError(f"{location}: all files are empty")
    columns = _join_file_columns(readers)
    counts = FileRowCounts()

    def scan_columns(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        counts.by_file.clear()
        for reader in readers:
            counts.by_file.append(0)
            for batch in _scan_table_file(connection, files, reader, names):
                counts.by_file[-1] += batch.num_rows
                yield batch

    return Table(
        source=location,
        columns=columns,
        rows=sum(reader.rows for reader in readers),
        scan=scan_columns,
        locate=lambda row: _locate_row(files, readers, counts, row),
        notes=tuple(notes),
    ).with_decimal_separator(decimal)


def open_duckdb(filesystem: Any = None) -> duckdb.DuckDBPyConnection:
    """Opens a DuckDB database in memory, which installs no extensions and limits its own memory.

    Raises:
        DependencyMissingError: DuckDB or Arrow is not installed.
    """
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401 - what DuckDB hands rows over in
    except ImportError as error:
        raise DependencyMissingError(f"A table {_INSTALL}") from error
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": tempfile.gettempdir(),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    if filesystem is not None:
        connection.register_filesystem(filesystem)
    return connection


def stream_query_batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """Runs a DuckDB query and yields its rows as Arrow batches, at most `ROWS_A_BATCH` rows at a time."""
    relation: Any = connection.sql(query)
    # DuckDB 2 has another name for it, and warns of the old one.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    for batch in read(ROWS_A_BATCH):
        yield from (batch.slice(start, ROWS_A_BATCH) for start in range(0, batch.num_rows, ROWS_A_BATCH))


def _open_table_file(
    connection: duckdb.DuckDBPyConnection, files: TableFileSet, file: TableFile, encoding: str | None
) -> TableFileReader:
    if file.format == "csv":
        reader = _open_csv_file(files, file, encoding)
    elif file.format == "parquet":
        reader = _open_parquet_file(files, file)
    else:
        reader = _open_json_file(connection, files, file)
    names = [column.name for column in reader.columns]
    check_column_names([*names, *file.partitions], file.path)
    return reader


def _open_csv_file(files: TableFileSet, file: TableFile, encoding: str | None) -> TableFileReader:
    dialect = detect_csv_dialect(files, file, encoding)
    types = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(dialect.names)))
    options = {
        "delim": dialect.delimiter,
        "quote": dialect.quote,
        "escape": dialect.escape,
        "encoding": dialect.encoding,
        "compression": file.compression,
    }
    rest = ", ".join(f"{name} = {_quote_sql_text(value)}" for name, value in options.items())
    query = (
        f"read_csv({_quote_sql_text(_escape_path_pattern(file.path))}, auto_detect = false, header = true, "
        f"skip = {dialect.skipped_lines}, columns = {{{types}}}, {rest})"
    )
    return TableFileReader(file=file, columns=dialect.columns, query=query, rows=dialect.rows, dialect=dialect)


def _open_parquet_file(files: TableFileSet, file: TableFile) -> TableFileReader:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with files.open_file(file.path) as stream:
            metadata = parquet.ParquetFile(stream).metadata
            schema = metadata.schema.to_arrow_schema()
    except pa.ArrowException as error:
        raise DataError(f"{file.path}: not a Parquet file: {error}") from error
    columns = tuple(describe_arrow_column(entry.name, entry.type) for entry in schema)
    query = f"read_parquet({_quote_sql_text(_escape_path_pattern(file.path))}, hive_partitioning = false)"
    return TableFileReader(file=file, columns=columns, query=query, rows=metadata.num_rows)


def _open_json_file(connection: duckdb.DuckDBPyConnection, files: TableFileSet, file: TableFile) -> TableFileReader:
    import duckdb

    source = f"{_quote_sql_text(_escape_path_pattern(file.path))}, compression = {_quote_sql_text(file.compression)}"
    try:
        types = dict(_describe_query_columns(connection, f"read_json({source}, format = 'auto', sample_size = 20480)"))
        names = [
            name
            for name, _ in _describe_query_columns(
                connection, f"read_json({source}, maximum_depth = 1, sample_size = -1)"
            )
        ]
    except duckdb.Error as error:
        raise _explain_json_fault(files, file, str(error)) from error
    if names == ["json"]:
        raise DataError(f"{file.path}: the lines are no objects: no column names")
    columns = tuple(
        TableColumn(name=name, kind="unreadable" if _NESTED.search(types.get(name, "")) else "text", type_name="nested")
        for name in names
    )
    declared = ", ".join(f"{_quote_sql_text(name)}: 'VARCHAR'" for name in names)
    query = f"read_json({source}, columns = {{{declared}}})"
    with files.open_file(file.path) as stream:
        rows = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return TableFileReader(file=file, columns=columns, query=query, rows=rows)


def _describe_query_columns(connection: duckdb.DuckDBPyConnection, function: str) -> list[tuple[str, str]]:
    rows = connection.execute(f"DESCRIBE SELECT * FROM {function}").fetchall()  # noqa: S608 - quoted above
    return [(str(row[0]), str(row[1])) for row in rows]


def _explain_json_fault(files: TableFileSet, file: TableFile, message: str) -> DataError:
    if file.compression == "none":
        with files.open_file(file.path) as stream:
            faults = ((number, _find_json_fault(line)) for number, line in enumerate(stream, start=1))
            number, fault = next(((number, fault) for number, fault in faults if fault), (0, ""))
        if fault:
            return DataError(f"{file.path}:{number}: not JSON: {fault}")
    return DataError(f"{file.path}: not JSON lines: {message.splitlines()[0]}")


def _find_json_fault(line: bytes) -> str:
    try:
        if line.strip() and not line.lstrip().startswith(b"["):
            json.loads(line)
    except ValueError as error:
        return str(error)
    return ""


def _join_file_columns(readers: Sequence[TableFileReader]) -> dict[str, TableColumn]:
    """Returns the columns that all files of a table have, by name; their types may differ.

    Raises:
        DataError: A file has other columns than the first one.
    """
    first = readers[0]
    columns = {column.name: column for column in first.columns}
    for reader in readers[1:]:
        own = {column.name: column for column in reader.columns}
        for name in {**columns, **own}:
            if name not in own or name not in columns:
                has, lacks = (first, reader) if name in columns else (reader, first)
                raise DataError(f"{lacks.file.path}: has no column {name!r}, which {has.file.path} has")
            kinds = {columns[name].kind, own[name].kind}
            is_other = len(kinds) > 1 and kinds != {"number", "text"}
            is_null = "null" in (own[name].type_name, columns[name].type_name)
            if (is_other and not is_null) or own[name].decimal != columns[name].decimal:
                columns[name] = _merge_column_types(columns[name], own[name], reader)
    partitions = {name: "text" for reader in readers for name in reader.file.partitions}
    columns |= {name: TableColumn(name=name, kind="text", type_name="folder") for name in partitions}
    return columns


def _merge_column_types(column: TableColumn, own: TableColumn, reader: TableFileReader) -> TableColumn:
    if column.kind == own.kind == "text":
        return own if own.decimal == "," else column  # whole numbers in one file say nothing
    raise DataError(
        f"{reader.file.path}: column {own.name!r} is {own.type_name or own.kind}, and in the files before "
        f"{column.type_name or column.kind}"
    )


def _scan_table_file(
    connection: duckdb.DuckDBPyConnection, files: TableFileSet, reader: TableFileReader, names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one file of a table as Arrow batches with the given columns, in order."""
    import duckdb
    import pyarrow as pa

    positions = {column.name: position for position, column in enumerate(reader.columns, start=1)}
    constants: Mapping[str, str] = reader.file.partitions
    parts = [
        _quote_sql_text(constants[name])
        if name in constants
        else f"#{positions[name]}"
        if name in positions
        else "NULL"
        for name in names
    ]
    query = f"SELECT {', '.join(parts) or '1'} FROM {reader.query}"  # noqa: S608 - names are positions, texts quoted
    rows = 0
    try:
        for batch in stream_query_batches(connection.cursor(), query):
            rows += batch.num_rows
            yield pa.RecordBatch.from_arrays(batch.columns, names=list(names) or ["rows"])
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's streams hand a fault on as an OSError
        raise _explain_read_fault(files, reader, str(error)) from error
    if reader.dialect is not None and rows < reader.dialect.min_rows:
        raise DataError(f"{reader.file.path}: {MIXED_LINES}")


def _explain_read_fault(files: TableFileSet, reader: TableFileReader, message: str) -> DataError:
    if "memory" in message.lower() and "out of" in message.lower():
        return DataError(f"{reader.file.path}: {message.splitlines()[0]}")
    if reader.dialect is not None:
        return explain_csv_fault(files, reader.file, reader.dialect, message)
    if reader.file.format == "json":
        return _explain_json_fault(files, reader.file, message)
    return DataError(f"{reader.file.path}: damaged: {message.splitlines()[0]}")


def _locate_row(files: TableFileSet, readers: Sequence[TableFileReader], counts: FileRowCounts, row: int) -> str:
    """Returns where a row of a table stands, as a file and a line or row number: `ref.csv:17`."""
    starts = [0, *accumulate(counts.by_file)]
    index = max(position for position, start in enumerate(starts[:-1] or [0]) if start <= row)
    reader, row = readers[index], row - starts[index]
    if reader.dialect is not None:
        return f"{reader.file.path}:{find_line_of_row(files, reader.file, reader.dialect, row)}"
    if reader.file.format == "json" and reader.file.compression == "none":
        with files.open_file(reader.file.path) as stream:
            lines = (number for number, line in enumerate(stream, start=1) if line.strip())
            return f"{reader.file.path}:{next(islice(lines, row, None), 1)}"
    return f"{reader.file.path}: row {row}"


def _is_empty_file(files: TableFileSet, file: TableFile) -> bool:
    with files.open_file(file.path) as stream:
        return not stream.read(1)


def _quote_sql_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _escape_path_pattern(path: str) -> str:
    """Escapes a path, so that DuckDB does not read `*`, `?` and `[` in it as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", path)
