from __future__ import annotations

import pytest

from otel_mlmon.processor.alert.alert import Cause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.errors import ErrorsRule, ErrorsSection
from otel_mlmon.testing import SimulatedProcessor
from tests.support.scores import SECOND_NS, judged


def test_the_ratio_of_failed_calls_in_numbers_and_words() -> None:
    _, (window, score) = judged("errors", "drift", names=("ok", "failed"), reference=(990, 10), pane=(50, 50))
    rule = ErrorsRule(ErrorsSection.model_validate({"max_ratio": "3%"}))
    assert rule.judge(window, score, OnsetCounts()) == Cause(
        stream="errors",
        value=0.5,
        bound=0.03,
        reference="1 % allowed",
        current="50 % failed",
        current_count=100,
        reference_count=1000,
        onset_ns=5 * SECOND_NS,
        bins=("ok", "failed"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.5, 0.5),
        details=("17 times the rate that is allowed: a month's budget is gone in 43 hours",),
        summary="share 50 %, tolerated 3 % (n = 100)",
        origin="budget",
        budget_spent=0.5 / 0.03 * 5 / 2_592_000,
        margin=0.5,
    )


def fail(processor: SimulatedProcessor, failed: int, minutes: int) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Lets so many of a hundred calls a minute fail; returns what was notified meanwhile."""
    before = len(processor.alerts)
    for _ in range(minutes):
        processor.send_counts("fraud", durations_s=[0.01] * (100 - failed), failed_durations_s=[0.01] * failed)
        processor.advance(60)
    return [(alert.rule, alert.state.value, alert.severity, alert.news) for alert in processor.alerts[before:]]


CONFIGURATION = {"windows": {"pane": "1m", "lateness": "0s", "rolling": "1h"}}


def test_a_slow_burn_is_a_warning_and_becomes_critical_as_an_update_of_the_same_alert() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        assert fail(processor, 0, 60) == []
        assert fail(processor, 7, 120) == [("errors", "firing", "warning", ())]
        # 7 times the allowed rate: 5 % of the budget of 30 days after 5.1 hours.
        assert fail(processor, 7, 240) == [("errors", "firing", "critical", ("severity",))]
        warning, critical = processor.alerts
        assert 5.1 <= (critical.time_ns - warning.onset_ns) / 3600e9 <= 5.4
        assert critical.causes[0].budget_spent == pytest.approx(0.05, abs=0.002)
        assert critical.causes[0].details == (
            "7 times the rate that is allowed: a month's budget is gone in 4.3 days",
        )  # fmt: skip
        assert [entry[1:3] for entry in fail(processor, 0, 240)] == [("ok", "critical")]


def test_a_fast_burn_is_critical_at_once() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        assert fail(processor, 0, 60) == []
        assert fail(processor, 30, 10) == [("errors", "firing", "critical", ())]


def test_a_fast_burn_that_turns_slow_is_one_alert() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        assert fail(processor, 0, 60) == []
        assert [entry[1] for entry in fail(processor, 30, 10) + fail(processor, 7, 60)] == ["firing"]
