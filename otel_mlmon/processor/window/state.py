"""Everything the window step knows, and which of it the store does not know yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from otel_mlmon.processor.window.model import ClosedPane, Model
from otel_mlmon.processor.window.series import Point, PointKey, Series, SeriesKey
from otel_mlmon.processor.window.settings import ModelSettings, WindowSettings
from otel_mlmon.processor.window.stream import Stream
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey

MAX_ANNOUNCED: Final = 1_000
"""References of models that sent no point yet."""


class Announced(NamedTuple):
    """The reference that a model version carries, as a process that loaded it said."""

    text: str
    profile: Profile
    arrived_ns: int
    """By our clock."""

    @property
    def rank(self) -> tuple[str, str]:
        """Of two for one model version the larger counts, in whatever order they come."""
        return self.profile.created, self.text


@dataclass(slots=True)
class Changes:
    """What the store does not know yet.

    Memory: bounded by the state itself, also where nobody ever saves.
    """

    models: set[ModelKey] = field(default_factory=set)
    announced: set[ModelKey] = field(default_factory=set)
    streams: set[StreamKey] = field(default_factory=set)
    series: set[SeriesKey] = field(default_factory=set)
    points: set[tuple[SeriesKey, PointKey]] = field(default_factory=set)
    panes: list[ClosedPane] = field(default_factory=list)
    """Closed panes, handed over by their models."""
    removed_models: set[ModelKey] = field(default_factory=set)
    removed_announced: set[ModelKey] = field(default_factory=set)
    removed_streams: set[StreamKey] = field(default_factory=set)
    removed_series: set[SeriesKey] = field(default_factory=set)
    removed_points: set[tuple[SeriesKey, PointKey]] = field(default_factory=set)

    def put_back(self, earlier: Changes) -> None:
        """Take up the changes of a save that was rolled back."""
        self.models |= earlier.models
        self.announced |= earlier.announced
        self.streams |= earlier.streams
        self.series |= earlier.series
        self.points |= earlier.points
        self.panes[:0] = earlier.panes
        self.removed_models |= earlier.removed_models
        self.removed_announced |= earlier.removed_announced
        self.removed_streams |= earlier.removed_streams
        self.removed_series |= earlier.removed_series
        self.removed_points |= earlier.removed_points


@dataclass(slots=True, kw_only=True)
class State:
    """Models and series, and what changed in them."""

    settings_for: Callable[[ModelKey], ModelSettings]
    windows: WindowSettings
    started_ns: int
    """When this state began, in an earlier process perhaps."""
    is_stored: bool = False
    """Whether there is a store to tell of what is gone."""
    models: dict[ModelKey, Model] = field(default_factory=dict)
    announced: dict[ModelKey, Announced] = field(default_factory=dict)
    series: dict[SeriesKey, Series] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    """The newest start of each cumulative series."""
    changes: Changes = field(default_factory=Changes)

    def settings_of(self, key: ModelKey) -> ModelSettings:
        """What a model is told, with the reference that it carries."""
        announced = self.announced.get(key)
        settings = self.settings_for(key)
        return settings if announced is None else replace(settings, announced=announced.profile)

    def announce(self, key: ModelKey, announced: Announced) -> list[Stream]:
        """Take a reference; the streams that go by it from now on."""
        self.announced[key] = announced
        self.changes.announced.add(key)
        self.changes.removed_announced.discard(key)
        model = self.models.get(key)
        streams = model.follow(self.settings_of(key)) if model is not None else []
        self.changes.streams.update(stream.key for stream in streams)
        return streams

    def stream_changed(self, stream: Stream) -> None:
        """Its reference grew or changed."""
        self.changes.streams.add(stream.key)

    def point_taken(self, series: Series, key: PointKey, point: Point) -> None:
        """It was used up."""
        self.changes.series.add(series.key)
        self.changes.points.discard((series.key, key))
        if point.is_stored:
            self.changes.removed_points.add((series.key, key))

    def add_series(self, series: Series) -> bool:
        """Add a series; whether it began anew."""
        name, start_ns = series.key
        is_newer = self.starts.get(name, start_ns) < start_ns
        self.series[series.key] = series
        if start_ns >= self.starts.get(name, start_ns):
            self.starts[name] = start_ns
        return is_newer

    def prune_panes(self) -> None:
        """Forget unsaved panes that no rolling window holds any more, for where nobody saves."""
        oldest_ns = {key: model.last_ns - self.windows.rolling_ns for key, model in self.models.items()}
        self.changes.panes = [
            pane
            for pane in self.changes.panes
            if pane.model in oldest_ns and pane.recent.end_ns > oldest_ns[pane.model]
        ]

    def forget_series(self, key: SeriesKey) -> None:
        """Remove a stale series."""
        del self.series[key]
        self.changes.series.discard(key)
        if self.starts.get(key.series) == key.start_ns:
            del self.starts[key.series]
        if self.is_stored:
            self.changes.removed_series.add(key)

    def forget_announced(self, key: ModelKey) -> None:
        """Remove the reference that a model carried."""
        del self.announced[key]
        self.changes.announced.discard(key)
        if self.is_stored:
            self.changes.removed_announced.add(key)

    def forget_model(self, key: ModelKey) -> list[StreamKey]:
        """Remove a silent model; the streams that go with it."""
        streams = [stream.key for stream in self.models.pop(key).streams.values()]
        if key in self.announced:
            self.forget_announced(key)
        self.changes.models.discard(key)
        self.changes.streams.difference_update(streams)
        if self.is_stored:
            self.changes.removed_models.add(key)
            self.changes.removed_streams.update(streams)
        return streams
