from __future__ import annotations

import http.server
import itertools
import json
import logging
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry.sdk.metrics import MeterProvider

import otel_mlmon
from otel_mlmon import ConfigurationError, ModelOptions
from otel_mlmon.testing import capture
from tests.support import models


def test_a_second_call_merges_models_and_names_what_it_ignores(caplog: pytest.LogCaptureFixture) -> None:
    with capture(span_ratio=1.0) as captured:
        caplog.clear()
        again = otel_mlmon.instrument(
            models={"iris": ModelOptions(version="9")}, span_ratio=0.5, max_labels=50, meter_provider=MeterProvider()
        )
        assert [record.getMessage() for record in caplog.records] == [
            "instrument() was called before: span_ratio, meter_provider of this call is ignored; "
            "call uninstrument() first."
        ]
        ort.InferenceSession(models.softmax(name="iris")).run(None, {"input": np.zeros((1, 4), np.float32)})
        captured.flush()
        assert dict(captured.spans[0].attributes or {})["ml.model.version"] == "9"
        assert again.status().is_active


def test_every_wrong_argument_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        otel_mlmon.instrument(span_ratio=2.0, max_labels="many", models={"a": 3})  # type: ignore[arg-type,dict-item]
    assert error.value.faults == (
        "span_ratio must be within 0 and 1, got 2.0.",
        "max_labels must be of type int, got 'many'.",
        "models['a'] must be ModelOptions, got int.",
    )


def test_disabled_sdk_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    before = ort.InferenceSession.run
    handle = otel_mlmon.instrument()
    assert ort.InferenceSession.run is before
    assert not handle.status().is_active
    assert handle.flush()
    assert handle.shutdown()


@pytest.mark.parametrize("left", [None, ModuleType("onnxruntime")], ids=["nothing", "a folder without files"])
def test_without_onnxruntime_observe_still_works(
    left: ModuleType | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", left)
    caplog.set_level(logging.INFO, logger="otel_mlmon")
    handle = otel_mlmon.instrument()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "onnxruntime is not installed: its calls are not monitored.")
    ]
    assert (handle.status().is_active, handle.status().patched_methods) == (True, {"manual": ()})
    handle.uninstrument()


def test_import_is_light() -> None:
    program = (
        "import sys, json, otel_mlmon;"
        "heavy = ('onnxruntime', 'scipy', 'grpc', 'numpy', 'opentelemetry.exporter', 'opentelemetry.sdk');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def ended(protocol: str, kind: str, root: Path) -> subprocess.CompletedProcess[str]:
    """A program that ends while its collector refuses, or accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "black hole":
            server.listen(16)
        host = {
            "PATH": "",
            "ORT_DISABLE_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        command = [sys.executable, "-m", "tests.support.ending"]
        return subprocess.run(command, cwd=root, env=host, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.e2e
def test_exit_with_a_dead_collector_is_quick_and_quiet(pytestconfig: pytest.Config) -> None:
    cases = list(itertools.product(["grpc", "http/protobuf"], ["refused", "black hole"]))
    for case in cases:  # one at a time: how quick an end is depends on what else runs
        child = ended(case[0], case[1], pytestconfig.rootpath)
        assert child.returncode == 0, (case, child.stderr)
        assert float(child.stdout) < 2.0, case  # the SDK alone takes 13 s and more
        lines = child.stderr.splitlines()
        assert lines, case
        assert len({line.split(" at ")[0] for line in lines}) == len(lines) <= 3, case
        assert all(line.startswith("No collector accepts ") for line in lines), case


def test_the_instrumentor_of_the_entry_point() -> None:
    instrumentor = otel_mlmon.OnnxRuntimeInstrumentor()
    before = ort.InferenceSession.run
    instrumentor.instrument(meter_provider=MeterProvider(), span_ratio=0.0)
    try:
        assert ort.InferenceSession.run is not before
    finally:
        instrumentor.uninstrument()
    assert ort.InferenceSession.run is before


class _Collector(http.server.BaseHTTPRequestHandler):
    """Takes everything, and notes the paths."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.add(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


SHORT = """
import sys
import threading
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
otel_mlmon.instrument()
ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
"""


def test_a_script_that_ends_at_once_has_sent_everything(pytestconfig: pytest.Config) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Collector) as server:
        server.seen = set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        host = {
            "PATH": "",
            "ORT_DISABLE_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_MLMON_SHUTDOWN_TIMEOUT_S": "20",
        }
        command = [sys.executable, "-c", SHORT, str(pytestconfig.rootpath)]
        done = subprocess.run(command, env=host, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
        thread.join()
        assert (done.returncode, done.stderr) == (0, "")
        assert server.seen == {"/v1/traces", "/v1/metrics", "/v1/logs"}  # type: ignore[attr-defined]


class Slow(ort.InferenceSession):  # type: ignore[misc]
    """Waits within `run` while it has something to wait for."""

    inside: threading.Event
    may_end: threading.Event | None = None

    def _validate_input(self, feed_input_names: list[str]) -> None:
        if self.may_end is not None:
            self.inside.set()
            assert self.may_end.wait(10)
        super()._validate_input(feed_input_names)


@pytest.mark.parametrize("has_run", [False, True])
def test_a_call_that_outlives_the_instrumentation_hides_its_session_from_no_later_one(has_run: bool) -> None:
    session, feed = Slow(models.classifier()), {"input": np.ones((1, 10), np.float32)}
    with capture() as captured:
        if has_run:
            session.run(None, feed)
        session.inside, session.may_end = threading.Event(), threading.Event()
        caller = threading.Thread(target=session.run, args=(None, feed))
        caller.start()
        assert session.inside.wait(10)
    session.may_end.set()
    caller.join()
    session.may_end = None
    first = captured.handle.status()
    assert (first.recorded_calls, first.dropped_calls) == (int(has_run), {"shut_down": 1})
    assert "_otel_mlmon" not in session.__dict__
    with capture() as captured:
        session.run(None, feed)
        captured.flush()
        assert captured.handle.status().recorded_calls == 1
