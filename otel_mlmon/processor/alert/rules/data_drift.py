"""Rule `data_drift`: alerts when inputs of a model are distributed differently from their reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Final

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
from otel_mlmon.processor.config.section import ConfigSection, Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow

_OUTPUT_STREAMS: Final = frozenset({
    semconv.STREAM_LABEL, semconv.STREAM_VALUE, semconv.STREAM_CONFIDENCE, semconv.STREAM_LATENCY,
    semconv.STREAM_ERRORS,
})  # fmt: skip


class FeatureToleranceSection(ConfigSection):
    """The settings by which drift of a single input feature is judged."""

    tolerance: Ratio = Field(lt=1, description="The total variation that is tolerated.")


class DataDriftSection(RuleSection):
    """Alerts when inputs are distributed differently from their reference."""

    tolerance: Ratio = Field(default=0.05, lt=1, description="The total variation that is tolerated, of every feature.")
    max_detectable: Ratio = MAX_DETECTABLE_FIELD
    ignore: tuple[str, ...] = Field(
        default=(), description="Features that are not judged, names or patterns such as `session_*`."
    )
    features: dict[str, FeatureToleranceSection] = Field(
        default_factory=dict,
        description="Single features, by name or pattern, the first that matches: `age: {tolerance: 10%}`.",
    )

    def feature_tolerance(self, stream: str) -> float | None:
        """Returns how much of an input feature's distribution may move; None if the feature is ignored."""
        name = stream.removeprefix(semconv.STREAM_INPUT_PREFIX)
        if any(fnmatchcase(name, pattern) for pattern in self.ignore):
            return None
        if name in self.features:
            return self.features[name].tolerance
        matches = (feature for pattern, feature in self.features.items() if fnmatchcase(name, pattern))
        return next((feature.tolerance for feature in matches), self.tolerance)


@dataclass(frozen=True, slots=True)
class DataDriftRule:
    """Judges whether the distribution of any input feature of a model has moved."""

    section: DataDriftSection
    section_type: ClassVar = DataDriftSection
    title: ClassVar = "data drift"
    is_by_evidence: ClassVar = True

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how drift of an input feature is detected; None for other streams and ignored features."""
        if streams.find_stream_family(stream) in _OUTPUT_STREAMS:
            return None
        tolerance = self.section.feature_tolerance(stream)
        if tolerance is None:
            return None
        return DetectionPolicy(tolerance=tolerance, direction="both", max_detectable=self.section.max_detectable)

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges an input feature by the evidence that its distribution moved."""
        tolerance = self.section.feature_tolerance(window.stream.stream)
        return None if tolerance is None else judge_shift(window, score, counts, bound=tolerance)

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of input drift, by how much of the distribution moved."""
        return grade_drift_severity(causes)
