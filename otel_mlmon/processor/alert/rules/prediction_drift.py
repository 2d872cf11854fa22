"""Rule `prediction_drift`: alerts when predicted labels or values are distributed differently from the reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from otel_mlmon import semconv, streams
from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import (
    MAX_DETECTABLE_FIELD,
    Judgement,
    RuleSection,
    grade_drift_severity,
    judge_shift,
)
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow


class PredictionDriftSection(RuleSection):
    """Alerts when predicted labels or values are distributed differently from their reference."""

    tolerance: Ratio = Field(default=0.02, lt=1, description="The total variation that is tolerated.")
    max_detectable: Ratio = MAX_DETECTABLE_FIELD


@dataclass(frozen=True, slots=True)
class PredictionDriftRule:
    """Judges whether the distribution of a model's predicted labels or values has moved."""

    section: PredictionDriftSection
    section_type: ClassVar = PredictionDriftSection
    title: ClassVar = "prediction drift"
    is_by_evidence: ClassVar = True

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how drift of predicted labels and values is detected; None for every other stream."""
        if streams.find_stream_family(stream) not in (semconv.STREAM_LABEL, semconv.STREAM_VALUE):
            return None
        section = self.section
        return DetectionPolicy(tolerance=section.tolerance, direction="both", max_detectable=section.max_detectable)

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges predicted labels or values by the evidence that their distribution moved."""
        return judge_shift(window, score, counts, bound=self.section.tolerance)

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of prediction drift, by how much of the distribution moved."""
        return grade_drift_severity(causes)
