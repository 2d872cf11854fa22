"""The request of a backtest: its files, windows and columns, and how many false alarms are accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_mlmon.backtest.accuracy import NO_BOUNDS, AccuracyBounds
from otel_mlmon.backtest.columns import ColumnKind
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import (
    FalseAlarms,
    format_duration,
    format_false_alarms,
    parse_duration,
    parse_false_alarms,
    parse_ratio,
)

MAX_WINDOW_S: Final = 36_500 * 86_400.0
"""The longest window in seconds: three times as much does not fit into nanoseconds of 64 bits."""

_WINDOW_BUDGET: Final = re.compile(r"(?:1\s+per\s+)?(\d+)(?:\s*windows?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLength:
    """The length of a window of a backtest, in rows or in seconds."""

    rows: int = 0
    time_s: float = 0.0

    @property
    def display_text(self) -> str:
        """The length of a window as text for people: `1 000 rows`, `1h`."""
        return f"{self.rows:,} rows".replace(",", " ") if self.rows else format_duration(self.time_s)


DEFAULT_WINDOW: Final = WindowLength(rows=1000)
DEFAULT_OTLP_WINDOW: Final = WindowLength(time_s=10.0)
"""The length of the processor's panes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarmBudget:
    """How many false alarms a backtest accepts: one in a number of windows, or a rate in time."""

    windows: int = 0
    rate: FalseAlarms | None = None

    @property
    def display_text(self) -> str:
        """The number of accepted false alarms as text for people: `1 per 30d`, `1 per 10000 windows`."""
        return format_false_alarms(self.rate) if self.rate is not None else f"1 per {self.windows} windows"


DEFAULT_BUDGET: Final = FalseAlarmBudget(windows=10_000)
"""The budget for data without times."""
DEFAULT_TIMED_BUDGET: Final = FalseAlarmBudget(rate=FalseAlarms(count=1.0, per_s=30 * 86400.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRequest:
    """Describes what a backtest compares and how; a field that is None has its default."""

    reference: str
    """The table or profile, as the user names it."""
    data: str
    window: WindowLength | None = None
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)
    """The kinds of columns that the user sets."""
    timestamp: str | None = None
    """The column with the time of each row; rows are sorted by it."""
    tolerance: float | None = None
    """The total variation that is tolerated, [0, 1); by default the processor's, which differs by rule."""
    budget: FalseAlarmBudget | None = None
    required: tuple[str, ...] = ()
    """Columns that have to be judged."""
    accuracy: AccuracyBounds = NO_BOUNDS
    """The accuracy that is demanded."""
    encoding: str | None = None
    """The encoding of CSV files that have no byte order mark; None for UTF-8."""
    decimal: str | None = None
    """The decimal separator of numbers in texts, a point or a comma; None to infer it from the first rows."""


def parse_window_length(text: str) -> WindowLength:
    """Parses the length of a window from `--window`: `1000` is a number of rows, `1h` is a time.

    Raises:
        ConfigurationError: It is neither, or the time is too short or too long.
    """
    if text.isascii() and text.isdigit() and int(text):
        return WindowLength(rows=int(text))
    try:
        time_s = parse_duration(text)
    except ValueError:
        time_s = 0.0
    if not time_s:
        raise ConfigurationError(f"--window: {text!r} is neither rows, such as 1000, nor a time, such as 1h")
    if not 1e-9 <= time_s <= MAX_WINDOW_S:
        raise ConfigurationError(f"--window: {text!r} is not within 1ns and {format_duration(MAX_WINDOW_S)}")
    return WindowLength(time_s=time_s)


def parse_false_alarm_budget(text: str) -> FalseAlarmBudget:
    """Parses the accepted false alarms of `--false-alarms`: `1 per 30d`, `10000 windows` or `1 per 10000 windows`.

    Raises:
        ConfigurationError: It is none of these.
    """
    match = _WINDOW_BUDGET.fullmatch(text.strip())
    if match is not None and int(match[1]):
        return FalseAlarmBudget(windows=int(match[1]))
    try:
        return FalseAlarmBudget(rate=parse_false_alarms(text))
    except ValueError:
        raise ConfigurationError(
            f"--false-alarms: {text!r} is neither a rate, such as `1 per 30d`, nor windows, such as `10000`"
        ) from None


def parse_tolerance(text: str) -> float:
    """Parses the tolerance of `--tolerance`, such as `5%` or 0.05: the share of traffic that may differ.

    Raises:
        ConfigurationError: It is no ratio, or 1.
    """
    try:
        tolerance = parse_ratio(text)
    except ValueError as error:
        raise ConfigurationError(f"--tolerance: {text!r} {error}") from error
    if tolerance >= 1:
        raise ConfigurationError("--tolerance: must be below 100%; with 100% no drift could ever be detected")
    return tolerance


def parse_decimal_separator(text: str | None) -> str | None:
    """Parses the decimal separator of numbers in CSV files from `--decimal`: a point or a comma.

    Raises:
        ConfigurationError: It is neither a point nor a comma.
    """
    if text not in (None, ".", ","):
        raise ConfigurationError(f"--decimal: {text!r} is neither . nor ,")
    return text
