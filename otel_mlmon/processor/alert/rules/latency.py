"""Rule `latency`: alerts when too many calls of a model are slow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import Field

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts, build_ratio_cause
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection, grade_burn_rate, judge_budget
from otel_mlmon.processor.config.section import Duration, Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow

POLICY: Final = DetectionPolicy(tolerance=0.0, direction="up")
"""The reference is the ratio that is allowed: nothing beyond it is tolerated, and only growth is a breach."""


class LatencySection(RuleSection):
    """Alerts when too many calls are slow."""

    threshold_s: Duration = Field(default=0.2, alias="threshold", gt=0, description="A call that takes longer is slow.")
    max_ratio: Ratio = Field(default=0.01, gt=0, lt=1, description="The ratio of calls that may be slow.")


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """Judges whether too many calls of a model are slow."""

    section: LatencySection
    section_type: ClassVar = LatencySection
    title: ClassVar = "latency"
    is_by_evidence: ClassVar = True

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how growth of the ratio of slow calls is detected; None for every stream but `latency`."""
        return POLICY if stream == semconv.STREAM_LATENCY else None

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges the stream of call durations by the evidence that too many calls are slow."""
        bound, of = self.section.max_ratio, f"over {_format_seconds(self.section.threshold_s)}"
        return judge_budget(
            window,
            score,
            lambda reference: build_ratio_cause(window, reference, score, counts, bound=bound, of=of),
        )

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of slow calls, by how fast they spend the budget of slow calls."""
        return grade_burn_rate(causes)


def _format_seconds(seconds: float) -> str:
    for unit, length_s in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length_s:
            return f"{seconds / length_s:g} {unit}"
    return f"{seconds / 1e-6:g} µs"
