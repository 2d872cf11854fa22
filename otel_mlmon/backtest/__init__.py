"""Backtests: would the processor have raised an alarm on data that exists already, when, and about which streams?

In: a reference (a table or a profile) and data (a table, or OTLP as the Collector's file exporter writes it). Rows are
cut into windows and counted over the bins of the reference, here or by Spark; from there on the processor's own steps
run: its evidence, its alarm line, its alerts. Out: `BacktestReport`, one entry a stream, which `page` and `terminal`
show.

    import otel_mlmon.backtest

    otel_mlmon.backtest.run("training.csv", last_month, window="1h", timestamp="at")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_mlmon.backtest.api import run
    from otel_mlmon.backtest.result import BacktestResult

__all__ = ["BacktestResult", "run"]

_MODULES = {"BacktestResult": "otel_mlmon.backtest.result", "run": "otel_mlmon.backtest.api"}


def __getattr__(name: str) -> Any:
    """Imports the functions for backtests when they are first used, since counting on Spark needs none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
