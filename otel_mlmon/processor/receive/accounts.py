"""Counts what became of every received data point and request, and logs what was not accepted, a line a minute each."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from types import MappingProxyType
from typing import Final

from otel_mlmon.internal_events import EventJournal
from otel_mlmon.processor.receive.codec import Signal
from otel_mlmon.processor.receive.events import PointsRejected, RequestMalformed, RequestRefused
from otel_mlmon.processor.receive.outcomes import DEAD_LETTER, PointOutcomeCounts, ReceivedCounts, RefusalReason

_LOG: Final = logging.getLogger("otel_mlmon.receiver")


class ReceiverAccounts:
    """The running counts of all received data points and requests by their outcome.

    Runs on: any thread. Its lock guards integers only.
    """

    def __init__(self) -> None:
        self._journal = EventJournal(log=_LOG)
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._unread_requests: Counter[str] = Counter()
        self._unread_bytes: Counter[str] = Counter()

    def read(self) -> ReceivedCounts:
        """Returns the counts of all received data points and requests by their outcome, all of one moment."""
        with self._lock:
            return ReceivedCounts(
                accepted=self._totals["accepted"],
                rejected=MappingProxyType(dict(self._rejected)),
                refused=self._totals["refused"],
                ignored=self._totals["ignored"],
                loop_dropped=self._totals["loop_dropped"],
                unused=MappingProxyType(dict(self._unused)),
                unread_requests=MappingProxyType(dict(self._unread_requests)),
                unread_bytes=MappingProxyType(dict(self._unread_bytes)),
                malformed=self._totals["malformed"],
                dead_letters=self._totals["dead_letters"],
            )

    def add_stored(self, signal: Signal, counts: PointOutcomeCounts) -> None:
        """Counts the points of a request that is stored."""
        with self._lock:
            self._totals["accepted"] += counts.accepted
            self._totals["ignored"] += counts.ignored
            self._totals["loop_dropped"] += counts.loop_dropped
            if counts.unused:
                self._unused[signal] += counts.unused
            self._rejected.update(counts.rejected)
        for reason, count in counts.rejected.items():
            self._journal.emit_event(PointsRejected(signal=signal, reason=reason, count=count))

    def add_refused(self, points: int) -> None:
        """Counts the points of a request that was refused after it was parsed."""
        with self._lock:
            self._totals["refused"] += points

    def add_dead_letter(self, signal: Signal, points: int) -> None:
        """Counts a request that is put aside as a dead letter, and its points as rejected."""
        with self._lock:
            self._rejected[DEAD_LETTER] += points
            self._totals["dead_letters"] += 1
        self._journal.emit_event(PointsRejected(signal=signal, reason=DEAD_LETTER, count=points))

    def add_unread(self, reason: RefusalReason, explanation: str, read_bytes: int) -> None:
        """Counts a request that was refused before it was parsed; `explanation` is a sentence."""
        with self._lock:
            self._unread_requests[reason] += 1
            self._unread_bytes[reason] += read_bytes
        self._journal.emit_event(RequestRefused(reason=reason, explanation=explanation))

    def add_malformed(self, explanation: str) -> None:
        """Counts a request that is not valid in its encoding; `explanation` is a sentence."""
        with self._lock:
            self._totals["malformed"] += 1
        self._journal.emit_event(RequestMalformed(explanation=explanation))
