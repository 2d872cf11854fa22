"""From files to the report: which reader, and which way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otel_mlmon.backtest.kinds import Choice, choose
from otel_mlmon.backtest.profiles import choices_of, profile_of
from otel_mlmon.backtest.replay_otlp import report_of_otlp
from otel_mlmon.backtest.replay_table import report_of_rows
from otel_mlmon.backtest.report import Report
from otel_mlmon.backtest.request import Request
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.files import TABLE_SUFFIXES, read_table
from otel_mlmon.table.table import Progress, Table, no_progress

JSON_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")


def backtest(request: Request, progress: Progress = no_progress) -> Report:
    """The report of a reference file and a data file.

    Raises:
        ConfigurationError: What is asked is not possible, or the columns of the files do not fit; says where.
        DataError: A file of rows is not what it should be; says where.
        DependencyMissingError: A file is Parquet, and pyarrow is not installed.
        ProfileError: A reference profile is not one.
    """
    for path in (request.reference, request.data):
        if not path.is_file():
            raise ConfigurationError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    choices: Mapping[str, Choice] | None = None
    if request.reference.suffix.lower() in JSON_SUFFIXES:
        if request.columns:
            raise ConfigurationError("--columns: a reference profile says itself what its streams are")
        profile = Profile.read(request.reference)
    else:
        reference = _table(request.reference, progress)
        choices = choose(reference, request.columns, timestamp=request.timestamp)
        profile = profile_of(reference, choices)
    if request.data.suffix.lower() in JSON_SUFFIXES:
        return report_of_otlp(request, profile, progress)
    data = _table(request.data, progress)
    return report_of_rows(request, data, profile, choices or choices_of(profile, data), progress)


def backtest_tables(reference: Table, data: Table, request: Request, progress: Progress = no_progress) -> Report:
    """The same of rows in memory; the files of `request` are names only.

    Raises:
        ConfigurationError: What is asked is not possible.
    """
    choices = choose(reference, request.columns, timestamp=request.timestamp)
    return report_of_rows(request, data, profile_of(reference, choices), choices, progress)


def _table(path: Path, progress: Progress) -> Table:
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_table(path, progress)
    known = " ".join((*TABLE_SUFFIXES, *JSON_SUFFIXES))
    raise ConfigurationError(f"{path}: what it is must be told by its ending, one of {known}")
