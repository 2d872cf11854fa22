from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.alert.alert import AlertAddresses, AlertLink, RuleState
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.notify.alertmanager import (
    AlertmanagerNotifier,
    AlertmanagerSection,
    build_alertmanager_alerts,
)
from otel_mlmon.processor.notify.notifier import TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.webhook_server import Answer, webhook_server

NOW_S = 1_763_820_100.0
SECTION = AlertmanagerSection.model_validate({"urls": ["http://127.0.0.1:1"], "labels": {"team": "ml"}})
BEGUN = replace(FIRING, first_severity="critical", incident_ns=FIRING.time_ns)
LABELS = {
    "team": "ml", "alertname": "MlmonPredictionDrift", "model": "digits", "version": "1", "rule": "prediction_drift",
    "severity": "critical",
}  # fmt: skip


def facts(alert: Any) -> list[tuple[str, str, bool]]:
    return [
        (entry["labels"].get("cause", ""), entry["labels"]["severity"], entry["endsAt"] > "2025-11-22T14:01:41")
        for entry in build_alertmanager_alerts(alert, SECTION, now_s=NOW_S)
    ]


def test_it_ends_four_renewals_from_now_and_holds_no_value_in_a_label() -> None:
    alert = replace(BEGUN, addresses=AlertAddresses(web="127.0.0.1:8080", runbook="https://wiki"))
    (document,) = build_alertmanager_alerts(alert, SECTION, now_s=NOW_S)
    assert document["labels"] == LABELS
    assert (document["startsAt"], document["endsAt"]) == (
        "2025-11-22T14:00:12.000+00:00", "2025-11-22T14:05:40.000+00:00",
    )  # fmt: skip
    assert document["generatorURL"] == "http://127.0.0.1:8080/api/v1/alerts"
    assert document["annotations"]["runbook"] == "https://wiki/prediction_drift.md"


def test_a_severity_that_rises_is_posted_and_the_old_one_resolved_for_every_cause() -> None:
    update = replace(BEGUN, previous=RuleState.FIRING, first_severity="warning", joined=("input.a",))
    grown = [
        ("", "critical", True),
        ("", "warning", False),
        ("input.a", "critical", True),
        ("input.a", "warning", False),
    ]
    assert facts(update) == grown
    ended = replace(update, state=RuleState.OK, time_ns=RESOLVED.time_ns)
    assert facts(ended) == [(cause, severity, False) for cause, severity, _ in grown]


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("labels", "ml.team", "'ml.team' cannot be a name: letters, digits and _ only"),
        ("labels", "1st", "'1st' cannot be a name"),
        ("labels", "__name__", "'__name__' cannot be a name"),
        ("labels", "severity", "'severity' is set by every alert itself; choose another name"),
        ("annotations", "run book", "'run book' cannot be a name"),
        ("annotations", "summary", "'summary' is set by every alert itself"),
        ("headers", "X Team", "'X Team' cannot be the name of a header"),
    ],
)
def test_a_name_that_cannot_be_one_is_a_fault_of_the_configuration(
    tmp_path: Path, key: str, name: str, message: str
) -> None:
    section = {"urls": ["http://127.0.0.1:1"], key: {name: "x"}}
    (tmp_path / "mlmon.yaml").write_text(json.dumps({"alerts": {"notify": [{"alertmanager": section}]}}))
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / "mlmon.yaml", {})
    (fault,) = caught.value.faults
    assert fault.partition(": ")[2].startswith(f"alerts.notify[0].alertmanager.{key}: {message}")


def test_names_of_links_become_names_of_annotations_and_a_test_has_a_label() -> None:
    section = SECTION.model_copy(update={"annotations": {"owner": "ann"}})
    links = (AlertLink(name="Our dashboard", url="https://a"), AlertLink(name="1st", url="https://b"))
    alert = replace(BEGUN, addresses=AlertAddresses(others=links), is_test=True)
    (document,) = build_alertmanager_alerts(alert, section, now_s=NOW_S)
    texts = {name: text for name, text in document["annotations"].items() if name not in ("summary", "description")}
    assert texts == {"owner": "ann", "Our_dashboard": "https://a", "_1st": "https://b"}
    assert document["labels"] == {**LABELS, "test": "true"}


def test_every_member_gets_it_and_one_that_takes_it_is_enough() -> None:
    with webhook_server(Answer(status=503)) as broken, webhook_server(Answer()) as sound:
        urls = [server.url.removesuffix("/hook") for server in (broken, sound)]
        AlertmanagerNotifier(AlertmanagerSection.model_validate({"urls": urls})).renew([BEGUN, RESOLVED])
        bodies = [json.loads(server.wait_for(1)[0].body) for server in (broken, sound)]
        assert bodies[0] == bodies[1]
        assert {request.path for request in sound.received} == {"/api/v2/alerts"}
        with pytest.raises(TransientError, match="HTTP 503"):
            AlertmanagerNotifier(AlertmanagerSection.model_validate({"urls": urls[:1]})).notify(BEGUN)
