"""Exports the references of a model version as a profile, for a file, a model or another processor.

A stream's learned sketch is exported on the grid that its edges stand on by now, so that whoever bins it gets the same
bins and counts. Profiles (a file, the model's own) are exported as they came, streams that never had a value too.
Latency and errors are judged by an allowance, which is the operator's and no reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from otel_mlmon.processor.window.binning import Grid
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.reference.design_effect import DesignEffect
from otel_mlmon.reference.profile import Profile, format_timestamp, read_utc_time
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RelearnRequest:
    """A request to learn references of one model version again, from the panes that close next."""

    model: ModelKey
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """The references of all streams of one model version at one moment.

    Runs on: any thread; nothing in it changes.
    """

    model: ModelKey
    settings: ModelWindowSettings
    learned: Mapping[str, tuple[StreamSketch, Grid]]
    """By stream: the sketch, and where its edges stand."""
    learning: Mapping[str, tuple[int, int]]
    """By stream without a reference yet: values so far, and how many it takes at least."""
    moving: tuple[str, ...]
    """Streams whose reference moves with time, or will once it is learned: counts over bins, of which there is no
    sketch."""
    unstationary: tuple[str, ...]
    """Streams of `learned` that moved while they were learned."""
    design_effects: Mapping[str, DesignEffect] = field(default_factory=dict)
    """The design effects of streams of `learned`, by stream, where they are known."""
    relearnable: tuple[str, ...] = ()
    """Streams whose reference is learned, is being learned or moves, so that it can be learned again."""

    def document(self, now: Callable[[], datetime] = read_utc_time) -> dict[str, Any] | None:
        """Returns the fixed and learned references of a model version as a JSON profile; None if there are none.

        Args:
            now: The time that the export carries, unless it equals a profile of the settings, which keeps its own.
        """
        fixed: dict[str, StreamSketch] = {}
        unstationary = set(self.unstationary)
        effects: dict[str, DesignEffect] = {}
        for profile in filter(None, self._profiles):
            added = {name: sketch for name, sketch in profile.streams.items() if sketch.total and name not in fixed}
            fixed |= added
            effects |= {name: effect for name, effect in profile.design_effects.items() if name in added}
            unstationary |= added.keys() & set(profile.unstationary)
        streams = {**fixed, **{name: _coarsen_to_grid(*learned) for name, learned in self.learned.items()}}
        if not streams:
            return None
        export = Profile(
            model=self.model.name,
            version=self.model.version,
            created=format_timestamp(now()),
            streams=streams,
            calibration=self.settings.calibration,
            unstationary=tuple(sorted(unstationary)),
            design_effects={**effects, **self.design_effects},
        )
        originals = (profile for profile in filter(None, self._profiles) if _has_same_content(profile, export))
        created = next((profile.created for profile in originals), export.created)
        return replace(export, created=created).to_dict()

    @property
    def _profiles(self) -> tuple[Profile | None, Profile | None]:
        """The operator's profile and the model's own; the first that has a stream counts for it."""
        return self.settings.profile, self.settings.embedded_profile


def build_model_reference(
    model: ModelKey, settings: ModelWindowSettings, streams: Mapping[str, StreamWindows]
) -> ModelReference:
    """Returns the references of a model version as they are now.

    Args:
        model: Its key.
        settings: Of the model.
        streams: By name.
    """
    judged = {
        name: (stream.learned, stream.reference)
        for name, stream in streams.items()
        if stream.reference is None or stream.reference.origin != "budget"
    }
    return ModelReference(
        model=model,
        settings=settings,
        learned={
            name: (learned.state.sketch, learned.state.grid)
            for name, (learned, reference) in judged.items()
            if reference is not None and reference.origin == "learned"
        },
        learning={
            name: (learned.state.sketch.total, settings.learn)
            for name, (learned, reference) in judged.items()
            if reference is None
        },
        moving=tuple(name for name in judged if streams[name].moving is not None),
        unstationary=tuple(
            name
            for name, (_, reference) in judged.items()
            if reference is not None and reference.is_stationary is False
        ),
        design_effects={
            name: reference.design_effect
            for name, (_, reference) in judged.items()
            if reference is not None and reference.origin == "learned" and reference.design_effect is not None
        },
        relearnable=tuple(name for name in judged if streams[name].is_relearnable),
    )


def _coarsen_to_grid(sketch: StreamSketch, grid: Grid) -> StreamSketch:
    exponential = sketch.exponential
    if exponential is None or not isinstance(grid, int) or grid >= exponential.scale:
        return sketch
    return replace(sketch, exponential=exponential.at_scale(grid))


def _has_same_content(profile: Profile, export: Profile) -> bool:
    parts = (profile.streams, profile.calibration, profile.unstationary, profile.design_effects)
    return parts == (export.streams, export.calibration, export.unstationary, export.design_effects)
