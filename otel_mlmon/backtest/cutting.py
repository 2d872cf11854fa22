"""Windows of rows: so many rows each, or so much time each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon.backtest.times import Times
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import (
    FalseAlarms,
    format_duration,
    format_false_alarms,
    parse_duration,
    parse_false_alarms,
)

MOST_WINDOWS: Final = 1_000_000
LONGEST_S: Final = 36_500 * 86_400.0
"""Of a window; three times that does not fit into nanoseconds of 64 bits."""

_WINDOWS: Final = re.compile(r"(?:1\s+per\s+)?(\d+)(?:\s*windows?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLength:
    """One of the two."""

    rows: int = 0
    time_s: float = 0.0

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.rows:,} rows".replace(",", " ") if self.rows else format_duration(self.time_s)


DEFAULT_ROWS: Final = 1000
DEFAULT_WINDOW: Final = WindowLength(rows=DEFAULT_ROWS)
DEFAULT_OTLP_WINDOW: Final = WindowLength(time_s=10.0)
"""The processor's pane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many false alarms are accepted: one in so many windows, or a rate in time."""

    windows: int = 0
    rate: FalseAlarms | None = None

    @property
    def text(self) -> str:
        """For people."""
        return format_false_alarms(self.rate) if self.rate is not None else f"1 per {self.windows} windows"


DEFAULT_BUDGET: Final = Budget(windows=10_000)
"""Where the data does not say when its rows were."""
DEFAULT_TIMED_BUDGET: Final = Budget(rate=FalseAlarms(count=1.0, per_s=30 * 86400.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One window: rows `start` up to, not with, `end`."""

    index: int
    """From 0; in windows of time, those without rows have numbers too."""
    start: int
    end: int


def read_length(text: str) -> WindowLength:
    """`1000` is rows, `1h` is time.

    Raises:
        ConfigurationError: It is neither.
    """
    if text.isascii() and text.isdigit() and int(text):
        return WindowLength(rows=int(text))
    try:
        time_s = parse_duration(text)
    except ValueError:
        time_s = 0.0
    if not time_s:
        raise ConfigurationError(f"--window: {text!r} is neither rows, such as 1000, nor a time, such as 1h")
    if not 1e-9 <= time_s <= LONGEST_S:
        raise ConfigurationError(f"--window: {text!r} is not within 1ns and {format_duration(LONGEST_S)}")
    return WindowLength(time_s=time_s)


def read_budget(text: str) -> Budget:
    """`1 per 30d`, or `10000`, `10000 windows`, `1 per 10000 windows`.

    Raises:
        ConfigurationError: It is neither.
    """
    match = _WINDOWS.fullmatch(text.strip())
    if match is not None and int(match[1]):
        return Budget(windows=int(match[1]))
    try:
        return Budget(rate=parse_false_alarms(text))
    except ValueError:
        raise ConfigurationError(
            f"--false-alarms: {text!r} is neither a rate, such as `1 per 30d`, nor windows, such as `10000`"
        ) from None


def cut_rows(rows: int, length: int) -> list[Cut]:
    """Windows of `length` rows; the last has what is left."""
    return [
        Cut(index=index, start=start, end=min(start + length, rows))
        for index, start in enumerate(range(0, rows, length))
    ]


def cut_time(times: Times, length_s: float) -> list[Cut]:
    """Windows of `length_s` of sorted `times`, shape (n,); they begin at whole multiples since 1970.

    Raises:
        ConfigurationError: There would be more than `MOST_WINDOWS`.
    """
    if not times.size:
        return []
    numbers = times // round(length_s * 1e9)
    numbers -= numbers[0]
    if int(numbers[-1]) >= MOST_WINDOWS:
        raise ConfigurationError(
            f"--window: {format_duration(length_s)} makes more than {MOST_WINDOWS} windows of this data"
        )
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.append(starts[1:], times.size)
    return [
        Cut(index=int(numbers[start]), start=int(start), end=int(end)) for start, end in zip(starts, ends, strict=True)
    ]
