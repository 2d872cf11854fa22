"""Describes streams that are no longer sent although their model has predictions."""

from __future__ import annotations

from typing import Final

from otel_mlmon.processor.alert.alert import Cause
from otel_mlmon.processor.alert.cause import format_count, format_utc
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.presence import Absence
from otel_mlmon.processor.window.window import Window

ABSENCE_MARGIN: Final = 2.0
"""A stream that is no longer sent ranks as evidence at its cap, which is 100 times the alarm line."""


def absence_cause(window: Window, absence: Absence, score: Score, *, bound: float) -> Cause:
    """Describes a stream that is no longer sent although its model has predictions.

    Args:
        window: The stream's window.
        absence: Since when it is not sent, and how many values were to be expected.
        score: Its score.
        bound: The total variation that is tolerated.
    """
    predictions, expected = format_count(absence.predictions), format_count(absence.expected)
    return Cause(
        stream=window.stream.stream,
        value=1.0,
        bound=bound,
        reference=f"{expected} values in {predictions} predictions",
        current=f"no longer sent since {format_utc(absence.since_ns)}",
        current_count=0,
        reference_count=score.reference_count,
        onset_ns=absence.since_ns,
        summary=f"no value with the last {predictions} predictions of the model; {expected} were to be expected",
        is_absent=True,
        margin=ABSENCE_MARGIN,
    )


def has_data(window: Window) -> bool:
    """Whether anything was counted; while there are no bins, a window exists because something was."""
    return window.pane.size == 0 or bool(window.pane.any())


def is_back(cause: Cause | None, window: Window) -> bool:
    """Whether a stream that was no longer sent is sent again."""
    return cause is not None and cause.is_absent and has_data(window)
