"""Batches of calls that wait for their spans and events to be written."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from otel_mlmon.instrumentation.decode.predictions import InputSummary, Predictions
from otel_mlmon.internal_events import JOURNAL, RecordsDropped

MAX_CALLS: Final = 65_536
"""Calls that wait at most, while an exporter of the host's blocks."""

MIN_BATCH_WEIGHT: Final = 64
"""Calls that a batch counts as at least, so that at most 1,024 batches wait."""


class SpanBatch(NamedTuple):
    """Holds calls whose spans and events are to be written."""

    predictions: Predictions
    """Without values and inputs, which no span carries."""
    tracker_contexts: Sequence[object]
    """The error tracker's own context around each call; empty if no call had one."""


class SpanQueue:
    """Queues batches until the metrics hold their calls, then until their spans are written.

    In this order, since a span's exemplar goes to a metric that holds its call.

    No lock: a signal handler may end a transaction of Sentry's, which pushes here too. Each counter has one writer.

    Runs on: `push` and `pop_unmeasured` on one thread at a time; `push_ready` likewise, and `pop` likewise, beside
    them.
    """

    def __init__(self) -> None:
        self._unmeasured: deque[SpanBatch] = deque()
        self._ready: deque[SpanBatch] = deque()
        self._pushed_weight = 0
        self._dropped_weight = 0
        self._popped_weight = 0
        self.dropped_batches = 0
        """Batches dropped, the oldest first, since too many waited."""

    def push(self, predictions: Predictions, tracker_contexts: Sequence[object]) -> None:
        """Queues a batch that the metrics do not hold yet, and drops the oldest batches if too many calls wait."""
        batch = SpanBatch(dataclasses.replace(predictions, values={}, inputs=InputSummary()), tracker_contexts)
        self._unmeasured.append(batch)
        self._pushed_weight += _weight(batch)
        while self._pushed_weight - self._dropped_weight - self._popped_weight > MAX_CALLS:
            oldest = _pop_first(self._ready) or _pop_first(self._unmeasured)
            if oldest is None:
                return
            self._dropped_weight += _weight(oldest)
            self.dropped_batches += 1
            JOURNAL.emit(RecordsDropped(reason="exporter_blocked", count=len(oldest.predictions.errors)))

    def pop_unmeasured(self) -> Iterable[SpanBatch]:
        """Takes out the batches pushed since the last time, for `push_ready` once the metrics hold them."""
        batches, self._unmeasured = self._unmeasured, deque()
        return batches

    def push_ready(self, batches: Iterable[SpanBatch]) -> None:
        """Queues batches whose calls the metrics hold."""
        self._ready.extend(batches)

    def pop(self) -> SpanBatch | None:
        """Takes out the oldest batch whose spans may be written; None if there is none."""
        batch = _pop_first(self._ready)
        if batch is not None:
            self._popped_weight += _weight(batch)
        return batch


def _weight(batch: SpanBatch) -> int:
    return max(len(batch.predictions.errors), MIN_BATCH_WEIGHT)


def _pop_first(batches: deque[SpanBatch]) -> SpanBatch | None:
    try:
        return batches.popleft()
    except IndexError:
        return None
