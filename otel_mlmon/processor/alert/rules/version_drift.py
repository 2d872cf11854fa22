"""Rule `version_drift`: the first predictions of a new version differ from those of the version before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from otel_mlmon.processor.alert.alert import Cause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection, drift_severity
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.window import Window


class VersionDriftSection(RuleSection):
    """The first predictions of a new version differ from the version before; the API has it in any case."""

    enabled: bool = Field(
        default=False,
        description="Whether the rule is evaluated.",
    )


@dataclass(frozen=True, slots=True)
class VersionDriftRule:
    """Alerts once a version; the comparison of two versions breaches it (`lifecycle.py`), and no pane."""

    section: VersionDriftSection
    section_type: ClassVar = VersionDriftSection
    title: ClassVar = "version drift"

    def policy(self, stream: str) -> DetectionPolicy | None:
        """Returns None: no stream is judged by its panes."""

    def judge(self, window: Window, score: Score, counts: OnsetCounts) -> Judgement:
        """Returns None: no stream is judged by its panes."""

    def severity(self, causes: Iterable[Cause]) -> Severity:
        """Returns the severity by how much of the data moved."""
        return drift_severity(causes)
