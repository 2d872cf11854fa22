from __future__ import annotations

from otel_mlmon.processor.alert.alert import Cause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.errors import ErrorsRule, ErrorsSection
from tests.support.scores import SECOND_NS, judged


def test_the_ratio_of_failed_calls_in_numbers_and_words() -> None:
    _, (window, score) = judged("errors", "drift", names=("ok", "failed"), reference=(990, 10), pane=(50, 50))
    rule = ErrorsRule(ErrorsSection.model_validate({"max_ratio": "3%"}))
    assert rule.judge(window, score, OnsetCounts()) == Cause(
        stream="errors",
        value=0.5,
        bound=0.03,
        reference="1 % failed",
        current="50 %",
        current_count=100,
        reference_count=1000,
        onset_ns=5 * SECOND_NS,
        bins=("ok", "failed"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.5, 0.5),
        summary="share 50 %, tolerated 3 % (n = 100)",
        margin=0.5,
    )
