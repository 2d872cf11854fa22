"""Rule `confidence`: alerts when the confidence of a model's predictions falls."""

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


class ConfidenceSection(RuleSection):
    """Alerts when the confidence of predictions falls."""

    tolerance: Ratio = Field(default=0.02, lt=1, description="The total variation that is tolerated.")
    max_detectable: Ratio = MAX_DETECTABLE_FIELD


@dataclass(frozen=True, slots=True)
class ConfidenceRule:
    """Judges whether the confidence of a model's predictions has fallen."""

    section: ConfidenceSection
    section_type: ClassVar = ConfidenceSection
    title: ClassVar = "confidence"
    is_by_evidence: ClassVar = True

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how a fall of confidences is detected; None for every other stream."""
        if streams.find_stream_family(stream) != semconv.STREAM_CONFIDENCE:
            return None
        section = self.section
        return DetectionPolicy(tolerance=section.tolerance, direction="down", max_detectable=section.max_detectable)

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges a stream of confidences by the evidence that they fell."""
        return judge_shift(window, score, counts, bound=self.section.tolerance)

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of a fall of confidences, by how much of the distribution moved."""
        return grade_drift_severity(causes)
