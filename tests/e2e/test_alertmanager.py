"""A real processor and a real Alertmanager, both restarted while an alert fires: one group, and the end comes last."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cases import support
from tests.support.ports import free_port
from tests.support.processes import until
from tests.support.webhook_server import Answer, WebhookServer, webhook_server

PROGRAM = "prometheus-alertmanager"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed"),
]

TIMEOUT_S = 60.0


@contextmanager
def alertmanager(folder: Path, port: int, receiver: str) -> Iterator[str]:
    """Alertmanager on a port, with its state in a folder; yields its address."""
    route = {
        "receiver": "people", "group_by": ["alertname", "model"], "group_wait": "1s", "group_interval": "1s",
        "repeat_interval": "1h",
    }  # fmt: skip
    people = {"name": "people", "webhook_configs": [{"url": receiver, "send_resolved": True}]}
    (folder / "am.yml").write_text(json.dumps({"route": route, "receivers": [people]}))
    address = f"127.0.0.1:{port}"
    options = [f"--config.file={folder / 'am.yml'}", f"--storage.path={folder / 'am'}",
               f"--web.listen-address={address}", "--cluster.listen-address="]  # fmt: skip
    with (folder / "am.log").open("ab") as log:
        process = subprocess.Popen([PROGRAM, *options], stdout=log, stderr=log)
    try:
        until(lambda: is_ready(address), deadline_s=TIMEOUT_S)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def feed(processor: support.Processor, seconds: float, is_enough: Callable[[], bool]) -> None:
    """Calls that take so long, twice a second, until enough is seen."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        now = time.time_ns()
        processor.post(support.MetricsRequest().durations(seconds, 2000, now - 10**9 // 2, now, model="shop"))
        if is_enough():
            return
        time.sleep(0.5)
    pytest.fail(processor.log()[-3000:])


def payloads(receiver: WebhookServer) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in list(receiver.received)]


def active(address: str) -> list[str]:
    alerts = httpx.get(f"{address}/api/v2/alerts", timeout=10).json()
    return sorted(alert["labels"]["alertname"] for alert in alerts if alert["status"]["state"] == "active")


@pytest.mark.timeout(300)
def test_one_group_fires_and_its_last_notification_is_resolved(tmp_path: Path) -> None:
    port = free_port()
    notify = [{"alertmanager": {"urls": [f"http://127.0.0.1:{port}"], "renew_every": "5s", "labels": {"team": "ml"}}}]
    configuration = {
        "windows": {"pane": "1s", "lateness": "1s", "rolling": "1h"},
        "alerts": {"notify": notify, "keep_firing_for": "0s"},
    }
    with webhook_server(Answer()) as receiver, support.Processor(configuration) as processor:
        feed(processor, 3, lambda: processor.rule("shop", "latency") == "firing")  # Alertmanager is away
        with alertmanager(tmp_path, port, receiver.url) as address:
            feed(processor, 3, lambda: bool(payloads(receiver)))
            assert active(address) == ["MlmonLatency"]
        processor.kill()
        processor.start()
        with alertmanager(tmp_path, port, receiver.url) as address:
            feed(processor, 3, lambda: active(address) == ["MlmonLatency"])  # renewed: both had forgotten
            feed(processor, 0.001, lambda: processor.rule("shop", "latency") == "ok")
            until(lambda: payloads(receiver)[-1]["status"] == "resolved", deadline_s=TIMEOUT_S)
            assert active(address) == []
    told = payloads(receiver)
    assert {payload["groupKey"] for payload in told} == {'{}:{alertname="MlmonLatency", model="shop"}'}
    assert [payload["status"] for payload in told].count("resolved") == 1
    labels = told[0]["alerts"][0]["labels"]
    assert labels.pop("severity") in ("warning", "critical")
    assert labels == {"alertname": "MlmonLatency", "model": "shop", "version": "1", "rule": "latency", "team": "ml"}
    assert told[0]["commonAnnotations"]["summary"].startswith("FIRING · ")
