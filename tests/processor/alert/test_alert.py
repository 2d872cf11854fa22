from __future__ import annotations

import json
from dataclasses import replace

import pytest

from otel_mlmon.processor.alert.alert import Alert, Link, RuleState
from otel_mlmon.processor.state.repository import decode, encode
from tests.support.alerts import CAUSE, FIRING, TIME_NS

WEB = "127.0.0.1:8080"
FULL = replace(
    FIRING,
    environment="staging",
    reason="x",
    web_address="127.0.0.1:8080",
    links=(Link(name="a", url="https://a"),),
    exemplars=("t",),
)


def test_the_json_of_an_alert_has_plain_keys_and_states_by_name() -> None:
    assert json.loads(json.dumps(FULL.to_dict())) == {
        "fingerprint": FULL.fingerprint,
        "key": f"{FULL.fingerprint}-{TIME_NS}-0",
        "model": "digits",
        "version": "1",
        "environment": "staging",
        "rule": "prediction_drift",
        "title": "prediction drift",
        "state": "firing",
        "previous": "ok",
        "severity": "critical",
        "time_ns": TIME_NS,
        "onset_ns": TIME_NS - 12_000_000_000,
        "causes": [
            {
                "stream": "prediction.label",
                "value": 0.35,
                "bound": 0.02,
                "reference": "class 3: 10 %",
                "current": "45 %",
                "current_count": 4210,
                "reference_count": 5000,
                "onset_ns": TIME_NS - 12_000_000_000,
                "bins": list("0123456789"),
                "reference_shares": [0.1] * 10,
                "current_shares": [0.06, 0.07, 0.05, 0.45, 0.06, 0.06, 0.07, 0.06, 0.06, 0.06],
                "details": [],
                "summary": "total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)",
                "is_absent": False,
                "origin": "learned",
                "margin": 0.0,
            }
        ],
        "exemplars": ["t"],
        "links": [{"name": "a", "url": "https://a"}],
        "reason": "x",
        "sequence": 0,
        "incident_ns": 0,
        "first_severity": "",
        "joined": [],
        "news": [],
        "related": [],
        "silence": "",
        "missed": [],
        "is_test": False,
        "web_address": "127.0.0.1:8080",
        "relearn_command": "otel-mlmon reference relearn digits@staging --model-version 1 --stream prediction.label",
        "silence_command": "otel-mlmon alert silence --rule prediction_drift --for 2h digits@staging",
    }


def test_an_alert_is_stored_and_read_back_unchanged() -> None:
    assert decode(encode(FULL), Alert) == FULL


def test_the_fingerprint_is_of_model_version_environment_and_rule_only() -> None:
    other = replace(FIRING, state=RuleState.OK, severity="warning", causes=(), time_ns=1, onset_ns=2, title="x")
    assert other.fingerprint == FIRING.fingerprint
    for change in (
        replace(FIRING, model="m"),
        replace(FIRING, version="2"),
        replace(FIRING, environment="staging"),
        replace(FIRING, rule="latency"),
        replace(FIRING, model="digits\0" + FIRING.version, version=""),
    ):
        assert (len(change.fingerprint), change.fingerprint == FIRING.fingerprint) == (16, False)


def test_only_ok_resolves() -> None:
    assert [state for state in RuleState if replace(FIRING, state=state).is_resolved] == [RuleState.OK]
    assert FIRING.causes == (CAUSE,)


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({}, ""),
        ({"web_address": "0.0.0.0:81"}, "--for 2h --url http://127.0.0.1:81 digits"),
        ({"web_address": "127.0.0.1:8080", "model": "-x y", "environment": "a"}, "--for 2h -- '-x y@a'"),
    ],
)
def test_the_command_that_silences_it_can_be_pasted(fields: dict[str, str], command: str) -> None:
    text = replace(FIRING, **fields).silence_command  # type: ignore[arg-type]
    assert text == (f"otel-mlmon alert silence --rule prediction_drift {command}" if command else "")
