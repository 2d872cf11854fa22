"""How a stream is judged."""

from __future__ import annotations

from dataclasses import dataclass

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.threshold import Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPolicy:
    """What is forgiven of one stream, and which moves of it are drift."""

    tolerance: float
    """Total variation, [0, 1]."""
    direction: Direction
    thresholds: tuple[Threshold, ...] = ()
    """On the familiar statistics; most owners want none."""
