"""Defines the policy by which drift of one stream is detected."""

from __future__ import annotations

from dataclasses import dataclass

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.detectable import MAX_DETECTABLE
from otel_mlmon.processor.detect.threshold import Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPolicy:
    """How drift of one stream is detected: its tolerance, its direction, and thresholds on statistics."""

    tolerance: float
    """The total variation that is tolerated, [0, 1]."""
    direction: Direction
    max_detectable: float = MAX_DETECTABLE
    """The largest detectable shift at which the stream is not weak, (0, 1]."""
    first_divisor: float | None = None
    """What counts are divided by until the stream's design effect is known; None if nothing is judged before."""
    thresholds: tuple[Threshold, ...] = ()
    """On drift statistics; usually none."""
    time_zone: str = ""
    """The IANA name of the time zone of the model's users; empty if it is not known."""
