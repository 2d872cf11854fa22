"""The kinds of record that the processor stores of its streams, alerts and model versions, beside the windows' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon.processor.alert.records import AlertsRecord
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.detect.state import CycleState, StreamState
from otel_mlmon.processor.notify.dispatcher import OutboxEntry
from otel_mlmon.processor.state.instance import INSTANCE
from otel_mlmon.processor.state.repository import RecordKind
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
RECORD_KINDS: Final[Mapping[str, RecordKind[Any]]] = {
    kind.name: kind for kind in (*WINDOW_RECORD_KINDS, CYCLE, EVIDENCE, ALERTS, VERSION_CHANGES, OUTBOX, INSTANCE)
}
"""Every kind of stored record, by its name."""
