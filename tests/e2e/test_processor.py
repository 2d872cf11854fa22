"""`otel-mlmon processor` as a process: it learns, it alerts, and what it acknowledged survives `kill -9`."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from benchmarks.soak_overload import METHOD, Protocol, overload
from otel_mlmon.processor.state.sqlite import APPLICATION_ID
from tests.support.otlp_requests import predictions
from tests.support.otlp_server import OtlpServer
from tests.support.processes import Processor, processor, run_python, until

pytestmark = pytest.mark.e2e

SHARES = {"a": 40, "b": 30, "c": 20, "d": 10}
DRIFTED = {"a": 10, "b": 30, "c": 20, "d": 40}


class Application:
    """Predictions as an instrumented application counts them, exported when we say so."""

    def __init__(self, port: int) -> None:
        exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        self.provider = MeterProvider(
            [reader], resource=Resource({"service.name": "shop", "service.instance.id": "1"}), shutdown_on_exit=False
        )
        self.predictions = self.provider.get_meter("otel_mlmon").create_counter("ml.predictions")
        self.sent = 0

    def predict(self, shares: dict[str, int], times: int = 1) -> None:
        """100 predictions a time, and one export."""
        for label, count in shares.items():
            self.predictions.add(count * times, {"ml.model.name": "shop", "ml.prediction.label": label})
        self.sent += 100 * times
        assert self.provider.force_flush(10_000)


@contextmanager
def application(port: int) -> Iterator[Application]:
    """An application that is shut down at the end."""
    running = Application(port)
    try:
        yield running
    finally:
        running.provider.shutdown(timeout_millis=5_000)


def feed_until(app: Application, shares: dict[str, int], condition: Any, what: str) -> Any:
    """Keep predicting until `condition` is true."""

    def step() -> Any:
        app.predict(shares)
        return condition()

    return until(step, what=what, deadline_s=40)


def test_it_learns_alerts_and_comes_back_after_kill_9_with_all_it_knew(tmp_path: Path) -> None:
    with processor(tmp_path) as running, application(running.grpc) as app:

        def label() -> dict[str, Any]:
            return running.stream("shop", "prediction.label") or {"state": "none", "reference_count": 0}

        def firing() -> list[dict[str, Any]]:
            alerts = running.get("/api/v1/alerts")["alerts"]
            return [alert for alert in alerts if alert["state"] == "firing"]

        feed_until(app, SHARES, lambda: label()["state"] in ("ok", "weak"), "the reference is learned")
        learned = label()
        assert learned["reference_shares"] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
        assert firing() == []

        # Killed while it is quiet: the reference is the same, and no evidence came from the gap.
        running.kill()
        running.start()
        back = label()
        assert (back["reference_count"], back["reference_shares"]) == (
            learned["reference_count"], learned["reference_shares"],
        )  # fmt: skip
        feed_until(
            app, SHARES, lambda: label()["current_count"] > 0 and label()["state"] in ("ok", "weak"), "quiet goes on"
        )

        (alert,) = feed_until(app, DRIFTED, firing, "the drift is found")
        assert (alert["rule"], alert["model"], alert["causes"][0]["stream"]) == (
            "prediction_drift", "shop", "prediction.label",
        )  # fmt: skip

        # Killed while it fires: the alert is neither forgotten nor told again as a new one.
        running.kill()
        running.start()
        (again,) = firing()
        assert (again["fingerprint"], again["time_ns"], again["onset_ns"]) == (
            alert["fingerprint"], alert["time_ns"], alert["onset_ns"],
        )  # fmt: skip
        assert label()["state"] == "drift"

        feed_until(app, SHARES, lambda: not firing(), "the end of the drift is seen")
        until(lambda: (tmp_path / "stderr.txt").read_text().count("prediction_drift") >= 2, what="both are in the log")
        predictions = running.model("shop")
        assert predictions is not None
        assert running.stop() == 0


def test_a_repeated_export_changes_nothing(tmp_path: Path) -> None:
    with processor(tmp_path) as running, application(running.grpc) as app:
        app.predict(SHARES, times=3)
        until(lambda: (running.model("shop") or {}).get("predictions") == 300, what="three hundred predictions")
        for _ in range(3):
            assert app.provider.force_flush(10_000)  # cumulative: the same totals again
        app.predict(SHARES)
        until(lambda: (running.model("shop") or {}).get("predictions") == 400, what="four hundred predictions")


def test_health_metrics_and_what_is_not_there(tmp_path: Path) -> None:
    with processor(tmp_path) as running:
        assert httpx.get(f"http://127.0.0.1:{running.web}/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{running.web}/readyz").status_code == 200
        assert running.get("/api/v1/models") == {"models": {}}
        assert running.get("/api/v1/alerts") == {"alerts": []}
        assert httpx.get(f"http://127.0.0.1:{running.web}/api/v1/models/none").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{running.web}/api/v1/models").status_code == 405
        assert "otel_mlmon_processor_" in running.get("/metrics")


def test_every_fault_of_a_configuration_is_said_with_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "mlmon.yaml"
    path.write_text("reciever: {}\nwindows:\n  pane: soon\nmodels:\n  fraud:\n    latency: {treshold: 1s}\n")
    done = run_python(["-m", "otel_mlmon", "processor", "--config", str(path)], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    for place in (":1: reciever", ":3: windows.pane", ":6: models.fraud.latency.treshold"):
        assert place in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "option"), [("grpc", "receiver.grpc"), ("http", "receiver.http"), ("web", "web.listen")]
)
def test_a_port_that_is_taken_is_named_with_its_option(tmp_path: Path, key: str, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ports = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
        web = {"listen": "127.0.0.1:0"}
        (web if key == "web" else ports)["listen" if key == "web" else key] = address
        path = tmp_path / "mlmon.yaml"
        path.write_text(json.dumps({"receiver": ports, "web": web, "storage": {"path": str(tmp_path / "data")}}))
        done = run_python(["-m", "otel_mlmon", "processor", "--config", str(path)], cwd=tmp_path)
    assert done.returncode == 2
    assert address in done.stderr
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processors_do_not_share_a_directory(tmp_path: Path) -> None:
    with processor(tmp_path) as running:
        path = tmp_path / "second.yaml"
        path.write_text(
            json.dumps(
                {
                    "receiver": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                    "web": {"listen": "127.0.0.1:0"},
                    "storage": {"path": str(running.directory / "data")},
                }
            )
        )
        done = run_python(["-m", "otel_mlmon", "processor", "--config", str(path)], cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_of_twice_the_load_nothing_is_lost_and_nobody_waits_in_vain(protocol: Protocol) -> None:
    """The small form of `python -m benchmarks.soak overload`; its senders are as patient as a busy machine needs."""
    assert overload(seconds=1.5, warm_up_s=0.5, points=400, protocol=protocol, patience_s=30.0) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_when_it_is_stopped_and_all_is_stored_and_sent(tmp_path: Path, number: signal.Signals) -> None:
    with OtlpServer() as server, processor(tmp_path, forward={"endpoint": f"http://{server.grpc_address}"}) as running:
        with application(running.grpc) as app:
            app.predict(SHARES)
        assert running.end(number) == 0


def test_it_ends_with_1_when_results_could_not_be_sent_in_time(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        forward = {"endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}", "protocol": "http/protobuf"}
        with processor(tmp_path, forward=forward) as running:
            with application(running.grpc) as app:
                app.predict(SHARES)
            until(lambda: running.stream("shop", "prediction.label"), what="there are results to send")
            assert running.end(signal.SIGTERM) == 1
            running.overrides = {}
            running.start()
            assert (running.model("shop") or {})["predictions"] == 100
            assert running.stop() == 0


def test_it_ends_with_2_when_the_state_is_of_another_release(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "mlmon.sqlite3")) as database:
        database.execute("CREATE TABLE state (kind TEXT)")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 9999")
        database.commit()
    configuration = {
        "receiver": {"grpc": "127.0.0.1:0", "http": ""},
        "web": {"listen": ""},
        "storage": {"path": str(tmp_path / "data")},
    }
    path = tmp_path / "mlmon.yaml"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    done = run_python(["-m", "otel_mlmon", "processor", "--config", str(path)], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "format 9999" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_ends_with_2_when_its_arguments_are_wrong(tmp_path: Path) -> None:
    for arguments in (["--no-such-option"], ["--config", "missing.yaml"]):
        done = run_python(["-m", "otel_mlmon", "processor", *arguments], cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert arguments[-1] in done.stderr
        assert "Traceback" not in done.stderr


def test_connections_that_send_nothing_take_no_file_that_others_need(tmp_path: Path) -> None:
    running = Processor(directory=tmp_path, max_files=320)  # 32 connections for each receiver
    running.start()
    with ExitStack() as idle:
        idle.callback(running.kill)
        for port in (running.http, running.grpc):
            for _ in range(200):
                idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert httpx.get(f"http://127.0.0.1:{running.web}/healthz", timeout=30).status_code == 200
        body = predictions().SerializeToString()
        url, head = f"http://127.0.0.1:{running.http}/v1/metrics", {"content-type": "application/x-protobuf"}
        assert httpx.post(url, content=body, headers=head, timeout=30).status_code == 200
        options = [("grpc.max_reconnect_backoff_ms", 500)]
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc}", options) as channel:
            grpc.channel_ready_future(channel).result(60)  # those that send nothing are closed after 10 s
            assert channel.unary_unary(METHOD)(body, timeout=30) == b""
        log = (tmp_path / "stderr.txt").read_text()
        assert "out of system resource" not in log
        assert "Traceback" not in log
