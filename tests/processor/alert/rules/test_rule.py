from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from otel_mlmon.processor.alert.rules.rule import (
    RULES,
    ModelRules,
    grade_burn_rate,
    grade_drift_severity,
    judge_evidence,
)
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.detect.policy import DetectionPolicy, Threshold
from tests.support.alerts import CAUSE
from tests.support.scores import judged

THRESHOLDS = {"thresholds": [{"statistic": "psi", "stream": "input.*", "above": 0.2}]}
PSI = Threshold(statistic="psi", stream="input.*", above=0.2)


def rules_of(**model: Any) -> ModelRules:
    config = Config.model_validate({"models": {"*": model}})
    return ModelRules.from_section(config.find_model_section("fraud"))


@pytest.mark.parametrize(
    ("stream", "rule", "policy"),
    [
        ("prediction.label", "prediction_drift", DetectionPolicy(tolerance=0.02, direction="both")),
        ("prediction.value", "prediction_drift", DetectionPolicy(tolerance=0.02, direction="both")),
        ("prediction.confidence", "confidence", DetectionPolicy(tolerance=0.02, direction="down")),
        ("input.age", "data_drift", DetectionPolicy(tolerance=0.05, direction="both")),
        ("input.latency", "data_drift", DetectionPolicy(tolerance=0.05, direction="both")),
        ("latency", "latency", DetectionPolicy(tolerance=0.0, direction="up")),
        ("errors", "errors", DetectionPolicy(tolerance=0.0, direction="up", first_divisor=25.0)),
    ],
)
def test_every_stream_has_its_rule_and_policy(stream: str, rule: str, policy: DetectionPolicy) -> None:
    rules = rules_of()
    assert [name for name, _ in rules.find_rules(stream)] == [rule]
    assert rules.find_detection_policy(stream) == policy


def test_the_active_rules_are_listed_in_the_order_of_the_registry() -> None:
    assert list(rules_of().active) == [
        "latency", "errors", "prediction_drift", "confidence", "data_drift", "execution_provider", "no_data",
    ]  # fmt: skip
    named = rules_of(accuracy={"min": "90%"}, statistic=THRESHOLDS, version_drift={"enabled": True})
    assert tuple(named.active) == RULES.list_names()


@pytest.mark.parametrize(
    "name", [name for name in RULES.list_names() if name not in ("accuracy", "statistic", "version_drift")]
)
def test_a_rule_that_is_switched_off_is_left_out_and_hides_no_other(name: str) -> None:
    rules = rules_of(**{name: {"enabled": False}})
    assert list(rules.active) == [other for other in rules_of().active if other != name]
    streams = ("latency", "errors", "prediction.label", "prediction.confidence", "input.age")
    judging = [rule for stream in streams for rule, _ in rules.find_rules(stream)]
    assert judging == [other for other in rules.active if other not in ("execution_provider", "no_data")]


def test_a_stream_without_an_active_rule_is_not_evaluated() -> None:
    assert rules_of(data_drift={"enabled": False}).find_detection_policy("input.age") is None


def test_thresholds_are_added_to_the_policy_of_the_first_rule() -> None:
    rules = rules_of(data_drift={"tolerance": "8%"}, statistic=THRESHOLDS)
    assert rules.find_detection_policy("input.age") == DetectionPolicy(
        tolerance=0.08, direction="both", thresholds=(PSI,)
    )
    assert [name for name, _ in rules.find_rules("input.age")] == ["data_drift", "statistic"]
    off = rules_of(data_drift={"tolerance": "8%", "enabled": False}, statistic=THRESHOLDS)
    assert off.find_detection_policy("input.age") == DetectionPolicy(
        tolerance=0.08, direction="both", thresholds=(PSI,)
    )
    assert [name for name, _ in off.find_rules("input.age")] == ["statistic"]
    without = rules_of(data_drift={"tolerance": "8%"}, statistic={**THRESHOLDS, "enabled": False})
    assert without.find_detection_policy("input.age") == DetectionPolicy(tolerance=0.08, direction="both")


def test_silence_is_known_though_its_rule_is_switched_off() -> None:
    assert rules_of(no_data={"after": "5m", "enabled": False}).no_data_after_s == 300.0


@pytest.mark.parametrize(
    ("value", "severity"), [(0.0, "warning"), (0.2499, "warning"), (0.25, "critical"), (1.0, "critical")]
)
def test_a_drift_is_critical_from_a_quarter_on(value: float, severity: str) -> None:
    assert grade_drift_severity([replace(CAUSE, value=0.1), replace(CAUSE, value=value)]) == severity


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        ({}, "critical"),
        ({"reference_shares": (0.951, 0.049)}, "warning"),  # rare before
        ({"current_shares": (0.994, 0.006)}, "warning"),  # some are left
        ({"current_count": 490}, "warning"),  # of fewer than 50 all may be missing by chance
        ({"stream": "prediction.label.color"}, "critical"),  # of a model with several heads
        ({"stream": "input.color"}, "warning"),  # no answer of the model
        ({"bins": ("a", "_OTHER")}, "warning"),  # no class
        ({"bins": ("a", "_x")}, "critical"),
    ],
)
def test_the_loss_of_a_frequent_class_is_critical_whatever_its_share(change: Any, severity: str) -> None:
    gone = replace(
        CAUSE, stream="prediction.label", value=0.1, bins=("a", "b"), reference_shares=(0.9, 0.1),
        current_shares=(1.0, 0.0), current_count=1_000,
    )  # fmt: skip
    assert grade_drift_severity([replace(gone, **change)]) == severity


@pytest.mark.parametrize(
    ("value", "bound", "spent", "severity"),
    [
        (0.143, 0.01, 0.0, "warning"),
        (0.145, 0.01, 0.0, "critical"),  # fast: 14.4 times
        (0.061, 0.01, 0.049, "warning"),
        (0.061, 0.01, 0.051, "critical"),  # slow: 6 times, and 5 % of the budget is gone
        (0.059, 0.01, 0.5, "warning"),  # slow enough for a working day, however long it lasts
        (0.59, 0.2, 0.0, "warning"),
        (0.61, 0.2, 0.0, "critical"),  # 14.4 times a fifth is more than all calls
        (0.76, 0.5, 0.0, "critical"),
        (0.74, 0.5, 0.9, "warning"),
    ],
)
def test_slow_or_failed_calls_are_critical_by_how_fast_they_spend_the_budget(
    value: float, bound: float, spent: float, severity: str
) -> None:
    cause = replace(CAUSE, value=value, bound=bound, budget_spent=spent)
    assert grade_burn_rate([replace(CAUSE, value=0.01, bound=0.01), cause]) == severity


def test_nothing_is_a_warning() -> None:
    assert (grade_drift_severity([]), grade_burn_rate([])) == ("warning", "warning")


@pytest.mark.parametrize(("status", "outcome"), [("drift", CAUSE), ("ok", "ok"), ("learning", None)])
def test_the_evidence_decides(status: Any, outcome: object) -> None:
    _, (window, score) = judged("input.x", status)
    assert judge_evidence(window, score, lambda _: CAUSE) == outcome
    if status == "drift":
        assert judge_evidence(window.replace(reference=None), score, lambda _: CAUSE) is None
