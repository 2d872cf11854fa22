from __future__ import annotations

import json
from dataclasses import replace

from otel_mlmon.processor.alert.alert import Alert, State
from tests.support.alerts import CAUSE, FIRING


def test_an_alert_goes_through_json_unchanged() -> None:
    alert = replace(FIRING, attributes={"reason": "x"}, links=(("a", "https://a"),), exemplars=("t",))
    assert Alert.from_dict(json.loads(json.dumps(alert.to_dict()))) == alert


def test_the_fingerprint_is_of_model_version_and_rule_only() -> None:
    other = replace(FIRING, state=State.OK, severity="warning", causes=(), at_ns=1, since_ns=2)
    assert other.fingerprint == FIRING.fingerprint
    for change in (
        replace(FIRING, model="m"),
        replace(FIRING, version="2"),
        replace(FIRING, rule="latency"),
        replace(FIRING, model="digits\0" + FIRING.version, version=""),
    ):
        assert (len(change.fingerprint), change.fingerprint == FIRING.fingerprint) == (16, False)


def test_only_ok_resolves() -> None:
    assert [state for state in State if replace(FIRING, state=state).is_resolved] == [State.OK]
    assert FIRING.causes == (CAUSE,)
