from __future__ import annotations

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.confidence import ConfidenceRule, ConfidenceSection
from tests.support.scores import judged


def test_only_a_fall_is_a_breach_and_it_is_described_by_the_mean() -> None:
    rule = ConfidenceRule(ConfidenceSection())
    policy = rule.find_detection_policy("prediction.confidence")
    assert policy is not None
    assert (policy.direction, policy.tolerance) == ("down", 0.02)
    means = (0.81, 0.55, float("nan"))
    _, (window, score) = judged("prediction.confidence", "drift", is_ordered=True, means=means)
    cause = rule.judge_stream(window, score, OnsetCounts())
    assert isinstance(cause, AlertCause)
    assert (cause.reference, cause.current, cause.bound, cause.value) == ("mean 0.81", "mean 0.55", 0.02, 0.4)
