"""A table from a file, by the file's ending."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from otel_mlmon.errors import DataError
from otel_mlmon.table.csv_file import read_csv
from otel_mlmon.table.parquet_file import read_parquet
from otel_mlmon.table.table import Progress, Table, no_progress

CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES: Final = (".parquet", ".pq")
TABLE_SUFFIXES: Final = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)


def read_table(path: Path, progress: Progress = no_progress, *, keeps_text: bool = False) -> Table:
    """The table in a file whose ending, in any case, is one of `TABLE_SUFFIXES`.

    Args:
        path: The file.
        progress: Told of each part.
        keeps_text: As `read_csv` has it; Parquet says itself what is text.

    Raises:
        DataError: It cannot be read, or is not what its ending says; says where.
        DependencyMissingError: It is Parquet, and pyarrow is not installed.
    """
    try:
        if path.suffix.lower() in PARQUET_SUFFIXES:
            return read_parquet(path, progress)
        return read_csv(path, progress, keeps_text=keeps_text)
    except OSError as error:
        # pyarrow's own words name the file once more.
        raise DataError(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error
