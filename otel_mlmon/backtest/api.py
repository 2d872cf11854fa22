"""Runs a backtest of two tables, files or in memory, for the command line and for Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from otel_mlmon.backtest.accuracy import parse_accuracy_bounds
from otel_mlmon.backtest.column_streams import measure_design_effects
from otel_mlmon.backtest.columns import (
    ColumnChoice,
    ColumnKind,
    build_table_profile,
    choose_column_kinds,
    match_columns,
)
from otel_mlmon.backtest.replay_otlp import replay_otlp
from otel_mlmon.backtest.replay_table import replay_table
from otel_mlmon.backtest.report import BacktestReport
from otel_mlmon.backtest.request import (
    BacktestRequest,
    parse_decimal_separator,
    parse_false_alarm_budget,
    parse_tolerance,
    parse_window_length,
)
from otel_mlmon.backtest.result import BacktestResult
from otel_mlmon.errors import ConfigurationError, DataError
from otel_mlmon.reference.profile import FORMAT, Profile
from otel_mlmon.table.files import find_format_suffix, find_table_files
from otel_mlmon.table.read import read_table
from otel_mlmon.table.table import ProgressCallback, Table, ignore_progress, open_memory_table

JSON_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")
PEEK_BYTES: Final = 1 << 16

_OTLP: Final = re.compile(rb'"resource_?(metrics|logs|spans)"', re.IGNORECASE)


def run(
    reference: object,
    data: object,
    *,
    window: int | str | None = None,
    columns: Mapping[str, ColumnKind] | None = None,
    timestamp: str | None = None,
    tolerance: float | str | None = None,
    false_alarms: int | str | None = None,
    require: Sequence[str] = (),
    min_accuracy: float | str | None = None,
    accuracy_drop: float | str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> BacktestResult:
    """Reports whether the processor would have raised an alarm on data, when, and about which columns.

    Args:
        reference: What is normal: a table, or a reference profile as a file or a `Profile`. A table is a path (a file,
            a folder or a pattern), an Arrow table, a DataFrame of pandas or polars, or anything that hands out an
            Arrow stream.
        data: The table to judge, or a file of OTLP metrics as the Collector's file exporter writes it.
        window: A number of rows, 1,000 by default, or a time such as `1h`, which needs `timestamp`.
        columns: The kinds of columns, where the inferred ones are wrong.
        timestamp: The column with the time of each row.
        tolerance: The share of the values that may change without being drift, such as 0.05 or `5%`.
        false_alarms: How many are accepted over all columns: `1 per 30d`, or one in a number of windows.
        require: Columns that have to be judged; `BacktestResult.unjudged` has those that could not be.
        min_accuracy: The lowest accuracy that is tolerated, such as 0.9 or `90%`. It is estimated from confidences,
            which needs a reference profile with labelled data; it is no measurement.
        accuracy_drop: By how much it may be below that of the labelled data, such as 0.03 or `3%`.
        encoding: Of CSV files without a byte order mark: utf-8, utf-16 or latin-1.
        decimal: What separates the fraction in texts, `.` or `,`; seen from the first rows by default.
        progress: Called with the name of a part of the work, what is done of it, and how much there is.

    Raises:
        ConfigurationError: An argument cannot be used, or the columns do not fit; names the place.
        DataError: A table cannot be read; names the place.
        DependencyMissingError: DuckDB or Arrow is not installed.
        ProfileError: A reference profile cannot be read.
    """
    request = build_backtest_request(
        reference, data, window=window, columns=columns, timestamp=timestamp, tolerance=tolerance,
        false_alarms=false_alarms, require=require, min_accuracy=min_accuracy,
        accuracy_drop=accuracy_drop, encoding=encoding, decimal=decimal,
    )  # fmt: skip
    return BacktestResult(
        run_backtest(
            request,
            progress,
            reference=None if _is_file_path(reference) else reference,
            data=None if _is_file_path(data) else data,
        )
    )


def build_backtest_request(
    reference: object,
    data: object,
    *,
    window: int | str | None = None,
    columns: Mapping[str, ColumnKind] | None = None,
    timestamp: str | None = None,
    tolerance: float | str | None = None,
    false_alarms: int | str | None = None,
    require: Sequence[str] = (),
    min_accuracy: float | str | None = None,
    accuracy_drop: float | str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
) -> BacktestRequest:
    """Builds the request of a backtest from the arguments of `run`, and checks them.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    return BacktestRequest(
        reference=_name_data_source(reference, "reference"),
        data=_name_data_source(data, "data"),
        window=None if window is None else parse_window_length(str(window)),
        columns=dict(columns or {}),
        timestamp=timestamp,
        tolerance=None if tolerance is None else parse_tolerance(str(tolerance)),
        budget=None if false_alarms is None else parse_false_alarm_budget(str(false_alarms)),
        required=tuple(require),
        accuracy=parse_accuracy_bounds(min_accuracy, accuracy_drop),
        encoding=encoding,
        decimal=parse_decimal_separator(decimal),
    )


def run_backtest(
    request: BacktestRequest,
    progress: ProgressCallback = ignore_progress,
    *,
    reference: object = None,
    data: object = None,
) -> BacktestReport:
    """Runs a backtest: judges data against a reference, given as objects or as the files that the request names.

    Raises:
        ConfigurationError: The request cannot be met, or the columns do not fit; names the place.
        DataError: A table cannot be read; names the place.
        DependencyMissingError: DuckDB or Arrow is not installed.
        ProfileError: A reference profile cannot be read.
    """
    profile, choices = load_backtest_reference(request, progress, reference)
    if data is None and _is_telemetry_file(request.data):
        return add_required_columns(request, replay_otlp(request, profile, progress))
    table = _open_table(request, data, request.data)
    choices = choices or match_columns(profile, table)
    check_common_columns(request, table, choices)
    return add_required_columns(request, replay_table(request, table, profile, choices, progress))


def load_backtest_reference(
    request: BacktestRequest, progress: ProgressCallback, reference: object = None
) -> tuple[Profile, dict[str, ColumnChoice]]:
    """Loads the reference of a backtest: its profile, and the kinds of its columns if it was a table.

    Raises:
        ConfigurationError: Columns do not fit; names the place.
        DataError: A table cannot be read.
        ProfileError: A profile cannot be read.
    """
    if isinstance(reference, Profile) or (reference is None and _is_profile_file(request.reference)):
        if request.columns:
            raise ConfigurationError("--columns: a reference profile already says what its streams are")
        return reference if isinstance(reference, Profile) else Profile.read_file(request.reference), {}
    table = _open_table(request, reference, request.reference)
    choices = choose_column_kinds(table, request.columns, timestamp=request.timestamp, progress=progress)
    return measure_design_effects(build_table_profile(table, choices, progress), table, choices), choices


def _open_table(request: BacktestRequest, content: object, source: str) -> Table:
    if content is not None:
        return open_memory_table(content, source).with_decimal_separator(request.decimal)
    return read_table(source, encoding=request.encoding, decimal=request.decimal)


def check_common_columns(request: BacktestRequest, table: Table, choices: Mapping[str, ColumnChoice]) -> None:
    """Checks that the data and the reference of a backtest have at least one column in common."""
    judged = [name for name, choice in choices.items() if choice.kind != "ignore"]
    if judged and not set(choices) & set(table.columns):
        raise ConfigurationError(
            f"{table.source}: has none of the columns of {request.reference}: it has "
            f"{_shorten_name_list(list(table.columns))}, and not {_shorten_name_list(judged)}"
        )
    absent = [name for name in request.required if name not in choices and name not in table.columns]
    if absent:
        raise ConfigurationError(f"--require: there is no column {' or '.join(map(repr, absent))}")


def add_required_columns(request: BacktestRequest, report: BacktestReport) -> BacktestReport:
    """Returns a backtest's report that also demands that certain columns were judged.

    Raises:
        ConfigurationError: One is in neither table.
    """
    names = {stream.stream for stream in report.streams}
    absent = [name for name in request.required if name not in names]
    if absent:
        raise ConfigurationError(f"--require: there is no column {' or '.join(map(repr, absent))}")
    return replace(report, required=request.required)


def _is_profile_file(path: str) -> bool:
    """Returns whether a JSON file is a reference profile, even a faulty one, and not rows of data."""
    if find_format_suffix(path) != ".json":
        return False
    content = _read_file_beginning(path)
    return FORMAT.encode() in content or not _has_data_rows(content)


def _is_telemetry_file(path: str) -> bool:
    """Returns whether a JSON file is telemetry in OTLP, and not rows of data."""
    if find_format_suffix(path) not in JSON_SUFFIXES:
        return False
    content = _read_file_beginning(path)
    return _OTLP.search(content) is not None or not _has_data_rows(content)


def _has_data_rows(content: bytes) -> bool:
    """Returns whether a JSON file begins as rows of data do: with an array, or an object on each line."""
    lines = content.split(b"\n", 1)
    if content.lstrip().startswith(b"["):
        return True
    try:
        row = json.loads(lines[0])
    except ValueError:
        return len(content) == PEEK_BYTES and len(lines) == 1  # a line that is too long to say
    return isinstance(row, dict) and bool(row)


def _read_file_beginning(path: str) -> bytes:
    """Reads the beginning of a data file, or of the first file that a pattern or folder means."""
    files = find_table_files(path)
    try:
        with files.open_file(files.files[0].path) as stream:
            return stream.read(PEEK_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error


def _is_file_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))


def _name_data_source(value: Any, part: str) -> str:
    if value is None:
        raise ConfigurationError(f"{part}: None is no table")
    return os.fspath(value) if _is_file_path(value) else f"{part} ({type(value).__module__.split('.')[0]})"


def _shorten_name_list(names: list[str], limit: int = 5) -> str:
    return ", ".join(map(repr, names[:limit])) + (", …" if len(names) > limit else "")
