"""Internal events of this package about itself, each one metric and one rate-limited log line.

A call site writes `JOURNAL.emit(RecordsDropped(reason="buffer_full", count=12))` and nothing more. The application
half exports the totals through observable instruments, the processor at `/metrics`.

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
"""Time in which the same event with the same attributes is logged at most once."""

Attributes = tuple[tuple[str, str], ...]


class InternalEvent(Protocol):
    """The Protocol of an event about otel_mlmon itself, which a journal counts in a metric and logs."""

    metric: ClassVar[str]
    level: ClassVar[int]

    @property
    def count(self) -> int:
        """The amount by which the event's metric grows; 0 or above."""

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the attributes under which the event is counted in its metric, few and of few values."""

    def log_message(self) -> str:
        """Returns the log line of the event: a sentence, with nothing of the host's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsDropped:
    """Reports inference calls that were not recorded; if an exporter was blocked, only spans and events are missing."""

    metric: ClassVar[str] = semconv.RECORDS_DROPPED.name
    level: ClassVar[int] = logging.WARNING
    reason: str
    count: int

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the reason for the drop, as the attribute of the metric."""
        return {semconv.REASON: self.reason}

    def log_message(self) -> str:
        """Returns the log line: how many inference calls were dropped, and why."""
        return f"{self.count} inference records were dropped: {self.reason}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesDropped:
    """Reports values of measured calls that were left out, since no histogram could take them."""

    metric: ClassVar[str] = semconv.VALUES_DROPPED.name
    level: ClassVar[int] = logging.WARNING
    reason: str
    count: int

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the reason for the drop, as the attribute of the metric."""
        return {semconv.REASON: self.reason}

    def log_message(self) -> str:
        """Returns the log line: how many values were dropped, and why."""
        hint = "; see bulk_unavailable_reason of status()" if self.reason == "negative" else ""
        return f"{self.count} values of features or outputs were dropped: {self.reason}{hint}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesUnreadable:
    """Reports values given to `observe()` that cannot be read; each argument has a warning of its own."""

    metric: ClassVar[str] = semconv.VALUES_DROPPED.name
    level: ClassVar[int] = logging.DEBUG
    count: int

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the reason `unreadable`, as the attribute of the metric."""
        return {semconv.REASON: "unreadable"}

    def log_message(self) -> str:
        """Returns the log line: how many values were dropped, and why."""
        return f"{self.count} values given to observe() could not be read; see the findings of status()."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesWithheld:
    """Reports values that were never exported, since they were too few to hide a single one among them."""

    metric: ClassVar[str] = semconv.VALUES_DROPPED.name
    level: ClassVar[int] = logging.DEBUG
    count: int

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the reason `too_few`, as the attribute of the metric."""
        return {semconv.REASON: "too_few"}

    def log_message(self) -> str:
        """Returns the log line: how many values were not exported, and why."""
        return (
            f"{self.count} values of features or outputs did not leave the process: too few of one stream to hide one."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFailed:
    """Reports an error of otel_mlmon that was caught, so that the host did not see it."""

    metric: ClassVar[str] = semconv.FAILURES.name
    level: ClassVar[int] = logging.WARNING
    stage: str
    error_type: str
    function: str = ""
    """Name of the function that raised; empty if unknown."""
    is_switched_off: bool = False
    """Whether the stage is switched off from now on."""
    count: int = 1

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the stage that failed and the type of the error, as attributes of the metric."""
        return {semconv.STAGE: self.stage, semconv.ERROR_TYPE: self.error_type}

    def log_message(self) -> str:
        """Returns the log line: which stage failed, and that the host is not affected."""
        consequence = " The stage is switched off until instrument() is called again." if self.is_switched_off else ""
        place = f" in {self.function}" if self.function else ""
        return (
            f"otel_mlmon failed in stage {self.stage!r} with {self.error_type}{place}. "
            f"Your code runs on, with less telemetry.{consequence}"
        )


class EventJournal:
    """Counts the internal events of otel_mlmon in metrics, and logs each kind at most once a minute.

    Runs on: any thread. `emit_event` takes a lock of its own for a dictionary update; nothing under it waits.

    Args:
        clock: Seconds, monotonic.
        log: Takes the log lines.
        interval_s: Time in which an event with the same attributes is logged at most once, in seconds.
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
        self.reset_totals()

    def reset_totals(self) -> None:
        """Sets all counts of internal events to zero and takes a new lock, in a forked child and in tests."""
        # Reentrant: a signal handler may run a model while its thread stands in here.
        self._lock = threading.RLock()
        self._totals: dict[str, dict[Attributes, int]] = {}
        self._logged_at_s: dict[tuple[str, Attributes], float] = {}

    def emit_event(self, event: InternalEvent) -> None:
        """Counts an internal event, and logs it unless the same one was logged within the last `interval_s` seconds."""
        key: Attributes = tuple(sorted(event.metric_attributes().items()))
        now_s = self._clock()
        with self._lock:
            totals = self._totals.setdefault(event.metric, {})
            totals[key] = totals.get(key, 0) + event.count
            logged_at_s = self._logged_at_s.get((event.metric, key))
            is_due = logged_at_s is None or now_s - logged_at_s >= self._interval_s
            if is_due:
                self._logged_at_s[(event.metric, key)] = now_s
        if is_due:
            self._log.log(event.level, "%s", event.log_message())

    def read_totals(self, metric: str) -> dict[Attributes, int]:
        """Returns how often the internal events of one metric have occurred so far, by their sorted attributes."""
        with self._lock:
            return dict(self._totals.get(metric, {}))


JOURNAL: Final = EventJournal()
"""The process's own journal."""
