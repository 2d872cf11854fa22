from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import Judgement
from otel_mlmon.processor.alert.rules.statistic import StatisticRule, StatisticSection
from otel_mlmon.processor.detect.policy import Threshold
from otel_mlmon.processor.detect.score import ThresholdVerdict
from tests.support.scores import judged

SECTION = StatisticSection.model_validate(
    {
        "thresholds": [
            {"statistic": "psi", "stream": "prediction.*", "above": 0.2},
            {"statistic": "chi_squared", "p_below": 0.001},
        ]
    }
)
RULE = StatisticRule(SECTION)


def verdict(**fields: Any) -> ThresholdVerdict:
    defaults: dict[str, Any] = {"statistic": "psi", "is_p_value": False, "value": 0.31, "bound": 0.2, "min_count": 60}
    return ThresholdVerdict(**{**defaults, **fields})


def psi(outcome: Literal["ok", "breached", "too few values"], value: float = 0.31) -> ThresholdVerdict:
    return verdict(verdict=outcome, value=value)


P_BREACHED = verdict(statistic="chi_squared", is_p_value=True, value=1e-9, bound=0.001, verdict="breached")


def judge(*verdicts: ThresholdVerdict, status: Literal["learning", "ok"] = "ok") -> Judgement:
    _, (window, score) = judged("prediction.label", status, pane=(30, 10), rolling=(90, 10))
    counts = OnsetCounts()
    counts.add(window, score.replace(since_ns=1))
    return RULE.judge_stream(window, score.replace(thresholds=verdicts, since_ns=1), counts)


def test_a_threshold_on_a_p_value_needs_a_statistic_that_has_one() -> None:
    section = StatisticSection.model_validate({"thresholds": [{"statistic": "hellinger", "above": 0.3}]})
    assert [(entry.above, entry.p_below) for entry in section.thresholds] == [(0.3, None)]
    with pytest.raises(ValidationError, match="hellinger has no p-value: p_below is for "):
        StatisticSection.model_validate({"thresholds": [{"statistic": "hellinger", "p_below": 0.3}]})


def test_a_stream_has_the_thresholds_that_match_its_name() -> None:
    label, feature = RULE.find_detection_policy("prediction.label"), RULE.find_detection_policy("input.age")
    assert label is not None
    assert feature is not None
    of_psi = Threshold(statistic="psi", stream="prediction.*", above=0.2)
    of_chi_squared = Threshold(statistic="chi_squared", p_below=0.001)
    assert (label.thresholds, feature.thresholds) == ((of_psi, of_chi_squared), (of_chi_squared,))


@pytest.mark.parametrize("stream", ["latency", "errors"])
def test_an_allowed_ratio_is_no_sample_to_compare_with(stream: str) -> None:
    assert RULE.find_detection_policy(stream) is None


def test_a_breach_names_the_statistic_and_is_of_the_rolling_window() -> None:
    cause = judge(psi("breached"), psi("too few values"))
    assert isinstance(cause, AlertCause)
    assert (cause.value, cause.bound, cause.current_count, cause.onset_ns) == (0.31, 0.2, 100, 0)
    assert cause.summary == "psi 0.31, above 0.2 (n = 100, reference n = 1 000)"
    assert cause.margin == pytest.approx(0.19, abs=0.001)
    assert (cause.reference, cause.current) == ("class a: 50 %", "90 %")


def test_of_several_breaches_the_one_that_is_exceeded_most_is_the_cause() -> None:
    for verdicts in ((psi("breached"), P_BREACHED), (P_BREACHED, psi("breached"))):
        cause = judge(*verdicts)
        assert isinstance(cause, AlertCause)
        assert cause.summary.startswith("p of chi_squared 1e-09, below 0.001 (")
        assert cause.value == 1e-9
        assert cause.margin == pytest.approx(6.0)


def test_a_p_value_of_zero_is_the_smallest_there_is() -> None:
    cause = judge(replace(P_BREACHED, value=0.0))
    assert isinstance(cause, AlertCause)
    assert cause.margin == pytest.approx(297.0)


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ((), None),
        ((psi("too few values"),), None),
        ((psi("too few values"), psi("ok", 0.1)), None),
        ((psi("ok", 0.1),), "ok"),
        ((psi("ok", 0.1), psi("ok", 0.2)), "ok"),
    ],
)
def test_it_is_ok_only_if_all_thresholds_could_be_judged(
    verdicts: tuple[ThresholdVerdict, ...], outcome: str | None
) -> None:
    assert judge(*verdicts) == outcome


def test_without_a_reference_nothing_is_breached() -> None:
    assert judge(psi("breached"), status="learning") is None


def test_the_rule_is_active_with_thresholds_only() -> None:
    assert SECTION.is_active
    assert not StatisticSection().is_active
    assert not SECTION.model_copy(update={"enabled": False}).is_active


def test_the_severity_is_a_warning_however_large_the_value() -> None:
    cause = judge(psi("breached", 1000.0))
    assert isinstance(cause, AlertCause)
    assert RULE.grade_severity([cause]) == "warning"
