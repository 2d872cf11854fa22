"""What several cases need: verdicts, small models, programs to watch, receivers, a processor to talk to.

Everything listens on 127.0.0.1, on ports that nobody uses.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from tests.support.ports import free_port

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anybody imports onnxruntime
if "MLMON_CASE_PROGRAM" not in os.environ:  # a case's own process sends nothing anywhere; the programs it starts do
    for setting in [name for name in os.environ if name.startswith(("OTEL_", "SENTRY_"))]:
        del os.environ[setting]
    os.environ.update({f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")})

SECOND_NS = 10**9
CUMULATIVE, DELTA = 2, 1
CASES = Path(__file__).resolve().parent
ROOT = CASES.parents[1]
FAILED_STATUS = 2  # of a span, on the wire


# --- verdicts ---------------------------------------------------------------------------------------------------------


class Checks:
    """Collects what was expected and what came; `finish()` ends the case."""

    def __init__(self) -> None:
        self._wrong: list[str] = []

    def that(self, expected: str, is_right: Any, came: object) -> None:
        """One expectation; `came` is printed beside it."""
        print(f"{'right' if is_right else 'WRONG'}: expected {expected}; came {came}", flush=True)
        if not is_right:
            self._wrong.append(f"expected {expected}; came {came}")

    def finish(self) -> NoReturn:
        """The last line, and the exit status."""
        if self._wrong:
            more = f" (and {len(self._wrong) - 1} more)" if len(self._wrong) > 1 else ""
            print(self._wrong[0] + more, flush=True)
            raise SystemExit(1)
        print("all as expected", flush=True)
        raise SystemExit(0)


def skip(reason: str) -> NoReturn:
    """The case cannot run here."""
    print(reason, flush=True)
    raise SystemExit(77)


# --- programs ---------------------------------------------------------------------------------------------------------


def run_program(
    source: str, *arguments: object, environment: dict[str, str] | None = None, time_limit: float = 60
) -> subprocess.CompletedProcess[str]:
    """A Python program of its own, in a temporary directory, under the interpreter of this one."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program.py"
        program.write_text(textwrap.dedent(source))
        return subprocess.run(
            [sys.executable, str(program), *map(str, arguments)],
            cwd=directory,
            env=environment_for_programs(environment),
            capture_output=True,
            text=True,
            timeout=time_limit,
            check=False,
        )


def environment_for_programs(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of telemetry, with `support` importable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SENTRY_")) and name != "PYTHONPATH"
    }
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(CASES))),
        "ORT_DISABLE_TELEMETRY": "1",
        "MLMON_CASE_PROGRAM": "1",
        **(more or {}),
    }


def wait_until(is_so: Any, *, time_limit: float, every: float = 0.2) -> bool:
    """Whether `is_so()` came true in time."""
    end = time.monotonic() + time_limit
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(every)
    return bool(is_so())


# --- models -----------------------------------------------------------------------------------------------------------


def identity_model(outputs: dict[str, tuple[str, list[Any]]], metadata: dict[str, str] | None = None) -> bytes:
    """A model that gives back its inputs `in_<name>` as its outputs: {name: (numpy type, declared shape)}."""
    import numpy as np
    from onnx import helper

    def value(name: str, kind: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)

    nodes = [helper.make_node("Identity", [f"in_{name}"], [name]) for name in outputs]
    inputs = [value(f"in_{name}", kind, shape) for name, (kind, shape) in outputs.items()]
    return model_of(nodes, inputs, [value(name, *said) for name, said in outputs.items()], metadata=metadata)


def model_of(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    *,
    constants: Any = (),
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A model from parts made by `onnx.helper`; `constants` is {name: array}."""
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "case", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for name, text in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    return bytes(model.SerializeToString())


def text_classifier(labels: list[str], metadata: dict[str, str] | None = None) -> bytes:
    """One column a class in, the text label of the greatest out: how scikit-learn classifiers end in ONNX."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml",
            keys_int64s=list(range(len(labels))), values_strings=labels,
        ),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(labels)])]
    outputs = [helper.make_tensor_value_info("label", TensorProto.STRING, ["N"])]
    return model_of(nodes, inputs, outputs, metadata=metadata)


def softmax(scores: Any) -> Any:
    """Probabilities over the last axis."""
    import numpy as np

    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def points_of(metrics: dict[str, Any], name: str) -> list[Any]:
    """The data points of one metric of `otel_mlmon.testing.capture()`; none where it is not there."""
    return list(metrics[name].data.data_points) if name in metrics else []


# --- receivers --------------------------------------------------------------------------------------------------------


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that went away is no news."""


class Server:
    """A small HTTP server; `answer(path, headers, body)` gives (status, body)."""

    def __init__(self, port: int = 0) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                status, body = outer.answer(self.path, dict(self.headers.items()), read_body(self))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = _QuietServer(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        raise NotImplementedError

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, whether its length is said or it comes in chunks, decompressed."""
    if request.headers.get("content-length") is not None:
        body = request.rfile.read(int(request.headers["content-length"]))
    else:
        body = b""
        while size := int(request.rfile.readline().strip() or b"0", 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    encoding = request.headers.get("content-encoding", "")
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


class Received:
    """What came over OTLP: spans, log records, and the last state of every cumulative series."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.events: list[Any] = []
        self.series: dict[tuple[Any, ...], Any] = {}
        self.bytes = bytearray()
        self._lock = threading.Lock()

    def take(self, signal_name: str, body: bytes) -> None:
        with self._lock:
            self.bytes += body
            if signal_name == "traces":
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            elif signal_name == "logs":
                from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

                for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self.events += [record for scope in resource.scope_logs for record in scope.log_records]
            elif signal_name == "metrics":
                self._take_metrics(body)

    def _take_metrics(self, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            sender = attributes_of(resource.resource).get("service.instance.id")
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    said = tuple(sorted((name, str(value)) for name, value in attributes_of(point).items()))
                    self.series[metric.name, sender, point.start_time_unix_nano, said] = point

    def points(self, name: str, **attributes: str) -> list[tuple[dict[str, Any], Any]]:
        """(attributes, last point) of each series of a metric; `model="a"` asks for `ml.model.name` a."""
        with self._lock:
            found = [(attributes_of(point), point) for key, point in self.series.items() if key[0] == name]
        wanted = attributes.get("model")
        return [each for each in found if wanted is None or each[0].get("ml.model.name") == wanted]

    def calls(self, model: str | None = None) -> int:
        """Inferences in the latency histogram."""
        asked = {} if model is None else {"model": model}
        return sum(point.count for _, point in self.points("ml.inference.duration", **asked))

    def labels(self, model: str | None = None) -> dict[str, int]:
        """Predictions counted, by label."""
        asked = {} if model is None else {"model": model}
        counts: dict[str, int] = {}
        for said, point in self.points("ml.predictions", **asked):
            label = str(said.get("ml.prediction.label"))
            counts[label] = counts.get(label, 0) + int(point.as_int or point.as_double)
        return counts


class OtlpSink(Received):
    """An OTLP endpoint, over gRPC or HTTP, that keeps what came."""

    def __init__(self, protocol: str = "grpc") -> None:
        super().__init__()
        self.protocol = protocol
        if protocol == "grpc":
            self.port = self._serve_grpc()
        else:
            outer = self

            class Http(Server):
                def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
                    outer.take(path.rsplit("/", 1)[-1], body)
                    return 200, b""

            self._http = Http()
            self.port = self._http.port

    def _serve_grpc(self) -> int:
        import grpc

        services = {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
        }
        outer = self

        class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> Any:
                name = services.get(details.method)
                if name is None:
                    return None

                def export(body: bytes, _: Any) -> bytes:
                    outer.take(name, body)
                    return b""

                return grpc.unary_unary_rpc_method_handler(export)

        options = [("grpc.max_receive_message_length", 64 << 20)]
        self._grpc = grpc.server(ThreadPoolExecutor(4), handlers=[Handlers()], options=options)
        port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        return int(port)

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told to send here; metrics at its end, or when it flushes."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if self.protocol == "grpc" else "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        }

    def __enter__(self) -> OtlpSink:
        return self

    def __exit__(self, *_: object) -> None:
        if self.protocol == "grpc":
            self._grpc.stop(0)
        else:
            self._http.stop()


def attributes_of(message: Any) -> dict[str, Any]:
    """The attributes of an OTLP message."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in message.attributes
    }


class SentryReceiver(Server):
    """Takes Sentry's envelopes, and OTLP that is sent to Sentry."""

    def __init__(self, port: int = 0) -> None:
        self.items: list[tuple[str, Any]] = []
        """(type of the item, its body), such as ("event", {...})."""
        self.otlp = Received()
        super().__init__(port)

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.port}/1"

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if "/envelope" in path:
            self.items += list(_envelope_items(body))
        elif "traces" in path:
            self.otlp.take("traces", body)
        return 200, b"{}"

    def of(self, kind: str) -> list[Any]:
        """The bodies of one type of item."""
        return [body for its_kind, body in self.items if its_kind == kind]


def _envelope_items(data: bytes) -> Iterator[tuple[str, Any]]:
    place = data.find(b"\n") + 1
    while 0 < place < len(data):
        end = data.find(b"\n", place)
        if end < 0:
            return
        line, place = data[place:end].strip(), end + 1
        if not line:
            continue
        header = json.loads(line)
        if "length" in header:
            body, place = data[place : place + header["length"]], place + header["length"] + 1
        else:
            end = data.find(b"\n", place)
            body, place = (data[place:], len(data)) if end < 0 else (data[place:end], end + 1)
        try:
            yield header["type"], json.loads(body)
        except ValueError:
            yield header["type"], None


class WebhookReceiver(Server):
    """Takes the processor's webhooks, in the order they come."""

    def __init__(self, port: int = 0) -> None:
        self.alerts: list[dict[str, Any]] = []
        super().__init__(port)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.alerts.append(json.loads(body))
        return 200, b"{}"


# --- OTLP requests ----------------------------------------------------------------------------------------------------


class MetricsRequest:
    """An OTLP metrics request as an application would send it."""

    def __init__(self, sender: str = "worker-1") -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        self.message = ExportMetricsServiceRequest()
        resource = self.message.resource_metrics.add()
        _set_attributes(resource.resource, {"service.name": "shop", "service.instance.id": sender})
        self._scope = resource.scope_metrics.add()
        self._scope.scope.name = "otel_mlmon"

    def predictions(
        self,
        label: str,
        count: int,
        start_ns: int,
        end_ns: int,
        *,
        model: str,
        version: str = "1",
        temporality: int = DELTA,
    ) -> MetricsRequest:
        """`count` predictions of one label."""
        metric = self._scope.metrics.add(name="ml.predictions", unit="{prediction}")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, True
        point = metric.sum.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=end_ns, as_int=count)
        _set_attributes(point, {**_model(model, version), "ml.prediction.label": label})
        return self

    def durations(
        self, seconds: float, count: int, start_ns: int, end_ns: int, *, model: str, version: str = "1"
    ) -> MetricsRequest:
        """`count` calls of about so many seconds each."""
        import math

        metric = self._scope.metrics.add(name="ml.inference.duration", unit="s")
        self._exponential(metric, math.ceil(math.log2(seconds)) - 1, [count], start_ns, end_ns, _model(model, version))
        return self

    def feature(
        self,
        name: str,
        counts: list[int],
        start_ns: int,
        end_ns: int,
        *,
        model: str,
        version: str = "1",
        temporality: int = DELTA,
        offset: int = 0,
    ) -> MetricsRequest:
        """Values of a numeric input feature, as counts of the buckets (2^k/8, 2^(k+1)/8] from `offset` on."""
        metric = self._scope.metrics.add(name="ml.input.feature", unit="1")
        said = {**_model(model, version), "ml.feature.name": name}
        self._exponential(metric, offset, counts, start_ns, end_ns, said, scale=3, temporality=temporality)
        return self

    def category(
        self, feature: str, value: str, count: int, start_ns: int, end_ns: int, *, model: str, version: str = "1"
    ) -> MetricsRequest:
        """`count` sightings of one value of a categorical feature."""
        metric = self._scope.metrics.add(name="ml.input.category", unit="{sample}")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = DELTA, True
        point = metric.sum.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=end_ns, as_int=count)
        said = {**_model(model, version), "ml.feature.name": feature, "ml.feature.value": value}
        _set_attributes(point, said)
        return self

    def _exponential(
        self,
        metric: Any,
        offset: int,
        counts: list[int],
        start_ns: int,
        end_ns: int,
        said: dict[str, str],
        *,
        scale: int = 0,
        temporality: int = DELTA,
    ) -> None:
        metric.exponential_histogram.aggregation_temporality = temporality
        point = metric.exponential_histogram.data_points.add(
            start_time_unix_nano=start_ns, time_unix_nano=end_ns, scale=scale, count=sum(counts)
        )
        point.positive.offset = offset
        point.positive.bucket_counts.extend(counts)
        _set_attributes(point, said)

    def body(self) -> bytes:
        return bytes(self.message.SerializeToString())


def _model(name: str, version: str) -> dict[str, str]:
    return {"ml.model.name": name, "ml.model.version": version}


def _set_attributes(message: Any, said: dict[str, str]) -> None:
    for name, value in said.items():
        message.attributes.add(key=name).value.string_value = value


# --- the processor ----------------------------------------------------------------------------------------------------


class Processor:
    """The processor as a user runs it, in a temporary directory, its state kept over `start()` and `kill()`."""

    def __init__(self, configuration: dict[str, Any] | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.directory = Path(self._directory.name)
        self.grpc_port, self.http_port, self.web_port = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        document = {
            "receiver": {"grpc": f"127.0.0.1:{self.grpc_port}", "http": f"127.0.0.1:{self.http_port}"},
            "web": {"listen": f"127.0.0.1:{self.web_port}"},
            "storage": {"path": str(self.directory / "data")},
            **(configuration or {}),
        }
        self._configuration = self.directory / "mlmon.yaml"
        self._configuration.write_text(json.dumps(document))  # JSON is YAML

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "otel_mlmon", "processor", "--config", str(self._configuration)],
                stdout=log,
                stderr=log,
                env=environment_for_programs(),
            )
        if not wait_until(self._is_ready, time_limit=40, every=0.1):
            raise RuntimeError("the processor did not start:\n" + self.log())

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz", time_limit=2)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> Processor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    def get(self, path: str, *, time_limit: float = 10) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=time_limit)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def models(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/api/v1/models")[1])["models"])

    def rule(self, model: str, rule: str) -> str | None:
        """The state of one rule of a model, such as "firing"."""
        rules = self.models().get(model, {}).get("rules", [])
        return next((each["state"] for each in rules if each["rule"] == rule), None)

    def post(self, request: MetricsRequest | bytes, *, time_limit: float = 20) -> tuple[int, bytes]:
        """Status and body of the answer to OTLP over HTTP."""
        body = request if isinstance(request, bytes) else request.body()
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=time_limit)
        try:
            connection.request("POST", "/v1/metrics", body, {"content-type": "application/x-protobuf"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told to send here, each second."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.http_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }


def rejected_points(answer: bytes) -> int:
    """How many points the partial success of an answer says were rejected."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    return int(ExportMetricsServiceResponse.FromString(answer).partial_success.rejected_data_points)


# --- the backtest command ---------------------------------------------------------------------------------------------


def backtest(reference: str | Path, data: str | Path, *arguments: str, time_limit: float = 90) -> tuple[int, Any, str]:
    """Exit status, report (None where there is none), and all the words of `otel-mlmon backtest … --json`."""
    command = [sys.executable, "-m", "otel_mlmon", "backtest", "--reference", str(reference), "--data", str(data)]
    done = subprocess.run(
        [*command, "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=time_limit,
        check=False,
        env=environment_for_programs(),
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = None
    return done.returncode, report, done.stdout + done.stderr


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    """A CSV file of columns of equal length."""
    rows = zip(*(map(str, column) for column in columns.values()), strict=True)
    path.write_text("\n".join([",".join(columns), *map(",".join, rows)]) + "\n")
    return path


def status_of(report: Any, stream: str) -> str | None:
    """The status of one column in a report; None where it is not there."""
    return next((each["state"] for each in (report or {}).get("streams", []) if each["stream"] == stream), None)
