"""The backtest of two files, by their endings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otel_mlmon.backtest.columns import ColumnChoice, build_profile, choose_columns, match_columns
from otel_mlmon.backtest.replay_otlp import replay_otlp
from otel_mlmon.backtest.replay_table import replay_table
from otel_mlmon.backtest.report import BacktestReport
from otel_mlmon.backtest.request import BacktestRequest
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.read import TABLE_SUFFIXES, read_table
from otel_mlmon.table.table import ProgressCallback, Table, ignore_progress

JSON_SUFFIXES: Final = (".json", ".jsonl", ".ndjson")


def run_backtest(request: BacktestRequest, progress: ProgressCallback = ignore_progress) -> BacktestReport:
    """Judges a data file against a reference file.

    Raises:
        ConfigurationError: The request cannot be met, or the columns of the files do not fit; names the place.
        DataError: A table cannot be read; names the place.
        DependencyMissingError: A file is Parquet, and pyarrow is not installed.
        ProfileError: A reference profile cannot be read.
    """
    for path in (request.reference, request.data):
        if not path.is_file():
            raise ConfigurationError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    choices: Mapping[str, ColumnChoice] | None = None
    if request.reference.suffix.lower() in JSON_SUFFIXES:
        if request.columns:
            raise ConfigurationError("--columns: a reference profile already says what its streams are")
        profile = Profile.read(request.reference)
    else:
        reference = _read_table(request.reference, progress)
        choices = choose_columns(reference, request.columns, timestamp=request.timestamp)
        profile = build_profile(reference, choices)
    if request.data.suffix.lower() in JSON_SUFFIXES:
        return replay_otlp(request, profile, progress)
    data = _read_table(request.data, progress)
    return replay_table(request, data, profile, choices or match_columns(profile, data), progress)


def _read_table(path: Path, progress: ProgressCallback) -> Table:
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_table(path, progress)
    suffixes = " ".join((*TABLE_SUFFIXES, *JSON_SUFFIXES))
    raise ConfigurationError(f"{path}: the file name must end with one of {suffixes}")
