"""Rule `version_drift`: alerts when the first predictions of a new model version differ from the version before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection, grade_drift_severity
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow


class VersionDriftSection(RuleSection):
    """Alerts when a new version's first predictions differ from the version before; the API shows it anyway."""

    enabled: bool = Field(
        default=False,
        description="Whether the rule is evaluated.",
    )


@dataclass(frozen=True, slots=True)
class VersionDriftRule:
    """Alerts once a model version, when its first predictions differ from those of the version before."""

    section: VersionDriftSection
    section_type: ClassVar = VersionDriftSection
    title: ClassVar = "version drift"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns None for every stream, since only the comparison of two model versions breaches this rule."""

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Returns None for every stream, since only the comparison of two model versions breaches this rule."""

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of a difference between model versions, by how much of the distribution moved."""
        return grade_drift_severity(causes)
