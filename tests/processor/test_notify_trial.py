from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon import cli
from otel_mlmon.processor.alert.document import build_alert_document
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.notify_trial import build_test_alert
from tests.support.alerts import TIME_NS
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.webhook_server import Answer, webhook_server


def configure(folder: Path, *notify: Any, **sections: Any) -> str:
    path = folder / "mlmon.yaml"
    storage = {"path": str(folder / "data")}
    path.write_text(json.dumps({"alerts": {"notify": notify}, "storage": storage, **sections}))
    return str(path)


@pytest.mark.parametrize("rule", RULES.list_names())
def test_a_test_alert_of_every_rule_says_that_it_is_one(rule: str) -> None:
    alert = build_test_alert(Config(), rule=rule, model="fraud", now_ns=TIME_NS)
    assert (alert.is_test, build_alert_document(alert)["is_test"], alert.is_resolved) == (True, True, False)
    assert "· fraud · TEST, nothing is wrong (" in format_alert_title(alert)
    assert "Why       This is a test, sent by hand" in format_alert(alert)


def test_it_goes_through_the_real_notifiers_and_each_outcome_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook_server(Answer(status=503), Answer()) as busy, webhook_server(Answer(status=404)) as gone:
        config = configure(
            tmp_path,
            {"webhook": {"url": busy.url}},
            {"webhook": {"url": gone.url}},
            {"otlp": {}},
            {"command": {"run": ["false"]}},
        )
        assert cli.main(["alert", "test", "--config", config]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "webhook: delivered (2 attempts)",
            "webhook-2: NOT delivered: permanent: HTTP 404 (1 attempt)",
            "otlp: NOT delivered: forward.endpoint is not set, so it has nowhere to send alerts to (0 attempts)",
            "command: not tested, since it runs a program; test it with --notifier command",
        ]
        document = json.loads(busy.received[1].body)
        assert (document["is_test"], document["model"], document["rule"]) == (
            True,
            "otel-mlmon-test",
            "prediction_drift",
        )
        assert busy.received[0].headers["idempotency-key"] == busy.received[1].headers["idempotency-key"]
    assert not (tmp_path / "data").exists()


def test_a_notifier_is_tested_by_name_with_a_rule_and_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = f"import sys; open({str(tmp_path / 'alert')!r}, 'w').write(sys.stdin.read())"
    config = configure(tmp_path, {"log": {}}, {"command": {"run": ["python3", "-c", program]}})
    words = ["--notifier", "command", "--rule", "no_data", "--model", "fraud"]
    assert cli.main(["alert", "test", "--config", config, *words]) == 0
    assert capsys.readouterr().out == "command: delivered (1 attempt)\n"
    document = json.loads((tmp_path / "alert").read_text())
    assert (document["model"], document["state"], document["is_test"]) == ("fraud", "no_data", True)


def test_a_recipient_that_stays_away_is_given_up_after_the_time_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, {"webhook": {"url": f"http://127.0.0.1:{free_port()}/"}})
    assert cli.main(["alert", "test", "--config", config, "--timeout", "100ms"]) == 1
    assert capsys.readouterr().out == "webhook: NOT delivered: given up: ConnectError (1 attempt)\n"


def test_an_otlp_event_that_nobody_takes_is_not_delivered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward = {"endpoint": f"http://127.0.0.1:{free_port()}", "protocol": "http/protobuf"}
    config = configure(tmp_path, {"otlp": {}}, forward=forward)
    assert cli.main(["alert", "test", "--config", config, "--timeout", "3s"]) == 1
    assert capsys.readouterr().out == (
        "otlp: NOT delivered: forward.endpoint did not take it within 3 s; see the log (1 attempt)\n"
    )


def test_an_otlp_event_arrives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OtlpServer() as server:
        config = configure(tmp_path, {"otlp": {}}, forward={"endpoint": server.http_url, "protocol": "http/protobuf"})
        assert cli.main(["alert", "test", "--config", config]) == 0
        ((_, record),) = server.log_records()
    assert capsys.readouterr().out == "otlp: delivered (1 attempt)\n"
    assert (record.event_name, "TEST, nothing is wrong" in record.body.string_value) == ("ml.alert", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--notifier", "webhook"], "--notifier: 'webhook' is not one of log"),
        (["--rule", "latncy"], "--rule: 'latncy' is not one of latency, "),
        (["--timeout", "soon"], "--timeout: must be a duration"),
    ],
)
def test_what_cannot_be_tested_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["alert", "test", "--config", configure(tmp_path, {"log": {}}), *words]) == 2
    assert capsys.readouterr().err.startswith(message)
