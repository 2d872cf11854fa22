"""Long runs against the processor: `make soak`, or `python -m benchmarks.soak overload --seconds 60`.

`overload` offers twice what the processor takes, over HTTP or gRPC, by senders who wait five seconds for an answer and
send again what was refused; `mutations` sends damaged requests in every encoding. Each ends with 1 where a promise of
docs/operating.md is broken.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import queue
import random
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import grpc
import zstandard
from google.protobuf import json_format

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.admission import Admission
from otel_mlmon.processor.receive.codec import BodyFormat
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.inflate import TooLargeError, inflate
from tests.support.otlp_requests import DELTA, counter, exponential, histogram, request
from tests.support.processes import Processor, processor

PATIENCE_S = 5.0
PANE_NS = 10**9

Protocol: TypeAlias = Literal["http", "grpc"]


def points_request(sender: str, time_ns: int, points: int) -> bytes:
    """A request of so many series of one sender, one prediction each."""
    message = request("ml.predictions", "sum", counter(1), points=points, temporality=DELTA)
    resource = message.resource_metrics[0]
    resource.resource.attributes.add(key="service.instance.id").value.string_value = sender
    for index, point in enumerate(resource.scope_metrics[0].metrics[0].sum.data_points):
        point.attributes.add(key="ml.prediction.label").value.string_value = f"label-{index % 40}"
        point.start_time_unix_nano, point.time_unix_nano = time_ns - PANE_NS + index, time_ns + index
    return bytes(message.SerializeToString())


@dataclass(kw_only=True)
class Load:
    """What came of the requests of all senders."""

    points: int
    """Of one request."""
    protocol: Protocol = "http"
    patience_s: float = PATIENCE_S
    """How long a sender waits for an answer."""
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged_points: int = 0
    sent_points: int = 0
    slowest_s: dict[str, float] = field(default_factory=dict)
    """The longest time until an answer, by answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def send(running: Processor, body: bytes, load: Load) -> str:
    """Sends a request once; returns `accepted`, `partial`, `refused`, `timeout` or another status."""
    begins_s = time.monotonic()
    try:
        is_complete, status = SENDERS[load.protocol](running, body, load.patience_s)
        status = status if is_complete or status != "accepted" else "partial"
    except TimeoutError:
        status = "timeout"
    with load.lock:
        load.answers[status] += 1
        load.acknowledged_points += load.points if status == "accepted" else 0
        load.slowest_s[status] = max(load.slowest_s.get(status, 0.0), time.monotonic() - begins_s)
    return status


def send_http(running: Processor, body: bytes, patience_s: float) -> tuple[bool, str]:
    """Sends a request over HTTP; returns whether all of it was taken, and the status."""
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=patience_s)
    try:
        connection.request("POST", "/v1/metrics", body, {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        status = {200: "accepted", 429: "refused"}.get(answer.status, str(answer.status))
        return not answer.read(), status
    finally:
        connection.close()


def send_grpc(running: Processor, body: bytes, patience_s: float) -> tuple[bool, str]:
    """Sends a request over gRPC, on a connection of its own; returns whether all of it was taken, and the status."""
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        try:
            return not export(body, timeout=patience_s), "accepted"
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            return False, "refused" if code is grpc.StatusCode.RESOURCE_EXHAUSTED else code.name


SENDERS: Final[dict[Protocol, Callable[[Processor, bytes, float], tuple[bool, str]]]] = {
    "http": send_http,
    "grpc": send_grpc,
}


def measure_capacity(running: Processor, load: Load, *, seconds: float) -> float:
    """Returns the requests a second that eight patient senders get through."""
    ends_s = time.monotonic() + seconds

    def work(sender: int) -> None:
        number = 0
        while time.monotonic() < ends_s:
            number += 1
            send(running, points_request(f"warm-{sender}-{number}", time.time_ns(), load.points), load)

    run_threads(work, 8)
    if set(load.answers) != {"accepted"}:
        raise RuntimeError(f"eight senders were answered {dict(load.answers)}")
    return load.answers["accepted"] / seconds


def run_threads(work: Callable[[int], None], count: int) -> None:
    """Runs `work(number)` on so many threads, to their end."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def resident_bytes(running: Processor) -> int:
    """The processor's resident memory."""
    assert running.child is not None
    fields = Path(f"/proc/{running.child.pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in fields.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def overload(
    *,
    seconds: float,
    points: int = 500,
    senders: int = 40,
    warm_up_s: float = 5.0,
    protocol: Protocol = "http",
    patience_s: float = PATIENCE_S,
) -> list[str]:
    """Offers twice the capacity; returns what was promised and not held."""
    sections = {"windows": {"pane": "1s", "lateness": "60s", "rolling": "1h"}}
    with tempfile.TemporaryDirectory() as folder, processor(Path(folder), **sections) as running:
        warm_up = Load(points=points, protocol=protocol, patience_s=30.0)
        capacity = measure_capacity(running, warm_up, seconds=warm_up_s)
        load, memory_bytes = (
            Load(points=points, protocol=protocol, patience_s=patience_s),
            [resident_bytes(running)],
        )
        offer(running, load, memory_bytes, rate=2 * capacity, seconds=seconds, senders=senders)
        total = sum(load.answers.values())
        print(f"overload over {protocol}: {2 * capacity:.1f} requests/s of {points} points for {seconds:g} s")
        print(f"  answers {dict(load.answers)}, the slowest in s {load.slowest_s}")
        print(f"  memory {memory_bytes[0] >> 20} to {max(memory_bytes) >> 20} MiB")

        def counted() -> int:
            document = running.model("fraud") or {}
            return int(document.get("predictions") or 0) - warm_up.acknowledged_points

        ends_s = time.monotonic() + 120
        while counted() != load.sent_points and time.monotonic() < ends_s:
            time.sleep(0.5)
        print(f"  points sent {load.sent_points}, acknowledged {load.acknowledged_points}, counted {counted()}")
        checks = {
            f"{load.answers['timeout']} of {total} requests timed out": load.answers["timeout"] > total / 50,
            f"of {load.sent_points} points {counted()} were counted": counted() != load.sent_points,
            "points were answered with a partial success": load.answers["partial"] > 0,
            f"memory grew to {max(memory_bytes)} bytes": max(memory_bytes) > memory_bytes[0] + 512 * 2**20,
        }
        return [fault for fault, is_broken in checks.items() if is_broken]


def offer(
    running: Processor, load: Load, memory_bytes: list[int], *, rate: float, seconds: float, senders: int
) -> None:
    """Hands requests to the senders at a rate, and waits until each has been acknowledged."""
    waiting = queue.Queue[bytes | None]()

    def work(_: int) -> None:
        while (body := waiting.get()) is not None:
            while send(running, body, load) not in ("accepted", "partial"):
                time.sleep(random.uniform(0.5, 1.5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    begins_s, number = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - begins_s) < seconds:
        number += 1
        if waiting.qsize() < senders:  # the senders' own queue is bounded, as exporters' are
            waiting.put(points_request(f"load-{number}", time.time_ns(), load.points))
            load.sent_points += load.points
        memory_bytes.append(resident_bytes(running))
        time.sleep(max(0.0, number / rate - elapsed_s))
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()


def mutations(*, count: int, seed: int = 0) -> list[str]:
    """Decodes damaged requests in every encoding; returns what was promised and not held.

    A damaged request is malformed, or is counted whole: never a fault of ours, never an uncounted point.
    """
    choices = random.Random(seed)
    faults: list[str] = []

    def deliver(_: tuple[TelemetryItem, ...]) -> Future[Rejections]:
        done: Future[Rejections] = Future()
        done.set_result({})
        return done

    parts = (
        request("ml.predictions", "sum", counter(3), points=2),
        request("ml.inference.duration", "histogram", histogram([0.1, 1.0], [1, 2, 3], sum=1.5)),
        request("ml.prediction.confidence", "exponential_histogram", exponential(3, (2, [1, 2]), (0, [1]), 4)),
    )
    plain = b"".join(part.SerializeToString() for part in parts)
    text = json.dumps(json_format.MessageToDict(parts[0], use_integers_for_enums=True)).encode()
    encodings: dict[str, tuple[BodyFormat, str, bytes]] = {
        "protobuf": ("protobuf", "identity", plain),
        "json": ("json", "identity", text),
        "gzip": ("protobuf", "gzip", gzip.compress(plain)),
        "deflate": ("protobuf", "deflate", zlib.compress(plain)),
        "zstd": ("protobuf", "zstd", zstandard.compress(plain)),
    }
    for name, (body_format, encoding, body) in encodings.items():
        admission = Admission(deliver)
        outcomes: Counter[str] = Counter()
        for _ in range(count):
            outcomes[consume(admission, mutate(body, choices), body_format, encoding)] += 1
        if outcomes["fault"] or admission.pending_bytes or admission.counts.dead_letters:
            faults.append(f"{name}: {outcomes['fault']} faults, {admission.pending_bytes} bytes left behind")
        print(f"mutations of {name}: {dict(outcomes)}")
    return faults


def consume(admission: Admission, body: bytes, body_format: BodyFormat, encoding: str) -> str:
    """Returns what became of one request."""
    try:
        inflated = inflate(body, encoding, max_bytes=2**20)
        result = admission.consume("metrics", inflated, body_format=body_format)
    except (MalformedError, TooLargeError):
        return "malformed"
    return "fault" if result.exception(30) is not None else "answered"


def mutate(body: bytes, choices: random.Random) -> bytes:
    """Flips, cuts, repeats or inserts a few bytes."""
    damaged = bytearray(body)
    for _ in range(choices.randint(1, 4)):
        place = choices.randrange(len(damaged)) if damaged else 0
        kind = choices.randrange(4)
        if kind == 0 and damaged:
            damaged[place] = choices.randrange(256)
        elif kind == 1:
            del damaged[place : place + choices.randint(1, 8)]
        elif kind == 2:
            damaged[place:place] = damaged[place : place + choices.randint(1, 32)]
        else:
            damaged[place:place] = choices.randbytes(choices.randint(1, 8))
    return bytes(damaged)


def main(arguments: list[str] | None = None) -> int:
    """Runs one or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("overload", "mutations", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--protocol", choices=(*SENDERS, "both"), default="both")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    faults: list[str] = []
    if options.part in ("overload", "all"):
        for protocol in SENDERS if options.protocol == "both" else (options.protocol,):
            faults += overload(seconds=options.seconds, protocol=protocol)
    if options.part in ("mutations", "all"):
        faults += mutations(count=options.count)
    print(*faults or ["all promises held"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
