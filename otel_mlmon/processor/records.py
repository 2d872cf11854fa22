"""Lists all kinds of records in the state store: of windows, evidence, alerts, model versions and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_mlmon.processor.alert.records import ALERT_MODELS, ALERTS
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.evidence_log import CYCLE, LOG
from otel_mlmon.processor.evidence_slices import EVIDENCE
from otel_mlmon.processor.notify.dispatcher import OutboxEntry
from otel_mlmon.processor.serve.page.history import HISTORY
from otel_mlmon.processor.state.instance import INSTANCE
from otel_mlmon.processor.state.repository import RecordKind
from otel_mlmon.processor.window.records import RECORD_KINDS as WINDOW_RECORD_KINDS

VERSION_CHANGES: Final = RecordKind("version_change", VersionChange)
OUTBOX: Final = RecordKind("outbox", OutboxEntry)
"""Alerts, by `Alert.key`, that some recipient may not have yet."""
RECORD_KINDS: Final[Mapping[str, RecordKind[Any]]] = {
    kind.name: kind
    for kind in (
        *WINDOW_RECORD_KINDS, CYCLE, EVIDENCE, LOG, ALERTS, ALERT_MODELS, VERSION_CHANGES, OUTBOX, INSTANCE,
        HISTORY,
    )
}  # fmt: skip
"""Every kind of stored record, by its name."""
