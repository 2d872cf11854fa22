"""Stores the states of alerts: of each model when it changed, and what has ended when an alert began or ended."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import replace
from typing import Final

from otel_mlmon.processor.alert.records import AlertsRecord, ModelRecord
from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records
from otel_mlmon.types import ModelKey

ALL_INTERVAL_NS: Final = 60_000_000_000
"""Interval at which all models are stored, for what time alone changed without an alert."""

ALERTS: Final = RecordKind("alerts", AlertsRecord)
ALERT_MODELS: Final = RecordKind("alert_model", ModelRecord)

_COMMON, _RESOLVED = "", "resolved"


class AlertStore:
    """Keeps what is stored of the alerts.

    Args:
        repository: Where it is stored.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._stored: set[str] = set()
        """Keys of the models that are stored."""
        self._saved: set[str] = set()
        """Keys of the models that the last save stores."""
        self._all_due_ns = 0

    def load(self, now_ns: int) -> AlertsRecord | None:
        """Returns what is stored; None if nothing is.

        Raises:
            StoreError: It cannot be read.
        """
        records = load_records(self._repository, ALERTS)
        models = load_records(self._repository, ALERT_MODELS)
        self._stored = self._saved = set(models)
        if not records and not models:
            return None
        common = records.get(_COMMON, AlertsRecord(time_ns=now_ns))
        resolved = records[_RESOLVED].resolved if _RESOLVED in records else []
        return replace(common, models=list(models.values()), resolved=resolved)

    def save(self, record: AlertsRecord, changed: Set[ModelKey], now_ns: int, *, has_news: bool) -> None:
        """Writes what changed.

        Args:
            record: The state of all alerts.
            changed: The models that were judged since the last save.
            now_ns: The time by our clock, Unix nanoseconds.
            has_news: Whether any alert began or ended, or a model was removed: any model may have changed.

        Raises:
            StoreError: The repository refused it.
        """
        repository = self._repository
        put_records(repository, ALERTS, [(_COMMON, replace(record, models=[], resolved=[]))])
        is_all = has_news or now_ns >= self._all_due_ns
        models = [entry for entry in record.models if is_all or entry.model in changed]
        put_records(repository, ALERT_MODELS, [(json.dumps(entry.model), entry) for entry in models])
        self._saved = self._stored | {json.dumps(entry.model) for entry in models}
        if is_all:
            self._all_due_ns = now_ns + ALL_INTERVAL_NS
            resolved = AlertsRecord(time_ns=record.time_ns, resolved=record.resolved)
            put_records(repository, ALERTS, [(_RESOLVED, resolved)])
            present = {json.dumps(entry.model) for entry in record.models}
            gone = sorted(self._stored - present)
            if gone:
                repository.delete(ALERT_MODELS.name, gone)
            self._saved &= present

    def note_saved(self) -> None:
        """Notes that the last save is durable."""
        self._stored = self._saved
