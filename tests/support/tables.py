"""Builds tables of rows in memory, and reads the public data sets that a test environment may have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.backtest.column_streams import measure_design_effects
from otel_mlmon.backtest.columns import build_table_profile, choose_column_kinds
from otel_mlmon.backtest.replay_table import replay_table
from otel_mlmon.backtest.report import BacktestReport
from otel_mlmon.backtest.request import BacktestRequest, WindowLength
from otel_mlmon.table.table import Table, ignore_progress, open_memory_table

SETUP = "pip install --no-deps nannyml==0.13.1"


def table(columns: Mapping[str, NDArray[Any] | Sequence[object]]) -> Table:
    """Builds a table of columns."""
    return open_memory_table(columns, "memory")


def judged(
    reference: Mapping[str, NDArray[Any] | Sequence[object]],
    data: Mapping[str, NDArray[Any] | Sequence[object]],
    *,
    rows: int = 1000,
    **options: Any,
) -> BacktestReport:
    """Returns the backtest's report on columns in memory."""
    request = BacktestRequest(reference="ref", data="data", window=WindowLength(rows=rows), **options)
    return judged_tables(table(reference), table(data), request)


def judged_tables(reference: Table, data: Table, request: BacktestRequest) -> BacktestReport:
    """Returns the backtest's report on two tables; the files of `request` are names only."""
    choices = choose_column_kinds(reference, request.columns, timestamp=request.timestamp)
    profile = measure_design_effects(build_table_profile(reference, choices), reference, choices)
    return replay_table(request, data, profile, choices, ignore_progress)


def car_loan(part: str) -> Path:
    """NannyML's synthetic car loans, `reference` or `analysis`: data only, its package is never imported."""
    name = f"synthetic_car_loan_{part}.csv"
    try:
        paths = [Path(str(path.locate())) for path in files("nannyml") or () if path.name == name]
    except PackageNotFoundError:
        paths = []
    if not paths:
        message = f"NannyML's data is not here: {SETUP}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return paths[0]


def normal(rows: int, *, seed: int, mean: float = 0.0) -> NDArray[np.float64]:
    """Draws seeded normal values."""
    return np.random.default_rng(seed).normal(mean, 1.0, rows)
