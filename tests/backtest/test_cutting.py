from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.backtest.cutting import Budget, Cut, WindowLength, cut_rows, cut_time, read_budget, read_length
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import FalseAlarms

SECOND_NS = 10**9


def test_rows_with_what_is_left() -> None:
    assert cut_rows(5, 2) == [
        Cut(index=0, start=0, end=2),
        Cut(index=1, start=2, end=4),
        Cut(index=2, start=4, end=5),
    ]
    assert cut_rows(0, 2) == []


def test_time_with_gaps() -> None:
    times = np.array([100, 109, 110, 150], dtype=np.int64) * SECOND_NS
    assert cut_time(times, 10.0) == [
        Cut(index=0, start=0, end=2),
        Cut(index=1, start=2, end=3),
        Cut(index=5, start=3, end=4),
    ]


def test_windows_without_end_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="makes more than 1000000 windows"):
        cut_time(np.array([0, 10**18], dtype=np.int64), 0.001)


@pytest.mark.parametrize(
    ("text", "length"),
    [("1000", WindowLength(rows=1000)), ("1h", WindowLength(time_s=3600.0)), ("1h30m", WindowLength(time_s=5400.0))],
)
def test_a_length(text: str, length: WindowLength) -> None:
    assert read_length(text) == length


@pytest.mark.parametrize("text", ["0", "-5", "soon", "", "1.5", "0s", "0.1ns", "36501d", "9999999999999d"])
def test_no_length(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--window"):
        read_length(text)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("1 per 30d", Budget(rate=FalseAlarms(count=1.0, per_s=30 * 86400.0))),
        ("5000", Budget(windows=5000)),
        ("5000 windows", Budget(windows=5000)),
        ("1 per 5000 windows", Budget(windows=5000)),
    ],
)
def test_a_budget(text: str, budget: Budget) -> None:
    assert read_budget(text) == budget
    assert read_budget(budget.text) == budget


@pytest.mark.parametrize("text", ["0", "never", "1 per", "0 per 1d"])
def test_no_budget(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--false-alarms"):
        read_budget(text)
