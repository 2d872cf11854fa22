"""An alert rule that fires when one label has more than its share of the predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts, build_shift_cause, count_rolling_window
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow


class DominanceSection(RuleSection):
    """One label is predicted too often."""

    max_share: Ratio = Field(default=0.95, gt=0, lt=1, description="The share that a label may have.")


@dataclass(frozen=True)
class DominanceRule:
    """Judges the largest share in the rolling window."""

    section: DominanceSection
    section_type: ClassVar = DominanceSection
    title: ClassVar = "one label dominates"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Names the streams that the rule judges: the labels."""
        return DetectionPolicy(tolerance=0.02, direction="both") if stream == "prediction.label" else None

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Compares the largest share with what is allowed; says nothing while the reference is learned."""
        if window.reference is None or not window.rolling.any():
            return None
        rolling = count_rolling_window(window)
        share = max(rolling.counts) / rolling.total
        if share <= self.section.max_share:
            return "ok"
        cause = build_shift_cause(window, window.reference, score, rolling, bound=self.section.max_share)
        return replace(cause, value=share, summary=f"a share of {share:.2f}")

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Takes every breach for critical."""
        return "critical"
