"""What the processor costs: `python -m benchmarks.processor`, which writes its part of benchmarks/README.md.

Every figure is a ratio to the floor of the same run: the same requests parsed by upb (`FromString` of OTLP's own
classes) and walked, each field of each point read once. CPU is the whole process's. A model has 100 streams; each of
its senders sends one request of 100 points a pane: labels, durations, and 98 features with 30 buckets each.

In process, on a simulated clock: decoded, applied, panes closed and scored, committed, published; a commit for every 20
requests, as at a hundred requests a second. Over sockets: a whole processor in a process of its own, on the real clock,
with panes of two seconds.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import random
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon.cli.processor import calm_garbage_collector, pause_garbage_collector
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.receive.codec import parse_request
from otel_mlmon.processor.receive.data_point import TelemetryItem
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.state.sqlite import FILE_NAME
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.simulated_processor import START_NS
from otel_mlmon.types import ModelKey
from tests.support.processes import Processor, processor

T = TypeVar("T")

SECOND_NS: Final = 10**9
FEATURES: Final = 98
BUCKETS: Final = 30
POINTS: Final = FEATURES + 2
REQUESTS_A_COMMIT: Final = 20
DELTA, CUMULATIVE = 1, 2
README: Final = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- processor -->", "<!-- /processor -->"
LIMITS: Final = {"max_streams": 30_000, "max_series": 3_000_000}
CONFIGURATION: Final = {"models": {"*": {"reference": {"learn": 2_000}}}, "limits": LIMITS}


def build_request(
    model: str, sender: int, start_ns: int, end_ns: int, temporality: int, panes: int, features: int = FEATURES
) -> bytes:
    """Builds what one sender counted of a model; totals of so many panes where they are cumulative."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("service.instance.id", f"{sender}-of-{model}")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_metrics.add()
    scope.scope.name = "otel_mlmon"
    rng = np.random.default_rng(zlib.crc32(f"{model} {sender} {end_ns}".encode()))
    noise = rng.integers(0, 5, (features + 1, BUCKETS))
    buckets = (panes * (5 + np.arange(BUCKETS)) + noise).tolist()
    names = {"ml.model.name": model, "ml.model.version": "1"}
    labels = scope.metrics.add(name="ml.predictions").sum
    labels.aggregation_temporality, labels.is_monotonic = temporality, True
    point = labels.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=end_ns, as_int=500 * panes)
    set_attributes(point, {**names, "ml.prediction.label": "a"})
    durations = scope.metrics.add(name="ml.inference.duration").exponential_histogram
    inputs = scope.metrics.add(name="ml.input.feature").exponential_histogram
    durations.aggregation_temporality = inputs.aggregation_temporality = temporality
    histograms = [(durations, names, -60)]
    histograms += [(inputs, {**names, "ml.feature.name": f"feature-{n}"}, 0) for n in range(features)]
    for (data, attributes, offset), counts in zip(histograms, buckets, strict=True):
        point = data.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=end_ns, scale=3, count=sum(counts))
        point.sum, point.positive.offset = 1.5 * point.count, offset
        point.positive.bucket_counts.extend(counts)
        set_attributes(point, attributes)
    return bytes(message.SerializeToString())


START_MARK, END_MARK = 0x4D3E2F1A0B7A6B5C, 0x4D3E2F1A0B7A6B5D
"""Times that stand for others in a request which is built once and sent often."""


def set_times(template: bytes, start_ns: int, end_ns: int) -> bytes:
    """Returns a request of `START_MARK` and `END_MARK` with other times, in a few microseconds."""
    encoded = template.replace(struct.pack("<Q", START_MARK), struct.pack("<Q", start_ns))
    return encoded.replace(struct.pack("<Q", END_MARK), struct.pack("<Q", end_ns))


def set_attributes(point: Any, attributes: dict[str, str]) -> None:
    """Sets attributes of texts."""
    for key, value in attributes.items():
        point.attributes.add(key=key).value.string_value = value


def walk(body: bytes) -> int:
    """Parses a request and reads every field of every point once: the floor. Returns how many points there are."""
    fields: list[Any] = []
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        fields.append([(pair.key, pair.value.string_value) for pair in resource.resource.attributes])
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points
                fields += [walk_number(point) if kind == "sum" else walk_histogram(point) for point in points]
    return len(fields) - 1


def walk_number(point: Any) -> tuple[Any, ...]:
    """Reads the fields of a counter."""
    attributes = [(pair.key, pair.value.string_value) for pair in point.attributes]
    return attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags, point.as_int


def walk_histogram(point: Any) -> tuple[Any, ...]:
    """Reads the fields of an exponential histogram."""
    return (
        [(pair.key, pair.value.string_value) for pair in point.attributes],
        (point.start_time_unix_nano, point.time_unix_nano, point.flags),
        (point.count, point.sum, point.scale, point.zero_count, point.positive.offset),
        list(point.positive.bucket_counts),
        list(point.negative.bucket_counts),
    )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The CPU time a data point, microseconds, of one case."""

    streams: int
    senders: int
    temporality: str
    floor_us: list[float] = field(default_factory=list)
    total_us: list[float] = field(default_factory=list)
    parts_s: list[list[float]] = field(default_factory=list)
    """Of each pane, the seconds of CPU by step, as `STEPS` has them."""
    disk_bytes: int = 0
    start_s: float = 0.0

    @property
    def ratio(self) -> float:
        """To the floor, the median over panes."""
        return statistics.median(total / floor for total, floor in zip(self.total_us, self.floor_us, strict=True))

    def row(self) -> str:
        """A row of the table."""
        floor, total = statistics.median(self.floor_us), statistics.median(self.total_us)
        spent_s = [sum(step) for step in zip(*self.parts_s, strict=True)]
        steps = " | ".join(f"{self.ratio * step_s / sum(spent_s):.1f}" for step_s in spent_s)
        return (
            f"| {self.streams:,} | {self.senders} | {self.temporality} | {floor:.1f} | {total:.1f} | {self.ratio:.1f} "
            f"| {steps} | {self.disk_bytes / self.streams / 1000:.1f} | {self.start_s:.1f} |"
        )


STEPS: Final = ("decode", "add", "close, score, judge", "commit", "publish")
HEADER: Final = (
    f"| streams | senders a model | temporality | floor | all | ratio | {' | '.join(STEPS)} | kB a stream on disk "
    "| start, s of CPU |",
    f"|--:|--:|---|--:|--:|--:|{'--:|' * len(STEPS)}--:|--:|",
)


def measure(models: int, senders: int, features: int, temporality: int, *, panes: int, warm: int) -> Cost:
    """Measures `panes` panes after `warm` others, in process."""
    cost = Cost(
        streams=models * (features + 2), senders=senders, temporality="delta" if temporality == DELTA else "cumulative"
    )
    floor, total = cost.floor_us, cost.total_us
    with SimulatedProcessor(CONFIGURATION) as running:
        pipeline, directory, begin_ns = running._pipeline, Path(running._directory.name) / "data", running.now_ns
        for pane in range(warm + panes):
            running.now_ns += 10 * SECOND_NS
            end_ns = running.now_ns - SECOND_NS
            start_ns = begin_ns + 1 if temporality == CUMULATIVE else end_ns - 10 * SECOND_NS + 1
            count = pane + 1 if temporality == CUMULATIVE else 1
            bodies = [
                build_request(f"model-{model}", sender, start_ns, end_ns, temporality, count, features)
                for model in range(models)
                for sender in range(senders)
            ]
            began = time.process_time()
            points = sum(map(walk, bodies))
            walked = time.process_time()
            parts_s = [0.0] * len(STEPS)
            for first in range(0, len(bodies), REQUESTS_A_COMMIT):
                for body in bodies[first : first + REQUESTS_A_COMMIT]:
                    items = run_step(parts_s, 0, decode_body, body)
                    run_step(parts_s, 1, pipeline.apply, items)
                run_step(parts_s, 2, pipeline.advance)
                run_step(parts_s, 3, pipeline.commit)
                run_step(parts_s, 4, partial(pipeline.publish, is_busy=True))
            if pane >= warm:
                floor.append((walked - began) / points * 1e6)
                total.append(sum(parts_s) / points * 1e6)
                cost.parts_s.append(parts_s)
        size, start_s = restart(running, directory)
        return Cost(**{**cost.__dict__, "disk_bytes": size, "start_s": start_s})


def decode_body(body: bytes) -> tuple[TelemetryItem, ...]:
    """Parses and decodes a request."""
    return decode_metrics(parse_request("metrics", body, "protobuf")).items


def run_step(parts_s: list[float], step: int, work: Callable[..., T], *arguments: Any) -> T:
    """Runs one of `STEPS`, and adds the seconds of CPU that it took."""
    began_s = time.process_time()
    outcome = work(*arguments)
    parts_s[step] += time.process_time() - began_s
    return outcome


def restart(running: SimulatedProcessor, directory: Path) -> tuple[int, float]:
    """Ends a processor as `kill -9` does, and starts it: the evidence of the last minute is to be replayed.

    Returns the bytes of its database, and the seconds of CPU that the start took.
    """
    running._pipeline._repository.close()  # which moves into the database what was written ahead
    size = (directory / FILE_NAME).stat().st_size
    began_s = time.process_time()
    with pause_garbage_collector():
        running._open_pipeline()
    return size, time.process_time() - began_s


def measure_evaluation(streams: int, *, panes: int = 4) -> float:
    """Measures what it takes to add a pane of each stream to its evidence, microseconds of CPU a stream."""
    bins = HistogramBins(names=tuple("abcdefghijklm"), is_ordered=True, edges=tuple(map(float, range(12))))
    reference = ReferenceCounts(bins=bins, counts=np.full(13, 400, dtype=np.int64), origin="file")
    evaluator = DriftEvaluator(
        policy_for=lambda _: DetectionPolicy(tolerance=0.05, direction="both"), alarm_line_for=lambda _: 6.0
    )
    rng = np.random.default_rng(1)
    keys = [StreamKey(ModelKey("m", "1"), f"input.f{number}") for number in range(streams)]
    costs = []
    for pane in range(20 + panes):
        counts = rng.multinomial(500, [1 / 13] * 13, size=streams)
        windows = [
            StreamWindow(
                stream=key, start_ns=START_NS + pane * 10 * SECOND_NS, end_ns=START_NS + (pane + 1) * 10 * SECOND_NS,
                reference=reference, pane=row, rolling=row, rolling_start_ns=START_NS,
            )
            for key, row in zip(keys, counts, strict=True)
        ]  # fmt: skip
        began_s = time.process_time()
        evaluator.evaluate(windows)
        costs.append(time.process_time() - began_s)
    return statistics.median(costs[-panes:]) / streams * 1e6


def close_next_pane(running: SimulatedProcessor, models: int, features: int, *, gap_s: int = 10) -> None:
    """Lets `gap_s` seconds go by, then receives what one sender counted of each model in the last ten of them."""
    pipeline = running._pipeline
    running.now_ns += gap_s * SECOND_NS
    end_ns = running.now_ns - SECOND_NS
    for model in range(models):
        body = build_request(f"model-{model}", 0, end_ns - 10 * SECOND_NS + 1, end_ns, DELTA, 1, features)
        pipeline.apply(decode_body(body))
    pipeline.advance()
    pipeline.commit()
    pipeline.publish(is_busy=True)


def measure_day(features: int) -> str:
    """Measures what one sender's streams take on disk after a day of panes of 10 s.

    Panes older than two hours are stored by five minutes: until then one pane in five minutes comes, which leaves the
    same records.
    """
    streams = features + 2
    with SimulatedProcessor(CONFIGURATION) as running:
        for gap_s in [300] * 264 + [10] * 720:
            close_next_pane(running, 1, features, gap_s=gap_s)
        size, _ = restart(running, Path(running._directory.name) / "data")
    return (
        f"After a day in panes of 10 s, {streams} streams of one sender take {size / streams / 1000:.0f} kB each on "
        "disk (aim: 40), besides the file that SQLite writes ahead, of 4 MB for all together."
    )


def measure_start(models: int, features: int, *, starts: int = 3) -> str:
    """Measures a start with an hour of panes of 10 s in each rolling window: the median of so many starts."""
    streams = models * (features + 2)
    with SimulatedProcessor(CONFIGURATION) as running:
        directory = Path(running._directory.name) / "data"
        for _ in range(370):  # an hour, and what the references are learned from
            close_next_pane(running, models, features)
        start_s = statistics.median(restart(running, directory)[1] for _ in range(starts))
    return (
        f"A start after `kill -9` with an hour of panes of 10 s in each rolling window takes "
        f"{start_s / streams * 1000:.2f} ms of CPU a stream (aim: 0.5), of {streams:,} streams of one sender a model."
    )


PANE_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """The throughput and latency of a whole processor over sockets, at half of its capacity."""

    protocol: str
    senders: int
    floor_us: float
    total_us: float
    p99_ms: float
    requests: int
    refused: int

    def row(self) -> str:
        """A row of the table."""
        return (
            f"| {self.protocol} | {self.senders} | {self.requests:,} | {self.floor_us:.1f} | {self.total_us:.1f} "
            f"| {self.total_us / self.floor_us:.1f} | {self.p99_ms:.0f} | {self.refused} |"
        )


SERVED_HEADER: Final = (
    "| protocol | senders | requests | floor | committed | ratio | p99 of answers, ms | refused |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all threads. Source: proc(5), fields 14 and 15 of `stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def open_sender(running: Processor, protocol: str) -> Iterator[Callable[[bytes], bool]]:
    """A connection; what it yields sends a request and returns whether it was accepted."""
    if protocol == "gRPC":
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")

            def send_grpc(body: bytes) -> bool:
                try:
                    export(body, timeout=10)
                except grpc.RpcError:
                    return False
                return True

            yield send_grpc
        return
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=10)

    def send_http(body: bytes) -> bool:
        connection.request("POST", "/v1/metrics", body, {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200

    try:
        yield send_http
    finally:
        connection.close()


def serve(protocol: str, senders: int, *, seconds: float, models: int) -> Served:
    """Measures how much load a processor takes from these senders, then sends half of that for `seconds`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        processor(
            Path(folder),
            windows={"pane": f"{PANE_S:g}s", "lateness": "1s", "rolling": "1m"},
            models={"*": {"reference": {"learn": 2_000}}},
            limits=LIMITS,
        ) as running,
    ):
        assert running.child is not None
        capacity, _, _ = send_all(running, protocol, senders, models, seconds=2 * PANE_S, rate=None)
        spent_s = cpu_s(running.child.pid)
        sent, delays, refused = send_all(running, protocol, senders, models, seconds=seconds, rate=capacity / 2)
        spent_s = cpu_s(running.child.pid) - spent_s
    body = build_request("model-0", 0, 1, 2, DELTA, 1)
    began = time.process_time()
    walked = sum(walk(body) for _ in range(50))
    floor_us = (time.process_time() - began) / walked * 1e6
    requests = round(sent * seconds)
    delays.sort()
    return Served(
        protocol=protocol,
        senders=senders,
        floor_us=floor_us,
        total_us=spent_s / max(requests * POINTS, 1) * 1e6,
        p99_ms=delays[min(len(delays) - 1, round(0.99 * len(delays)))] * 1000 if delays else float("nan"),
        requests=requests,
        refused=refused,
    )


def send_all(
    running: Processor, protocol: str, senders: int, models: int, *, seconds: float, rate: float | None
) -> tuple[float, list[float], int]:
    """Sends for so many seconds; returns requests a second, the delay of each answer, and how many were refused.

    Each sender is a thread with a connection, and stands for all applications that send through one Collector. What it
    sends is built beforehand: the senders share the processor's cores, and their work would pass for its delay.
    """
    delays: list[float] = []
    refused = [0]
    gap_s = 0.0 if rate is None else senders / rate

    templates = {
        (model, sender): build_request(f"model-{model}", sender, START_MARK, END_MARK, DELTA, 1)
        for sender in range(senders)
        for model in {(number * senders + sender) % models for number in range(models)}
    }
    ends_s = time.monotonic() + seconds

    def work(sender: int) -> None:
        number = 0
        due_s = time.monotonic() + gap_s * random.random()
        with open_sender(running, protocol) as send:
            while due_s < ends_s and time.monotonic() < ends_s:
                number += 1
                now_ns = time.time_ns()
                body = set_times(
                    templates[(number * senders + sender) % models, sender], now_ns - round(PANE_S * SECOND_NS), now_ns
                )
                time.sleep(max(0.0, due_s - time.monotonic()))
                began_s = time.monotonic()
                if send(body):
                    delays.append(time.monotonic() - began_s)
                else:
                    refused[0] += 1
                due_s = max(due_s + gap_s, began_s if rate is None else due_s)

    threads = [threading.Thread(target=work, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(delays) / seconds, delays, refused[0]


EVALUATION: Final = (
    "Adding a pane to the evidence alone takes {:.0f} µs of CPU a stream of 13 bins with 100 streams, "
    "and {:.0f} with 10,000."
)


def main() -> int:
    """Measures, prints, and writes the part of benchmarks/README.md between two comments."""
    parser = argparse.ArgumentParser(prog="benchmarks.processor", description="What the processor costs a point.")
    parser.add_argument("--quick", action="store_true", help="100 streams and 1 sender only, no sockets")
    parser.add_argument("--in-process", action="store_true", help="no sockets")
    parser.add_argument("--dry-run", action="store_true", help="print the tables, write nothing")
    arguments = parser.parse_args()
    calm_garbage_collector()
    both = (DELTA, CUMULATIVE)
    cases = [
        (1, 1, 8, (DELTA,), 40, 20),
        (1, 1, FEATURES, both, 40, 10),
        (10, 1, FEATURES, (DELTA,), 30, 4),
        (100, 1, FEATURES, (DELTA,), 16, 2),
        (1, 10, FEATURES, (DELTA,), 20, 6),
        (1, 50, FEATURES, both, 22, 4),
        (10, 50, FEATURES, (DELTA,), 3, 1),
        (1, 1000, FEATURES, (DELTA,), 2, 1),
    ]
    lines = [
        "## What the processor costs",
        "",
        "Microseconds of CPU a point, written by `python -m benchmarks.processor`. The floor is the same requests "
        "parsed by upb and each field read once, in the same process. The steps are multiples of it, and add up to the "
        "ratio: where the time goes. Trust the ratios, not the digits.",
        "",
        *HEADER,
    ]
    for models, senders, features, temporalities, warm, panes in cases[1:2] if arguments.quick else cases:
        for temporality in temporalities:
            cost = measure(models, senders, features, temporality, panes=panes, warm=warm)
            lines.append(cost.row())
            print(cost.row(), file=sys.stderr)
    if not arguments.quick and not arguments.in_process:
        lines += ["", "A whole processor over sockets, at half of what it takes:", "", *SERVED_HEADER]
        for protocol in ("gRPC", "HTTP"):
            for senders in (1, 50):
                served = serve(protocol, senders, seconds=8.0, models=10)
                lines.append(served.row())
                print(served.row(), file=sys.stderr)
        print(day := measure_day(FEATURES), file=sys.stderr)
        print(start := measure_start(10, FEATURES), file=sys.stderr)
        lines += ["", day, "", start]
        few, many = measure_evaluation(100), measure_evaluation(10_000, panes=1)
        print(evaluation := EVALUATION.format(few, many), file=sys.stderr)
        lines += ["", evaluation]
    lines += ["", f"Python {platform.python_version()}, {os.cpu_count()} cores shared with others."]
    print("\n".join(lines))
    if not arguments.dry_run and not arguments.quick:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before.rstrip()}\n\n{BEGIN}\n" + "\n".join(lines) + f"\n{END}\n{after.lstrip()}", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
