from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from otel_mlmon.backtest import terminal
from otel_mlmon.backtest.report import BacktestReport
from tests.support.tables import judged, normal


@pytest.fixture(scope="module")
def drifted() -> BacktestReport:
    data = np.concatenate([normal(5_000, seed=2), normal(5_200, seed=3, mean=1.0)])
    rows = np.arange(10_200)
    return judged({"x": normal(5_000, seed=1), "id": rows[:5_000]}, {"x": data, "id": rows, "new": rows})


def shown(report: BacktestReport, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table(drifted: BacktestReport) -> None:
    lines = [line.split() for line in shown(drifted, 120).splitlines()]
    heads = next(line for line in lines if line[:1] == ["stream"])
    assert heads == ["stream", "kind", "alarm", "onset", "before", "→", "now", "TV", "PSI", "φ", "finds", "state"]
    row = next(line for line in lines if line[:1] == ["x"])
    assert (row[:4], row[-1]) == (["x", "numeric", "5", "5"], "alarm")


def test_sentences_around_the_table(drifted: BacktestReport) -> None:
    text = " ".join(shown(drifted, 120).split())
    assert text.startswith("It would have alerted, first in window 5: x.")
    assert "data: 10 200 rows in 11 windows of 1 000 rows against ref; 1 per 10000 windows false alarms" in text
    assert "Left out: id (an identifier: 5000 different values in 5000 rows); new (not in the reference)." in text
    assert text.endswith("The last window, 10, has only 200 rows; it is judged too.")


def test_a_narrow_terminal_has_fewer_columns(drifted: BacktestReport) -> None:
    text = shown(drifted, 80)
    assert "PSI" not in text
    assert "kind" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_quiet_and_unknown_streams_are_told() -> None:
    quiet = judged({"x": normal(10_000, seed=1)}, {"x": normal(10_000, seed=2)})
    assert shown(quiet, 120).startswith("No alarm in 1 of 1 streams.\n")
    weak = shown(judged({"x": normal(5_000, seed=1)}, {"x": normal(2_000, seed=2)}), 120)
    assert weak.startswith("No alarm in 1 of 1 streams; 1 of them is weak: a usual drift could have been missed.")
    assert "x: weak: its reference holds only 5000 values" in weak
    short = shown(judged({"x": normal(5_000, seed=1)}, {"x": normal(30, seed=2)}), 120)
    assert short.startswith("Nothing could be judged.")
    assert "x: unknown: only 30 values are judged: no shift, however large, would be found" in short


def test_progress_is_shown_only_where_somebody_looks() -> None:
    for is_terminal in (False, True):
        file = io.StringIO()
        with terminal.show_progress(Console(file=file, force_terminal=is_terminal, width=80)) as tell:
            tell("reading", 1, 2)
            tell("reading", 2, 2)
        assert bool(file.getvalue()) is is_terminal
