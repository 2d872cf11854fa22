"""The result of a backtest in Python, which a notebook shows as a page with charts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from otel_mlmon.backtest.page import render_page
from otel_mlmon.backtest.report import BacktestReport, StreamReport
from otel_mlmon.backtest.terminal import print_report

WIDTH_CELLS = 120
"""The width of the report as text."""


@dataclass(frozen=True, slots=True, repr=False)
class BacktestResult:
    """The result of a backtest: printed it is a table, in a notebook a page with charts."""

    report: BacktestReport

    @property
    def alarmed(self) -> tuple[StreamReport, ...]:
        """The columns in which drift would have raised an alarm, the earliest alarm first."""
        return self.report.alarmed

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Sentences about what should have been judged and could not: required or absent columns, or all of them."""
        return self.report.unjudged

    def __getitem__(self, column: str) -> StreamReport:
        """Returns the part of the backtest's report about one column.

        Raises:
            KeyError: Neither table has it.
        """
        for stream in self.report.streams:
            if stream.stream == column:
                return stream
        raise KeyError(column)

    def to_dict(self) -> dict[str, Any]:
        """Returns the backtest's report as the JSON object that `otel-mlmon backtest --json` prints."""
        return self.report.to_dict()

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the backtest's report to a file as an HTML page, which needs no network.

        Raises:
            OSError: The file cannot be written.
        """
        Path(path).write_text(render_page(self.report), encoding="utf-8")

    def __repr__(self) -> str:
        console = Console(highlight=False, width=WIDTH_CELLS, no_color=True, force_terminal=False)
        with console.capture() as capture:
            print_report(self.report, console)
        return capture.get().rstrip("\n")

    def _repr_html_(self) -> str:
        """Returns the backtest's report as HTML in an `iframe`, in which a notebook shows it."""
        page = escape(render_page(self.report), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:720px;border:0" title="backtest"></iframe>'
