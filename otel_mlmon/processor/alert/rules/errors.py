"""Rule `errors`: too many calls fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import Field

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Cause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts, ratio_cause
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection, burn_rate_severity, judge_evidence
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.window import Window

POLICY: Final = DetectionPolicy(tolerance=0.0, direction="up")
"""The reference is the ratio that is allowed: nothing beyond it is tolerated, and only growth is a breach."""


class ErrorsSection(RuleSection):
    """Too many failed calls."""

    max_ratio: Ratio = Field(default=0.01, gt=0, lt=1, description="The ratio of calls that may fail.")


@dataclass(frozen=True, slots=True)
class ErrorsRule:
    """Judges the ratio of failed calls."""

    section: ErrorsSection
    section_type: ClassVar = ErrorsSection
    title: ClassVar = "errors"

    def policy(self, stream: str) -> DetectionPolicy | None:
        """Returns the policy of the stream `errors`."""
        return POLICY if stream == semconv.STREAM_ERRORS else None

    def judge(self, window: Window, score: Score, counts: OnsetCounts) -> Judgement:
        """Judges by the evidence that the ratio has grown."""
        bound = self.section.max_ratio
        return judge_evidence(
            window,
            score,
            lambda reference: ratio_cause(window, reference, score, counts, bound=bound, of="failed"),
        )

    def severity(self, causes: Iterable[Cause]) -> Severity:
        """Returns the severity by how fast the budget is spent."""
        return burn_rate_severity(causes)
