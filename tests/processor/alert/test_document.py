"""The machine form, held against its published schema by another implementation of JSON Schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import Alert, AlertAddresses, AlertLink, RelatedRule, RuleState
from otel_mlmon.processor.alert.document import build_alert_document, encode_alert
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from tests.support.alerts import CAUSE, FIRING, RESOLVED, TIME_NS

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs" / "alert.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FULL = replace(
    FIRING,
    environment="staging",
    reason="x",
    addresses=AlertAddresses(
        web="127.0.0.1:8080",
        trace="https://jaeger/{trace_id}",
        others=(AlertLink(name="wiki", url="https://a/{model}"),),
    ),
    exemplars=(TRACE,),
    related=(RelatedRule(rule="data_drift", title="data drift", stream="input.age", onset_ns=1),),
)


def test_the_machine_form_has_plain_keys_and_states_by_name() -> None:
    document = json.loads(encode_alert(FULL))
    assert document == json.loads(json.dumps(build_alert_document(FULL)))
    assert document == {
        "schema_version": 1,
        "fingerprint": FULL.fingerprint,
        "key": f"{FULL.fingerprint}-{TIME_NS}-0",
        "subject": format_alert_title(FULL),
        "text": format_alert(FULL),
        "model": "digits",
        "model_id": "digits@staging",
        "version": "1",
        "environment": "staging",
        "rule": "prediction_drift",
        "title": "prediction drift",
        "state": "firing",
        "previous": "ok",
        "severity": "critical",
        "first_severity": "",
        "time_ns": TIME_NS,
        "onset_ns": TIME_NS - 12_000_000_000,
        "incident_ns": 0,
        "sequence": 0,
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
                "budget_spent": 0.0,
                "detectable_shift": None,
            }
        ],
        "traces": [{"trace_id": TRACE, "url": f"https://jaeger/{TRACE}"}],
        "links": [
            {"name": "dashboard", "url": f"http://127.0.0.1:8080/alerts/{FULL.fingerprint}"},
            {"name": "runbook", "url": "http://127.0.0.1:8080/runbooks/prediction_drift.md"},
            {"name": "wiki", "url": "https://a/digits"},
        ],
        "related": [{"rule": "data_drift", "title": "data drift", "stream": "input.age", "onset_ns": 1}],
        "reason": "x",
        "joined": [],
        "news": [],
        "silence": "",
        "missed": [],
        "is_test": False,
        "silence_command": "otel-mlmon alert silence digits@staging --rule prediction_drift --for 2h",
        "relearn_command": "otel-mlmon reference relearn digits@staging --model-version 1 --stream prediction.label",
        "web_url": "http://127.0.0.1:8080",
    }


@pytest.mark.parametrize("alert", [FIRING, RESOLVED, FULL, replace(FIRING, causes=(), state=RuleState.NO_DATA)])
def test_the_published_schema_describes_every_key(alert: Alert) -> None:
    document = json.loads(encode_alert(alert))
    VALIDATOR.validate(document)
    properties = SCHEMA["$defs"]["AlertDocument"]
    assert sorted(document) == sorted(properties["properties"]) == sorted(properties["required"])


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"state": "broken"}, {"severity": "low"}, {"time_ns": "1"}, {"causes": [{}]},
     {"traces": [{"trace_id": "1"}]}, {"links": None}],
)  # fmt: skip
def test_the_published_schema_refuses_what_is_never_sent(change: dict[str, Any]) -> None:
    document = {**json.loads(encode_alert(FULL)), **change}
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=True, allow_infinity=True))
@settings(deadline=None, max_examples=50)
def test_any_name_and_number_is_json_that_the_schema_allows(name: str, number: float) -> None:
    cause = replace(CAUSE, stream=name, reference=name, bins=(name,) * 10, detectable_shift=0.04)
    alert = replace(FULL, model=name, version=name, rule=name, title=name, causes=(cause,), exemplars=(name,))
    encoded = encode_alert(alert)
    assert encode_alert(alert) == encoded
    document = json.loads(encoded)
    VALIDATOR.validate(document)
    assert document["model"] == name
    odd = json.loads(encode_alert(replace(alert, causes=(replace(cause, value=number),))))
    assert odd["causes"][0]["value"] == pytest.approx(number) if abs(number) < 1e308 else True
