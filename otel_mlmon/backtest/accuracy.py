"""Estimates the accuracy of a model in every window of a backtest from its confidences, and checks its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.alert.cause import format_accuracy
from otel_mlmon.processor.config.units import parse_ratio
from otel_mlmon.processor.detect.accuracy import estimate_accuracy, find_lowest_tolerated_accuracy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.types import Counts

RULE: Final = "accuracy"
NO_MEASUREMENT: Final = "an estimate from confidences, no measurement"
NO_LABELS: Final = (
    "accuracy: unknown: the reference has no labelled data: build a profile with "
    "`otel-mlmon reference build MODEL DATA --labels COLUMN`"
)
NO_CONFIDENCES: Final = "accuracy: unknown: no window has confidences whose variation is known"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyBounds:
    """The lowest accuracy, and the largest drop of it, that the user of a backtest accepts; None for no limit."""

    lowest: float | None = None
    """The lowest accuracy, (0, 1)."""
    max_drop: float | None = None
    """By how much it may be below that of the labelled data, (0, 1)."""

    @property
    def rule_section(self) -> dict[str, Any]:
        """The limits on accuracy as the configuration section of the alert rule `accuracy`."""
        return {"min": self.lowest, "drop": self.max_drop}

    def __bool__(self) -> bool:
        """Returns whether the user of the backtest has set a limit."""
        return self.lowest is not None or self.max_drop is not None


NO_BOUNDS: Final = AccuracyBounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyPoint:
    """The accuracy of a model in one window, estimated from its confidences, with its 95 % interval."""

    window: int
    count: int
    """Predictions in the window."""
    estimated: float
    low: float
    high: float
    end: str | None = None
    """When the window ended, RFC 3339; None if the data has no times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyReport:
    """The accuracy of a model over all windows of a backtest, as its confidences estimate it."""

    state: Literal["ok", "alarm", "unknown"]
    """`unknown`: nothing can be said; `reason` says why."""
    reason: str = ""
    labelled_accuracy: float | None = None
    """The accuracy on the labelled data of the reference."""
    labelled: int = 0
    """Labelled predictions in the reference."""
    demanded: float | None = None
    """The lowest accuracy that is tolerated; None for none."""
    first_alarm_window: int | None = None
    points: tuple[AccuracyPoint, ...] = field(default=(), repr=False)

    @property
    def summary(self) -> str:
        """A sentence about the estimated accuracy of the window with the first alarm, else of the lowest one."""
        if not self.points:
            return self.reason
        lowest = min(self.points, key=lambda point: point.estimated)
        point = next((point for point in self.points if point.window == self.first_alarm_window), lowest)
        kind = "first alarm" if self.first_alarm_window is not None else "lowest"
        demanded = "" if self.demanded is None else f", demanded {format_accuracy(self.demanded)}"
        labelled = "" if self.labelled_accuracy is None else format_accuracy(self.labelled_accuracy)
        return (
            f"Estimated accuracy: {format_accuracy(point.estimated)} ({format_accuracy(point.low)} to "
            f"{format_accuracy(point.high)}) in window {point.window}, {kind}{demanded}; {labelled} of "
            f"{self.labelled} labelled; {NO_MEASUREMENT}."
        )


def parse_accuracy_bounds(lowest: float | str | None, max_drop: float | str | None) -> AccuracyBounds:
    """Parses the limits on accuracy of `--min-accuracy` and `--accuracy-drop`, such as `90%` or 0.9.

    Raises:
        ConfigurationError: One is no ratio, or 0, or 1.
    """
    return AccuracyBounds(
        lowest=_parse_ratio_option("--min-accuracy", lowest), max_drop=_parse_ratio_option("--accuracy-drop", max_drop)
    )


class AccuracyTrace:
    """Estimates the accuracy of a model window by window while a backtest runs.

    Args:
        bounds: What is demanded.
    """

    def __init__(self, bounds: AccuracyBounds) -> None:
        self._bounds = bounds
        self._calibration: Calibration | None = None
        self._points: list[tuple[int, AccuracyPoint]] = []

    def add_window(self, window: int, end_ns: int, counts: Counts, calibration: Calibration, score: DriftScore) -> None:
        """Estimates the accuracy in one window from the counts of its confidences in ten bins, shape (10,)."""
        self._calibration = calibration
        if score.state == "learning" or counts.size != calibration.total.size:
            return
        accuracy = estimate_accuracy(calibration.right, calibration.total, counts, design_effect=score.design_effect)
        if accuracy is not None:
            point = AccuracyPoint(
                window=window, count=accuracy.n, estimated=accuracy.estimated, low=accuracy.low, high=accuracy.high
            )
            self._points.append((end_ns, point))

    def build_report(self, alarm: int | None, clock: Callable[[int], str | None]) -> AccuracyReport | None:
        """Returns the estimated accuracy of each window; None if no limit was set and nothing could be estimated.

        Args:
            alarm: The window of the first alert of the rule.
            clock: Formats the end of a window.
        """
        if self._calibration is None or not self._points:
            reason = NO_LABELS if self._calibration is None else NO_CONFIDENCES
            return AccuracyReport(state="unknown", reason=reason) if self._bounds else None
        labelled = self._calibration.accuracy
        bounds = self._bounds
        return AccuracyReport(
            state="ok" if alarm is None else "alarm",
            labelled_accuracy=labelled,
            labelled=int(self._calibration.total.sum()),
            demanded=find_lowest_tolerated_accuracy(labelled, bounds.lowest, bounds.max_drop) if bounds else None,
            first_alarm_window=alarm,
            points=tuple(_set_window_end(point, clock(end_ns)) for end_ns, point in self._points),
        )


def _set_window_end(point: AccuracyPoint, end: str | None) -> AccuracyPoint:
    return AccuracyPoint(
        window=point.window, count=point.count, estimated=point.estimated, low=point.low, high=point.high, end=end
    )


def _parse_ratio_option(option: str, value: float | str | None) -> float | None:
    if value is None:
        return None
    try:
        ratio = parse_ratio(str(value))
    except ValueError as error:
        raise ConfigurationError(f"{option}: {value!r} {error}") from error
    if not 0.0 < ratio < 1.0 or not np.isfinite(ratio):
        raise ConfigurationError(f"{option}: must be above 0% and below 100%")
    return ratio
