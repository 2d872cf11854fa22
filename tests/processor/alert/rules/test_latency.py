from __future__ import annotations

import pytest

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.latency import LatencyRule, LatencySection
from tests.support.scores import SECOND_NS, Judged, judged


def judge(entry: Judged, section: LatencySection | None = None) -> object:
    _, (window, score) = entry
    return LatencyRule(section or LatencySection()).judge_stream(window, score, OnsetCounts())


def test_the_ratio_of_slow_calls_in_numbers_and_words() -> None:
    assert judge(
        judged("latency", "drift", names=("within", "over"), reference=(990, 10), pane=(30, 70))
    ) == AlertCause(
        stream="latency",
        value=0.7,
        bound=0.01,
        reference="1 % allowed",
        current="70 % over 200 ms",
        current_count=100,
        reference_count=1000,
        onset_ns=5 * SECOND_NS,
        bins=("within", "over"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.3, 0.7),
        details=("70 times the rate that is allowed: a month's budget is gone in 10 hours",),
        summary="share 70 %, tolerated 1 % (n = 100)",
        origin="budget",
        budget_spent=0.7 / 0.01 * 5 / 2_592_000,
        margin=0.5,
    )


@pytest.mark.parametrize(
    ("threshold", "words"),
    [("50us", "50 µs"), ("1ms", "1 ms"), ("200ms", "200 ms"), ("1s", "1 s"), ("1500ms", "1.5 s"), ("999ms", "999 ms")],
)
def test_the_threshold_is_named_in_its_unit(threshold: str, words: str) -> None:
    section = LatencySection.model_validate({"threshold": threshold, "max_ratio": "2%"})
    cause = judge(judged("latency", "drift", names=("within", "over"), pane=(0, 100), since_ns=1), section)
    assert isinstance(cause, AlertCause)
    assert (cause.current.partition("%")[2], cause.bound) == (f" over {words}", 0.02)
