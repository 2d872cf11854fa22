"""Back ends that take OTLP themselves, set up as docs/backends.md says: what they show of twenty calls."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import environment, run_python, until
from tests.support.programs import ROOT, program, skip_or_fail

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

REMEDY = "make backends"
ROTEL = ROOT / ".collector" / "rotel"

HOST = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
exec(sys.argv[2])
handle = otel_mlmon.instrument()
session = ort.InferenceSession(models.softmax(name="iris"))
for _ in range(20):
    session.run(None, {"input": np.array([[9, 0, 0, 0]], np.float32)})
try:
    session.run(None, {"input": np.zeros((3,), np.float32)})
except Exception:
    pass
exec(sys.argv[3])
"""


def blocks(title: str) -> list[str]:
    """The blocks of code under a title of docs/backends.md, in order."""
    text = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (body,) = [part for part in section if part.startswith(f"{title}\n")]
    return re.findall(r"^```\w+\n(.*?)^```", body, flags=re.DOTALL | re.MULTILINE)


def run_host(*, before: str = "", after: str = "", **environ: Any) -> None:
    """A program that predicts twenty times, fails once, and ends."""
    environ.setdefault("OTEL_SERVICE_NAME", "shop")
    done = run_python(["-c", HOST, str(ROOT), before, after], cwd=ROOT, **environ)
    assert (done.returncode, done.stderr) == (0, "")


def variables(block: str, places: Mapping[str, str]) -> dict[str, str]:
    """The variables of a block, with the addresses of this test in the place of the usual ones."""
    pairs = dict(line.split("=", 1) for line in block.splitlines() if line.startswith("OTEL_"))
    for usual, own in places.items():
        pairs = {name: value.replace(usual, own) for name, value in pairs.items()}
    return pairs


@contextmanager
def server(command: list[str], cwd: Path, is_up: Callable[[], bool]) -> Iterator[None]:
    """A back end's process, ended at the end."""
    with (cwd / "log.txt").open("w") as log:
        child = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, env=environment())
        try:
            until(is_up, what=f"{command[0]} answers", deadline_s=60)
            yield
        finally:
            child.terminate()
            try:
                child.wait(timeout=30)
            finally:
                child.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def query(address: str, expression: str) -> list[Any]:
    """The series that a query gives, by the API of Prometheus."""
    answer = httpx.get(f"{address}/api/v1/query", params={"query": expression}, timeout=30)
    assert answer.status_code == 200, answer.text
    result: list[Any] = answer.json()["data"]["result"]
    return result


def value_of(address: str, expression: str) -> float | None:
    """The number that a query of one series gives; None where it gives none yet."""
    series = query(address, expression)
    return float(series[0]["value"][1]) if len(series) == 1 else None


def show_calls(address: str) -> None:
    """Waits until a back end that speaks PromQL shows every call, and compares."""
    count = 'sum(ml_inference_duration_seconds_count{ml_model_name="iris"})'
    until(lambda: value_of(address, count) == 21, what="every call is shown")
    labels = 'sum by (ml_prediction_label) (ml_predictions_total{ml_model_name="iris"})'
    assert [(entry["metric"], entry["value"][1]) for entry in query(address, labels)] == [
        ({"ml_prediction_label": "0"}, "20")
    ]
    assert value_of(address, 'sum(ml_inference_duration_seconds_count{error_type="InvalidArgument"})') == 1
    confidence = "sum(ml_prediction_confidence_sum) / sum(ml_prediction_confidence_count)"
    assert value_of(address, confidence) == pytest.approx(0.9996, abs=1e-3)


def test_prometheus_takes_the_metrics(tmp_path: Path) -> None:
    # No failure in CI: it takes many minutes to build, and Debian has one that takes no OTLP.
    binary = ROOT / ".collector" / "prometheus3"
    if not binary.exists():
        pytest.skip("no Prometheus 3: make prometheus3")
    command, settings = blocks("Prometheus 3")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text("")
    words = [str(binary), *shlex.split(command)[1:], f"--web.listen-address=127.0.0.1:{port}"]
    with server(words, tmp_path, lambda: answers(f"http://127.0.0.1:{port}/-/ready")):
        run_host(**variables(settings, {"localhost:9090": f"127.0.0.1:{port}"}))
        show_calls(f"http://127.0.0.1:{port}")
        # The values of a feature are an exponential histogram: one native histogram of twenty values.
        features = query(f"http://127.0.0.1:{port}", "histogram_count(ml_input_feature)")
        assert {entry["value"][1] for entry in features} == {"20"}


def test_victoria_metrics_takes_the_metrics(tmp_path: Path) -> None:
    binary = program("victoria-metrics", REMEDY)
    command, settings = blocks("VictoriaMetrics")
    address = f"127.0.0.1:{free_port()}"
    words = [str(binary), *shlex.split(command)[1:], f"-httpListenAddr={address}", "-search.latencyOffset=0s"]
    with server(words, tmp_path, lambda: answers(f"http://{address}/health")):
        run_host(**variables(settings, {"localhost:8428": address}))
        show_calls(f"http://{address}")


def test_rotel_sends_everything_on(tmp_path: Path) -> None:
    if not ROTEL.exists():
        skip_or_fail(f"no rotel: {REMEDY}")
    _, text = blocks("rotel")
    (usual,) = re.findall(r"^Rotel\(enabled=True, (.*)\)\.start\(\)$", text, flags=re.MULTILINE)
    ports = {name: free_port() for name in ("grpc", "http")}
    places = {f"otlp_{name}_endpoint": f"127.0.0.1:{port}" for name, port in ports.items()}
    files = {name: str(tmp_path / name) for name in ("pid_file", "log_file")}
    with OtlpServer() as destination:
        exporter = usual.replace("https://collector.example.com:4317", f"http://{destination.grpc_address}")
        run_host(
            before=f"sys.path.insert(0, {str(ROTEL)!r})\nfrom rotel import OTLPExporter, Rotel\n"
            f"rotel = Rotel(enabled=True, **{ {**places, **files}!r}, {exporter})\nrotel.start()",
            after="handle.shutdown(10)\nrotel.stop()",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{ports['grpc']}",
        )
        until(lambda: {signal for signal, _ in destination.requests} == {"metrics", "traces", "logs"})
    spans = [
        span
        for signal, message in destination.requests
        if signal == "traces"
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {span.name for span in spans} == {"predict iris"}
    assert sum(span.status.code == 2 for span in spans) == 1
