"""The records of the window step: how its state is saved, and loaded again.

Records by kind: `started` (when counting began), `embedded` (references that models carry), `providers` (execution
providers of models), `model` (how far panes are closed), `sender` (how far senders are), `stream` (references of
streams), `hour` (what moving references are made of), `series` (where totals stand), `ended` (senders whose series were
removed), `point` (points that are pending). Closed panes, whose counts make up the rolling windows again, are
`pane_store.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Any, Final, NamedTuple, TypeVar

from otel_mlmon.processor.state.repository import RecordKind, Repository, load_each, load_records, put_records
from otel_mlmon.processor.window.model_windows import ModelProgress, ModelWindows
from otel_mlmon.processor.window.moving_reference import HOUR_NS, hour_of
from otel_mlmon.processor.window.pane_store import (
    COMPACTION_INTERVAL_NS,
    PANE,
    PANE_HOURS,
    PANE_MINUTES,
    compact_panes,
    load_panes,
    merge_panes,
    put_panes,
)
from otel_mlmon.processor.window.providers import ModelProviders
from otel_mlmon.processor.window.reference import ReferenceState
from otel_mlmon.processor.window.series import Point, PointKey, Series, SeriesKey, SeriesState, list_streams
from otel_mlmon.processor.window.state import Changes, EmbeddedReference, EndedSender, WindowState
from otel_mlmon.processor.window.watermark import SenderProgress
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, StreamKey
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.types import ModelKey

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class _StreamRecord(NamedTuple):
    stream: StreamKey
    state: ReferenceState


class _HourRecord(NamedTuple):
    stream: StreamKey
    hour: int
    counts: PaneCounts


class _PointRecord(NamedTuple):
    series: SeriesKey
    key: PointKey
    point: Point


STARTED: Final = RecordKind("started", int)
EMBEDDED: Final = RecordKind("embedded", EmbeddedReference)
PROVIDERS: Final = RecordKind("providers", ModelProviders)
MODEL: Final = RecordKind("model", ModelProgress)
STREAM: Final = RecordKind("stream", _StreamRecord)
SERIES: Final = RecordKind("series", SeriesState)
POINT: Final = RecordKind("point", _PointRecord)
SENDER: Final = RecordKind("sender", SenderProgress)
ENDED: Final = RecordKind("ended", EndedSender)
HOUR: Final = RecordKind("hour", _HourRecord)
RECORD_KINDS: Final[tuple[RecordKind[Any], ...]] = (
    STARTED, EMBEDDED, PROVIDERS, MODEL, SENDER, ENDED, STREAM, HOUR, SERIES, POINT, PANE, PANE_MINUTES, PANE_HOURS,
)  # fmt: skip
"""Every kind of the window step, series before their points."""


def save_state(state: WindowState, repository: Repository, *, now_ns: int) -> None:
    """Writes what changed since the last save; if the repository rolls that back it counts as changed again.

    Whatever this raises, the caller rolls back: a part of a save must not be committed.

    Raises:
        StoreError: The repository refused it.
    """
    changes, state.changes = state.changes, Changes()
    compacted_ns = state.compacted_ns
    state.is_stored = True

    def undo() -> None:
        state.changes.merge_earlier(changes)
        state.compacted_ns = compacted_ns

    repository.on_rollback(undo)
    if changes.is_started:
        put_records(repository, STARTED, [("", state.started_ns)])
    _save(repository, EMBEDDED, changes.embedded, lambda key: state.embedded.get(key, (None,))[0])
    _save(repository, PROVIDERS, changes.providers, state.providers.get)
    _save(repository, MODEL, changes.models, lambda key: _progress(state, key))
    _save(repository, STREAM, changes.streams, lambda key: _stream_record(state, key))
    _save(repository, SERIES, changes.series, lambda key: _series_state(state, key))
    _save(repository, POINT, changes.points, lambda point: _point_record(state, *point), _point_key)
    _save(repository, SENDER, changes.senders, lambda key: _sender_progress(state, *key))
    _save(repository, ENDED, changes.ended, state.ended.get)
    _save_panes(state, repository, changes, now_ns)


def load_state(state: WindowState, repository: Repository, *, now_ns: int) -> None:
    """Fills an empty state with the records of the last save; leaves it as it is without any.

    A record that is damaged, or belongs to nothing that is there, is set aside and reported.

    Raises:
        StoreError: The repository cannot be read.
    """
    started = load_records(repository, STARTED)
    models = load_records(repository, MODEL)
    streams = load_records(repository, STREAM)
    if not started and not models and not streams:
        return
    state.started_ns, state.is_stored, state.changes = started.get("", now_ns), True, Changes(is_started=not started)
    load_each(repository, EMBEDDED, lambda reference: _load_embedded(state, reference))
    for providers in load_records(repository, PROVIDERS).values():
        state.providers[providers.model] = providers
        state.changes.providers.add(providers.model)  # judged again, by rules that may have changed
    for ended in load_records(repository, ENDED).values():
        state.ended[ended.sender] = ended
    for progress in models.values():
        _add_model(state, progress)
    rebuilt = {record.stream.model for record in streams.values()} - state.models.keys()
    for key in rebuilt:  # its own record was damaged
        _add_model(state, ModelProgress(model=key, received_ns=now_ns))
    for record in streams.values():
        state.models[record.stream.model].ensure_stream(record.stream.stream, record.state)
    load_each(repository, SENDER, lambda sender: _load_sender(state, sender))
    for hour in load_records(repository, HOUR).values():
        _load_hour(state, hour)
    load_each(repository, SERIES, lambda series: _load_series(state, series))
    _load_panes(state, repository, rebuilt)
    load_each(repository, POINT, lambda point: _load_point(state, *point))


def _add_model(state: WindowState, progress: ModelProgress) -> None:
    settings = state.settings_of(progress.model)
    state.models[progress.model] = ModelWindows(progress=progress, settings=settings, windows=state.windows)


def _load_embedded(state: WindowState, reference: EmbeddedReference) -> None:
    state.embedded[reference.model] = (reference, decode_profile(reference.text))


def _load_series(state: WindowState, series: SeriesState) -> None:
    for name in list_streams(series.metric, series.name, series.category):
        state.models[series.model].ensure_stream(name)
    state.add_series(Series(series))


def _load_sender(state: WindowState, sender: SenderProgress) -> None:
    state.models[sender.model].senders.senders[sender.sender] = sender


def _save(
    repository: Repository,
    kind: RecordKind[T],
    keys: set[K],
    record: Callable[[K], T | None],
    name: Callable[[K], str] = json.dumps,
) -> None:
    """Puts the records of these keys, and deletes those of keys that are no longer in the state."""
    records = {name(key): record(key) for key in keys}
    put_records(repository, kind, [(key, value) for key, value in records.items() if value is not None])
    removed = sorted(key for key, value in records.items() if value is None)
    if removed:
        repository.delete(kind.name, removed)


def _save_panes(state: WindowState, repository: Repository, changes: Changes, now_ns: int) -> None:
    put_panes(repository, changes.panes)
    merge_panes(repository, changes.amendments)
    if now_ns - state.compacted_ns >= COMPACTION_INTERVAL_NS:
        rolling_ns = state.windows.rolling_ns
        rolling_since_ns = {key: model.progress.last_ns - rolling_ns for key, model in state.models.items()}
        compact_panes(repository, state.windows, now_ns, rolling_since_ns=rolling_since_ns)
        state.compacted_ns = now_ns
    if not changes.panes:
        return
    put_records(repository, HOUR, dict(_hour_records(state, changes.panes)).items())
    repository.prune(HOUR.name, f"{max(now_ns // HOUR_NS - state.windows.history_hours, 0):010d}")


def _hour_records(state: WindowState, panes: list[ModelPane]) -> Iterator[tuple[str, _HourRecord]]:
    """Returns the present records of the hours that the panes are in."""
    for pane in panes:
        model = state.models.get(pane.model)
        for name in pane.streams if model is not None else ():
            stream = model.streams.get(name) if model is not None else None
            if stream is None or stream.moving is None:
                continue
            hour = hour_of(pane.end_ns)
            if hour in stream.moving.hours:
                record = _HourRecord(stream.key, hour, stream.moving.hours[hour])
                yield f"{hour:010d} {json.dumps(stream.key)}", record


def _load_hour(state: WindowState, record: _HourRecord) -> None:
    model = state.models.get(record.stream.model)
    stream = model.streams.get(record.stream.stream) if model is not None else None
    if stream is not None:
        stream.restore_hour(record.hour, record.counts)


def _load_panes(state: WindowState, repository: Repository, rebuilt: set[ModelKey]) -> None:
    last_ns = [model.progress.last_ns for key, model in state.models.items() if key not in rebuilt]
    oldest_ns = 0 if rebuilt else min(last_ns, default=0)
    panes = list(load_panes(repository, oldest_ns - state.windows.rolling_ns))
    for pane in panes:
        if pane.model in rebuilt:
            progress = state.models[pane.model].progress
            progress.first_ns = progress.first_ns or pane.start_ns
            progress.last_ns = progress.closed_ns = progress.watermark_ns = pane.end_ns
    for pane in panes:
        model = state.models.get(pane.model)
        # Panes of before the model was removed may still be stored: they are none of its own.
        if model is not None and model.progress.first_ns <= pane.start_ns and pane.end_ns <= model.progress.last_ns:
            model.restore_pane(pane)
    for model in state.models.values():
        model.finish_restore()


def _load_point(state: WindowState, key: SeriesKey, point_key: PointKey, point: Point) -> None:
    series, model = state.series[key], state.models[state.series[key].state.model]
    series.pending[point_key] = point
    series.state.newest_ns = max(series.state.newest_ns, point_key[1])
    model.open_panes.setdefault(point.pane_end_ns, {})[key] = series


def _progress(state: WindowState, key: ModelKey) -> ModelProgress | None:
    return state.models[key].progress if key in state.models else None


def _sender_progress(state: WindowState, model: ModelKey, sender: str) -> SenderProgress | None:
    return state.models[model].senders.senders.get(sender) if model in state.models else None


def _stream_record(state: WindowState, key: StreamKey) -> _StreamRecord | None:
    model = state.models.get(key.model)
    stream = model.streams.get(key.stream) if model is not None else None
    return _StreamRecord(key, stream.learned.stored_state()) if stream is not None else None


def _series_state(state: WindowState, key: SeriesKey) -> SeriesState | None:
    return state.series[key].state if key in state.series else None


def _point_record(state: WindowState, series: SeriesKey, key: PointKey) -> _PointRecord | None:
    pending = state.series[series].pending if series in state.series else {}
    return _PointRecord(series, key, pending[key]) if key in pending else None


def _point_key(key: tuple[SeriesKey, PointKey]) -> str:
    """Encodes a key as JSON in a third of the time that `json` takes: there are many points."""
    series, point = key
    return f"[{encode_basestring_ascii(series.series)}, {series.start_ns}, {point[0]}, {point[1]}]"
