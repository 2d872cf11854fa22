from __future__ import annotations

import pytest

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.data_drift import DataDriftRule, DataDriftSection
from tests.support.scores import Judged, judged

NAN = float("nan")


@pytest.mark.parametrize(
    ("entry", "reference", "current"),
    [
        (judged("input.x", "drift", is_ordered=True, means=(0.81, 0.55, NAN)), "mean 0.81", "mean 0.55"),
        (judged("input.x", "drift", is_ordered=True, means=(0.31, 0.31, NAN), names=("< 1", "1 …")),
         "< 1: 50 %", "90 %"),
        (judged("input.x", "drift", is_ordered=True, means=(0.31, 0.2, NAN), names=("_MISSING", "1 …")),
         "missing: 50 %", "90 %"),
        (judged("input.x", "drift", is_ordered=True, means=(NAN, 0.2, NAN), names=("< 1", "1 …")),
         "< 1: 50 %", "90 %"),
        (judged("input.x", "drift", names=("_OTHER", "red"), means=(0.1, 0.2, NAN)), "all others: 50 %", "90 %"),
        (judged("input.x", "drift", names=("red", "blue")), "value red: 50 %", "90 %"),
    ],
)  # fmt: skip
def test_a_feature_is_described_by_its_mean_or_by_the_bin_that_moved_most(
    entry: Judged, reference: str, current: str
) -> None:
    _, (window, score) = entry
    cause = DataDriftRule(DataDriftSection()).judge_stream(window, score, OnsetCounts())
    assert isinstance(cause, AlertCause)
    assert (cause.reference, cause.current, cause.bound) == (reference, current, 0.05)
    assert cause.value == pytest.approx(0.4)


def test_the_tolerance_is_the_models_own() -> None:
    _, (window, score) = judged("input.x", "drift")
    cause = DataDriftRule(DataDriftSection(tolerance=0.3)).judge_stream(window, score, OnsetCounts())
    assert isinstance(cause, AlertCause)
    assert (cause.bound, cause.summary) == (
        0.3, "total variation 40 %, tolerated 30 % (n = 100, reference n = 1 000)",
    )  # fmt: skip


def test_single_features_are_muted_or_loosened_by_name_or_pattern() -> None:
    section = DataDriftSection.model_validate(
        {
            "ignore": ["session_*", "debug"],
            "features": {"age_*": {"tolerance": "20%"}, "age_days": {"tolerance": "10%"}, "*_id": {"tolerance": "30%"}},
        }
    )
    rule = DataDriftRule(section)
    policies = {
        name: rule.find_detection_policy(f"input.{name}")
        for name in ("session_age", "debug", "age_days", "age_id", "user_id", "income")
    }
    assert {name: policy and policy.tolerance for name, policy in policies.items()} == {
        "session_age": None, "debug": None, "age_days": 0.1, "age_id": 0.2, "user_id": 0.3, "income": 0.05,
    }  # fmt: skip
    _, (window, score) = judged("input.age_days", "drift")
    cause = rule.judge_stream(window, score, OnsetCounts())
    assert isinstance(cause, AlertCause)
    assert cause.bound == 0.1
    _, (window, score) = judged("input.debug", "drift")
    assert rule.judge_stream(window, score, OnsetCounts()) is None
