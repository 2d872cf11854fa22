"""examples/rollback, unattended: a real model server, a real processor, and the program that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.processes import Processor, environment, processor, run_python, until

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[2] / "examples" / "rollback"


class Server:
    """The example's model server, and somebody who asks it."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        self._output = child.stdout
        port = int(self._output.readline().removeprefix("Listening on port ").rstrip(".\n"))
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self._rng = np.random.default_rng(7)
        self.versions: list[str] = []

    def predict(self) -> None:
        """A hundred predictions, all of one version."""
        answer = self._client.post("/predict", json={"rows": self._rng.normal(size=(100, 4)).tolist()})
        assert answer.status_code == 200, answer.text
        if self.versions[-1:] != [answer.json()["version"]]:
            self.versions.append(answer.json()["version"])

    def feed_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Predicts until something is true."""

        def step() -> Any:
            self.predict()
            return condition()

        return until(step, what=what, deadline_s=60)


@contextmanager
def model_server(models: Path, running: Processor) -> Iterator[Server]:
    child = subprocess.Popen(
        [sys.executable, str(FOLDER / "server.py"), str(models), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{running.grpc}", OTEL_METRIC_EXPORT_INTERVAL="500"
        ),
    )
    try:
        yield Server(child)
    finally:
        child.terminate()
        child.communicate(timeout=60)


def test_a_bad_version_is_taken_back_once_and_its_alert_ends_as_retired(tmp_path: Path) -> None:
    models = tmp_path / "models"
    pointer = models / "current.json"

    def run(*words: str) -> str:
        done = run_python([str(FOLDER / words[0]), *words[1:]], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def current() -> dict[str, Any]:
        return dict(json.loads(pointer.read_text(encoding="utf-8")))

    assert run("make_models.py", str(models)) == f"Two versions of triage in {models}.\n"
    assert run("pointer.py", str(pointer), "1") == "Version 1 is in service.\n"
    command = [sys.executable, str(FOLDER / "roll_back.py"), str(pointer)]
    sections = {
        "alerts": {"notify": [{"log": {}}, {"command": {"run": command}}], "retire_after": "5s"},
        "models": {"triage": {"reference": {"learn": 1000}, "version_drift": {"enabled": True}}},
    }
    with processor(tmp_path / "processor", **sections) as running, model_server(models, running) as server:

        def alerts() -> list[dict[str, Any]]:
            return [
                alert for alert in running.get("/api/v1/alerts")["alerts"] if alert["rule"] == "version_drift"
            ]  # fmt: skip

        def has_learned() -> bool:
            return (running.stream("triage", "prediction.label") or {"state": ""})["state"] in ("ok", "weak")

        server.feed_until(has_learned, "version 1 is learned")
        run("pointer.py", str(pointer), "2")
        server.feed_until(lambda: current()["version"] == "1", "version 2 is taken back")
        taken_back = current()
        assert (taken_back["previous"], taken_back["taken_back"]) == (None, ["2"])
        (ended,) = server.feed_until(lambda: [alert for alert in alerts() if alert["state"] == "ok"], "it is retired")
        assert (ended["version"], ended["previous"]) == ("2", "firing")
        assert "prediction.label" in {cause["stream"] for cause in ended["causes"]}
        assert ended["reason"] == (
            "This version is retired: it had no traffic for 5s while another version had some."
        )  # fmt: skip
        log = tmp_path / "processor" / "stderr.txt"
        until(lambda: "Not rolled back: version_drift is ok" in log.read_text(), what="its end was told too")
        assert current() == taken_back
        assert server.versions == ["1", "2", "1"]
        text = log.read_text()
    assert text.count("Rolled back from version 2 to 1: FIRING") == 1
    assert "RESOLVED · triage 2 · version drift" in text
