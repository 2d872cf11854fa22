"""Rule `statistic`: alerts when a drift statistic of the rolling window is over a threshold that the operator set.

The thresholds carry no false-alarm budget; which samples are too small to judge is decided in `detect/policy.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field, model_validator

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause, Severity
from otel_mlmon.processor.alert.cause import OnsetCounts, build_shift_cause, count_rolling_window, format_count
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection
from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.processor.detect.policy import DetectionPolicy, Threshold
from otel_mlmon.processor.detect.score import DriftScore, ThresholdVerdict
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.window.window import StreamWindow

_RATIO_STREAMS: Final = (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS)
"""Streams whose reference is an allowed ratio, and no sample that a statistic could compare with."""
_SMALLEST: Final = 1e-300


def _check_statistic_name(name: str) -> str:
    if name not in STATISTICS.list_names():
        raise ValueError(f"must be one of {', '.join(STATISTICS.list_names())}")
    return name


class ThresholdSection(ConfigSection):
    """A threshold on one drift statistic of the streams that match a pattern."""

    statistic: Annotated[str, AfterValidator(_check_statistic_name)] = Field(description="Its name, such as psi.")
    stream: str = Field(default="*", min_length=1, description="Which streams, a pattern as in `input.*`.")
    above: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Breached above this value.")
    p_below: float | None = Field(default=None, gt=0, lt=1, description="Breached below this p-value.")

    @model_validator(mode="after")
    def _check_bounds(self) -> ThresholdSection:
        if (self.above is None) == (self.p_below is None):
            raise ValueError("must have exactly one of above and p_below")
        if self.p_below is not None and not STATISTICS.load_plugin(self.statistic).has_p_value:
            names = ", ".join(
                name for name, statistic in STATISTICS.load_all_plugins().items() if statistic.has_p_value
            )
            raise ValueError(f"{self.statistic} has no p-value: p_below is for {names}")
        return self


class StatisticSection(RuleSection):
    """Alerts when a drift statistic is over its threshold; needs thresholds."""

    thresholds: tuple[ThresholdSection, ...] = Field(
        default=(),
        description=(
            "Any of `{statistic: psi, stream: prediction.label, above: 0.2}` or "
            "`{statistic: chi_squared, p_below: 0.001}`. They carry no false-alarm budget."
        ),
    )

    @property
    def is_active(self) -> bool:
        """Whether the rule `statistic` is switched on and has a threshold."""
        return self.enabled and bool(self.thresholds)


@dataclass(frozen=True, slots=True)
class StatisticRule:
    """Judges the drift statistics of a model's streams by the operator's thresholds."""

    section: StatisticSection
    section_type: ClassVar = StatisticSection
    title: ClassVar = "statistic over its threshold"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns a detection policy with the thresholds on a stream's statistics; None if it has no threshold."""
        if stream in _RATIO_STREAMS:
            return None
        thresholds = tuple(
            Threshold(statistic=entry.statistic, stream=entry.stream, above=entry.above, p_below=entry.p_below)
            for entry in self.section.thresholds
        )
        matching = tuple(threshold for threshold in thresholds if threshold.is_about_stream(stream))
        return DetectionPolicy(tolerance=0.0, direction="both", thresholds=matching) if matching else None

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:  # noqa: ARG002 (the Protocol's)
        """Judges a stream's drift statistics by their thresholds; `ok` only if there are enough values for all."""
        breaches = [verdict for verdict in score.thresholds if verdict.verdict == "breached"]
        if breaches and window.reference is not None:
            worst = max(breaches, key=_compute_threshold_excess)
            rolling = count_rolling_window(window)
            cause = build_shift_cause(window, window.reference, score, rolling, bound=worst.bound)
            name, side = (f"p of {worst.statistic}", "below") if worst.is_p_value else (worst.statistic, "above")
            sizes = f"n = {format_count(rolling.total)}, reference n = {format_count(window.reference.total)}"
            summary = f"{name} {worst.value:.3g}, {side} {worst.bound:.3g} ({sizes})"
            return replace(
                cause, value=worst.value, onset_ns=0, summary=summary, margin=_compute_threshold_excess(worst)
            )
        is_ok = score.thresholds and all(verdict.verdict == "ok" for verdict in score.thresholds)
        return "ok" if is_ok else None

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:  # noqa: ARG002 (the Protocol's)
        """Returns `warning`, since only the person who chose a threshold knows what a value over it means."""
        return "warning"


def _compute_threshold_excess(verdict: ThresholdVerdict) -> float:
    """Computes by how many powers of ten the value of a drift statistic exceeds its threshold."""
    larger, smaller = (verdict.bound, verdict.value) if verdict.is_p_value else (verdict.value, verdict.bound)
    return math.log10(larger / max(smaller, _SMALLEST))
