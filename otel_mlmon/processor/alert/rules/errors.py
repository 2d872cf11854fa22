"""Rule `errors`: alerts when too many calls of a model fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import Field

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts, build_ratio_cause
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection, grade_burn_rate, judge_budget
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow

POLICY: Final = DetectionPolicy(tolerance=0.0, direction="up", first_divisor=25.0)
"""The reference is the ratio that is allowed: nothing beyond it is tolerated, and only growth is a breach.

A version that fails from its first minute is judged at once, as if failures came 25 together: of 25 calls a second 30 %
failing are found in 30 s instead of 210 s. Decision 13 has the table."""


class ErrorsSection(RuleSection):
    """Alerts when too many calls fail."""

    max_ratio: Ratio = Field(default=0.01, gt=0, lt=1, description="The ratio of calls that may fail.")


@dataclass(frozen=True, slots=True)
class ErrorsRule:
    """Judges whether too many calls of a model fail."""

    section: ErrorsSection
    section_type: ClassVar = ErrorsSection
    title: ClassVar = "errors"
    is_by_evidence: ClassVar = True

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how growth of the ratio of failed calls is detected; None for every stream but `errors`."""
        return POLICY if stream == semconv.STREAM_ERRORS else None

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges the stream of failed calls by the evidence that too many calls fail."""
        bound = self.section.max_ratio
        return judge_budget(
            window,
            score,
            lambda reference: build_ratio_cause(window, reference, score, counts, bound=bound, of="failed"),
        )

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of failed calls, by how fast they spend the budget of failures."""
        return grade_burn_rate(causes)
