"""Holds the state of the window step: models, series and references, and which of them changed since the last save."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias, TypeVar

from otel_mlmon.processor.receive.data_point import ModelLoaded, ProviderFallback
from otel_mlmon.processor.window.model_windows import ModelWindows
from otel_mlmon.processor.window.providers import ExecutionProviderUse, ModelProviders
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.series import PendingPoints, SeriesKey, TimeSeries
from otel_mlmon.processor.window.window import ModelPane, StreamKey, WindowSettings
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey

MAX_EMBEDDED_REFERENCES: Final = 1_000
"""References that models carry; of models without points, new ones beyond are dropped."""

SeriesOwner: TypeAlias = tuple[ModelKey, str]
"""A model version and a sender, whose series are stored together."""
RequestKey: TypeAlias = tuple[int, ModelKey]
"""The number of a request and a model version, whose pending points are stored together."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class EmbeddedReference(NamedTuple):
    """The reference profile that a model version carries, as a process that loaded the model reported it."""

    model: ModelKey
    text: str
    received_ns: int
    """By our clock."""


class EndedSender(NamedTuple):
    """A sender whose series were removed, since it sent nothing for long."""

    sender: str
    newest_ns: int
    """The largest time of its points: what was counted before it may have been counted already."""
    removed_ns: int
    """By our clock."""


@dataclass(slots=True)
class WindowStateChanges:
    """The keys of the window step's state that changed since the last save to the state store.

    Memory: bounded by the state itself, also without any save.
    """

    embedded: set[ModelKey] = field(default_factory=set)
    providers: set[ModelKey] = field(default_factory=set)
    models: set[ModelKey] = field(default_factory=set)
    presences: set[ModelKey] = field(default_factory=set)
    streams: set[StreamKey] = field(default_factory=set)
    identities: set[SeriesOwner] = field(default_factory=set)
    """Whose series were added or removed; they are in `series` too."""
    series: set[SeriesOwner] = field(default_factory=set)
    points: set[RequestKey] = field(default_factory=set)
    senders: set[tuple[ModelKey, str]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    panes: list[ModelPane] = field(default_factory=list)
    """Closed panes, in the order of time."""
    amendments: list[ModelPane] = field(default_factory=list)
    """The counts that came late for closed panes."""
    is_started: bool = False
    """Whether the time when counting began is not saved yet."""

    def merge_earlier(self, earlier: WindowStateChanges) -> None:
        """Merges in the changes of an earlier save that was rolled back, so that they are saved again."""
        self.embedded |= earlier.embedded
        self.providers |= earlier.providers
        self.models |= earlier.models
        self.presences |= earlier.presences
        self.streams |= earlier.streams
        self.identities |= earlier.identities
        self.series |= earlier.series
        self.points |= earlier.points
        self.senders |= earlier.senders
        self.ended |= earlier.ended
        self.panes[:0] = earlier.panes
        self.amendments[:0] = earlier.amendments
        self.is_started |= earlier.is_started


@dataclass(slots=True, kw_only=True)
class WindowState:
    """The state of the window step: all models, series and references that models carry, and their changes."""

    settings_for: Callable[[ModelKey], ModelWindowSettings]
    windows: WindowSettings
    started_ns: int
    """When this state began, in an earlier process perhaps."""
    is_stored: bool = False
    """Whether there is a repository that removed records are to be removed from."""
    models: dict[ModelKey, ModelWindows] = field(default_factory=dict)
    embedded: dict[ModelKey, tuple[EmbeddedReference, Profile]] = field(default_factory=dict)
    providers: dict[ModelKey, ModelProviders] = field(default_factory=dict)
    series: dict[SeriesKey, TimeSeries] = field(default_factory=dict)
    owners: dict[SeriesOwner, dict[SeriesKey, TimeSeries]] = field(default_factory=dict)
    """The series of each sender, by model version."""
    points: dict[RequestKey, dict[int, list[PendingPoints]]] = field(default_factory=dict)
    """The points that are pending, by what brought them, and by the end of their pane.

    These lists are the same as those of `ModelWindows.open_panes`.
    """
    pending_points: int = 0
    """How many there are."""
    request: int = 0
    """The number of the present request."""
    starts: dict[str, int] = field(default_factory=dict)
    """The newest start of each cumulative series."""
    ended: dict[str, EndedSender] = field(default_factory=dict)
    """Senders whose series were removed."""
    touched: set[ModelKey] = field(default_factory=set)
    """Models of which anything that people see changed since it was last asked for."""
    compacted_ns: int = 0
    """When panes were last merged to longer ones, by our clock."""
    changes: WindowStateChanges = field(default_factory=lambda: WindowStateChanges(is_started=True))

    @property
    def stream_count(self) -> int:
        """The number of drift streams that are watched."""
        return sum(len(model.streams) for model in self.models.values())

    def find_settings(self, key: ModelKey) -> ModelWindowSettings:
        """Returns the settings of a model, with the reference profile that it carries."""
        settings = self.settings_for(key)
        return replace(settings, embedded_profile=self.embedded[key][1]) if key in self.embedded else settings

    def add_embedded(self, reference: EmbeddedReference, profile: Profile) -> list[StreamKey]:
        """Adds the reference profile that a model carries, and returns the streams that get it as reference."""
        self.embedded[reference.model] = (reference, profile)
        self.changes.embedded.add(reference.model)
        self.touched.add(reference.model)
        model = self.models.get(reference.model)
        streams = model.apply_settings(self.find_settings(reference.model)) if model is not None else []
        self.changes.streams.update(streams)
        return streams

    def add_series(self, series: TimeSeries) -> bool:
        """Adds a series; returns whether it restarts a series that was counted before."""
        name, start_ns = series.state.key
        newest_ns = self.starts.get(name, start_ns)
        self.series[series.state.key] = series
        self.owners.setdefault((series.state.model, series.state.sender), {})[series.state.key] = series
        self.starts[name] = max(newest_ns, start_ns)
        return newest_ns < start_ns

    def add_points(self, model: ModelWindows, points: PendingPoints) -> None:
        """Adds pending points of the present request about a model, none yet or some."""
        changes = self.changes
        changes.points.add((points.request, model.key))
        changes.senders.add((model.key, points.sender))
        changes.models.add(model.key)
        self.touched.add(model.key)
        self.link_points(model, points)

    def link_points(self, model: ModelWindows, points: PendingPoints) -> None:
        """Adds pending points to those of their pane and of their request, which share a list."""
        end_ns = points.pane_end_ns
        groups = model.open_panes.setdefault(end_ns, {}).setdefault(points.request, [])
        self.points.setdefault((points.request, model.key), {})[end_ns] = groups
        groups.append(points)

    def mark_consumed(self, model: ModelKey, end_ns: int, groups: Sequence[PendingPoints], now_ns: int) -> int:
        """Notes that the points of a pane are no longer pending; returns how many totals they reset.

        Args:
            model: Its key.
            end_ns: End of the pane.
            groups: Its points.
            now_ns: The time by our clock, Unix nanoseconds.
        """
        total_senders, resets = set[str](), 0
        for points in groups:
            for series in points.series:
                series.state.updated_ns = now_ns
            self.pending_points -= len(points.series)
            self.changes.series.add((model, points.sender))
            if points.is_cumulative:
                total_senders.add(points.sender)
                for series in points.series:
                    resets += series.resets
                    series.resets = 0
        for sender in total_senders:
            _gather_totals(self.owners[model, sender].values())
        self._remove_pane_points(model, end_ns, {points.request for points in groups})
        return resets

    def _remove_pane_points(self, model: ModelKey, end_ns: int, numbers: Iterable[int]) -> None:
        """Removes the points of a pane from those of the requests that brought them, by number."""
        for number in numbers:
            request = number, model
            del self.points[request][end_ns]
            if self.points[request]:
                self.changes.points.add(request)
            else:
                del self.points[request]
                self._note_removed_key(self.changes.points, request)

    def drop_lost_points(self, model: ModelKey, end_ns: int) -> None:
        """Removes what is left of the points of a pane whose closing failed by a fault of the processor.

        Args:
            model: Its key.
            end_ns: End of the pane.
        """
        self.models[model].open_panes.pop(end_ns, None)
        numbers = [number for (number, key), panes in self.points.items() if key == model and end_ns in panes]
        for number in numbers:
            for points in self.points[number, model][end_ns]:
                for series in points.series:
                    series.pending.pop(points.key, None)
        self._remove_pane_points(model, end_ns, numbers)
        # Counted anew, since the fault may have come before or after some of them were subtracted.
        panes = [groups for panes in self.points.values() for groups in panes.values()]
        self.pending_points = sum(len(points.series) for groups in panes for points in groups)
        self.changes.series.update(owner for owner in self.owners if owner[0] == model)
        self.changes.models.add(model)

    def remove_series(self, key: SeriesKey, now_ns: int) -> None:
        """Removes a stale series, and records up to which time its sender was counted."""
        state = self.series.pop(key).state
        owner = state.model, state.sender
        if state.counted.keys:
            present = self.ended.get(state.sender)
            newest_ns = max(state.newest_ns, present.newest_ns if present is not None else 0)
            self.ended[state.sender] = EndedSender(state.sender, newest_ns, now_ns)
            self.changes.ended.add(state.sender)
        if self.starts.get(key.series) == key.start_ns:
            del self.starts[key.series]
        del self.owners[owner][key]
        if self.owners[owner]:
            self.changes.identities.add(owner)
            self.changes.series.add(owner)
        else:
            del self.owners[owner]
            self._note_removed_key(self.changes.identities, owner)
            self._note_removed_key(self.changes.series, owner)

    def remove_ended(self, before_ns: int) -> None:
        """Forgets the senders whose series were removed before a time, by our clock."""
        for sender in [name for name, ended in self.ended.items() if ended.removed_ns < before_ns]:
            del self.ended[sender]
            self._note_removed_key(self.changes.ended, sender)

    def remove_idle_senders(self, model: ModelWindows, now_ns: int) -> None:
        """Removes the idle senders of a model, for which its panes no longer wait."""
        for sender in model.senders.remove_idle(now_ns, model.resumed_ns):
            self._note_removed_key(self.changes.senders, (model.key, sender))

    def remove_stream(self, key: StreamKey) -> None:
        """Removes a stale stream of a model that still sends data."""
        self.models[key.model].remove_stream(key.stream)
        self.touched.add(key.model)
        self._note_removed_key(self.changes.streams, key)

    def remove_embedded(self, key: ModelKey) -> None:
        """Removes the reference profile that a model carries."""
        del self.embedded[key]
        self._note_removed_key(self.changes.embedded, key)

    def add_provider(self, event: ModelLoaded | ProviderFallback, now_ns: int) -> None:
        """Adds a report of the execution provider that a process runs a model on; a repeated one changes nothing."""
        providers, model = self.providers, event.model
        is_full = model not in self.models and len(providers) >= MAX_EMBEDDED_REFERENCES
        if not event.provider or (is_full and model not in providers):
            return
        requested = event.requested if isinstance(event, ProviderFallback) else ""
        time_ns = min(event.time_ns or now_ns, now_ns)
        present = providers.get(model, ModelProviders(model))
        providers[model] = present.add(requested=requested, provider=event.provider, time_ns=time_ns)
        if providers[model] != present:
            self.changes.providers.add(model)
            self.touched.add(model)

    def provider_uses(self, key: ModelKey) -> tuple[ExecutionProviderUse, ...]:
        """Returns the reported execution providers of a model version."""
        return self.providers[key].uses if key in self.providers else ()

    def reported_models(self) -> list[ModelKey]:
        """Returns the models whose execution providers changed since the last save."""
        return sorted(self.changes.providers & self.providers.keys())

    def remove_providers(self, key: ModelKey) -> None:
        """Removes all reports on a model's execution providers."""
        del self.providers[key]
        self._note_removed_key(self.changes.providers, key)

    def remove_model(self, key: ModelKey) -> list[StreamKey]:
        """Removes a silent model, and returns its streams, which are removed with it."""
        model = self.models.pop(key)
        self.touched.add(key)
        streams = [stream.key for stream in model.streams.values()]
        for sender in model.senders.senders:
            self._note_removed_key(self.changes.senders, (key, sender))
        if key in self.embedded:
            self.remove_embedded(key)
        if key in self.providers:
            self.remove_providers(key)
        self._note_removed_key(self.changes.models, key)
        self._note_removed_key(self.changes.presences, key)
        for stream in streams:
            self._note_removed_key(self.changes.streams, stream)
        return streams

    def prune_panes(self) -> None:
        """Drops unsaved panes that no rolling window contains any more, where there is no state store."""
        if self.is_stored:
            return
        rolling_ns = self.windows.rolling_ns
        oldest_ns = {key: model.progress.last_ns - rolling_ns for key, model in self.models.items()}
        for panes in (self.changes.panes, self.changes.amendments):
            panes[:] = [pane for pane in panes if pane.end_ns > oldest_ns.get(pane.model, pane.end_ns)]

    def _note_removed_key(self, keys: set[K], key: K) -> None:
        if self.is_stored:
            keys.add(key)
        else:
            keys.discard(key)


def _gather_totals(group: Iterable[TimeSeries]) -> None:
    """Brings the last totals of a sender's series into one table, so that they hold no request in memory."""
    states = [series.state for series in group]
    rows = [(state, state.total.table, state.total.row) for state in states if state.total and state.total.table]
    tables = {id(table): table for _, table, _ in rows}
    if len(tables) == 1 and len(rows) == len(rows[0][1].numbers):  # they have it alone
        return
    table = SketchTable.gather_rows([(table, row) for _, table, row in rows])
    for position, (state, _, _) in enumerate(rows):
        state.total = PointValue(None, table, position)
