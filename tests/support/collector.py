"""Runs a real Collector as a process, with the configurations of `collector-config/`, and sends telemetry to it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.processes import CLIENT, Processor, environment, until
from tests.support.programs import program

CONFIGURATIONS = Path(__file__).parent.parent.parent / "collector-config"
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def otelcol() -> Path:
    """Returns the path of the Collector's program."""
    return program("otelcol", "make collector")


def page_value(page: str, prefix: str, **labels: str) -> float:
    """Returns the sum of a Prometheus page's samples whose name begins with `prefix` and that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(prefix) and labels.items() <= sample.labels.items()
    )


@dataclass(kw_only=True)
class Collector:
    """The process `otelcol` on ports of its own, which it keeps when it is started again."""

    directory: Path
    backend: str
    """Where the back-end listens, host:port."""
    environ: Mapping[str, str] = field(default_factory=dict)
    configs: Sequence[Path] = (CONFIGURATIONS / "agent.yaml",)
    prefix: Sequence[str | Path] = ()
    """A command that runs the Collector, such as one that confines it."""
    grpc: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    drift: int = field(default_factory=free_port)
    tap: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)
    child: subprocess.Popen[bytes] | None = None

    @property
    def queue(self) -> Path:
        """The queue on disk where telemetry for the processor waits."""
        return self.directory / "queue"

    def start(self) -> None:
        """Starts the Collector, and waits until it is healthy."""
        self.directory.mkdir(parents=True, exist_ok=True)
        words = [word for path in self.configs for word in ("--config", path)]
        environ = {
            "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{self.grpc}",
            "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{self.http}",
            "DRIFT_ENDPOINT": f"127.0.0.1:{self.drift}",
            "MLMON_TAP_ENDPOINT": f"127.0.0.1:{self.tap}",
            "HEALTH_ENDPOINT": f"127.0.0.1:{self.health}",
            "COLLECTOR_METRICS_PORT": str(self.metrics),
            "BACKEND_ENDPOINT": self.backend,
            "MLMON_QUEUE_DIRECTORY": str(self.queue),
            **self.environ,
        }
        with (self.directory / "collector.txt").open("a") as log:
            command = [*self.prefix, otelcol(), *words]
            self.child = subprocess.Popen(command, env=environment(**environ), stderr=log)
        until(self._is_healthy, what="the Collector is healthy")

    def stop(self) -> int:
        """Stops the Collector by SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the Collector by SIGKILL."""
        self._end(signal.SIGKILL)

    def value(self, name: str, **labels: str) -> float:
        """Returns one of the Collector's own metrics (`otelcol_…`) over all series with these labels."""
        page = CLIENT.get(f"http://127.0.0.1:{self.metrics}/metrics").text
        return page_value(page, f"otelcol_{name}", **labels)

    def lost_points(self) -> float:
        """Counts the points for the processor that were dropped, as docs/operating.md says."""
        return self.value("exporter_enqueue_failed_metric_points", exporter="otlp_grpc/tap")

    def waiting_points(self) -> float:
        """The points that came through the tap, to the queue on disk."""
        return self.value("receiver_accepted_metric_points", receiver="otlp/tap")

    def log(self) -> str:
        """Returns the Collector's log."""
        return (self.directory / "collector.txt").read_text()

    def _is_healthy(self) -> bool:
        assert self.child is not None
        assert self.child.poll() is None, self.log()
        try:
            return CLIENT.get(f"http://127.0.0.1:{self.health}", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def _end(self, number: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(number)
        code = self.child.wait(timeout=30)
        self.child = None
        return code


@contextmanager
def collector(directory: Path, backend: str, **options: object) -> Iterator[Collector]:
    """Runs a Collector inside, and ends it at the end if it still runs."""
    running = Collector(directory=directory, backend=backend, **options)  # type: ignore[arg-type]
    running.start()
    try:
        yield running
    finally:
        if running.child is not None:
            running.kill()


@dataclass
class Sender:
    """Sends predictions as delta counts over gRPC, one request at a time, and counts what was accepted."""

    port: int
    points: int = 0
    """Data points that the Collector accepted."""
    predictions: int = 0
    slowest_s: float = 0.0
    """The longest that a request took."""
    last_ns: int = field(default_factory=time.time_ns)

    def __post_init__(self) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self._export = self._channel.unary_unary(EXPORT)

    def send(self, *, models: Sequence[str] = ("shop",), labels: int = 10, count: int = 10) -> None:
        """Sends one request: `labels` points a model, each of `count` predictions.

        Raises:
            grpc.RpcError: It was not accepted within ten seconds.
        """
        message, now_ns = ExportMetricsServiceRequest(), time.time_ns()
        resource = message.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "shop"
        scope = resource.scope_metrics.add()
        scope.scope.name = "otel_mlmon"
        total = scope.metrics.add(name="ml.predictions", unit="{prediction}").sum
        total.aggregation_temporality, total.is_monotonic = 1, True
        for model in models:
            for label in range(labels):
                point = total.data_points.add(start_time_unix_nano=self.last_ns, time_unix_nano=now_ns, as_int=count)
                point.attributes.add(key="ml.model.name").value.string_value = model
                point.attributes.add(key="ml.prediction.label").value.string_value = f"label-{label}"
        started_s = time.monotonic()
        self._export(message.SerializeToString(), timeout=10)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        self.last_ns = now_ns
        self.points += len(models) * labels
        self.predictions += len(models) * labels * count

    def close(self) -> None:
        """Closes the connection to the Collector."""
        self._channel.close()


@contextmanager
def sender(port: int) -> Iterator[Sender]:
    """Opens a sender, which is closed at the end."""
    running = Sender(port)
    try:
        yield running
    finally:
        running.close()


def received_points(running: Processor, outcome: str = "accepted") -> float:
    """Returns the number of points that a processor received since it started, by their outcome."""
    page = running.get("/metrics")
    return page_value(page, "otel_mlmon_processor_received_points", outcome=outcome)


def counted_predictions(running: Processor, model: str = "shop") -> int:
    """Returns the number of predictions in the closed panes of one model."""
    return int((running.model(model) or {"predictions": 0})["predictions"])
