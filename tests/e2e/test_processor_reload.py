"""SIGHUP to a real processor: what it reads again, what it says, and that it lives on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.processes import environment, until

pytestmark = pytest.mark.e2e


def test_sighup_reads_the_file_again_a_broken_one_changes_nothing_and_logs_are_json(tmp_path: Path) -> None:
    path, log = tmp_path / "mlmon.yaml", tmp_path / "stderr.txt"
    web = free_port()
    base: dict[str, Any] = {
        "receiver": {"grpc": "", "http": f"127.0.0.1:{free_port()}"},
        "storage": {"path": str(tmp_path / "data")},
        "web": {"listen": f"127.0.0.1:{web}"},
    }
    path.write_text(json.dumps(base))
    command = [sys.executable, "-m", "otel_mlmon", "processor", "--config", str(path), "--ready-json"]
    with log.open("w") as stderr:
        child = subprocess.Popen(
            [*command, "--log-format", "json"], stdout=subprocess.PIPE, stderr=stderr, env=environment(), text=True
        )
    try:
        assert child.stdout is not None
        assert child.stdout.readline()

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in log.read_text().splitlines()]

        def wait_for(beginning: str) -> dict[str, Any]:
            return until(
                lambda: next((line for line in lines() if line["body"].startswith(beginning)), None), what=beginning
            )

        def status() -> int:
            return httpx.get(f"http://127.0.0.1:{web}/api/v1/models", timeout=30).status_code

        assert status() == 200
        path.write_text("web: {lisen: 1}\n")
        child.send_signal(signal.SIGHUP)
        broken = wait_for("The configuration was not reloaded, and the old one stays in use:")
        assert (broken["severity_text"], broken["scope"]) == ("ERROR", "otel_mlmon.processor")
        assert f"{path}:1: web.lisen: is not a known key (did you mean `listen`?)" in broken["body"]
        assert status() == 200
        path.write_text(json.dumps({**base, "web": {**base["web"], "read_token": "r" * 20}}))
        child.send_signal(signal.SIGHUP)
        wait_for("The configuration was reloaded.")
        assert status() == 401
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(30)
        if child.stdout is not None:
            child.stdout.close()
