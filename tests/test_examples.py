"""Every example runs, ends by itself, and says what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.processes import environment, run_python

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"one_line.py", "webhook.py"}


def test_one_line(tmp_path: Path) -> None:
    done = run_python([str(EXAMPLES / "one_line.py")], cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "100 inferences, measured.\n")


def test_webhook() -> None:
    child = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "webhook.py"), "0"], stdout=subprocess.PIPE, env=environment(), text=True
    )
    with child:
        assert child.stdout is not None
        port = int(child.stdout.readline().removeprefix("Listening on port ").rstrip(".\n"))
        answer = httpx.post(f"http://127.0.0.1:{port}/", content=json.dumps({"text": "FIRING · digits"}))
        assert answer.status_code == 204
        assert child.wait(timeout=20) == 0
        assert child.stdout.read() == "FIRING · digits\n"
