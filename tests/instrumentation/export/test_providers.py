from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

import otel_mlmon
from otel_mlmon.instrumentation.export import exporters, providers
from otel_mlmon.instrumentation.settings import InstrumentationSettings, resolve_settings
from tests.support import models
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import run_python

REFUSING = ("127.0.0.1", 1)
"""Where nobody listens: a port for which one has to be root, and which no program uses."""


def _find(environ: dict[str, str], **arguments: Any) -> providers.SignalProviders:
    settings, _ = resolve_settings(InstrumentationSettings, arguments, environ={})
    return providers.find_providers(settings, base=Resource.create(), environ=environ)


def test_signals_switched_off_by_the_environment_have_no_provider() -> None:
    environ = {f"OTEL_{name}_EXPORTER": "none" for name in ("TRACES", "METRICS", "LOGS")}
    found = _find(environ)
    assert (found.tracer, found.meter, found.logger, found.own) == (None, None, None, [])
    assert found.flush_providers(1.0)
    assert found.shut_down_providers(1.0)


def test_given_providers_are_used_and_not_owned(caplog: pytest.LogCaptureFixture) -> None:
    meter = MeterProvider(shutdown_on_exit=False)
    found = _find({"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}, meter_provider=meter)
    assert (found.meter, found.own) == (meter, [])
    assert caplog.records == []


EXPORT = """
import os, sys
from otel_mlmon.instrumentation.export import process_metrics as resource
from otel_mlmon.instrumentation.export import providers
from otel_mlmon.instrumentation.settings import InstrumentationSettings, resolve_settings
from tests.support.otlp_server import OtlpServer
settings, _ = resolve_settings(InstrumentationSettings, {}, environ={})
found = providers.find_providers(settings, base=providers.create_otel_resource(), environ=os.environ)
process = resource.start_process_metrics(found.meter)
before = set(sys.modules)
found.meter.get_meter("m").create_histogram("h").record(1.0)
found.tracer.get_tracer("t").start_span("s").end()
found.logger.get_logger("l").emit(body="x", event_name="e")
found.flush_providers(2.0)
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
@pytest.mark.parametrize("is_listening", [True, False])
def test_nothing_is_imported_by_an_export(protocol: str, *, is_listening: bool, pytestconfig: pytest.Config) -> None:
    """A fork during an import leaves a child that waits for ever for that module (docs/decisions/0010)."""
    with OtlpServer() as server:
        listening = server.http_url if protocol != "grpc" else f"http://{server.grpc_address}"
        refusing = "http://{}:{}".format(*REFUSING)
        done = subprocess.run(
            [sys.executable, "-c", EXPORT],
            cwd=pytestconfig.rootpath,
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": listening if is_listening else refusing,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "PYTHONPATH": str(pytestconfig.rootpath),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        assert {signal for signal, _ in server.requests} == ({"traces", "metrics", "logs"} if is_listening else set())


def test_a_forked_childs_inherited_exporter_is_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    quiet = exporters.ExporterFactory({})._silence_export("traces", sent.append)
    quiet("parent")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    quiet("child")
    assert sent == ["parent"]


def test_a_shutdown_that_hangs_is_left_behind_at_the_deadline() -> None:
    import threading

    release = threading.Event()

    class Hangs:
        def shutdown(self) -> None:
            release.wait(10)

    class Ends:
        def shutdown(self) -> None:
            """At once."""

    warned: list[str] = []
    hangs: Any = Hangs()
    ends: Any = Ends()
    found = providers.SignalProviders(tracer=hangs, meter=ends, own=[hangs, ends], warn=warned.append)
    assert not found.shut_down_providers(0.05)
    assert warned == ["traces"]
    release.set()


PROMETHEUS = """
import httpx, os
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
handle = otel_mlmon.instrument(sentry="off")
ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
handle.flush(10)
page = httpx.get("http://127.0.0.1:" + os.environ["OTEL_EXPORTER_PROMETHEUS_PORT"] + "/metrics").text
print([line.split()[-1] for line in page.splitlines() if line.startswith("ml_inference_duration_seconds_count")])
"""


def test_prometheus_reads_metrics_itself(pytestconfig: pytest.Config) -> None:
    done = run_python(
        ["-c", PROMETHEUS],
        cwd=pytestconfig.rootpath,
        PYTHONPATH=str(pytestconfig.rootpath),
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(free_port()),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "['1.0']\n", "")


@pytest.mark.guarded
def test_an_exporter_that_cannot_be_made_leaves_the_other_signals_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OtlpServer() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")  # by HTTP, the SDK takes its default instead
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "10s")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.http_url)
        handle = otel_mlmon.instrument(flush_interval_s=60.0, sentry="off")
        try:
            session = ort.InferenceSession(models.classifier())
            running: set[threading.Thread] = set()
            for _ in range(3):
                session.run(None, {"input": np.ones((1, 10), np.float32)})
                assert handle.flush(10)
                running.update(thread for thread in threading.enumerate() if thread.name.startswith("OtelBatch"))
            status = handle.status()
        finally:
            assert handle.shutdown(10)
    assert sorted(thread.name for thread in running) == [
        "OtelBatchLogRecordProcessor",
        "OtelBatchSpanRecordProcessor",
    ]
    assert (status.recorded_calls, status.owned_providers) == (3, ("TracerProvider", "LoggerProvider"))
    assert status.failures == {"exporters": 1}
