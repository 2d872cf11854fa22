"""Keeps the history of each model version for charts over time, in series of bounded size.

Three spans: an hour, a day, fourteen days, each in slots of its own length. Of several values in a slot the last is
kept of rates and medians, and the largest of tails, error ratios and evidence, so that no incident is averaged away.
A stream without evidence has no entries. Memory: about 25 kB a model version, and 2 kB a stream with evidence.

What changed is stored every ten minutes and at the end, so a restart keeps the pictures, and a killed process loses
ten minutes of them at most.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon.processor.state.repository import RecordKind, Repository, put_records, restore_records
from otel_mlmon.types import Floats, Ints, ModelKey

SECOND_NS: Final = 10**9
MODEL_COLUMNS: Final = ("rate", "p50", "p95", "p99", "errors", "accuracy")
"""The values of a model; NaN where one is unknown."""
_LAST: Final = frozenset({"rate", "p50", "accuracy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A stretch of time that a chart covers."""

    name: str
    title: str
    length_s: int
    model_slot_s: int
    stream_slot_s: int


SPANS: Final = (
    TimeRange(name="1h", title="1 h", length_s=3_600, model_slot_s=15, stream_slot_s=60),
    TimeRange(name="24h", title="24 h", length_s=86_400, model_slot_s=300, stream_slot_s=1_200),
    TimeRange(name="14d", title="14 d", length_s=14 * 86_400, model_slot_s=3_600, stream_slot_s=4 * 3_600),
)
MAX_SILENT_S: Final = SPANS[-1].length_s
MAX_VERSIONS: Final = 2_000
"""Model versions with a history; of more, the one that was silent longest is dropped."""


SAVE_INTERVAL_NS: Final = 600 * SECOND_NS
"""How long a change of a history may stay unstored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSeriesRecord:
    """A stored series of values in slots of time."""

    slots: Ints
    values: Floats
    """Shape (columns, slots)."""


SpanRecords = dict[str, SlotSeriesRecord]
"""A series a span, by the name of the span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRecord:
    """The stored history of one model version."""

    model: ModelKey
    first_ns: int
    is_first_known: bool
    last_ns: int
    spans: SpanRecords
    streams: dict[str, SpanRecords]


@dataclass(slots=True, kw_only=True)
class SlotSeries:
    """A series of values of several columns in slots of equal length, the oldest of which are dropped."""

    slot_ns: int
    capacity: int
    columns: tuple[str, ...]
    slots: array[int] = field(default_factory=lambda: array("q"))
    values: list[array[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [array("f") for _ in self.columns]

    def add(self, time_ns: int, values: Iterable[float]) -> None:
        """Adds the values of one time to the series; values for a slot before the last one are ignored."""
        slot = time_ns // self.slot_ns
        if self.slots and slot < self.slots[-1]:
            return
        if self.slots and slot == self.slots[-1]:
            for name, column, value in zip(self.columns, self.values, values, strict=True):
                column[-1] = value if name in _LAST or not column[-1] > value else column[-1]
            return
        self.slots.append(slot)
        for column, value in zip(self.values, values, strict=True):
            column.append(value)
        if len(self.slots) > self.capacity + 32:
            del self.slots[:32]
            for column in self.values:
                del column[:32]

    def record(self) -> SlotSeriesRecord:
        """Returns the series of slots to be stored."""
        values = np.array(self.values, dtype=np.float64).reshape(len(self.columns), -1)
        return SlotSeriesRecord(slots=np.array(self.slots, dtype=np.int64), values=values)

    def restore(self, record: SlotSeriesRecord) -> None:
        """Restores a stored series of slots.

        Raises:
            ValueError: It has other columns, or slots that do not increase.
        """
        if record.values.shape != (len(self.columns), len(record.slots)) or np.any(np.diff(record.slots) <= 0):
            raise ValueError("a stored history has other columns, or slots out of order")
        self.slots = array("q", record.slots.tolist())
        self.values = [array("f", column.tolist()) for column in record.values]

    def rows(self, since_ns: int) -> list[tuple[int, tuple[float, ...]]]:
        """Returns the time at the end of each slot, Unix nanoseconds, and its values, the oldest first."""
        return [
            ((slot + 1) * self.slot_ns, tuple(column[index] for column in self.values))
            for index, slot in enumerate(self.slots)
            if (slot + 1) * self.slot_ns > since_ns
        ]


@dataclass(slots=True, kw_only=True)
class VersionHistory:
    """The history of one model version, for charts over time."""

    model: ModelKey
    first_ns: int
    is_first_known: bool
    last_ns: int = 0
    saved_ns: int = 0
    """`last_ns` when it was stored."""
    spans: dict[str, SlotSeries] = field(default_factory=dict)
    streams: dict[str, dict[str, SlotSeries]] = field(default_factory=dict)

    def add(self, time_ns: int, values: Sequence[float], evidence: Mapping[str, float]) -> None:
        """Records the present `MODEL_COLUMNS` of a version, and each stream's evidence over the alarm line in log10."""
        self.last_ns = time_ns
        for span in SPANS:
            _obtain_slot_series(self.spans, span, is_model=True).add(time_ns, values)
        for name, ratio in evidence.items():
            entries = self.streams.setdefault(name, {})
            for span in SPANS:
                _obtain_slot_series(entries, span, is_model=False).add(time_ns, (ratio,))

    def record(self) -> HistoryRecord:
        """Returns the history of the model version to be stored."""
        return HistoryRecord(
            model=self.model,
            first_ns=self.first_ns,
            is_first_known=self.is_first_known,
            last_ns=self.last_ns,
            spans={name: series.record() for name, series in self.spans.items()},
            streams={
                stream: {name: series.record() for name, series in entries.items()}
                for stream, entries in self.streams.items()
            },
        )


SETTLING_NS: Final = 60 * SECOND_NS
"""An onset so soon after the history began may lie long before it."""


class PageHistory:
    """The histories of all model versions, by the id of the model and by version.

    Runs on: `add`, `pop_changes`, `undo_pop` and `restore` on the thread that publishes; the others on any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], VersionHistory] = {}
        self._removed: set[ModelKey] = set()
        self._begin_ns = 0

    def add(self, model: ModelKey, time_ns: int, values: Sequence[float], evidence: Mapping[str, float]) -> None:
        """Records the present values of a model version; what is not newer than before is ignored.

        Args:
            model: Its key.
            time_ns: Unix nanoseconds; 0 before its first pane.
            values: `MODEL_COLUMNS`; NaN where one is unknown.
            evidence: By stream with evidence: over the alarm line, in log10.
        """
        key = model.id, model.version
        with self._lock:
            history = self._versions.get(key)
            if not time_ns or (history is not None and time_ns <= history.last_ns):
                return
            if history is not None:
                history.add(time_ns, values, evidence)
                return
            self._begin_ns = self._begin_ns or time_ns
            history = self._versions[key] = VersionHistory(
                model=model, first_ns=time_ns, is_first_known=time_ns >= self._begin_ns + SETTLING_NS
            )
            self._removed.discard(model)
            history.add(time_ns, values, evidence)
            self._drop_silent_versions()

    def pop_changes(self, *, is_last: bool) -> tuple[list[HistoryRecord], list[ModelKey]]:
        """Returns the histories that have to be stored now, and the model versions whose history is gone.

        Args:
            is_last: Whether all that changed is to be stored, however short ago it was stored.
        """
        interval_ns = 0 if is_last else SAVE_INTERVAL_NS
        with self._lock:
            due = [history for history in self._versions.values() if history.last_ns > history.saved_ns + interval_ns]
            for history in due:
                history.saved_ns = history.last_ns
            removed, self._removed = sorted(self._removed), set()
            return [history.record() for history in due], removed

    def undo_pop(self, records: Iterable[HistoryRecord], removed: Iterable[ModelKey]) -> None:
        """Marks changed histories as unstored again, after storing them failed."""
        with self._lock:
            for record in records:
                if (history := self._versions.get((record.model.id, record.model.version))) is not None:
                    history.saved_ns = 0
            self._removed.update(removed)

    def restore(self, record: HistoryRecord) -> None:
        """Restores the stored history of a model version, unless there is a later one.

        Raises:
            ValueError: It cannot be used.
        """
        history = VersionHistory(
            model=record.model,
            first_ns=record.first_ns,
            is_first_known=record.is_first_known,
            last_ns=record.last_ns,
            saved_ns=record.last_ns,
        )
        _restore_slot_series(history.spans, record.spans, is_model=True)
        for stream, spans in record.streams.items():
            _restore_slot_series(history.streams.setdefault(stream, {}), spans, is_model=False)
        key = (record.model.id, record.model.version)
        with self._lock:
            if key not in self._versions or self._versions[key].last_ns < history.last_ns:
                self._versions[key] = history

    @property
    def begin_ns(self) -> int:
        """When this process recorded its first values, Unix nanoseconds; 0 before that."""
        return self._begin_ns

    def first_ns(self, model: str, version: str) -> int:
        """Returns when a model version was first seen, Unix nanoseconds; 0 if that is unknown.

        Of what was there in the first minute of the history it is unknown when it began.
        """
        history = self._versions.get((model, version))
        return history.first_ns if history is not None and history.is_first_known else 0

    def model_rows(self, model: str, version: str, span: TimeRange) -> list[tuple[int, tuple[float, ...]]]:
        """Returns the recorded times and values of `MODEL_COLUMNS` of a model version."""
        with self._lock:
            history = self._versions.get((model, version))
            if history is None or span.name not in history.spans:
                return []
            return history.spans[span.name].rows(history.last_ns - span.length_s * SECOND_NS)

    def stream_rows(self, model: str, version: str, stream: str, span: TimeRange) -> list[tuple[int, float]]:
        """Returns the recorded times and log10 of the evidence over the alarm line of a stream, without empty slots."""
        with self._lock:
            history = self._versions.get((model, version))
            series = history.streams.get(stream, {}).get(span.name) if history is not None else None
            if history is None or series is None:
                return []
            rows = series.rows(history.last_ns - span.length_s * SECOND_NS)
            return [(time_ns, values[0]) for time_ns, values in rows]

    def _drop_silent_versions(self) -> None:
        newest_ns = max((history.last_ns for history in self._versions.values()), default=0)
        silent = [
            key for key, history in self._versions.items() if history.last_ns < newest_ns - MAX_SILENT_S * SECOND_NS
        ]
        by_age = sorted(self._versions.keys() - silent, key=lambda key: self._versions[key].last_ns)
        for key in (*silent, *by_age[: max(len(by_age) - MAX_VERSIONS, 0)]):
            self._removed.add(self._versions.pop(key).model)


HISTORY: Final = RecordKind("history", HistoryRecord, is_compressed=True)


def save_history(history: PageHistory, repository: Repository, *, is_last: bool = False) -> None:
    """Stores the chart histories of model versions that are due, every ten minutes; at the end all that changed.

    Raises:
        StoreError: The repository refused it; they count as changed.
    """
    records, removed = history.pop_changes(is_last=is_last)
    repository.on_rollback(lambda: history.undo_pop(records, removed))
    present = {record.model for record in records}
    put_records(repository, HISTORY, [(json.dumps(record.model), record) for record in records])
    repository.delete(HISTORY.name, [json.dumps(model) for model in removed if model not in present])


def load_history(history: PageHistory, repository: Repository) -> None:
    """Loads the stored chart histories of all model versions; those that cannot be used are set aside.

    Raises:
        StoreError: The repository cannot be read.
    """
    restore_records(repository, HISTORY, history.restore)


def _obtain_slot_series(spans: dict[str, SlotSeries], span: TimeRange, *, is_model: bool) -> SlotSeries:
    """Returns the slot series of a time range, and adds one if there was none."""
    series = spans.get(span.name)
    if series is None:
        slot_s = span.model_slot_s if is_model else span.stream_slot_s
        columns = MODEL_COLUMNS if is_model else ("ratio",)
        series = spans[span.name] = SlotSeries(
            slot_ns=slot_s * SECOND_NS, capacity=span.length_s // slot_s, columns=columns
        )
    return series


def _restore_slot_series(spans: dict[str, SlotSeries], records: SpanRecords, *, is_model: bool) -> None:
    for span in SPANS:
        if span.name in records:
            _obtain_slot_series(spans, span, is_model=is_model).restore(records[span.name])
