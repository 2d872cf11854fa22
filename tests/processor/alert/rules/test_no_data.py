from __future__ import annotations

from otel_mlmon.processor.alert.rules.no_data import NoDataRule, NoDataSection


def test_no_stream_is_judged_and_its_severity_is_a_warning() -> None:
    rule = NoDataRule(NoDataSection())
    assert rule.find_detection_policy("prediction.label") is None
    assert rule.grade_severity(()) == "warning"
    assert NoDataSection.model_validate({"after": "1h"}).after_s == 3600.0
