from __future__ import annotations

import pytest

from otel_mlmon.backtest.request import (
    FalseAlarmBudget,
    WindowLength,
    parse_false_alarm_budget,
    parse_window_length,
)
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import FalseAlarms


@pytest.mark.parametrize(
    ("text", "length"),
    [("1000", WindowLength(rows=1000)), ("1h", WindowLength(time_s=3600.0)), ("1h30m", WindowLength(time_s=5400.0))],
)
def test_a_length(text: str, length: WindowLength) -> None:
    assert parse_window_length(text) == length


@pytest.mark.parametrize("text", ["0", "-5", "soon", "", "1.5", "0s", "0.1ns", "36501d", "9999999999999d"])
def test_no_length(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--window"):
        parse_window_length(text)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("1 per 30d", FalseAlarmBudget(rate=FalseAlarms(count=1.0, per_s=30 * 86400.0))),
        ("5000", FalseAlarmBudget(windows=5000)),
        ("5000 windows", FalseAlarmBudget(windows=5000)),
        ("1 per 5000 windows", FalseAlarmBudget(windows=5000)),
    ],
)
def test_a_budget(text: str, budget: FalseAlarmBudget) -> None:
    assert parse_false_alarm_budget(text) == budget
    assert parse_false_alarm_budget(budget.display_text) == budget


@pytest.mark.parametrize("text", ["0", "never", "1 per", "0 per 1d"])
def test_no_budget(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--false-alarms"):
        parse_false_alarm_budget(text)
