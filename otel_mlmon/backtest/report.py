"""OUT BacktestReport: whether the data would have raised an alarm, when, and about which streams."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from otel_mlmon.backtest.accuracy import AccuracyReport

BacktestState: TypeAlias = Literal["alarm", "recovered", "weak", "ok", "unknown", "left_out"]
"""The state of a stream after a backtest.

`alarm`: there was an alarm, and the drift lasts until the end. `recovered`: there was an alarm, and the drift ended.
`ok`: no alarm. `weak`: no alarm, but a drift of a usual size would not have been found. `unknown`: the stream
could not be judged. `left_out`: it was not judged on purpose. The `reason` of a report explains the last three.
"""

STATE_ORDER: tuple[BacktestState, ...] = ("alarm", "recovered", "weak", "ok", "unknown", "left_out")
"""The order of the streams in a report; alarms stand together, whether they recovered or not."""

JUDGED_STATES: frozenset[BacktestState] = frozenset({"alarm", "recovered", "weak", "ok"})
"""The states that answer whether there is drift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPoint:
    """The evidence and the distance from the reference of one stream in one window of a backtest."""

    window: int
    count: int
    """Values in the window."""
    log10_evidence: float
    log10_alarm_line: float
    total_variation: float
    """Total variation between the window and the reference, [0, 1]."""
    is_learning: bool = False
    """Whether the stream cannot be judged yet."""
    is_drift: bool = False
    """Whether the stream is in alarm."""
    end: str | None = None
    """When the window ended, RFC 3339; None if the data has no times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """The part of a backtest's report about one column or stream.

    What is compared with the reference is the window of the first alarm, or without an alarm the last window.
    """

    stream: str
    """The column, or the processor's name of a stream of telemetry."""
    model: str = ""
    """The model, if the data is telemetry."""
    kind: str
    """A `ColumnKind`; empty if unknown."""
    state: BacktestState
    reason: str = ""
    is_absent: bool = False
    """Whether the data has no such column."""
    first_alarm_window: int | None = None
    """From 0."""
    first_alarm: str | None = None
    """When that window ended, RFC 3339; None if the data has no times."""
    onset_window: int | None = None
    """The first window with rows after the onset."""
    onset: str | None = None
    """The time of the onset, RFC 3339; None if the data has no times."""
    before: str = ""
    """The reference as a text: `mean 0.31`, `value red: 10 %`."""
    now: str = ""
    """The compared window as a text, in the same form."""
    tolerance: float = 0.0
    """The total variation that is tolerated."""
    total_variation: float | None = None
    psi: float | None = None
    design_effect: float | None = None
    """φ: the number of rows that carry as much information as one independent row."""
    detectable_shift: float | None = None
    """The smallest total variation that would have been found with probability 0.9, within a day of the data or in all
    of it; None where none would have been."""
    reference_count: int = 0
    count: int = 0
    """Values in the compared window."""
    compared_window: int | None = None
    is_ordered: bool = False
    bins: tuple[str, ...] = ()
    reference_shares: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    points: tuple[WindowPoint, ...] = field(default=(), repr=False)

    @property
    def is_alarm(self) -> bool:
        """Whether drift of the stream would have raised an alarm."""
        return self.first_alarm_window is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReport:
    """An alert that the processor would have sent in a backtest."""

    window: int
    at: str | None
    """When the window ended, RFC 3339; None if the data has no times."""
    model: str
    rule: str
    state: str
    severity: str
    causes: tuple[str, ...]
    """Streams, the one with the strongest evidence first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestReport:
    """The report of a backtest: whether there would have been an alarm, when, and about which streams."""

    reference: str
    data: str
    window: str
    """The length of a window, as people write it."""
    windows: int
    rows: int | None
    """None if the data is counts."""
    false_alarms: str
    """The accepted false alarms, as people write them."""
    streams: tuple[StreamReport, ...]
    """Alarms first, in the order of their windows."""
    alerts: tuple[AlertReport, ...]
    notes: tuple[str, ...]
    """Sentences about the data that a reader should know."""
    required: tuple[str, ...] = ()
    """Columns that have to be judged."""
    accuracy: AccuracyReport | None = None
    """The estimated accuracy; None where none is demanded and none can be estimated."""

    @property
    def alarmed(self) -> tuple[StreamReport, ...]:
        """The streams of the backtested data in which drift would have raised an alarm."""
        return tuple(stream for stream in self.streams if stream.is_alarm)

    @property
    def is_inaccurate(self) -> bool:
        """Whether the estimated accuracy was below the limit that the user set."""
        return self.accuracy is not None and self.accuracy.state == "alarm"

    @property
    def judged(self) -> tuple[StreamReport, ...]:
        """The reports on the streams that the backtest judged and did not leave out."""
        return tuple(stream for stream in self.streams if stream.state != "left_out")

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Sentences about what should have been judged and could not: required or absent columns, or all of them."""
        answered = {stream.stream for stream in self.streams if stream.state in JUDGED_STATES}
        gaps = [
            f"{stream.stream}: {stream.reason}"
            for stream in self.streams
            if stream.stream not in answered and (stream.stream in self.required or stream.is_absent)
        ]
        if not answered:
            gaps += [
                f"{stream.stream}: {stream.reason}"
                for stream in self.streams
                if stream.state == "unknown" and stream.stream not in self.required
            ]
            gaps = gaps or ["no column could be judged"]
        if self.accuracy is not None and self.accuracy.state == "unknown":
            gaps.append(self.accuracy.reason)
        return tuple(gaps)

    def exit_code(self, *, is_gate: bool) -> int:
        """Returns the exit code of the command: 1 for an alarm if it gates a pipeline, 3 if it could not judge."""
        if is_gate and (self.alarmed or self.is_inaccurate):
            return 1
        answered = {stream.stream for stream in self.streams if stream.state in JUDGED_STATES}
        if set(self.required) - answered:
            return 3
        return 3 if is_gate and self.unjudged else 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the report of the backtest as a JSON object; numbers that are not finite become null."""
        document: dict[str, Any] = _replace_infinite_numbers(asdict(self))
        return document


def sort_stream_reports(streams: Iterable[StreamReport]) -> tuple[StreamReport, ...]:
    """Sorts the streams of a report: alarms first, by window and size, then the others by their verdict."""

    def sort_key(stream: StreamReport) -> tuple[int, int, float]:
        if stream.first_alarm_window is not None:
            return 0, stream.first_alarm_window, -(stream.total_variation or 0.0)
        return STATE_ORDER.index(stream.state), 0, 0.0

    return tuple(sorted(streams, key=sort_key))


def _replace_infinite_numbers(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_infinite_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_infinite_numbers(item) for item in value]
    return value
