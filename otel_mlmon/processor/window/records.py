"""Saves the state of the window step as records in the state store, and loads it again.

Records by kind: `started` (when counting began), `embedded` (references that models carry), `providers` (execution
providers of models), `model` (how far panes are closed), `presence` (how often streams are sent), `sender` (how far
senders are), `stream` (references of streams), `hour` (what moving references are made of), `identities` (which series
a sender has), `series` (where these stand, in the same order), `ended` (senders whose series were removed), `point`
(points of a request that are pending). Closed panes, whose counts make up the rolling windows again, are
`pane_store.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records, restore_records
from otel_mlmon.processor.window.model_windows import ModelWindows
from otel_mlmon.processor.window.moving_reference import HOUR_NS, compute_epoch_hour
from otel_mlmon.processor.window.packing import (
    IdentitiesRecord,
    PointsRecord,
    SeriesRecord,
    pack_points,
    pack_series,
    unpack_points,
    unpack_series,
)
from otel_mlmon.processor.window.pane_stack import PaneStack
from otel_mlmon.processor.window.pane_store import (
    BLOCK,
    BLOCK_HOURS,
    BLOCK_MINUTES,
    COMPACTION_INTERVAL_NS,
    PANE,
    PANE_HOURS,
    PANE_MINUTES,
    compact_panes,
    load_panes,
    merge_panes,
    put_panes,
)
from otel_mlmon.processor.window.progress import ModelProgress, SenderProgress, StreamPresence
from otel_mlmon.processor.window.providers import ModelProviders
from otel_mlmon.processor.window.reference import ReferenceState
from otel_mlmon.processor.window.series import (
    DELTA,
    PendingPoints,
    SeriesIdentity,
    TimeSeries,
)
from otel_mlmon.processor.window.state import (
    EmbeddedReference,
    EndedSender,
    RequestKey,
    SeriesOwner,
    WindowState,
    WindowStateChanges,
)
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, StreamKey
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.types import ModelKey

MAX_KEYS: Final = 10_000
"""How many keys are remembered with their text: those of all that changes with each request."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class _StreamRecord(NamedTuple):
    stream: StreamKey
    state: ReferenceState


class _PresenceRecord(NamedTuple):
    model: ModelKey
    presences: dict[str, StreamPresence]


class _HourRecord(NamedTuple):
    stream: StreamKey
    hour: int
    counts: PaneCounts


def _check_points(record: PointsRecord) -> None:
    for _ in unpack_points(record):
        pass


def _check_series(record: SeriesRecord) -> None:
    identity = SeriesIdentity("", 0, "", "", "")
    for _ in unpack_series(record, [identity] * len(record.progress_numbers)):
        pass


STARTED: Final = RecordKind("started", int)
EMBEDDED: Final = RecordKind("embedded", EmbeddedReference, check=lambda reference: decode_profile(reference.text))
PROVIDERS: Final = RecordKind("providers", ModelProviders)
MODEL: Final = RecordKind("model", ModelProgress)
PRESENCE: Final = RecordKind("presence", _PresenceRecord)
STREAM: Final = RecordKind("stream", _StreamRecord)
IDENTITIES: Final = RecordKind("identities", IdentitiesRecord)
SERIES: Final = RecordKind("series", SeriesRecord, check=_check_series)
POINT: Final = RecordKind("point", PointsRecord, check=_check_points)
SENDER: Final = RecordKind("sender", SenderProgress)
ENDED: Final = RecordKind("ended", EndedSender)
HOUR: Final = RecordKind("hour", _HourRecord)
RECORD_KINDS: Final[tuple[RecordKind[Any], ...]] = (
    STARTED, EMBEDDED, PROVIDERS, MODEL, PRESENCE, SENDER, ENDED, STREAM, HOUR, IDENTITIES, SERIES, POINT, PANE,
    PANE_MINUTES, PANE_HOURS, BLOCK, BLOCK_MINUTES, BLOCK_HOURS,
)  # fmt: skip
"""Every kind of the window step, series before their points."""


def save_state(state: WindowState, repository: Repository, *, now_ns: int) -> None:
    """Writes the changes of the window step's state since the last save; after a rollback they count as changed again.

    Whatever this raises, the caller rolls back: a part of a save must not be committed.

    Raises:
        StoreError: The repository refused it.
    """
    changes, state.changes = state.changes, WindowStateChanges()
    compacted_ns = state.compacted_ns
    state.is_stored = True

    def undo() -> None:
        state.changes.merge_earlier(changes)
        state.compacted_ns = compacted_ns

    repository.on_rollback(undo)
    if changes.is_started:
        put_records(repository, STARTED, [("", state.started_ns)])
    _save_records(repository, EMBEDDED, changes.embedded, lambda key: state.embedded.get(key, (None,))[0])
    _save_records(repository, PROVIDERS, changes.providers, state.providers.get)
    _save_records(repository, MODEL, changes.models, lambda key: _find_progress(state, key))
    _save_records(repository, PRESENCE, changes.presences, lambda key: _build_presence_record(state, key))
    _save_records(repository, STREAM, changes.streams, lambda key: _build_stream_record(state, key))
    _save_records(repository, IDENTITIES, changes.identities, lambda owner: _build_identities_record(state, owner))
    _save_records(repository, SERIES, changes.series, lambda owner: _build_series_record(state, owner))
    _save_records(
        repository, POINT, changes.points, lambda request: _build_points_record(state, request), _encode_request_key
    )
    _save_records(repository, SENDER, changes.senders, lambda key: _find_sender_progress(state, *key))
    _save_records(repository, ENDED, changes.ended, state.ended.get)
    _save_panes(state, repository, changes, now_ns)


def load_state(state: WindowState, repository: Repository, *, now_ns: int) -> None:
    """Restores the state of all windows from the records in the state store, if there are any.

    A record that is damaged, or belongs to nothing that is there, is set aside and reported.

    Raises:
        StoreError: The repository cannot be read.
    """
    started = load_records(repository, STARTED)
    models = load_records(repository, MODEL)
    streams = load_records(repository, STREAM)
    if not started and not models and not streams:
        return
    state.started_ns, state.is_stored, state.changes = (
        started.get("", now_ns),
        True,
        WindowStateChanges(is_started=not started),
    )
    restore_records(repository, EMBEDDED, lambda reference: _load_embedded_reference(state, reference))
    for providers in load_records(repository, PROVIDERS).values():
        state.providers[providers.model] = providers
        state.changes.providers.add(providers.model)  # judged again, by rules that may have changed
    for ended in load_records(repository, ENDED).values():
        state.ended[ended.sender] = ended
    for progress in models.values():
        _load_model(state, progress)
    rebuilt = {record.stream.model for record in streams.values()} - state.models.keys()
    for key in rebuilt:  # its own record was damaged
        _load_model(state, ModelProgress(model=key, received_ns=now_ns))
    for record in streams.values():
        state.models[record.stream.model].ensure_stream(record.stream.stream, record.state)
    restore_records(repository, PRESENCE, lambda record: _load_presences(state, record))
    restore_records(repository, SENDER, lambda sender: _load_sender(state, sender))
    for hour in load_records(repository, HOUR).values():
        _load_hour(state, hour)
    identities = {record[:2]: record.identities for record in load_records(repository, IDENTITIES).values()}
    restore_records(repository, SERIES, lambda series: _load_series(state, series, identities))
    state.changes.identities.update(identities.keys() - state.owners.keys())
    _load_panes(state, repository, rebuilt)
    restore_records(repository, POINT, lambda record: _load_points(state, record))


def _load_model(state: WindowState, progress: ModelProgress) -> None:
    settings = state.find_settings(progress.model)
    state.models[progress.model] = ModelWindows(progress=progress, settings=settings, windows=state.windows)


def _load_embedded_reference(state: WindowState, reference: EmbeddedReference) -> None:
    state.embedded[reference.model] = (reference, decode_profile(reference.text))


def _load_series(
    state: WindowState, record: SeriesRecord, identities: Mapping[SeriesOwner, Sequence[SeriesIdentity]]
) -> None:
    model = state.models[record.model]
    # All of them or none: a part of a sender's series would not be in the order of its identities.
    for series in list(map(TimeSeries, unpack_series(record, identities[record.model, record.sender]))):
        for name in series.streams:
            if name not in model.streams:
                model.ensure_stream(name)
        state.add_series(series)


def _load_presences(state: WindowState, record: _PresenceRecord) -> None:
    state.models[record.model].presences = record.presences


def _load_sender(state: WindowState, sender: SenderProgress) -> None:
    state.models[sender.model].senders.senders[sender.sender] = sender


def _save_records(
    repository: Repository,
    kind: RecordKind[T],
    keys: set[K],
    record: Callable[[K], T | None],
    name: Callable[[K], str] | None = None,
) -> None:
    """Stores the records of changed keys of one kind, and deletes those of keys that are no longer in the state."""
    encode_key = name or _encode_key
    records = {encode_key(key): record(key) for key in keys}
    put_records(repository, kind, [(key, value) for key, value in records.items() if value is not None])
    removed = sorted(key for key, value in records.items() if value is None)
    if removed:
        repository.delete(kind.name, removed)


def _save_panes(state: WindowState, repository: Repository, changes: WindowStateChanges, now_ns: int) -> None:
    put_panes(repository, changes.panes)
    merge_panes(repository, changes.amendments)
    if now_ns - state.compacted_ns >= COMPACTION_INTERVAL_NS:
        rolling_ns = state.windows.rolling_ns
        rolling_since_ns = {key: model.progress.last_ns - rolling_ns for key, model in state.models.items()}
        compact_panes(repository, state.windows, now_ns, rolling_since_ns=rolling_since_ns)
        state.compacted_ns = now_ns
    if not changes.panes:
        return
    put_records(repository, HOUR, dict(_build_hour_records(state, changes.panes)).items())
    repository.prune(HOUR.name, f"{max(now_ns // HOUR_NS - state.windows.history_hours, 0):010d}")


def _build_hour_records(state: WindowState, panes: list[ModelPane]) -> Iterator[tuple[str, _HourRecord]]:
    """Returns the present records of the hours that the panes are in."""
    for pane in panes:
        model = state.models.get(pane.model)
        for name in pane.streams.layout.names if model is not None else ():
            stream = model.streams.get(name) if model is not None else None
            if stream is None or stream.moving is None:
                continue
            hour = compute_epoch_hour(pane.end_ns)
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
    stacks = list(load_panes(repository, oldest_ns - state.windows.rolling_ns))
    for stack in stacks:
        if stack.model in rebuilt:
            progress = state.models[stack.model].progress
            (first_ns, _), (_, end_ns) = stack.times_ns[0], stack.times_ns[-1]
            progress.first_ns = min(progress.first_ns or first_ns, first_ns)
            progress.last_ns = progress.closed_ns = progress.watermark_ns = max(progress.last_ns, end_ns)
    for stack in stacks:
        if stack.model in state.models:
            _load_pane_stack(state.models[stack.model], stack)
    for model in state.models.values():
        model.finish_restore()


def _load_pane_stack(model: ModelWindows, stack: PaneStack) -> None:
    """Adds stored panes to the windows of their model, but none of before it was removed, which are not its own."""
    first_ns, last_ns = model.progress.first_ns, model.progress.last_ns
    present = stack.select_panes(lambda start_ns, end_ns: first_ns <= start_ns and end_ns <= last_ns)
    if present.times_ns:
        model.restore_panes(present)


def _load_points(state: WindowState, record: PointsRecord) -> None:
    """Restores the data points of a stored request; fails if a point is of no series, after all others are restored."""
    model = state.models[record.model]
    state.request = max(state.request, record.request)
    missing = 0
    for points in unpack_points(record):
        run, members = points.run, [state.series.get(key) for key in points.series]
        missing += members.count(None)
        groups: dict[tuple[str, str], dict[TimeSeries, int]] = {}
        for position, series in enumerate(members):
            if series is not None and run.key not in series.pending:
                groups.setdefault((series.state.sender, series.state.metric), {}).setdefault(series, position)
        for (sender, _), positions in groups.items():
            group = PendingPoints(
                request=record.request, sender=sender, key=run.key, is_cumulative=run.start_ns != DELTA,
                pane_end_ns=run.pane_end_ns, time_ns=run.time_ns, received_ns=run.received_ns,
                series=list(positions), table=points.table,
                numbers=[points.numbers[position] for position in positions.values()],
                exemplars={
                    number: points.exemplars[position]
                    for number, position in enumerate(positions.values() if points.exemplars else ())
                    if position in points.exemplars
                },
            )  # fmt: skip
            _link_points(state, model, group)
    if missing:
        state.changes.points.add((record.request, record.model))
        raise KeyError(f"{missing} points are of no series that is stored")


def _link_points(state: WindowState, model: ModelWindows, points: PendingPoints) -> None:
    """Adds stored points of a model to its open pane, and to their series."""
    state.link_points(model, points)
    state.pending_points += len(points.series)
    points.link_series()
    for series in points.series:
        if series.state.newest_ns < points.key[1]:
            series.state.newest_ns = points.key[1]


def _find_progress(state: WindowState, key: ModelKey) -> ModelProgress | None:
    return state.models[key].progress if key in state.models else None


def _find_sender_progress(state: WindowState, model: ModelKey, sender: str) -> SenderProgress | None:
    return state.models[model].senders.senders.get(sender) if model in state.models else None


def _build_presence_record(state: WindowState, key: ModelKey) -> _PresenceRecord | None:
    return _PresenceRecord(key, state.models[key].presences) if key in state.models else None


def _build_stream_record(state: WindowState, key: StreamKey) -> _StreamRecord | None:
    model = state.models.get(key.model)
    stream = model.streams.get(key.stream) if model is not None else None
    return _StreamRecord(key, stream.learned.stored_state()) if stream is not None else None


def _build_series_record(state: WindowState, owner: SeriesOwner) -> SeriesRecord | None:
    present = state.owners.get(owner)
    return pack_series(*owner, [series.state for series in present.values()]) if present is not None else None


def _build_identities_record(state: WindowState, owner: SeriesOwner) -> IdentitiesRecord | None:
    present = state.owners.get(owner)
    if present is None:
        return None
    return IdentitiesRecord(*owner, [series.state.identity for series in present.values()])


def _build_points_record(state: WindowState, request: RequestKey) -> PointsRecord | None:
    panes = state.points.get(request)
    if panes is None:
        return None
    return pack_points(*request, [points for groups in panes.values() for points in groups])


@lru_cache(maxsize=MAX_KEYS)
def _encode_key(key: Hashable) -> str:
    return json.dumps(key)


def _encode_request_key(request: RequestKey) -> str:
    return f"{request[0]:020d} {_encode_key(request[1])}"
