"""The state of the window step: models, series and references, which of it changed, and its records.

Records by kind: `started` (when counting began), `embedded` (references that models carry), `providers` (execution
providers of models), `model` (how far panes are closed), `stream` (references of streams), `pane` (closed panes, whose
counts make up the rolling windows again), `hour` (what moving references are made of), `series` (where totals stand),
`point` (points that are pending).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from json.encoder import encode_basestring_ascii
from typing import Final, NamedTuple, TypeVar

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records
from otel_mlmon.processor.window.model_windows import ModelProgress, ModelWindows
from otel_mlmon.processor.window.moving_reference import HOUR_NS, hour_of
from otel_mlmon.processor.window.providers import ModelProviders, ProviderUse
from otel_mlmon.processor.window.reference import ModelWindowSettings, ReferenceState
from otel_mlmon.processor.window.series import Point, PointKey, Series, SeriesKey, SeriesState
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, StreamKey, WindowSettings
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey

MAX_EMBEDDED_REFERENCES: Final = 1_000
"""References that models carry; of models without points, new ones beyond are dropped."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class EmbeddedReference(NamedTuple):
    """The reference that a model version carries, as a process that loaded it reported it."""

    model: ModelKey
    text: str
    received_ns: int
    """By our clock."""


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
PANE: Final = RecordKind("pane", ModelPane, is_compressed=True)
HOUR: Final = RecordKind("hour", _HourRecord)


@dataclass(slots=True)
class Changes:
    """Names what changed since the last save: what is no longer in the state is removed from the repository.

    Memory: bounded by the state itself, also without any save.
    """

    embedded: set[ModelKey] = field(default_factory=set)
    providers: set[ModelKey] = field(default_factory=set)
    models: set[ModelKey] = field(default_factory=set)
    streams: set[StreamKey] = field(default_factory=set)
    series: set[SeriesKey] = field(default_factory=set)
    points: set[tuple[SeriesKey, PointKey]] = field(default_factory=set)
    panes: list[ModelPane] = field(default_factory=list)
    """Closed panes, in the order of time."""
    is_started: bool = False
    """Whether the time when counting began is not saved yet."""

    def merge_earlier(self, earlier: Changes) -> None:
        """Adds the changes of a save that was rolled back."""
        self.embedded |= earlier.embedded
        self.providers |= earlier.providers
        self.models |= earlier.models
        self.streams |= earlier.streams
        self.series |= earlier.series
        self.points |= earlier.points
        self.panes[:0] = earlier.panes
        self.is_started |= earlier.is_started


@dataclass(slots=True, kw_only=True)
class WindowState:
    """Holds models, series and the references that models carry, and what changed in them."""

    settings_for: Callable[[ModelKey], ModelWindowSettings]
    windows: WindowSettings
    started_ns: int
    """When this state began, in an earlier process perhaps."""
    is_stored: bool = False
    """Whether there is a repository that removed records are to be removed from."""
    models: dict[ModelKey, ModelWindows] = field(default_factory=dict)
    embedded: dict[ModelKey, tuple[EmbeddedReference, Profile]] = field(default_factory=dict)
    providers: dict[ModelKey, ModelProviders] = field(default_factory=dict)
    series: dict[SeriesKey, Series] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    """The newest start of each cumulative series."""
    changes: Changes = field(default_factory=lambda: Changes(is_started=True))

    def settings_of(self, key: ModelKey) -> ModelWindowSettings:
        """Returns the settings of a model, with the reference that it carries."""
        settings = self.settings_for(key)
        return replace(settings, embedded_profile=self.embedded[key][1]) if key in self.embedded else settings

    def add_embedded(self, reference: EmbeddedReference, profile: Profile) -> list[StreamKey]:
        """Adds the reference that a model carries, and returns the streams that are judged by it from now on."""
        self.embedded[reference.model] = (reference, profile)
        self.changes.embedded.add(reference.model)
        model = self.models.get(reference.model)
        streams = model.apply_settings(self.settings_of(reference.model)) if model is not None else []
        self.changes.streams.update(streams)
        return streams

    def add_series(self, series: Series) -> bool:
        """Adds a series; returns whether its counting began anew."""
        name, start_ns = series.state.key
        newest_ns = self.starts.get(name, start_ns)
        self.series[series.state.key] = series
        self.starts[name] = max(newest_ns, start_ns)
        return newest_ns < start_ns

    def add_point(self, series: Series, key: PointKey, point: Point) -> None:
        """Adds a pending point."""
        series.pending[key] = point
        series.state.newest_ns = max(series.state.newest_ns, key[1])
        self.changes.points.add((series.state.key, key))
        self.changes.models.add(series.state.model)

    def note_consumed(self, series: SeriesKey, key: PointKey) -> None:
        """Notes that a point is no longer pending."""
        self.changes.series.add(series)
        self._note_removed(self.changes.points, (series, key))

    def remove_series(self, key: SeriesKey) -> None:
        """Removes a stale series."""
        del self.series[key]
        if self.starts.get(key.series) == key.start_ns:
            del self.starts[key.series]
        self._note_removed(self.changes.series, key)

    def remove_embedded(self, key: ModelKey) -> None:
        """Removes the reference that a model carries."""
        del self.embedded[key]
        self._note_removed(self.changes.embedded, key)

    def provider_uses(self, key: ModelKey) -> tuple[ProviderUse, ...]:
        """Returns the execution providers that were reported of a model version."""
        return self.providers[key].uses if key in self.providers else ()

    def remove_providers(self, key: ModelKey) -> None:
        """Removes what was reported of a model's execution providers."""
        del self.providers[key]
        self._note_removed(self.changes.providers, key)

    def remove_model(self, key: ModelKey) -> list[StreamKey]:
        """Removes a silent model, and returns its streams, which are removed with it."""
        streams = [stream.key for stream in self.models.pop(key).streams.values()]
        if key in self.embedded:
            self.remove_embedded(key)
        if key in self.providers:
            self.remove_providers(key)
        self._note_removed(self.changes.models, key)
        for stream in streams:
            self._note_removed(self.changes.streams, stream)
        return streams

    def prune_panes(self) -> None:
        """Drops unsaved panes that no rolling window holds any more, where there is no repository."""
        rolling_ns = self.windows.rolling_ns
        oldest_ns = {key: model.progress.last_ns - rolling_ns for key, model in self.models.items()}
        self.changes.panes = [
            pane for pane in self.changes.panes if pane.model in oldest_ns and pane.end_ns > oldest_ns[pane.model]
        ]

    def _note_removed(self, keys: set[K], key: K) -> None:
        if self.is_stored:
            keys.add(key)
        else:
            keys.discard(key)


def save_state(state: WindowState, repository: Repository, *, now_ns: int) -> None:
    """Writes what changed since the last save; if this or the commit fails it counts as changed again.

    Raises:
        StoreError: The repository refused it.
    """
    changes, state.changes = state.changes, Changes()
    state.is_stored = True

    def undo() -> None:
        state.changes.merge_earlier(changes)

    repository.on_rollback(undo)
    try:
        if changes.is_started:
            put_records(repository, STARTED, [("", state.started_ns)])
        _save(repository, EMBEDDED, changes.embedded, lambda key: state.embedded.get(key, (None,))[0])
        _save(repository, PROVIDERS, changes.providers, state.providers.get)
        _save(repository, MODEL, changes.models, lambda key: _progress(state, key))
        _save(repository, STREAM, changes.streams, lambda key: _stream_record(state, key))
        _save(repository, SERIES, changes.series, lambda key: _series_state(state, key))
        _save(repository, POINT, changes.points, lambda point: _point_record(state, *point), _point_key)
        _save_panes(state, repository, changes.panes, now_ns)
    except StoreError:
        undo()
        raise


def load_state(state: WindowState, repository: Repository) -> None:
    """Fills an empty state with the records of the last save; leaves it as it is without any.

    Raises:
        StoreError: The repository cannot be read, or a record in it is damaged.
    """
    started = load_records(repository, STARTED)
    if not started:
        return
    state.started_ns, state.is_stored, state.changes = started[""], True, Changes()
    try:
        for reference in load_records(repository, EMBEDDED).values():
            state.embedded[reference.model] = (reference, decode_profile(reference.text))
        for providers in load_records(repository, PROVIDERS).values():
            state.providers[providers.model] = providers
        for progress in load_records(repository, MODEL).values():
            settings = state.settings_of(progress.model)
            state.models[progress.model] = ModelWindows(progress=progress, settings=settings, windows=state.windows)
        for stream, reference_state in load_records(repository, STREAM).values():
            state.models[stream.model].ensure_stream(stream.stream, reference_state)
        for record in load_records(repository, HOUR).values():
            _load_hour(state, record)
        for series_state in load_records(repository, SERIES).values():
            state.add_series(Series(series_state))
        _load_panes(state, repository)
        for series, key, point in load_records(repository, POINT).values():
            _load_point(state, series, key, point)
    except (KeyError, ValueError) as error:
        raise StoreError(f"the stored state is damaged: {type(error).__name__}: {error}") from error


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


def _save_panes(state: WindowState, repository: Repository, panes: list[ModelPane], now_ns: int) -> None:
    if not panes:
        return
    put_records(repository, PANE, [(f"{pane.end_ns:020d} {json.dumps(pane.model)}", pane) for pane in panes])
    put_records(repository, HOUR, dict(_hour_records(state, panes)).items())
    repository.prune(PANE.name, f"{max(now_ns - state.windows.stored_ns, 0):020d}")
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


def _load_panes(state: WindowState, repository: Repository) -> None:
    oldest_ns = min((model.progress.last_ns for model in state.models.values()), default=0)
    since = f"{max(oldest_ns - state.windows.rolling_ns, 0):020d}"
    for pane in load_records(repository, PANE, since).values():
        model = state.models.get(pane.model)
        # Panes of before the model was removed may still be stored: they are none of its own.
        if model is not None and model.progress.first_ns <= pane.start_ns and pane.end_ns <= model.progress.last_ns:
            model.restore_pane(pane)
    for model in state.models.values():
        model.finish_restore()


def _load_point(state: WindowState, key: SeriesKey, point_key: PointKey, point: Point) -> None:
    series = state.series[key]
    series.pending[point_key] = point
    series.state.newest_ns = max(series.state.newest_ns, point_key[1])
    state.models[series.state.model].open_panes.setdefault(point.pane_end_ns, {})[key] = series


def _progress(state: WindowState, key: ModelKey) -> ModelProgress | None:
    return state.models[key].progress if key in state.models else None


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
