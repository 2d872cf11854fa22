from __future__ import annotations

import pytest

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.errors import ErrorsRule, ErrorsSection
from otel_mlmon.testing import SimulatedProcessor
from tests.support.scores import SECOND_NS, judged


def test_the_ratio_of_failed_calls_in_numbers_and_words() -> None:
    _, (window, score) = judged(
        "errors", "drift", names=("ok", "failed"), reference=(990, 10), pane=(50, 50), since_ns=SECOND_NS // 2
    )
    rule = ErrorsRule(ErrorsSection.model_validate({"max_ratio": "1.5%"}))
    assert rule.judge_stream(window, score, OnsetCounts()) == AlertCause(
        stream="errors",
        value=0.5,
        bound=0.015,
        reference="1 % allowed",
        current="50 % failed",
        current_count=100,
        reference_count=1000,
        onset_ns=SECOND_NS // 2,
        bins=("ok", "failed"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.5, 0.5),
        details=("33 times the rate that is allowed: a month's budget is gone in 22 hours",),
        summary="share 50 %, tolerated 1.5 % (n = 100)",
        origin="budget",
        budget_spent=0.5 / 0.015 * 9.5 / 2_592_000,
        margin=0.5,
    )


def fail(
    processor: SimulatedProcessor, failed: int, minutes: int, *, pane_minutes: int = 1
) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Lets so many of a hundred calls a minute fail; returns what was notified meanwhile."""
    before = len(processor.alerts)
    succeeded = [0.01] * ((100 - failed) * pane_minutes)
    for _ in range(minutes // pane_minutes):
        processor.send_counts("fraud", durations_s=succeeded, failed_durations_s=[0.01] * failed * pane_minutes)
        processor.advance(60 * pane_minutes)
    return [(alert.rule, alert.state.value, alert.severity, alert.news) for alert in processor.alerts[before:]]


CONFIGURATION = {"windows": {"pane": "1m", "lateness": "0s", "rolling": "1h"}}


def test_a_slow_burn_is_a_warning_and_becomes_critical_as_an_update_of_the_same_alert() -> None:
    with SimulatedProcessor({"windows": {**CONFIGURATION["windows"], "pane": "5m"}}) as processor:
        assert fail(processor, 0, 60, pane_minutes=5) == []
        assert fail(processor, 7, 120, pane_minutes=5) == [("errors", "firing", "warning", ())]
        # 7 times the allowed rate: 5 % of the budget of 30 days after 5.1 hours.
        assert fail(processor, 7, 240, pane_minutes=5) == [("errors", "firing", "critical", ("severity",))]
        warning, critical = processor.alerts
        assert 5.1 <= (critical.time_ns - warning.onset_ns) / 3600e9 <= 5.4
        assert critical.causes[0].budget_spent == pytest.approx(0.05, abs=0.002)
        assert critical.causes[0].details == (
            "7 times the rate that is allowed: a month's budget is gone in 4.3 days",
        )  # fmt: skip
        assert [entry[1:3] for entry in fail(processor, 0, 240, pane_minutes=5)] == [("ok", "critical")]


def test_a_fast_burn_is_critical_at_once() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        assert fail(processor, 0, 60) == []
        assert fail(processor, 30, 10) == [("errors", "firing", "critical", ())]


def test_a_fast_burn_that_turns_slow_is_one_alert() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        assert fail(processor, 0, 60) == []
        assert [entry[1] for entry in fail(processor, 30, 10) + fail(processor, 7, 60)] == ["firing"]


@pytest.mark.parametrize(("failed_ratio", "within_s"), [(0.3, 60), (1.0, 40), (0.1, 200)])
def test_a_version_that_fails_from_its_first_call_alerts_soon(failed_ratio: float, within_s: int) -> None:
    with SimulatedProcessor() as processor:
        started_ns, calls = processor.now_ns, 250
        failed = round(calls * failed_ratio)
        for _ in range(within_s // 10):
            processor.now_ns += 10 * SECOND_NS
            processor.send_counts("fraud", durations_s=[0.01] * (calls - failed), failed_durations_s=[0.01] * failed)
            processor.advance()
        (alert,) = processor.alerts
        assert (alert.rule, alert.state.value, alert.onset_ns) == ("errors", "firing", started_ns)


def test_failures_in_bursts_that_five_minutes_may_spend_are_no_alert() -> None:
    with SimulatedProcessor() as processor:
        for pane in range(3 * 60):
            failed = 50 if pane % 66 == 40 else 0  # .3 % of all
            processor.now_ns += 10 * SECOND_NS
            processor.send_counts("fraud", durations_s=[0.01] * (250 - failed), failed_durations_s=[0.01] * failed)
            processor.advance()
        assert processor.alerts == []
        for _ in range(3):
            processor.now_ns += 10 * SECOND_NS
            processor.send_counts("fraud", durations_s=[0.01] * 150, failed_durations_s=[0.01] * 100)
            processor.advance()
        processor.advance(20)
        assert [alert.rule for alert in processor.alerts] == ["errors"]
