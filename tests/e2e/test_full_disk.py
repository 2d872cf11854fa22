"""A full disk, on a real small filesystem: refused until there is room, and what was acknowledged is counted once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.cases.support import MetricsRequest, rejected_points
from tests.support.processes import Processor, processor, until

pytestmark = pytest.mark.e2e

SECOND_NS = 10**9


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 6 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def build_request(number: int) -> bytes:
    """A request of 100 series with one prediction each."""
    now_ns = time.time_ns()
    request = MetricsRequest(f"worker-{number}")
    for label in range(100):
        request.predictions(f"label-{label}", 1, now_ns - SECOND_NS, now_ns, model="shop")
    return request.body()


def send(running: Processor, body: bytes) -> bool:
    """Whether it was acknowledged, all of it, and not refused with 503."""
    url = f"http://127.0.0.1:{running.http}/v1/metrics"
    answer = httpx.post(url, content=body, headers={"content-type": "application/x-protobuf"}, timeout=30)
    assert answer.status_code in (200, 503)
    assert answer.status_code != 200 or rejected_points(answer.content) == 0
    return answer.status_code == 200


def readiness(running: Processor) -> int:
    return httpx.get(f"http://127.0.0.1:{running.web}/readyz", timeout=30).status_code


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    filler = small_disk / "filler"
    with processor(tmp_path, storage={"path": str(small_disk / "data")}) as running:
        bodies = [build_request(number) for number in range(3)]
        assert all(send(running, body) for body in bodies)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

        def is_refused() -> bool:
            bodies.append(build_request(len(bodies)))
            return not send(running, bodies[-1])

        until(is_refused, what="a request is refused", deadline_s=60)
        until(lambda: readiness(running) == 503, what="it is not ready", deadline_s=60)
        filler.unlink()
        until(lambda: readiness(running) == 200, what="it is ready again", deadline_s=60)
        until(lambda: send(running, bodies[-1]), what="the refused request is taken", deadline_s=60)
        running.kill()
        running.start()
        model = until(lambda: running.model("shop"), what="the model is there")
        assert model["predictions"] == 100 * len(bodies)
