"""Faults at full size for `python -m benchmarks.soak`: kills, full disks, clocks, backlog, stale senders, flat minutes.

Each part returns what was promised and not held. The arithmetic is the same everywhere: what was acknowledged, and what
was not and was sent again, is counted once.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx

from otel_mlmon.testing import SimulatedProcessor
from tests.cases.support import CUMULATIVE, MetricsRequest
from tests.support.processes import Processor, processor, until

SECOND_NS: Final = 10**9
SETTLE_S: Final = 120.0
WINDOWS: Final = {"pane": "1s", "lateness": "10s", "rolling": "1h"}


class Senders:
    """Threads that send requests until they are acknowledged, so that the sent points are known exactly.

    Args:
        running: The processor.
        senders: How many there are.
        pause_s: How long each waits after an acknowledgement, in seconds.
        points: Predictions of a request, of 40 labels.
        processes: How many processes of an application each stands for; None for a new one a request, whose series are
            new too.
    """

    def __init__(
        self, running: Processor, *, senders: int, pause_s: float, points: int = 100, processes: int | None = None
    ) -> None:
        self._running = running
        self._pause_s = pause_s
        self._points = points
        self._processes = processes
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged_points = 0
        self.attempts = 0
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(senders)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Sends what is under way to its end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, sender: int) -> None:
        with httpx.Client(timeout=5.0) as client:
            for number in itertools.count():
                if self._stop.wait(self._pause_s):
                    return
                process = number if self._processes is None else number % self._processes
                body = build_request(f"{sender}-{process}", self._points)
                while not self._is_acknowledged(client, body):
                    time.sleep(random.uniform(0.1, 0.5))
                with self._lock:
                    self.acknowledged_points += self._points

    def _is_acknowledged(self, client: httpx.Client, body: bytes) -> bool:
        with self._lock:
            self.attempts += 1
        with suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{self._running.http}/v1/metrics"
            answer = client.post(url, content=body, headers={"content-type": "application/x-protobuf"})
            return answer.status_code == 200 and not answer.content
        return False


def build_request(sender: str, points: int) -> bytes:
    """Builds a request of so many points with one prediction each."""
    now_ns = time.time_ns()
    request = MetricsRequest(f"worker-{sender}")
    for label in range(points):
        request.predictions(f"label-{label % 40}", 1, now_ns - SECOND_NS + label, now_ns + label, model="shop")
    return request.body()


def counted(running: Processor) -> int:
    """Returns the number of predictions that the processor has counted."""
    with suppress(httpx.TransportError):
        return int((running.model("shop") or {}).get("predictions") or 0)
    return 0


def compare(name: str, running: Processor, expected: int) -> list[str]:
    """Waits until everything is counted; returns the difference if it never is."""
    ends_s = time.monotonic() + SETTLE_S
    while counted(running) != expected and time.monotonic() < ends_s:
        time.sleep(0.2)
    found = counted(running)
    print(f"{name}: sent and acknowledged {expected} points, counted {found}", flush=True)
    return [] if found == expected else [f"{name}: of {expected} points {found} were counted"]


def kills(*, count: int, seed: int = 0) -> list[str]:
    """Ends the processor by `kill -9` at random moments under load."""
    choices = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, processor(Path(folder), windows=WINDOWS) as running:
        begins_s = time.monotonic()
        with Senders(running, senders=3, pause_s=0.05) as senders:
            for number in range(count):
                time.sleep(choices.uniform(0.05, 1.0))
                running.kill()
                running.start()
                if (number + 1) % 10 == 0:
                    elapsed_s = time.monotonic() - begins_s
                    print(
                        f"kill -9: {number + 1} of {count} in {elapsed_s:.0f} s, {senders.attempts} attempts",
                        flush=True,
                    )
        return compare(f"kill -9 × {count}", running, senders.acknowledged_points)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mounts a filesystem of 12 MiB; None without the right to mount one."""
    place = folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full_disks(*, count: int) -> list[str]:
    """Fills the disk under load and makes room again, so many times."""
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as disk:
        if disk is None:
            print("full disk: left out, since it needs the right to mount a filesystem")
            return []
        filler = disk / "filler"
        storage = {"path": str(disk / "data"), "retention": "1h"}
        with processor(Path(folder), windows=WINDOWS, storage=storage) as running:
            with Senders(running, senders=2, pause_s=0.1, points=50) as senders:
                for _ in range(count):
                    with suppress(OSError), filler.open("wb", buffering=0) as file:
                        while True:
                            file.write(b"\0" * 4096)
                    until(lambda: readiness(running) == 503, what="it is not ready", deadline_s=SETTLE_S)
                    filler.unlink()
                    until(lambda: readiness(running) == 200, what="it is ready again", deadline_s=SETTLE_S)
                    before = senders.acknowledged_points
                    until(lambda before=before: senders.acknowledged_points > before, deadline_s=SETTLE_S)  # type: ignore[misc]
            return compare(f"full disk × {count}", running, senders.acknowledged_points)


def readiness(running: Processor) -> int:
    """Returns the status of `/readyz`; 0 if nothing answers."""
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{running.web}/readyz", timeout=30).status_code
    return 0


def clocks(*, count: int, seed: int = 0) -> list[str]:
    """Senders whose clocks jump by up to a year, either way, report running totals; deltas come from right clocks."""
    choices = random.Random(seed)
    expected = {"jumping": 0, "right": 0}
    with SimulatedProcessor() as simulated:
        began_ns, total = simulated.now_ns + 1, 0
        for step in range(count):
            simulated.now_ns += 10 * SECOND_NS
            total += 5
            offset_s = choices.choice((0, -1, 1, -60, 60, -3600, 3600, 86_400 * 365)) if step else 0
            time_ns = max(began_ns + 1 + step, simulated.now_ns + offset_s * SECOND_NS + step)
            jumping = MetricsRequest("jumping")
            jumping.predictions("a", total, began_ns, time_ns, model="jumping", temporality=CUMULATIVE)
            right = MetricsRequest("right")
            right.predictions("a", 7, simulated.now_ns - 10 * SECOND_NS, simulated.now_ns, model="right")
            expected["right"] += 7
            for request in (jumping, right):
                simulated.receive(request.message)
            simulated.advance()
        expected["jumping"] = total
        return compare_models("clocks", simulated, expected)


def backlog(*, seconds: int) -> list[str]:
    """One sender is on time; another sends everything of so many seconds at once, newest first."""
    panes = seconds // 10
    with SimulatedProcessor() as simulated:
        waiting = []
        for _ in range(panes):
            simulated.now_ns += 10 * SECOND_NS
            for sender in ("prompt", "away"):
                request = MetricsRequest(sender)
                request.predictions("a", 3, simulated.now_ns - 10 * SECOND_NS, simulated.now_ns - 1, model=sender)
                request.predictions("a", 3, simulated.now_ns - 10 * SECOND_NS, simulated.now_ns - 1, model="both")
                if sender == "prompt":
                    simulated.receive(request.message)
                else:
                    waiting.append(request.message)
            simulated.advance()
        for message in reversed(waiting):
            simulated.receive(message)
        simulated.advance()
        simulated.now_ns += 60 * SECOND_NS
        simulated.advance()
        return compare_models("backlog", simulated, {"prompt": 3 * panes, "away": 3 * panes, "both": 6 * panes})


def compare_models(name: str, simulated: SimulatedProcessor, expected: dict[str, int]) -> list[str]:
    """Compares the predictions of each model."""
    simulated.now_ns += 120 * SECOND_NS
    simulated.advance()
    models = simulated.document()["models"]
    found = {model: int(models[model]["predictions"]) for model in expected if model in models}
    print(f"{name}: sent {expected}, counted {found}", flush=True)
    return [] if found == expected else [f"{name}: of {expected} {found} were counted"]


def stale_senders(*, count: int, features: int = 20) -> list[str]:
    """So many processes come one after another, each with series of its own, and never return."""
    present: list[int] = []
    with SimulatedProcessor() as simulated:
        for number in range(count):
            began_ns = simulated.now_ns
            simulated.now_ns += 10 * SECOND_NS
            request = MetricsRequest(f"worker-{number}")
            request.predictions("a", 10, began_ns, simulated.now_ns - 1, model="shop", temporality=CUMULATIVE)
            for feature in range(features):
                counts = [5, 5]
                request.feature(
                    f"f{feature}", counts, began_ns, simulated.now_ns - 1, model="shop", temporality=CUMULATIVE
                )
            simulated.receive(request.message)
            simulated.advance()
            simulated.now_ns += 300 * SECOND_NS
            simulated.advance()
            present.append(simulated._pipeline._windows.series_count)
        faults = compare_models("stale senders", simulated, {"shop": 10 * count})
    most = 24 * (features + 1)  # of two hours
    print(f"stale senders: {count}, series at most {max(present)}", flush=True)
    return faults + ([f"stale senders: {max(present)} series are there at a time"] if max(present) > most else [])


def flat(*, seconds: float, resident_bytes: Callable[[Processor], int]) -> list[str]:
    """Moderate load of 8,000 series for so many seconds: memory and open files do not grow once it is warm."""
    with tempfile.TemporaryDirectory() as folder, processor(Path(folder), windows=WINDOWS) as running:
        samples: list[tuple[int, int]] = []
        with Senders(running, senders=4, pause_s=0.2, processes=50) as senders:
            for _ in range(10):
                time.sleep(seconds / 10)
                assert running.child is not None
                files = len(list(Path(f"/proc/{running.child.pid}/fd").iterdir()))
                samples.append((resident_bytes(running), files))
                print(
                    f"flat: {samples[-1][0] >> 20} MiB, {files} files, {senders.acknowledged_points} points", flush=True
                )
        faults = compare("flat", running, senders.acknowledged_points)
    (warm_bytes, warm_files), (last_bytes, last_files) = samples[len(samples) // 2 - 1], samples[-1]
    if last_bytes > 1.1 * warm_bytes + 16 * 2**20:
        faults.append(f"flat: memory grew from {warm_bytes} to {last_bytes} bytes in the second half")
    if last_files > warm_files + 10:
        faults.append(f"flat: open files grew from {warm_files} to {last_files}")
    return faults
