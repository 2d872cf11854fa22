"""What the tap takes, what the processor shows of it, and the shipped files after the documented edits alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.e2e.test_processor import DRIFTED, SHARES, application, feed_until
from tests.e2e.test_reference import trained
from tests.support.collector import CONFIGURATIONS, collector, otelcol, received_points
from tests.support.otlp_requests import counter, request
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import environment, processor, run_python, until
from tests.support.programs import program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PROGRAM = """\
import warnings
import numpy, onnxruntime, otel_mlmon
warnings.simplefilter("ignore")
handle = otel_mlmon.instrument()
providers = [("CUDAExecutionProvider", {}), "CPUExecutionProvider"]
session = onnxruntime.InferenceSession("carrying.onnx", providers=providers)
rows = numpy.random.default_rng(2).normal(size=(200, 3)).astype("float32")
session.run(None, {session.get_inputs()[0].name: rows})
handle.shutdown(timeout_s=10)
"""


def post(port: int, signal: str, body: bytes) -> None:
    headers = {"content-type": "application/x-protobuf"}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/{signal}", content=body, headers=headers)
    assert answer.status_code == 200


def event(name: str, *, attribute: str = "") -> bytes:
    message = ExportLogsServiceRequest()
    record = message.resource_logs.add().scope_logs.add().log_records.add(event_name=name)
    if attribute:
        record.attributes.add(key="event.name").value.string_value = attribute
    return bytes(message.SerializeToString())


def test_the_tap_takes_what_is_ours_and_the_back_end_everything(tmp_path: Path) -> None:
    system = "opentelemetry.instrumentation.system_metrics"
    metrics = [
        ("ml.predictions", "otel_mlmon"), ("otel_mlmon.records.dropped", "otel_mlmon"), ("process.cpu.time", system),
        ("process.cpu.time", "io.opentelemetry.runtime"), ("http.server.requests", "shop"), ("mlops.cost", "shop"),
    ]  # fmt: skip
    events = [
        ("ml.model.loaded", ""), ("ml.execution_provider.fallback", ""), ("ml.later", ""), ("", "ml.model.loaded"),
        ("ml.prediction", ""), ("", "ml.prediction"), ("shop.order", ""), ("", ""),
    ]  # fmt: skip
    with (
        OtlpServer() as backend,
        OtlpServer() as tapped,
        collector(tmp_path, backend.grpc_address, environ={"MLMON_ENDPOINT": tapped.grpc_address}) as agent,
    ):
        for name, scope in metrics:
            post(agent.http, "metrics", request(name, "sum", counter(1), scope=scope).SerializeToString())
        for name, attribute in events:
            post(agent.http, "logs", event(name, attribute=attribute))

        def arrived(server: OtlpServer) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
            return (
                sorted((metric.name, scope.name) for scope, metric, _ in server.points()),
                sorted(
                    (record.event_name, next((pair.value.string_value for pair in record.attributes), ""))
                    for _, record in server.log_records()
                ),
            )

        until(lambda: arrived(backend) == (sorted(metrics), sorted(events)), what="the back-end has all of it")
        until(lambda: arrived(tapped) == (sorted(metrics[:3]), sorted(events[:4])), what="the tap has ours")


def test_events_with_references_of_many_mebibytes_pass(tmp_path: Path) -> None:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number in range(5):
        record = records.add(event_name="ml.model.loaded")
        record.attributes.add(key="ml.model.name").value.string_value = f"model-{number}"
        record.attributes.add(key="ml.model.reference").value.string_value = "x" * (3 << 20)
    with OtlpServer() as backend, processor(tmp_path / "processor") as running:
        environ = {"MLMON_ENDPOINT": f"127.0.0.1:{running.grpc}"}
        with collector(tmp_path / "agent", backend.grpc_address, environ=environ) as agent:
            post(agent.http, "logs", message.SerializeToString())
            until(lambda: received_points(running) == 5, what="all of them arrive")
            assert agent.value("exporter_enqueue_failed_log_records", exporter="otlp_grpc/tap") == 0


def test_a_reference_in_the_model_judges_and_a_fallback_is_seen_through_the_collector(tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / "app.py").write_text(PROGRAM)
    with OtlpServer() as backend, processor(tmp_path / "processor") as running:
        environ = {"MLMON_ENDPOINT": f"127.0.0.1:{running.grpc}"}
        with collector(tmp_path / "agent", backend.grpc_address, environ=environ) as agent:
            endpoint = f"http://127.0.0.1:{agent.grpc}"
            done = run_python(["app.py"], cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
            assert done.returncode == 0, done.stderr
            until(lambda: running.model("carrying"), what=f"the model arrives: {done.stderr}")
            stream = until(
                lambda: (found := running.stream("carrying", "prediction.label")) and found["current_count"] and found,
                what="predictions arrive",
            )
            assert (stream["origin"], stream["reference_count"], stream["current_count"]) == ("model", 3000, 200)
            model = until(
                lambda: (found := running.model("carrying")) and found["fallbacks"] and found,
                what="the fallback arrives",
            )
            (fallback,) = model["fallbacks"]
            assert (fallback["requested"], fallback["provider"]) == ("CUDAExecutionProvider", "CPUExecutionProvider")
            assert [use["provider"] for use in model["providers"]] == ["CPUExecutionProvider"]


BACKEND = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}}}
exporters:
  file: {{path: "{file}", flush_interval: 100ms}}
  prometheus: {{endpoint: "127.0.0.1:{page}", metric_expiration: 1h}}
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics: {{receivers: [otlp], exporters: [file, prometheus]}}
    logs: {{receivers: [otlp], exporters: [file]}}
    traces: {{receivers: [otlp], exporters: [file]}}
"""


@contextmanager
def prometheus(directory: Path, targets: Mapping[str, int]) -> Iterator[int]:
    """Debian's Prometheus, scraping these ports by job; its own port."""
    directory.mkdir()
    server, port = program("prometheus", "apt-get install prometheus"), free_port()
    jobs = "".join(
        f"  - {{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
        for job, target in targets.items()
    )
    (directory / "prometheus.yaml").write_text(f"global: {{scrape_interval: 500ms}}\nscrape_configs:\n{jobs}")
    words = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "log.txt").open("w") as log:
        child = subprocess.Popen([server, *words], cwd=directory, stdout=log, stderr=log)
        try:
            yield port
        finally:
            child.kill()
            child.wait()


def test_what_is_sent_is_counted_and_visible_in_file_and_prometheus_through_kills(tmp_path: Path) -> None:
    written, page = tmp_path / "telemetry.jsonl", free_port()
    store = {"grpc": free_port(), "page": page, "health": free_port(), "file": written}
    (tmp_path / "backend.yaml").write_text(BACKEND.format(**store))
    drift = free_port()
    forward = {"endpoint": f"http://127.0.0.1:{drift}", "interval": "500ms"}
    with (
        collector(tmp_path / "backend", "", configs=(tmp_path / "backend.yaml",), health=store["health"]),
        processor(tmp_path / "processor", forward=forward, windows=WINDOWS) as running,
        collector(
            tmp_path / "agent",
            f"127.0.0.1:{store['grpc']}",
            environ={"MLMON_ENDPOINT": f"127.0.0.1:{running.grpc}"},
            drift=drift,
        ) as agent,
        prometheus(
            tmp_path / "prometheus", {"backend": page, "processor": running.web, "agent": agent.metrics}
        ) as port,
        application(agent.grpc) as app,
    ):

        def query(expression: str) -> float:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression})
            result = answer.json()["data"]["result"] if answer.status_code == 200 else []
            return float(result[0]["value"][1]) if result else -1.0

        def is_ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        def counted() -> int:
            return int((running.model("shop") or {"predictions": 0})["predictions"])

        def state() -> str:
            return str((running.stream("shop", "prediction.label") or {"state": ""})["state"])

        until(is_ready, what="Prometheus is ready")
        feed_until(app, SHARES, lambda: state() in ("ok", "weak"), "the reference is learned")
        running.kill()
        for _ in range(10):
            app.predict(SHARES)
        running.start()
        until(lambda: counted() == app.sent, what="sent is counted, the processor killed", deadline_s=60)
        agent.kill()
        agent.start()
        feed_until(app, DRIFTED, lambda: state() == "drift", "the drift is found")
        until(lambda: counted() == app.sent, what="sent is counted, the Collector killed", deadline_s=60)
        until(lambda: query("sum(ml_predictions_total)") == app.sent, what="and visible in Prometheus")
        until(lambda: query('max(ml_alert_state{job="processor",ml_alert_rule="prediction_drift"})') == 2, what="alert")
        until(lambda: query('max(ml_alert_state{job="backend",ml_alert_rule="prediction_drift"})') == 2, what="round")
        assert query('sum(otelcol_receiver_refused_metric_points_total{job="agent",receiver="otlp"}) or vector(0)') == 0
        until(lambda: '"eventName":"ml.alert"' in written.read_text(), what="the alert in the file")


WINDOWS = {"pane": "500ms", "lateness": "8s", "rolling": "30s"}
"""Long enough for what waited while the processor was away, which comes within five seconds of its return."""

SCRIPT = """\
import subprocess, sys
from tests.support.collector import Sender
from tests.support.processes import until
import httpx
agent = subprocess.Popen([sys.argv[1], "--config", "agent.yaml"])
service = subprocess.Popen([sys.executable, "-m", "otel_mlmon", "processor", "--config", "mlmon.yaml"])
def answers(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
until(lambda: answers("http://127.0.0.1:13133") and answers("http://127.0.0.1:8080/readyz"))
Sender(4317).send()
until(lambda: answers("http://127.0.0.1:8080/api/v1/models/shop"), deadline_s=60)
for child in (service, agent):
    child.terminate()
    assert child.wait(30) == 0
print("both run")
"""


def test_the_shipped_files_run_on_their_own_ports_after_the_documented_edits_alone(tmp_path: Path) -> None:
    sandbox = program("bwrap", "apt-get install bubblewrap")
    agent = (CONFIGURATIONS / "agent.yaml").read_text()
    line = "    tls: {insecure: true}                 # yours is elsewhere: remove this line\n"
    assert agent.count(line) == 1
    (tmp_path / "agent.yaml").write_text(agent.replace(line, ""))
    mlmon = (CONFIGURATIONS / "mlmon.yaml").read_text()
    edits = {
        "  grpc: 127.0.0.1:4317\n": "  grpc: 127.0.0.1:24317\n",
        "  http: 127.0.0.1:4318\n": '  http: ""\n',
        "  endpoint: null\n": "  endpoint: http://127.0.0.1:14317\n",
    }
    for old, new in edits.items():
        assert mlmon.count(old) == 1
        mlmon = mlmon.replace(old, new)
    (tmp_path / "mlmon.yaml").write_text(mlmon)
    (tmp_path / "script.py").write_text(SCRIPT)
    words: list[str | Path] = [sandbox, "--bind", "/", "/", "--dev", "/dev", "--unshare-net", "--chdir", tmp_path]
    environ = environment(
        PYTHONPATH=os.pathsep.join((str(CONFIGURATIONS.parent), *filter(None, [os.environ.get("PYTHONPATH")]))),
        BACKEND_ENDPOINT="backend.example:4317",
        MLMON_QUEUE_DIRECTORY=str(tmp_path / "queue"),
    )
    done = subprocess.run(
        [*words, sys.executable, "script.py", otelcol()], env=environ, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "both run\n"), done.stderr[-3000:]
