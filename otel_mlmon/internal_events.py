"""What this package tells of itself: one class an event, which is one rate-limited log line and one metric.

A call site says `JOURNAL.emit(RecordsDropped(reason="buffer_full", count=12))` and nothing more. The totals are read
by whoever exports them: the application half through observable instruments, the processor at `/metrics`.

Choice: totals are kept here as integers instead of in instruments of the SDK, whose `add` costs 13 µs and takes locks
that a fork may leave held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from otel_mlmon import semconv

LOG_INTERVAL_S: Final = 60.0
"""The same event with the same attributes is logged at most once in this time."""

Attributes = tuple[tuple[str, str], ...]


class InternalEvent(Protocol):
    """What `Journal.emit` takes."""

    metric: ClassVar[str]
    level: ClassVar[int]

    @property
    def count(self) -> int:
        """By how much the metric grows; 0 or above."""

    def attributes(self) -> Mapping[str, str]:
        """The metric's attributes, few and of few values."""

    def message(self) -> str:
        """The log line: a sentence, with nothing of the host's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsDropped:
    """Calls that ran but were not measured; with `exporter_blocked`, measured but without their spans and events."""

    metric: ClassVar[str] = semconv.RECORDS_DROPPED.name
    level: ClassVar[int] = logging.WARNING
    reason: str
    count: int

    def attributes(self) -> Mapping[str, str]:
        """The reason."""
        return {semconv.REASON: self.reason}

    def message(self) -> str:
        """How many, and why."""
        return f"{self.count} inference records were dropped: {self.reason}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesDropped:
    """Values of calls that were measured, which no histogram takes."""

    metric: ClassVar[str] = semconv.VALUES_DROPPED.name
    level: ClassVar[int] = logging.WARNING
    reason: str
    count: int

    def attributes(self) -> Mapping[str, str]:
        """The reason."""
        return {semconv.REASON: self.reason}

    def message(self) -> str:
        """How many, and why."""
        return (
            f"{self.count} values of features or outputs were dropped: {self.reason}; status() says how metrics go in."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFailed:
    """A fault of ours that the guard kept from the host."""

    metric: ClassVar[str] = semconv.FAILURES.name
    level: ClassVar[int] = logging.WARNING
    stage: str
    error_type: str
    detail: str = ""
    switched_off: bool = False
    count: int = 1

    def attributes(self) -> Mapping[str, str]:
        """Stage and type of the error."""
        return {semconv.STAGE: self.stage, semconv.ERROR_TYPE: self.error_type}

    def message(self) -> str:
        """What failed, and that the host is not touched by it."""
        after = " The stage is switched off until instrument() is called again." if self.switched_off else ""
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"otel_mlmon failed in stage {self.stage!r} with {self.error_type}{detail}. "
            f"Your code runs on, with less telemetry.{after}"
        )


class Journal:
    """Totals of internal events, and their rate-limited log.

    Runs on: any thread. `emit` takes a lock of its own for a dictionary update; nothing under it waits.

    Args:
        clock: Seconds, monotonic.
        log: Where the lines go.
        interval_s: At most one line an event and attributes in this time.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: logging.Logger | None = None,
        interval_s: float = LOG_INTERVAL_S,
    ) -> None:
        self._clock = clock
        self._log = log or logging.getLogger("otel_mlmon")
        self._interval_s = interval_s
        self.reset()

    def reset(self) -> None:
        """Forget all totals, with a new lock: for a forked child, and for tests."""
        # Reentrant: a signal handler may run a model while its thread stands in here.
        self._lock = threading.RLock()
        self._totals: dict[str, dict[Attributes, int]] = {}
        self._logged_at: dict[tuple[str, Attributes], float] = {}

    def emit(self, event: InternalEvent) -> None:
        """Count `event`, and log it unless the same was logged a short while ago."""
        key: Attributes = tuple(sorted(event.attributes().items()))
        now = self._clock()
        with self._lock:
            totals = self._totals.setdefault(event.metric, {})
            totals[key] = totals.get(key, 0) + event.count
            last = self._logged_at.get((event.metric, key))
            due = last is None or now - last >= self._interval_s
            if due:
                self._logged_at[(event.metric, key)] = now
        if due:
            self._log.log(event.level, "%s", event.message())

    def totals(self, metric: str) -> dict[Attributes, int]:
        """The totals of one metric so far, by its sorted attributes."""
        with self._lock:
            return dict(self._totals.get(metric, {}))


JOURNAL: Final = Journal()
"""The process's own journal."""
