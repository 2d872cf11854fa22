"""OUT Report: whether there would have been an alarm, when, and about what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["alarm", "recovered", "ok", "unknown", "left out"]
"""`alarm`: there was one and the drift still goes on at the end. `recovered`: there was one. `unknown`: nothing can be
said, and `why` says why. `left out`: not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPoint:
    """One stream after one window."""

    window: int
    count: int
    """Values in the window."""
    log10_evidence: float
    log10_alarm_line: float
    total_variation: float
    """Of the window from the reference, [0, 1]."""
    is_calibrating: bool = False
    """Whether nothing can be said yet."""
    is_drift: bool = False
    """Whether it is in alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """One column or stream. What is compared is the window of the first alarm, or without one the last."""

    stream: str
    """The column, or the processor's name of a stream of telemetry."""
    model: str = ""
    """Where the telemetry names it."""
    kind: str
    status: Verdict
    why: str = ""
    first_alarm_window: int | None = None
    """From 0."""
    first_alarm: str | None = None
    """When that window ended, RFC 3339, where it is known; such a text also below."""
    onset_window: int | None = None
    """The first window of which rows are after the onset."""
    onset: str | None = None
    before: str = ""
    """What it was in the reference: `mean 0.31`, `value red: 10 %`."""
    now: str = ""
    tolerance: float = 0.0
    """Total variation that is forgiven."""
    total_variation: float | None = None
    psi: float | None = None
    design_effect: float | None = None
    """φ: how many rows tell as much as one independent one."""
    reference_count: int = 0
    count: int = 0
    """Values in the window that is compared."""
    compared_window: int | None = None
    is_ordered: bool = False
    bins: tuple[str, ...] = ()
    reference_shares: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    points: tuple[WindowPoint, ...] = field(default=(), repr=False)

    @property
    def is_alarm(self) -> bool:
        """Whether there was an alarm."""
        return self.first_alarm_window is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReport:
    """What people would have been told."""

    window: int
    at: str | None
    model: str
    rule: str
    state: str
    severity: str
    causes: tuple[str, ...]
    """Streams, the strongest evidence first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    reference: str
    data: str
    window: str
    """Its length."""
    windows: int
    rows: int | None
    """None where the data is counts."""
    false_alarms: str
    streams: tuple[StreamReport, ...]
    """Those with an alarm first, in the order of their alarms."""
    alerts: tuple[AlertReport, ...]
    notes: tuple[str, ...]
    """Sentences that a reader should know."""

    @property
    def alarmed(self) -> tuple[StreamReport, ...]:
        """The streams with an alarm."""
        return tuple(stream for stream in self.streams if stream.is_alarm)

    @property
    def judged(self) -> tuple[StreamReport, ...]:
        """The streams that were judged."""
        return tuple(stream for stream in self.streams if stream.status != "left out")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; numbers that are not finite are null."""
        document: dict[str, Any] = _finite(asdict(self))
        return document


def in_order(streams: Iterable[StreamReport]) -> tuple[StreamReport, ...]:
    """Alarms first, by window and size; then what is ok, unknown and left out, as the file has them."""
    ranks: dict[Verdict, int] = {"alarm": 0, "recovered": 0, "ok": 1, "unknown": 2, "left out": 3}

    def key(stream: StreamReport) -> tuple[int, int, float]:
        window = stream.first_alarm_window
        moved = stream.total_variation or 0.0
        return ranks[stream.status], window or 0, -moved if window is not None else 0.0

    return tuple(sorted(streams, key=key))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
