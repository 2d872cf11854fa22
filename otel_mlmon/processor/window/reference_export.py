"""What a model version is judged by, as a profile: to be kept, put into the model, or given to another processor.

A stream's learned sketch goes out on the grid that its edges stand on by now, so that whoever bins it gets the same
bins and counts. What was given (a file, the model's own) goes out as it came, streams that never had a value too.
Latency and errors are judged by an allowance, which is the operator's and no reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from otel_mlmon.processor.window.binning import Grid
from otel_mlmon.processor.window.settings import ModelSettings
from otel_mlmon.processor.window.stream import Stream
from otel_mlmon.reference.profile import Profile, format_timestamp
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """One model version's reference as it stood at some moment.

    Runs on: any thread; nothing in it changes.
    """

    model: ModelKey
    settings: ModelSettings
    learned: Mapping[str, tuple[StreamSketch, Grid]]
    """By stream: the sketch, and where its edges stand."""
    learning: Mapping[str, tuple[int, int]]
    """By stream that has no reference yet: values seen, and how many it takes at least."""
    moving: tuple[str, ...]
    """Streams whose reference moves with time, or will once it is learned: counts over bins, of which there is no
    sketch."""
    unstationary: tuple[str, ...]
    """Streams of `learned` that moved while they were."""

    def document(self, now: Callable[[], datetime] = _utc_now) -> dict[str, Any] | None:
        """The profile as JSON has it, of the streams that have a reference which stays; None if none has.

        Args:
            now: The time of making, unless it is a profile that was given, unchanged.
        """
        given: dict[str, StreamSketch] = {}
        moved = set(self.unstationary)
        for profile in filter(None, self._given):
            known = {
                name: stream_sketch
                for name, stream_sketch in profile.streams.items()
                if stream_sketch.total and name not in given
            }
            given |= known
            moved |= known.keys() & set(profile.unstationary)
        streams = {**given, **{name: _on_grid(*learned) for name, learned in self.learned.items()}}
        if not streams:
            return None
        made = Profile(
            model=self.model.name,
            version=self.model.version,
            created=format_timestamp(now()),
            streams=streams,
            calibration=self.settings.calibration,
            unstationary=tuple(sorted(moved)),
        )
        same = (profile for profile in filter(None, self._given) if _is_same(profile, made))
        return replace(made, created=next((profile.created for profile in same), made.created)).to_dict()

    @property
    def _given(self) -> tuple[Profile | None, Profile | None]:
        """The operator's counts before the model's own."""
        return self.settings.reference, self.settings.announced


def model_reference(model: ModelKey, settings: ModelSettings, streams: Mapping[str, Stream]) -> ModelReference:
    """The reference of a model version as it stands now.

    Args:
        model: Its key.
        settings: What it is told.
        streams: By name.
    """
    judged = {
        name: (stream.baseline, stream.reference)
        for name, stream in streams.items()
        if stream.reference is None or stream.reference.origin != "budget"
    }
    return ModelReference(
        model=model,
        settings=settings,
        learned={
            name: (baseline.sketch, baseline.grid)
            for name, (baseline, reference) in judged.items()
            if reference is not None and reference.origin == "learned"
        },
        learning={
            name: (baseline.sketch.total, settings.learn)
            for name, (baseline, reference) in judged.items()
            if reference is None
        },
        moving=tuple(name for name in judged if streams[name].history is not None),
        unstationary=tuple(
            name
            for name, (_, reference) in judged.items()
            if reference is not None and reference.is_stationary is False
        ),
    )


def _on_grid(stream_sketch: StreamSketch, grid: Grid) -> StreamSketch:
    sketch = stream_sketch.exponential
    if sketch is None or not isinstance(grid, int) or grid >= sketch.scale:
        return stream_sketch
    return replace(stream_sketch, exponential=sketch.at_scale(grid))


def _is_same(profile: Profile, made: Profile) -> bool:
    parts = (profile.streams, profile.calibration, profile.unstationary)
    return parts == (made.streams, made.calibration, made.unstationary)
