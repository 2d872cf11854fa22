"""Rule `accuracy`: alerts when the accuracy of a model, as estimated from its confidences, is too low.

It is estimated from the confidences of the rolling window and from how often the model was right at each confidence on
labelled data (`detect/accuracy.py`). A stream breaches the rule where the whole interval of the estimate is below the
bound, and the estimate by more than `DEVIATIONS` of what changes from window to window: windows are looked at again and
again, and an interval of 95 % is for one look. Without labelled data nothing is known, and the rule says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log10
from typing import ClassVar, Final

from pydantic import Field

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import (
    OnsetCounts,
    build_shift_cause,
    count_rolling_window,
    format_accuracy,
    format_count,
)
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.accuracy import (
    LEVEL,
    AccuracyEstimate,
    estimate_accuracy,
    find_lowest_tolerated_accuracy,
)
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow

DEVIATIONS: Final = 4.0
"""An independent window is as far off by sampling alone once in 30,000, which are three years of windows of an hour."""

CRITICAL_SHORTFALL: Final = 0.1
"""A breach is critical if the estimate is a tenth of all predictions below the bound."""

POLICY: Final = DetectionPolicy(tolerance=0.02, direction="down")
"""The evidence about confidences, where no other rule asks for it: what must be known is their design effect."""


class AccuracySection(RuleSection):
    """Alerts when the estimated accuracy is too low; needs min or drop, and a reference with labels."""

    min_accuracy: Ratio | None = Field(
        default=None, alias="min", gt=0, lt=1, description="The lowest accuracy, such as 90%; null is any."
    )
    max_drop: Ratio | None = Field(
        default=None,
        alias="drop",
        gt=0,
        lt=1,
        description="By how much it may be below that of the labelled data: 3% is from 92 % to 89 %.",
    )

    @property
    def is_active(self) -> bool:
        """Whether the rule `accuracy` is switched on and has a bound."""
        return self.enabled and (self.min_accuracy is not None or self.max_drop is not None)


@dataclass(frozen=True, slots=True)
class AccuracyRule:
    """Judges the accuracy of a model, as estimated from the confidences of its predictions."""

    section: AccuracySection
    section_type: ClassVar = AccuracySection
    title: ClassVar = "estimated accuracy"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how drift of the confidences is detected; None for every stream but `prediction.confidence`."""
        return POLICY if stream == semconv.STREAM_CONFIDENCE else None

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:  # noqa: ARG002 (the Protocol's)
        """Judges the estimated accuracy by its interval; `unknown` where the reference has no labelled data."""
        calibration, reference = window.calibration, window.reference
        if calibration is None or not calibration.total.any():
            return "unknown"
        if reference is None or score.state == "learning" or window.rolling.size != calibration.total.size:
            return None
        accuracy = estimate_accuracy(
            calibration.right, calibration.total, window.rolling, design_effect=score.design_effect
        )
        if accuracy is None:
            return None
        lowest = find_lowest_tolerated_accuracy(calibration.accuracy, self.section.min_accuracy, self.section.max_drop)
        if not is_accuracy_below(accuracy, lowest):
            return "ok"
        labelled = int(calibration.total.sum())
        cause = build_shift_cause(window, reference, score, count_rolling_window(window), bound=1.0 - lowest)
        return replace(
            cause,
            value=1.0 - accuracy.estimated,
            reference=f"accuracy {format_accuracy(calibration.accuracy)} of {format_count(labelled)} labelled",
            current=f"an estimated {format_accuracy(accuracy.estimated)}",
            summary=describe_accuracy_estimate(accuracy, lowest),
            origin="",
            margin=log10((1.0 - accuracy.estimated) / (1.0 - lowest)),
        )

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns `critical` where the estimated accuracy is at least 0.1 below its bound, otherwise `warning`."""
        is_critical = any(cause.value - cause.bound >= CRITICAL_SHORTFALL for cause in causes)
        return "critical" if is_critical else "warning"


def is_accuracy_below(accuracy: AccuracyEstimate, lowest: float) -> bool:
    """Returns whether an estimated accuracy is surely below a bound."""
    return accuracy.high < lowest and accuracy.estimated + DEVIATIONS * accuracy.sampling_deviation < lowest


def describe_accuracy_estimate(accuracy: AccuracyEstimate, lowest: float) -> str:
    """Describes an estimated accuracy for people: the estimate, its interval, and that it is no measurement."""
    interval = f"{100.0 * LEVEL:.0f} % interval {format_accuracy(accuracy.low)} to {format_accuracy(accuracy.high)}"
    return (
        f"estimated accuracy {format_accuracy(accuracy.estimated)}, {interval}, demanded {format_accuracy(lowest)} "
        f"(n = {format_count(accuracy.n)}); an estimate from confidences, no measurement"
    )
