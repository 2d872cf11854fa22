"""Rule `no_data`: alerts when a model has sent no predictions for a while."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection
from otel_mlmon.processor.config.section import Duration
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow


class NoDataSection(RuleSection):
    """Alerts when a model has sent no predictions for a while."""

    after_s: Duration = Field(default=600.0, alias="after", gt=0, description="How long without predictions.")


@dataclass(frozen=True, slots=True)
class NoDataRule:
    """Alerts when a model has sent no predictions for a while, which `lifecycle.py` decides by the clock."""

    section: NoDataSection
    section_type: ClassVar = NoDataSection
    title: ClassVar = "no predictions"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns None for every stream, since time alone breaches this rule."""

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Returns None for every stream, since time alone breaches this rule."""

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:  # noqa: ARG002 (the Protocol's)
        """Returns `warning`, since how much missing predictions matter is unknown."""
        return "warning"
