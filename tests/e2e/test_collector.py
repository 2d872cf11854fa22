"""A real Collector with agent.yaml: app → Collector → processor → Collector → back-end, over real sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_processor import DRIFTED, SHARES, application, feed_until
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import environment, processor, until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
AGENT = ROOT / "collector-config" / "agent.yaml"


@pytest.fixture(scope="module")
def collector() -> Path:
    """The Collector's program; where there is none, a skip that says how to bring it. In CI that is a failure."""
    built = ROOT / ".collector" / "otelcol"
    found = str(built) if built.exists() else shutil.which("otelcol-contrib")
    if found is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no Collector: make collector")
    assert found is not None
    return Path(found)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_collector(program: Path, log: Path, **ports: int) -> Iterator[None]:
    """The Collector with agent.yaml; its endpoints by environment."""
    endpoints = {f"{name.upper()}_ENDPOINT": f"127.0.0.1:{port}" for name, port in ports.items()}
    with log.open("w") as output:
        child = subprocess.Popen([program, "--config", AGENT], env=environment(**endpoints), stderr=output)
        try:
            until(lambda: is_listening(ports["otlp_grpc"]), what="the Collector listens")
            yield
        finally:
            child.terminate()
            child.wait(timeout=20)


def events_of(server: OtlpServer) -> set[str]:
    return {record.event_name for _, record in server.log_records()}


def metrics_of(server: OtlpServer) -> set[str]:
    return {metric.name for _, metric, _ in server.points()}


def test_agent_yaml_is_valid(collector: Path) -> None:
    done = subprocess.run([collector, "validate", "--config", AGENT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_predictions_reach_the_processor_and_its_results_the_back_end(collector: Path, tmp_path: Path) -> None:
    drift_port = free_port()
    forward = {"endpoint": f"http://127.0.0.1:{drift_port}", "interval": "500ms"}
    with (
        OtlpServer() as backend,
        processor(tmp_path / "processor", forward=forward) as running,
        running_collector(
            collector,
            tmp_path / "collector.txt",
            otlp_grpc=(entry := free_port()),
            otlp_http=free_port(),
            drift=drift_port,
            backend=int(backend.grpc_address.rpartition(":")[2]),
            mlmon=running.grpc,
        ),
        application(entry) as app,
    ):

        def status() -> str:
            return str((running.stream("shop", "prediction.label") or {"state": ""})["state"])

        feed_until(app, SHARES, lambda: status() in ("ok", "weak"), "the reference is learned through the Collector")
        feed_until(app, DRIFTED, lambda: status() == "drift", "the drift is found")
        wanted = {"ml.predictions", "ml.drift.evidence", "ml.drift.score", "ml.drift.window.size", "ml.alert.state"}
        until(lambda: "ml.alert" in events_of(backend), what="the alert comes back as an event")
        until(lambda: wanted <= metrics_of(backend), what="telemetry and results reach the back-end")
