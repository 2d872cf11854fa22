"""Runs a real OTLP server for tests, gRPC and HTTP, which keeps what it is sent and can answer with faults.

Independent of the package's own receivers: grpcio with typed messages and the standard library's HTTP server.
"""

from __future__ import annotations

import base64
import gzip
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace

KINDS: dict[str, tuple[str, Any, Any]] = {
    "metrics": (
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
    ),
    "logs": (
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
    ),
    "traces": (
        "opentelemetry.proto.collector.trace.v1.TraceService",
        trace.ExportTraceServiceRequest,
        trace.ExportTraceServiceResponse,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A faulty answer to the first `times` requests."""

    http_status: int = 503
    grpc_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    retry_after_s: float | None = None
    times: int = 1_000_000


class OtlpServer:
    """An OTLP server that listens on two free ports of 127.0.0.1 while its `with` block lasts.

    Args:
        fault: What to answer instead of success; None for success always.
        delay_s: How long every answer waits; a server that hangs has a large one and is woken when it stops.
    """

    def __init__(self, *, fault: Fault | None = None, delay_s: float = 0.0) -> None:
        self._fault = fault
        self._delay_s = delay_s
        self._faults_left = fault.times if fault is not None else 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self.requests: list[tuple[str, Any]] = []
        """Signal and message of every request that was answered with success, in order."""
        self.arrivals_s: list[float] = []
        """When each request came, failed ones too; monotonic seconds."""
        self.headers: list[dict[str, str]] = []
        """Of every request, names in lower case."""
        self.grpc_address = ""
        self.http_url = ""

    def __enter__(self) -> OtlpServer:
        self._threads = ThreadPoolExecutor(max_workers=4)
        self._grpc = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers(tuple(self._service(signal) for signal in KINDS))
        self.grpc_address = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http_url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._grpc.stop(0.2).wait()
        self._threads.shutdown()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_for(self, condition: Callable[[OtlpServer], bool], timeout_s: float = 10.0) -> None:
        """Until `condition` holds; asked after every request that was kept."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout_s), "the condition never held"

    def of(self, signal: str) -> list[Any]:
        """Returns the received requests of one signal."""
        return [message for kind, message in self.requests if kind == signal]

    def points(self) -> Iterator[tuple[Any, Any, Any]]:
        """Returns scope, metric and data point of everything received."""
        for request in self.of("metrics"):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            yield scope.scope, metric, point

    def log_records(self) -> Iterator[tuple[Any, Any]]:
        """Returns scope and record of all received logs."""
        for request in self.of("logs"):
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        yield scope.scope, record

    def receive(self, signal: str, message: Any, headers: dict[str, str]) -> Fault | None:
        """Keeps a request, or returns the fault that it meets."""
        with self._changed:
            self.arrivals_s.append(time.monotonic())
            self.headers.append(headers)
        self._stopped.wait(self._delay_s)
        with self._changed:
            if self._faults_left:
                self._faults_left -= 1
                return self._fault
            self.requests.append((signal, message))
            self._changed.notify_all()
        return None

    def _service(self, signal: str) -> Any:
        name, request, response = KINDS[signal]

        def export(message: Any, context: Any) -> Any:
            fault = self.receive(signal, message, dict(context.invocation_metadata()))
            if fault is not None:
                if fault.retry_after_s is not None:
                    delay = Duration(nanos=round(fault.retry_after_s * 1e9))
                    info = RetryInfo(retry_delay=delay).SerializeToString()
                    context.set_trailing_metadata((("google.rpc.retryinfo-bin", info),))
                context.abort(fault.grpc_code, "told to fail")
            return response()

        handler = grpc.unary_unary_rpc_method_handler(
            export, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        return grpc.method_handlers_generic_handler(name, {"Export": handler})


def _parse_json(signal: str, body: bytes) -> Any:
    """The message of a body of OTLP/JSON, whose ids are hexadecimal where protobuf's own JSON has base64."""

    def recode(match: re.Match[str]) -> str:
        return match[1] + base64.b64encode(bytes.fromhex(match[2])).decode() + '"'

    text = re.sub(r'("(?:traceId|spanId|parentSpanId)": ?")([0-9a-f]+)"', recode, body.decode())
    return json_format.Parse(text, KINDS[signal][1]())


def _handler(server: OtlpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            signal = self.path.removeprefix("/v1/")
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_json = headers["content-type"] == "application/json"
            message = _parse_json(signal, body) if is_json else KINDS[signal][1].FromString(body)
            fault = server.receive(signal, message, headers)
            self.send_response(200 if fault is None else fault.http_status)
            if fault is not None and fault.retry_after_s is not None:
                self.send_header("retry-after", str(math.ceil(fault.retry_after_s)))
            self.send_header("content-type", headers["content-type"])
            self.send_header("content-length", "2" if is_json else "0")
            self.send_header("connection", "close")
            self.end_headers()
            if is_json:
                self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing is printed."""

    return Handler
