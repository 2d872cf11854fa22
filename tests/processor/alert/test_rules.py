from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

import pytest

from otel_mlmon.processor.alert.alert import Cause, RuleName
from otel_mlmon.processor.alert.onset import SinceOnset
from otel_mlmon.processor.alert.rules import (
    RULES,
    ModelRules,
    Suspect,
    judge,
    ranked,
    rule_of,
    severity_of,
)
from otel_mlmon.processor.detect.score import ThresholdVerdict
from tests.support.scores import SECOND_NS, Judged, judged

NAN = float("nan")


def only_cause(entry: Judged, rules: ModelRules | None = None) -> Cause:
    (verdict,) = judge(dict([entry]), rules or ModelRules(), SinceOnset()).values()
    (suspect,) = verdict.drifting
    return suspect.cause


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        ("prediction.label", "prediction_drift"),
        ("prediction.value", "prediction_drift"),
        ("prediction.confidence", "confidence"),
        ("input.age", "data_drift"),
        ("input.latency", "data_drift"),
        ("latency", "latency"),
        ("errors", "errors"),
    ],
)
def test_every_stream_has_its_rule(stream: str, rule: RuleName) -> None:
    assert rule_of(stream) == rule


def test_a_class_that_grew_is_told_in_words_and_numbers() -> None:
    cause = only_cause(
        judged(
            "prediction.label", "drift", names=("1", "2", "3"), reference=(80, 10, 10), pane=(45, 10, 45),
            exemplars=("t1",),
        )
    )  # fmt: skip
    assert cause == Cause(
        stream="prediction.label",
        value=0.35,
        bound=0.02,
        before="class 3: 10 %",
        now="45 %",
        n=100,
        reference_count=100,
        onset_ns=5 * SECOND_NS,
        bins=("1", "2", "3"),
        reference_shares=(0.8, 0.1, 0.1),
        current_shares=(0.45, 0.1, 0.45),
        details=("class 1: 80 % → 45 %", "class 3: 10 % → 45 %"),
    )


@pytest.mark.parametrize(
    ("entry", "before", "now", "value", "bound"),
    [
        (judged("latency", "drift", names=("within", "over"), reference=(99, 1), pane=(93, 7)),
         "1 % over 200 ms", "7 %", 0.07, 0.01),
        (judged("errors", "drift", names=("ok", "failed"), reference=(99, 1), pane=(50, 50)),
         "1 % failed", "50 %", 0.5, 0.01),
        (judged("prediction.confidence", "drift", is_ordered=True, means=(0.81, 0.55, NAN)),
         "mean 0.81", "mean 0.55", 0.4, 0.02),
        (judged("input.x", "drift", is_ordered=True, means=(0.31, 0.31, NAN), names=("< 1", "1 …")),
         "< 1: 50 %", "90 %", 0.4, 0.05),
        (judged("input.x", "drift", is_ordered=True, means=(0.31, 0.2, NAN), names=("_MISSING", "1 …")),
         "missing: 50 %", "90 %", 0.4, 0.05),
        (judged("input.x", "drift", names=("_OTHER", "red")), "all others: 50 %", "90 %", 0.4, 0.05),
        (judged("input.x", "drift", names=("red", "blue")), "value red: 50 %", "90 %", 0.4, 0.05),
    ],
)  # fmt: skip
def test_what_moved_is_told_as_people_say_it(entry: Judged, before: str, now: str, value: float, bound: float) -> None:
    cause = only_cause(entry)
    assert (cause.before, cause.now, cause.bound) == (before, now, bound)
    assert cause.value == pytest.approx(value)


def test_bounds_and_budgets_are_the_models_own() -> None:
    rules = ModelRules(latency_threshold_s=0.00005, latency_max_ratio=0.2, data_tolerance=0.3)
    latency = only_cause(judged("latency", "drift", names=("within", "over")), rules)
    assert (latency.before, latency.bound) == ("50 % over 50 µs", 0.2)
    assert only_cause(judged("input.x", "drift"), rules).bound == 0.3


def test_one_verdict_a_rule_with_all_its_streams() -> None:
    scores = dict(
        [
            judged("input.a", "drift", exemplars=("t1", "t2")),
            judged("input.b", "drift", exemplars=("t2", "t3")),
            judged("input.c", "ok"),
            judged("input.d", "learning"),
            judged("prediction.label", "learning"),
            judged("errors", "ok"),
        ]
    )
    verdicts = judge(scores, ModelRules(), SinceOnset())
    assert list(verdicts) == ["errors", "data_drift"]
    data = verdicts["data_drift"]
    assert [suspect.cause.stream for suspect in data.drifting] == ["input.a", "input.b"]
    assert (data.quiet, data.exemplars) == (("input.c",), ("t1", "t2", "t3"))
    assert verdicts["errors"].quiet == ("errors",)


def test_a_rule_that_is_switched_off_has_no_verdict() -> None:
    rules = ModelRules(enabled=frozenset(RULES) - {"data_drift"})
    assert judge(dict([judged("input.a", "drift")]), rules, SinceOnset()) == {}


@pytest.mark.guarded
def test_a_stream_that_cannot_be_described_does_not_stop_the_others() -> None:
    scores = dict([judged("input.a", "drift", pane=(1, 2, 3)), judged("input.b", "drift")])
    (verdict,) = judge(scores, ModelRules(), SinceOnset()).values()
    assert [suspect.cause.stream for suspect in verdict.drifting] == ["input.b"]


def test_causes_are_ranked_by_evidence_then_by_how_much_they_moved() -> None:
    def suspect(stream: str, margin: float, pane: tuple[int, int]) -> Suspect:
        return Suspect(cause=only_cause(judged(stream, "drift", pane=pane)), margin=margin)

    suspects = [
        suspect("input.a", 2.001, (60, 40)),
        suspect("input.b", 2.0, (90, 10)),
        suspect("input.c", 1.0, (100, 0)),
    ]
    assert [cause.stream for cause in ranked(suspects)] == ["input.b", "input.a", "input.c"]


@pytest.mark.parametrize(
    ("stream", "pane", "severity"),
    [
        ("input.x", (76, 24), "critical"),
        ("input.x", (74, 26), "warning"),
        ("errors", (95, 5), "critical"),
        ("errors", (96, 4), "warning"),
    ],
)
def test_severity_is_the_size_of_the_effect(stream: str, pane: tuple[int, int], severity: str) -> None:
    for margin in (0.1, 2.0):
        cause = only_cause(judged(stream, "drift", pane=pane, margin=margin))
        assert severity_of(rule_of(stream), [cause]) == severity


def with_thresholds(entry: Judged, *verdicts: ThresholdVerdict) -> Judged:
    key, (window, score) = entry
    return key, (window, replace(score, thresholds=verdicts))


def psi(verdict: Literal["ok", "breached", "too few values"], value: float = 0.31) -> ThresholdVerdict:
    return ThresholdVerdict(statistic="psi", is_p_value=False, value=value, bound=0.2, min_count=60, verdict=verdict)


P_BREACHED = ThresholdVerdict(
    statistic="chi_squared", is_p_value=True, value=1e-9, bound=0.001, min_count=20, verdict="breached"
)
WITH_STATISTIC = ModelRules(enabled=frozenset(RULES))


def test_a_threshold_is_a_rule_of_its_own_that_names_the_statistic() -> None:
    entry = with_thresholds(judged("prediction.label", "ok", exemplars=("t1",)), psi("breached"))
    verdicts = judge(dict([entry]), WITH_STATISTIC, SinceOnset())
    assert list(verdicts) == ["prediction_drift", "statistic"]
    assert verdicts["prediction_drift"].quiet == ("prediction.label",)
    verdict = verdicts["statistic"]
    (suspect,) = verdict.drifting
    cause = suspect.cause
    assert (cause.statistic, cause.value, cause.bound, cause.n, cause.onset_ns) == ("psi", 0.31, 0.2, 100, 0)
    assert verdict.exemplars == ("t1",)
    assert severity_of("statistic", [cause]) == "warning"
    assert Cause.from_dict(json.loads(json.dumps(cause.to_dict()))) == cause


def test_thresholds_say_nothing_where_the_rule_is_off_or_values_are_too_few() -> None:
    breached = with_thresholds(judged("prediction.label", "ok"), psi("breached"))
    assert "statistic" not in judge(dict([breached]), ModelRules(), SinceOnset())
    few = with_thresholds(judged("prediction.label", "ok"), psi("too few values"), psi("ok", 0.1))
    assert "statistic" not in judge(dict([few]), WITH_STATISTIC, SinceOnset())
    quiet = with_thresholds(judged("prediction.label", "ok"), psi("ok", 0.1))
    assert judge(dict([quiet]), WITH_STATISTIC, SinceOnset())["statistic"].quiet == ("prediction.label",)


def test_of_several_breaches_the_one_that_is_passed_by_most_is_told() -> None:
    entry = with_thresholds(judged("input.age", "ok"), psi("breached"), P_BREACHED)
    (suspect,) = judge(dict([entry]), WITH_STATISTIC, SinceOnset())["statistic"].drifting
    assert (suspect.cause.statistic, suspect.cause.value) == ("p of chi_squared", 1e-9)
    assert suspect.margin == pytest.approx(6.0)
