"""`otel-mlmon reference relearn` against a processor that runs: this is the new normal."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from otel_mlmon import cli
from tests.cli.test_reference_export import CALM, DRIFTED, LEARNED, PANE_NS, first_ns, pane, send, service, streams
from tests.support.processes import CLIENT, until

__all__ = ["first_ns"]

TOKEN = "0123456789abcdef0123456789abcdef"


def test_the_command_of_an_alert_ends_it_and_learns_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    monkeypatch.setenv("OTEL_MLMON_ADMIN_TOKEN", TOKEN)
    with service(tmp_path / "data", token=TOKEN) as running:
        shares = [CALM] * LEARNED + [DRIFTED] * 20
        send(running, *(pane(first_ns + number * PANE_NS, labels, ages=0) for number, labels in enumerate(shares)))
        assert streams(running, 3000)["prediction.label"]["state"] == "drift"
        (alert,) = CLIENT.get(f"http://{running.web}/api/v1/alerts").json()["alerts"]
        assert (alert["rule"], alert["state"]) == ("prediction_drift", "firing")
        command = alert["relearn_command"]
        assert f"  If normal {command}\n" in alert["text"]
        words = shlex.split(command)
        assert words[-1] == f"http://{running.web}"
        assert words[:-2] == [
            "otel-mlmon", "reference", "relearn", "digits/small", "--model-version", "1",
            "--stream", "prediction.label",
        ]  # fmt: skip

        assert cli.main([*words[1:], "--token", "wrong-wrong-wrong"]) == 2
        message = f"otel-mlmon: http://{running.web}: The token is not that of web.admin_token."
        assert capsys.readouterr().err.startswith(message)

        assert cli.main(words[1:]) == 0
        assert capsys.readouterr() == ("digits/small: learns again from now on: prediction.label\n", "")
        url, reason = (
            f"http://{running.web}/api/v1/alerts",
            "The reference is learned again, as an administrator asked.",
        )
        outcome = [("ok", reason)]
        until(lambda: [(alert["state"], alert["reason"]) for alert in CLIENT.get(url).json()["alerts"]] == outcome)
        later = [pane(first_ns + number * PANE_NS, DRIFTED, ages=0) for number in range(30, 70)]
        send(running, *later)
        stream = streams(running, 7000)["prediction.label"]
        assert (stream["state"], stream["origin"], stream["reference_count"]) == ("weak", "learned", 1000)


def test_without_a_token_on_either_side_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OTEL_MLMON_ADMIN_TOKEN", raising=False)
    for number, (token, reason) in enumerate({"": "has no administrator", TOKEN: "needs the token"}.items()):
        with service(tmp_path / str(number), token=token) as running:
            assert running.web is not None
            assert cli.main(["reference", "relearn", "digits", "--url", running.web]) == 2
            assert reason in capsys.readouterr().err
