"""In every host of docs/deploying.md, run as it is deployed and ended as it ends: calls = recorded + dropped."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from otel_mlmon import semconv
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import environment, until

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")]
ROOT = Path(__file__).parent.parent.parent
ASGI = "tests.support.asgi_service:app"
WSGI = "tests.support.serving:app"

SERVERS: dict[str, list[str]] = {
    "gunicorn sync": ["gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", WSGI],
    "gunicorn sync, preload, max_requests": [
        *["gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", "--preload", "--max-requests", "20", WSGI],
    ],
    "gunicorn gthread": ["gunicorn", "-w", "2", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", WSGI],
    "gunicorn uvicorn": ["gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", ASGI],
    "uvicorn": ["uvicorn", "--port", "{port}", ASGI],
    "uvicorn workers": ["uvicorn", "--workers", "2", "--port", "{port}", ASGI],
    "uvicorn reload": ["uvicorn", "--reload", "--reload-dir", "{directory}", "--port", "{port}", ASGI],
    "hypercorn": ["hypercorn", "-b", "127.0.0.1:{port}", ASGI],
    "hypercorn workers": ["hypercorn", "-w", "2", "-b", "127.0.0.1:{port}", ASGI],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}", ASGI],
    "granian workers": [
        *["granian", "--interface", "asgi", "--workers", "2", "--port", "{port}"],
        "tests.support.asgi_service:flushing_app",  # the helper, in a real server
    ],
    "granian wsgi": ["granian", "--interface", "wsgi", "--port", "{port}", WSGI],
    "daphne": ["daphne", "-p", "{port}", ASGI],
}


def counts(server: OtlpServer) -> tuple[int, int]:
    """Calls recorded and dropped, by all processes together: the last cumulative counts of each."""
    recorded: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for request in server.of("metrics"):
        for resource in request.resource_metrics:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            process = attributes[semconv.SERVICE_INSTANCE_ID]
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == semconv.DURATION.name:
                    recorded[process] = sum(point.count for point in metric.histogram.data_points)
                elif metric.name == semconv.RECORDS_DROPPED.name:
                    dropped[process] = sum(point.as_int for point in metric.sum.data_points)
    return sum(recorded.values()), sum(dropped.values())


def variables(server: OtlpServer, **extra: str) -> dict[str, str]:
    return environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=server.http_url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRIC_EXPORT_INTERVAL="60000",  # what arrives was flushed by the end
        OTEL_MLMON_SHUTDOWN_TIMEOUT_S="20",  # a busy machine imports the exporters in seconds
        PYTHONPATH=str(ROOT),
        PYTHONWARNINGS="ignore",
        **extra,
    )


def start(command: list[str], env: dict[str, str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "log.txt").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=env, stdout=log, stderr=log)


def needs(command: list[str]) -> None:
    for module in (command[0], *(word.split(".")[0] for word in command if word.startswith("uvicorn_worker"))):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"pip install {module}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_loses_no_call(name: str, how: signal.Signals, tmp_path: Path) -> None:
    needs(SERVERS[name])
    if (name, how) == ("gunicorn uvicorn", signal.SIGINT):
        pytest.skip("gunicorn kills such workers, with or without otel_mlmon: docs/deploying.md")
    port = free_port()
    command = [word.format(port=port, directory=tmp_path) for word in SERVERS[name]]
    url, requests = f"http://127.0.0.1:{port}/", 60
    with OtlpServer() as server:
        made = tmp_path / "made"
        made.touch()
        child = start(command, variables(server, DONE=str(made)), tmp_path)
        try:

            def is_up() -> bool:
                with suppress(httpx.TransportError):
                    return httpx.get(url).status_code == 200
                return False

            until(is_up, what=f"{name} answers")
            with ThreadPoolExecutor(8) as pool:
                answers = [*pool.map(lambda _: httpx.get(url).status_code, range(requests))]
        finally:
            child.send_signal(how)
            child.wait(timeout=40)
        assert answers == [200] * requests, (tmp_path / "log.txt").read_text()
        assert sum(counts(server)) == len(made.read_text()) > requests, (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_celery_loses_no_call(pool: str, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    tasks, done = 40, tmp_path / "done"
    (tmp_path / "broker").mkdir()
    done.touch()
    with OtlpServer() as server:
        env = variables(server, BROKER=str(tmp_path / "broker"), DONE=str(done))
        module = "tests.support.celery_tasks"
        worker = start(["celery", "-A", module, "worker", "-P", pool, "-c", "2", "-l", "error"], env, tmp_path)
        send = f"from {module} import infer\nfor _ in range({tasks}): infer.delay()"
        try:
            subprocess.run([sys.executable, "-c", send], cwd=ROOT, env=env, check=True, timeout=60)
            until(lambda: len(done.read_text()) == tasks, what="the tasks are done")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=40)
        assert sum(counts(server)) == tasks, (tmp_path / "log.txt").read_text()
