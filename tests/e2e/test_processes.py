"""However a service makes its processes, the calls of all of them together arrive, each once."""

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

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent


def totals(server: OtlpServer) -> dict[str, int]:
    """Calls by process: the last cumulative count of each service instance."""
    found: dict[str, int] = {}
    for request in server.of("metrics"):
        for resource in request.resource_metrics:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == semconv.DURATION.name:
                        count = sum(point.count for point in metric.histogram.data_points)
                        found[attributes[semconv.SERVICE_INSTANCE_ID]] = count
    return found


def variables(server: OtlpServer) -> dict[str, str]:
    return environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=server.http_url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRIC_EXPORT_INTERVAL="500",
        OTEL_MLMON_SHUTDOWN_TIMEOUT_S="20",  # a busy machine imports the exporters in seconds
        PYTHONPATH=str(ROOT),
        PYTHONWARNINGS="ignore",
    )


@pytest.mark.parametrize("how", ["os", "fork", "spawn", "forkserver"])
def test_children_count_their_own_calls_and_lose_none(how: str) -> None:
    children, calls = 3, 40
    with OtlpServer() as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.forking", how, str(children), str(calls)],
            cwd=ROOT,
            env=variables(server),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = totals(server)
    own = [1] if how == "os" else []
    assert sorted(found.values()) == own + [calls] * children


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("children", "import_delay_s"), [(12, 0.0), (3, 0.03)], ids=["", "slow imports"])
def test_forks_under_load_account_for_every_call_in_each_process_and_hang_nowhere(
    children: int, import_delay_s: float
) -> None:
    calls = 40
    with OtlpServer() as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.forking_under_load", str(children), str(calls), str(import_delay_s)],
            cwd=ROOT,
            # onnxruntime 1.32 by itself aborts or hangs in a child of a fork while it sends its own telemetry.
            env={**variables(server), "ORT_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = totals(server)
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    *of_children, (made, recorded, dropped) = sorted(lines)
    assert of_children == [(calls, calls, 0)] * children, done.stderr
    assert made == recorded + dropped > calls
    assert sorted(found.values()) == [calls] * children + [recorded], done.stderr


@pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="pip install gunicorn")
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["import in each worker", "preload"])
def test_gunicorns_workers_together_are_the_requests(preload: list[str]) -> None:
    requests, port = 200, free_port()
    with OtlpServer() as server:
        command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", *preload]
        child = subprocess.Popen(
            [*command, "--log-level", "error", "tests.support.serving:app"], cwd=ROOT, env=variables(server)
        )
        try:
            url, answered = f"http://127.0.0.1:{port}/", 0

            def is_up() -> bool:
                with suppress(httpx.TransportError):
                    return httpx.get(url).status_code == 200
                return False

            until(is_up, what="gunicorn answers")
            with ThreadPoolExecutor(8) as pool:
                answered = 1 + sum(
                    code == 200 for code in pool.map(lambda _: httpx.get(url).status_code, range(requests))
                )
            assert answered == requests + 1
        finally:
            child.send_signal(signal.SIGTERM)
            code = child.wait(timeout=20)
        found = totals(server)
    assert code == 0
    assert 1 <= len(found) <= 2
    assert sum(found.values()) == answered
