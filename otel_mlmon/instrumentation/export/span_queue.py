"""Batches of calls between their reading and their spans and events."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from otel_mlmon.instrumentation.decode.predictions import InputSummary, Predictions
from otel_mlmon.internal_events import JOURNAL, RecordsDropped

MAX_CALLS: Final = 65_536
"""Calls that wait at most, while an exporter of the host's blocks."""

LEAST_CALLS: Final = 64
"""A batch weighs as much as so many calls at least, so that 1,024 batches wait at most."""


class SpanBatch(NamedTuple):
    """Calls whose spans and events are to be made."""

    predictions: Predictions
    """Without values and inputs, of which no span says anything."""
    around: Sequence[object]
    """What else was around each call (`context.split`)."""


class SpanQueue:
    """Batches that wait: until the metrics hold them, then until they are sent.

    In this order, since a span offers its exemplar to metrics that hold its call.

    No lock: who ends a transaction of Sentry's in a signal handler comes here too. Each of the counts has one writer.

    Runs on: `keep` and `held` on one thread at a time; `release` likewise, and `take` likewise, beside them.
    """

    def __init__(self) -> None:
        self._early: deque[SpanBatch] = deque()
        self._ready: deque[SpanBatch] = deque()
        self._kept = 0
        self._lost = 0
        self._taken = 0
        self.lost_batches = 0
        """Batches given up, the oldest first, since too many waited."""

    def keep(self, predictions: Predictions, around: Sequence[object]) -> None:
        """Keep a batch until the metrics hold it."""
        batch = SpanBatch(dataclasses.replace(predictions, values={}, inputs=InputSummary()), around)
        self._early.append(batch)
        self._kept += _weight(batch)
        while self._kept - self._lost - self._taken > MAX_CALLS:
            oldest = _first(self._ready) or _first(self._early)
            if oldest is None:
                return
            self._lost += _weight(oldest)
            self.lost_batches += 1
            JOURNAL.emit(RecordsDropped(reason="exporter_blocked", count=len(oldest.predictions.errors)))

    def held(self) -> Iterable[SpanBatch]:
        """What was kept since the last time, to be released once the metrics hold it."""
        early, self._early = self._early, deque()
        return early

    def release(self, batches: Iterable[SpanBatch]) -> None:
        """Let `batches` be sent."""
        self._ready.extend(batches)

    def take(self) -> SpanBatch | None:
        """The oldest batch that may be sent; None if there is none."""
        batch = _first(self._ready)
        if batch is not None:
            self._taken += _weight(batch)
        return batch


def _weight(batch: SpanBatch) -> int:
    return max(len(batch.predictions.errors), LEAST_CALLS)


def _first(batches: deque[SpanBatch]) -> SpanBatch | None:
    try:
        return batches.popleft()
    except IndexError:
        return None
