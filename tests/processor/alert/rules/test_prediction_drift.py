from __future__ import annotations

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.prediction_drift import PredictionDriftRule, PredictionDriftSection
from tests.support.scores import SECOND_NS, judged


def test_a_class_that_grew_in_numbers_and_words() -> None:
    _, (window, score) = judged(
        "prediction.label", "drift", names=("1", "2", "3"), reference=(80, 10, 10), pane=(45, 10, 45)
    )
    rule = PredictionDriftRule(PredictionDriftSection())
    assert rule.judge_stream(window, score, OnsetCounts()) == AlertCause(
        stream="prediction.label",
        value=0.35,
        bound=0.02,
        reference="class 3: 10 %",
        current="45 %",
        current_count=100,
        reference_count=100,
        onset_ns=5 * SECOND_NS,
        bins=("1", "2", "3"),
        reference_shares=(0.8, 0.1, 0.1),
        current_shares=(0.45, 0.1, 0.45),
        details=("class 1: 80 % → 45 %", "class 3: 10 % → 45 %"),
        summary="total variation 35 %, tolerated 2 % (n = 100, reference n = 100)",
        origin="learned",
        margin=0.5,
    )
