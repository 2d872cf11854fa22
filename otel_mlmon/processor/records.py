"""The kinds of record that the processor stores of its streams, alerts, model versions and pictures, beside windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon.processor.alert.records import AlertsRecord
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.detect.state import CycleState, StreamState
from otel_mlmon.processor.notify.dispatcher import OutboxEntry
from otel_mlmon.processor.serve.page.history import History, HistoryRecord
from otel_mlmon.processor.state.instance import INSTANCE
from otel_mlmon.processor.state.repository import (
    RecordKind,
    Repository,
    load_each,
    put_records,
)
from otel_mlmon.processor.window.records import RECORD_KINDS as WINDOW_RECORD_KINDS
from otel_mlmon.processor.window.window import StreamKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """Holds the stored state of a stream: its last score, and its evidence if there is any."""

    stream: StreamKey
    score: Score
    state: StreamState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRecord:
    """Holds the stored daily cycle of a stream."""

    stream: StreamKey
    state: CycleState


CYCLE: Final = RecordKind("cycle", CycleRecord, is_compressed=True)
EVIDENCE: Final = RecordKind("evidence", StreamRecord)
ALERTS: Final = RecordKind("alerts", AlertsRecord)
VERSION_CHANGES: Final = RecordKind("version_change", VersionChange)
OUTBOX: Final = RecordKind("outbox", OutboxEntry)
"""Alerts, by `Alert.key`, that some recipient may not have yet."""
HISTORY: Final = RecordKind("history", HistoryRecord, is_compressed=True)
RECORD_KINDS: Final[Mapping[str, RecordKind[Any]]] = {
    kind.name: kind
    for kind in (*WINDOW_RECORD_KINDS, CYCLE, EVIDENCE, ALERTS, VERSION_CHANGES, OUTBOX, INSTANCE, HISTORY)
}
"""Every kind of stored record, by its name."""


def save_history(history: History, repository: Repository, *, is_last: bool = False) -> None:
    """Writes the histories that were not stored for ten minutes; all that changed before the end.

    Raises:
        StoreError: The repository refused it; they count as changed.
    """
    records, removed = history.pop_changes(is_last=is_last)
    repository.on_rollback(lambda: history.undo_pop(records, removed))
    present = {record.model for record in records}
    put_records(repository, HISTORY, [(json.dumps(record.model), record) for record in records])
    repository.delete(HISTORY.name, [json.dumps(model) for model in removed if model not in present])


def load_history(history: History, repository: Repository) -> None:
    """Restores the stored histories; those that cannot be used are set aside.

    Raises:
        StoreError: The repository cannot be read.
    """
    load_each(repository, HISTORY, history.restore)
