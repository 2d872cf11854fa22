"""Holds the first predictions of a new model version, until they are held against the version before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

INTRODUCTION: Final = 1_000
"""Predictions of a new version that are held against the version before."""


@dataclass(slots=True, kw_only=True)
class Introduction:
    """Adds up the first panes of a version by stream. Memory: one sketch a stream, as that of a reference."""

    before: ModelKey
    """The version before."""
    predictions: int = 0
    sketches: dict[str, StreamSketch] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there are predictions enough to compare."""
        return self.predictions >= INTRODUCTION

    def add(self, sketches: Mapping[str, StreamSketch], predictions: int) -> None:
        """Adds a closed pane."""
        self.predictions += predictions
        for name, sketch in sketches.items():
            self.sketches[name] = self.sketches.get(name, StreamSketch()).merge(sketch)
