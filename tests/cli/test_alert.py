"""`otel-mlmon alert` against a processor that runs: silences are stored, hold, and end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from otel_mlmon import cli
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.service import Service
from tests.cli.test_reference_export import CALM, DRIFTED, LEARNED, PANE_NS, first_ns, pane, send, service
from tests.support.processes import until
from tests.support.webhook_server import Answer, webhook_server

__all__ = ["first_ns"]

TOKEN = "0123456789abcdef0123456789abcdef"


def test_a_silence_holds_over_a_restart_and_what_still_fires_is_told_once_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    monkeypatch.setenv("OTEL_MLMON_ADMIN_TOKEN", TOKEN)
    monkeypatch.delenv("OTEL_MLMON_READ_TOKEN", raising=False)

    def output(command: str, url: str | None) -> str:
        assert cli.main([*shlex.split(command), "--url", str(url)]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    with webhook_server(Answer()) as receiver:
        notify = {"alerts": {"notify": [{"webhook": {"url": receiver.url}}]}}
        with service(tmp_path / "data", token=TOKEN, sections=notify) as running:
            shares = [CALM] * LEARNED
            send(running, *(pane(first_ns + at * PANE_NS, labels, ages=0) for at, labels in enumerate(shares)))
            until(lambda: "digits/small" in output("alert silence digits/* --rule no_data", running.web))
            command = "alert silence digits/small --for 2h --reason 'new camera' --author ann"
            silence_id, _, said = output(command, running.web).partition(": ")
            assert said.startswith("all rules of digits/small (digits/small), until ")
            later = (pane(first_ns + at * PANE_NS, DRIFTED, ages=0) for at in range(LEARNED, LEARNED + 20))
            send(running, *later)
            until(lambda: "silenced by ann until" in output("alert list", running.web))
        restarted = Service(load_config(tmp_path / "data" / "mlmon.yaml", {}))
        web = restarted.start().web
        try:
            (active,) = [line for line in output("alert silences", web).splitlines() if line.startswith(silence_id)]
            assert active.split()[:4] == [silence_id, "active", "digits/small", "*"]
            assert active.endswith("  new camera")
            assert "silenced by ann until" in output("alert list", web)
            assert receiver.received == []
            assert output(f"alert unsilence {silence_id}", web).startswith(f"{silence_id}: is over.")
            (request,) = receiver.wait_for(1, timeout_s=60)
            alert = json.loads(request.body)
            assert (alert["rule"], alert["state"], alert["previous"]) == ("prediction_drift", "firing", "ok")
            words = shlex.split(alert["silence_command"])
            assert words[:-1] == [
                "otel-mlmon", "alert", "silence", "digits/small", "--rule", "prediction_drift", "--for", "2h", "--url",
            ]  # fmt: skip
            output(shlex.join(words[1:-2]), web)
        finally:
            assert restarted.shutdown(10.0)
        assert len(receiver.received) == 1


def test_what_cannot_be_asked_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OTEL_MLMON_ADMIN_TOKEN", raising=False)
    with service(tmp_path / "data", token=TOKEN) as running:
        assert running.web is not None
        for command, message in {
            "silence m --for 2h": "--token, or OTEL_MLMON_ADMIN_TOKEN in the environment.",
            f"silence m --for ever --token {TOKEN}": "--for: must be a duration",
            f"silence m --rule latncy --token {TOKEN}": "There is no rule 'latncy'. Rules are: latency, ",
            f"unsilence x/y --token {TOKEN}": "There is no such path.",
            f"unsilence xy --token {TOKEN}": "There is no silence 'xy'.",
        }.items():
            assert cli.main(["alert", *shlex.split(command), "--url", running.web]) == 2
            assert message in capsys.readouterr().err
        for command, text in {
            "list": "Nothing fires, and nothing was resolved of late.\n",
            "silences": "Nothing is silenced.\n",
            "list --json": "[]\n",
            "silences --json": "[]\n",
        }.items():
            assert cli.main(["alert", *command.split(), "--url", running.web]) == 0
            assert capsys.readouterr().out == text
