from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.notify.dead_letters import AlertDeadLetters
from tests.support.alerts import FIRING, RESOLVED


def test_a_letter_is_one_line_of_json_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "alerts.jsonl"
    letters = AlertDeadLetters(path, clock=lambda: 1_763_820_000.0)
    letters.write(FIRING, notifier="webhook", reason="permanent", detail="HTTP 404")
    letters.write(RESOLVED, notifier="log", reason="shutdown", detail="")
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert first.pop("alert") == json.loads(encode_alert(FIRING))
    assert first == {
        "time": "2025-11-22T14:00:00+00:00",
        "notifier": "webhook",
        "reason": "permanent",
        "detail": "HTTP 404",
    }
    assert second["alert"] == json.loads(encode_alert(RESOLVED))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_files_are_all_there_ever_is(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    letters = AlertDeadLetters(path, max_bytes=4000)
    for number in range(50):
        letters.write(FIRING, notifier=str(number), reason="permanent", detail="")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alerts.jsonl", "alerts.jsonl.1"]
    assert all(file.stat().st_size <= 4000 for file in tmp_path.iterdir())
    assert json.loads(path.read_text().splitlines()[-1])["notifier"] == "49"


def test_a_disk_that_takes_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR, logger="otel_mlmon.alerts"):
        AlertDeadLetters(tmp_path / "file" / "alerts.jsonl").write(FIRING, notifier="n", reason="r", detail="d")
    assert caplog.records[0].getMessage() == (
        f"Notifier n could not send an alert (r: d); it is in {tmp_path / 'file' / 'alerts.jsonl'}."
    )
    assert "cannot be written" in caplog.text
