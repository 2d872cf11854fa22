"""Twice the load that the processor takes, as an open loop, for `python -m benchmarks.soak overload`.

Requests come by the clock, however slow the answers are, as those of many applications do. Each is tried until it is
acknowledged: its sender waits `patience_s` for an answer, and after a refusal for as long as it was told, or longer.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import grpc
import grpc.aio
import numpy as np
from google.rpc.error_details_pb2 import RetryInfo

from tests.support.otlp_requests import DELTA, counter, request
from tests.support.processes import Processor, processor

PATIENCE_S: Final = 5.0
PANE_NS: Final = 10**9
MAX_PENDING_POINTS: Final = 500_000
"""Half of the default: less than the senders, which lag behind each other, would have wait otherwise."""
PROCESSES: Final = 200
"""Processes of applications that the requests are of, with 40 series each."""
CHANNELS: Final = 50
"""Connections over gRPC, each of several processes."""
SAMPLE_S: Final = 0.1
"""Interval at which is looked at the processor's memory, how late the senders are themselves, and for how long the
processor's threads waited for a core."""
METHOD: Final = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

Protocol: TypeAlias = Literal["http", "grpc"]


class Answer(NamedTuple):
    """The answer to one attempt."""

    status: str
    """`accepted`, `partial`, `refused`, `timeout` or another status."""
    retry_after_s: float = 0.0


class Sample(NamedTuple):
    """The state of the processor and of the senders at a moment."""

    time_s: float
    memory_bytes: int
    lag_s: float
    """How late the senders were since the moment before: they share the cores with the processor and other programs."""
    waits_s: dict[str, float]
    """For how long each thread of the processor was ready and had no core, since it began."""


@dataclass(kw_only=True)
class Load:
    """The outcomes of the requests of all senders."""

    points: int
    """Of one request."""
    patience_s: float = PATIENCE_S
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged_points: int = 0
    sent_points: int = 0
    slowest_s: dict[str, float] = field(default_factory=dict)
    """The longest time until an answer, by answer."""
    samples: list[Sample] = field(default_factory=list)
    timeouts_s: list[tuple[float, float]] = field(default_factory=list)
    """From when to when each request lasted that timed out."""

    def describe_timeout(self, begins_s: float, ends_s: float) -> str:
        """Says how far the machine was to blame for a time-out, as nobody can send or answer without a core."""
        samples = [sample for sample in self.samples if begins_s - SAMPLE_S <= sample.time_s <= ends_s + 1.0]
        if not samples:
            return "nothing is known of the machine meanwhile"
        first, last = samples[0].waits_s, samples[-1].waits_s
        wait_s = max((waited_s - first.get(thread, 0.0) for thread, waited_s in last.items()), default=0.0)
        lag_s = max(sample.lag_s for sample in samples)
        return f"the senders were late by {lag_s:.2f} s, a thread of the processor waited {wait_s:.2f} s for a core"


Send: TypeAlias = Callable[[bytes], Awaitable[Answer]]


class RequestTemplate:
    """A request of so many series of one sender, one prediction each, in which only sender and times change.

    Building each by hand would take the senders longer than the processor takes to work it off.
    """

    def __init__(self, points: int) -> None:
        message = request("ml.predictions", "sum", counter(1), points=points, temporality=DELTA)
        resource = message.resource_metrics[0]
        resource.resource.attributes.add(key="service.instance.id").value.string_value = self._name(0)
        for index, point in enumerate(resource.scope_metrics[0].metrics[0].sum.data_points):
            point.attributes.add(key="ml.prediction.label").value.string_value = f"label-{index % 40}"
            point.start_time_unix_nano, point.time_unix_nano = 2**62 + index, 2**63 + index
        self._body = bytes(message.SerializeToString())
        self._name_place = self._body.index(self._name(0).encode())
        places = [self._body.index(struct.pack("<Q", 2**62 + index)) for index in range(points)]
        places += [self._body.index(struct.pack("<Q", 2**63 + index)) for index in range(points)]
        self._places = np.array(places)[:, None] + np.arange(8)
        self._offsets = np.concatenate([np.arange(points) - PANE_NS, np.arange(points)])

    def build(self, sender: int, time_ns: int) -> bytes:
        """Builds the request of a process that ends at a time."""
        body = np.frombuffer(self._body, dtype=np.uint8).copy()
        body[self._places] = (self._offsets + time_ns).astype("<u8").view(np.uint8).reshape(-1, 8)
        name = np.frombuffer(self._name(sender).encode(), dtype=np.uint8)
        body[self._name_place : self._name_place + name.size] = name
        return body.tobytes()

    @staticmethod
    def _name(sender: int) -> str:
        return f"load-{sender:06d}"


@asynccontextmanager
async def http_sender(running: Processor, patience_s: float) -> AsyncIterator[Send]:
    """Yields what sends a request over HTTP, on a connection of its own."""

    async def exchange(body: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http)
        try:
            head = (
                f"POST /v1/metrics HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
            )
            writer.write(head.encode() + b"content-type: application/x-protobuf\r\n\r\n" + body)
            await writer.drain()
            head_text, _, content = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        lines = head_text.decode("latin-1").lower().split("\r\n")
        status = lines[0].split()[1] if lines[0] else "closed"
        delays = [float(line.partition(":")[2]) for line in lines if line.startswith("retry-after:")]
        name = {"200": "partial" if content else "accepted", "429": "refused"}.get(status, status)
        return Answer(name, delays[0] if delays else 0.0)

    async def send(body: bytes) -> Answer:
        try:
            return await asyncio.wait_for(exchange(body), patience_s)
        except asyncio.TimeoutError:
            return Answer("timeout")
        except OSError:
            return Answer("closed")

    yield send


@asynccontextmanager
async def grpc_sender(running: Processor, patience_s: float) -> AsyncIterator[Send]:
    """Yields what sends a request over gRPC, on a connection of several processes as the Collector's is."""
    target, options = f"127.0.0.1:{running.grpc}", [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options) for _ in range(CHANNELS)]
    calls: Any = itertools.cycle([channel.unary_unary(METHOD) for channel in channels])

    async def send(body: bytes) -> Answer:
        try:
            return Answer("partial" if await next(calls)(body, timeout=patience_s) else "accepted")
        except grpc.aio.AioRpcError as error:
            trailer: Any = dict(error.trailing_metadata() or ()).get("google.rpc.retryinfo-bin")
            delay_s = RetryInfo.FromString(trailer).retry_delay.ToTimedelta().total_seconds() if trailer else 0.0
            code = error.code()
            names = {grpc.StatusCode.RESOURCE_EXHAUSTED: "refused", grpc.StatusCode.DEADLINE_EXCEEDED: "timeout"}
            return Answer(names.get(code, code.name), delay_s)

    try:
        yield send
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


SENDERS: Final[dict[Protocol, Callable[[Processor, float], AbstractAsyncContextManager[Send]]]] = {
    "http": http_sender,
    "grpc": grpc_sender,
}


async def attempt(send: Send, body: bytes, load: Load) -> Answer:
    """Sends a request once, and notes what came of it."""
    begins_s = time.monotonic()
    answer = await send(body)
    load.answers[answer.status] += 1
    if answer.status == "timeout":
        load.timeouts_s.append((begins_s, time.monotonic()))
    load.acknowledged_points += load.points if answer.status == "accepted" else 0
    load.slowest_s[answer.status] = max(load.slowest_s.get(answer.status, 0.0), time.monotonic() - begins_s)
    return answer


async def deliver(send: Send, body: bytes, load: Load) -> None:
    """Sends a request until it is acknowledged."""
    while (answer := await attempt(send, body, load)).status not in ("accepted", "partial"):
        await asyncio.sleep(max(answer.retry_after_s, 0.5) * random.uniform(1.0, 2.0))


async def measure_capacity(send: Send, load: Load, *, seconds: float) -> float:
    """Returns the requests a second that eight patient senders get through, one after another."""
    template, numbers = RequestTemplate(load.points), itertools.count()
    ends_s = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < ends_s:
            await attempt(send, template.build(next(numbers) % PROCESSES, time.time_ns()), load)

    await asyncio.gather(*(work() for _ in range(8)))
    if set(load.answers) != {"accepted"}:
        raise RuntimeError(f"eight senders were answered {dict(load.answers)}")
    return load.answers["accepted"] / seconds


async def offer(send: Send, load: Load, *, rate: float, seconds: float) -> None:
    """Begins requests at a rate, whatever became of those before, and waits until each has been acknowledged."""
    template = RequestTemplate(load.points)
    deliveries: list[asyncio.Task[None]] = []
    begins_s = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, begins_s + number / rate - time.monotonic()))
        if time.monotonic() - begins_s >= seconds:
            break
        deliveries.append(asyncio.create_task(deliver(send, template.build(number % PROCESSES, time.time_ns()), load)))
        load.sent_points += load.points
    await asyncio.gather(*deliveries)


async def watch(running: Processor, load: Load) -> None:
    """Takes samples of the processor and of this loop, until it is cancelled."""
    while True:
        begins_s = time.monotonic()
        await asyncio.sleep(SAMPLE_S)
        now_s = time.monotonic()
        lag_s = now_s - begins_s - SAMPLE_S
        load.samples.append(Sample(now_s, resident_bytes(running), lag_s, read_waits(running)))


def read_waits(running: Processor) -> dict[str, float]:
    """Returns for how long each thread of the processor was ready to run and had no core, in seconds."""
    assert running.child is not None
    waits_s: dict[str, float] = {}
    for path in Path(f"/proc/{running.child.pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            waits_s[path.parent.name] = int(path.read_text(encoding="utf-8").split()[1]) / 1e9
    return waits_s


def resident_bytes(running: Processor) -> int:
    """Returns the processor's resident memory."""
    assert running.child is not None
    fields = Path(f"/proc/{running.child.pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in fields.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def overload(
    *,
    seconds: float,
    points: int = 500,
    warm_up_s: float = 5.0,
    protocol: Protocol = "http",
    patience_s: float = PATIENCE_S,
) -> list[str]:
    """Offers twice the capacity; returns what was promised and not held."""
    sections = {
        "windows": {"pane": "1s", "lateness": "15s", "rolling": "1h"},
        "limits": {"max_pending_points": MAX_PENDING_POINTS},
    }
    warm_up = Load(points=points, patience_s=60.0)
    load = Load(points=points, patience_s=patience_s)
    with tempfile.TemporaryDirectory() as folder, processor(Path(folder), **sections) as running:

        async def run() -> float:
            async with SENDERS[protocol](running, warm_up.patience_s) as send:
                capacity = await measure_capacity(send, warm_up, seconds=warm_up_s)
            async with SENDERS[protocol](running, patience_s) as send:
                watching = asyncio.create_task(watch(running, load))
                await offer(send, load, rate=2 * capacity, seconds=seconds)
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
            return capacity

        capacity = asyncio.run(run())
        total = sum(load.answers.values())
        print(f"overload over {protocol}: {2 * capacity:.1f} requests/s of {points} points for {seconds:g} s")
        print(f"  answers {dict(load.answers)}, the slowest in s {load.slowest_s}")
        memory = [sample.memory_bytes for sample in load.samples]
        print(f"  memory {memory[0] >> 20} to {max(memory) >> 20} MiB")
        print(f"  the senders themselves were late by {max(sample.lag_s for sample in load.samples):.2f} s at most")
        for begins_s, ends_s in load.timeouts_s:
            print(f"  a time-out after {ends_s - begins_s:.2f} s: {load.describe_timeout(begins_s, ends_s)}")

        def counted() -> int:
            document = running.model("fraud") or {}
            return int(document.get("predictions") or 0) - warm_up.acknowledged_points

        ends_s = time.monotonic() + 120
        while counted() != load.sent_points and time.monotonic() < ends_s:
            time.sleep(0.5)
        print(
            f"  points sent {load.sent_points}, acknowledged {load.acknowledged_points}, counted {counted()}",
            flush=True,
        )
        timeouts = load.answers["timeout"]
        growth_bytes = max(memory) - memory[0]
        checks = {
            f"{timeouts} of {total} requests timed out": timeouts > 0,
            f"of {load.sent_points} points {counted()} were counted": counted() != load.sent_points,
            "points were answered with a partial success": load.answers["partial"] > 0,
            f"memory grew by {growth_bytes} bytes": growth_bytes > 512 * 2**20,
        }
        return [fault for fault, is_broken in checks.items() if is_broken]
