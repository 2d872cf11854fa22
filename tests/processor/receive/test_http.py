from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from starlette.requests import Request

from otel_mlmon.errors import ConfigurationError, OverloadedError, PortUnavailableError
from otel_mlmon.processor.connections import TlsFiles
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.data_point import DataPoint, Rejections, TelemetryItem
from otel_mlmon.processor.receive.http import (
    ANSWER_TIMEOUT_S,
    BACKLOG,
    BODY_TIMEOUT_S,
    JSON,
    KEEP_ALIVE_S,
    PROTOBUF,
    WORKERS,
    HttpReceiver,
)
from otel_mlmon.processor.receive.recent_requests import hash_body
from tests.support.certificates import make_certificate
from tests.support.observations import list_points
from tests.support.otlp_requests import counter, new_predictions, predictions, request
from tests.support.processes import until

BODY = predictions(points=2).SerializeToString()
NO_PATH = "There is no such path; send OTLP to one of /v1/metrics, /v1/logs, /v1/traces."
ONLY_POST = "Only POST is supported; send the request with POST."


class Store:
    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.items: list[DataPoint] = []
        self.arrivals_s: list[float] = []

    def deliver(self, items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        self.arrivals_s.append(time.monotonic())
        done: Future[Rejections] = Future()
        if self.faults:
            done.set_exception(self.faults.pop(0))
        else:
            self.items += list_points(items)
            done.set_result({})
        return done


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    receivers: list[HttpReceiver] = []

    def start(deliver: Any, *, admission: RequestAdmission | None = None, **options: Any) -> str:
        receivers.append(HttpReceiver(admission or RequestAdmission(deliver), "127.0.0.1:0", **options))
        return receivers[-1].start()

    yield start
    for receiver in receivers:
        receiver.stop(1.0)


def post(
    address: str, body: bytes = BODY, *, path: str = "/v1/metrics", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=10)
    sent = {"content-type": PROTOBUF, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    response = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return response


def refused(response: tuple[int, dict[str, str], bytes]) -> tuple[int, int, str]:
    """HTTP status, and code and message of the body, which is a Status."""
    code, headers, body = response
    assert headers["content-type"] == PROTOBUF
    status = Status.FromString(body)
    return code, status.code, status.message


def answer(response: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """Everything that an error says: status, code, message, retry delays, and whether the connection is closed."""
    code, headers, body = response
    status = Status.FromString(body)
    delay = RetryInfo()
    delays_s = [delay.retry_delay.ToTimedelta().total_seconds() for item in status.details if item.Unpack(delay)]
    error = {"status": code, "code": status.code, "message": status.message, "delays_s": delays_s}
    return error | {name: headers[name] for name in ("retry-after", "connection") if name in headers}


def test_the_three_paths_answer_in_protobuf(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    for path in ("/v1/metrics", "/v1/logs", "/v1/traces"):
        code, headers, body = post(address, b"", path=path)
        assert (code, headers["content-type"], body) == (200, PROTOBUF, b"")
    assert post(address)[0] == 200
    assert len(store.items) == 2


def test_partial_success_says_how_many_and_why(serve: Callable[..., str]) -> None:
    body = request("ml.predictions", "gauge", counter(1), points=2).SerializeToString()
    code, _, answer = post(serve(Store().deliver), body)
    partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    assert (code, partial.rejected_data_points, partial.error_message) == (200, 2, "wrong_type: 2")


@pytest.mark.parametrize("compression", list(Compression))
def test_the_sdks_exporter_is_understood(serve: Callable[..., str], compression: Compression) -> None:
    store = Store()
    exporter = OTLPMetricExporter(f"http://{serve(store.deliver)}/v1/metrics", compression=compression)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    provider.get_meter("otel_mlmon").create_counter("ml.predictions").add(5, {"ml.model.name": "fraud"})
    provider.shutdown()
    assert [(response.identity.metric, response.value.sketch) for response in store.items] == [("ml.predictions", 5)]


def test_the_sdks_exporter_waits_as_long_as_it_is_told(serve: Callable[..., str]) -> None:
    store = Store(OverloadedError("full", retry_after_s=1.2))
    exporter = OTLPMetricExporter(f"http://{serve(store.deliver)}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    provider.get_meter("otel_mlmon").create_counter("ml.predictions").add(5, {"ml.model.name": "fraud"})
    provider.force_flush()
    first_s, second_s = store.arrivals_s[:2]
    provider.shutdown()
    assert store.items[0].value.sketch == 5
    assert 1.9 < second_s - first_s < 2.5  # whole seconds, rounded up


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "code", "message"),
    [
        ("/v1/profiles", "POST", {}, 404, 12, NO_PATH),
        ("/v1/metrics/", "POST", {}, 404, 12, NO_PATH),
        ("/", "GET", {}, 404, 12, NO_PATH),
        ("/v1/metrics", "GET", {}, 405, 12, ONLY_POST),
        ("/v1/metrics", "PUT", {}, 405, 12, ONLY_POST),
        ("/v1/logs", "DELETE", {}, 405, 12, ONLY_POST),
        ("/v1/metrics", "POST", {"content_type": "text/plain"}, 415, 3,
         "Content type text/plain is not supported; send one of application/x-protobuf, application/json."),
        ("/v1/metrics", "POST", {"content_type": ""}, 415, 3,
         "Content type none is not supported; send one of application/x-protobuf, application/json."),
        ("/v1/metrics", "POST", {"content_encoding": "br"}, 415, 3,
         "Content encoding br is not supported; send one of identity, gzip, deflate, zstd."),
        ("/v1/metrics", "POST", {"content_encoding": "gzip"}, 400, 3, "The body is not valid gzip."),
        ("/v1/metrics", "POST", {"content_encoding": "deflate"}, 400, 3, "The body is not valid deflate."),
    ],
)  # fmt: skip
def test_what_is_not_spoken_is_answered_with_a_status(
    serve: Callable[..., str], path: str, method: str, headers: Any, status: int, code: int, message: str
) -> None:
    response = post(serve(Store().deliver), path=path, method=method, **headers)
    assert answer(response) == {"status": status, "code": code, "message": message, "delays_s": []}
    assert response[1]["content-type"] == PROTOBUF
    assert response[1].get("allow") == ("POST" if status == 405 else None)
    is_encoding = headers.get("content_encoding") == "br"
    assert response[1].get("accept-encoding") == ("identity, gzip, deflate, zstd" if is_encoding else None)


def test_types_and_encodings_are_read_without_case_and_parameters(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    headers = {"content_type": "Application/X-Protobuf; v=1", "content_encoding": " GZIP "}
    assert post(address, gzip.compress(BODY), **headers)[0] == 200
    assert post(address, new_predictions(points=2), content_encoding="")[0] == 200
    assert len(store.items) == 4


def test_json_is_understood_and_answered_in_json(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    text = metrics_json({"asInt": "5"}, {"asInt": "-1"})
    code, headers, body = post(address, text, content_type="application/json; charset=utf-8")
    partial = {"partialSuccess": {"rejectedDataPoints": "1", "errorMessage": "bad_value: 1"}}
    assert (code, headers["content-type"], json.loads(body)) == (200, JSON, partial)
    assert [item.value.sketch for item in store.items] == [5]
    assert post(address, b"{}", content_type=JSON)[::2] == (200, b"{}")
    assert post(address, gzip.compress(b"{}"), content_type=JSON, content_encoding="gzip", path="/v1/traces")[0] == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"", "not JSON"), (b"[]", "the document: not an object"), (b'{"resourceMetrics": 1}', "not an array")],
)
def test_what_is_not_otlp_json_is_a_status_in_json(serve: Callable[..., str], body: bytes, why: str) -> None:
    code, headers, answer = post(serve(Store().deliver), body, content_type=JSON)
    status = json.loads(answer)
    assert (code, headers["content-type"], status["code"], set(status)) == (400, JSON, 3, {"code", "message"})
    assert why in status["message"]


def test_what_may_be_sent_again_says_when_in_json_too(serve: Callable[..., str]) -> None:
    address = serve(Store(OverloadedError("full", retry_after_s=2.5)).deliver)
    code, headers, body = post(address, metrics_json({"asInt": 5}), content_type=JSON)
    assert (code, headers["retry-after"]) == (429, "3")
    status = json_format.Parse(body, Status())
    delay = RetryInfo()
    assert status.details[0].Unpack(delay)
    assert (status.code, status.message, delay.retry_delay.ToTimedelta().total_seconds()) == (8, "full", 2.5)


def test_zstd_is_understood(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    assert post(address, zstandard.compress(BODY), content_encoding="zstd")[0] == 200
    assert post(address, zstandard.compress(BODY)[:-1], content_encoding="zstd")[0] == 400
    assert len(store.items) == 2


def metrics_json(*points: dict[str, Any]) -> bytes:
    """Points of `ml.predictions` in OTLP JSON."""
    name = {"key": "ml.model.name", "value": {"stringValue": "fraud"}}
    common = {"timeUnixNano": "2", "startTimeUnixNano": "1", "attributes": [name]}
    total = {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [{**common, **point} for point in points]}
    scope = {"metrics": [{"name": "ml.predictions", "sum": total, "unknownKey": {}}]}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [scope]}]}).encode()


def test_what_is_not_protobuf_is_a_bad_request(serve: Callable[..., str]) -> None:
    address = serve(Store().deliver)
    assert refused(post(address, b"\xff\xff"))[:2] == (400, 3)
    cut_off = gzip.compress(BODY)[:-4]
    assert refused(post(address, cut_off, content_encoding="gzip"))[2] == "The compressed body is truncated."


def test_the_limit_holds_before_and_after_decompression(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver, admission=RequestAdmission(store.deliver, max_request_bytes=10_000))
    small = request("x" * 9_000, "sum", counter(1)).SerializeToString()
    large = request("x" * 10_000, "sum", counter(1)).SerializeToString()
    for compress, encoding in ((bytes, "identity"), (gzip.compress, "gzip"), (zlib.compress, "deflate")):
        assert post(address, compress(small), content_encoding=encoding)[0] == 200
        assert refused(post(address, compress(large), content_encoding=encoding))[:2] == (413, 8)


def test_the_limit_on_a_body_is_exact_as_sent_and_as_decompressed(serve: Callable[..., str]) -> None:
    for body, encoding in ((BODY, "identity"), (zlib.compress(BODY * 30), "deflate")):
        size_bytes = len(BODY * 30) if encoding == "deflate" else len(BODY)
        for limit_bytes, status in ((size_bytes, 200), (size_bytes - 1, 413)):
            store = Store()
            address = serve(store.deliver, admission=RequestAdmission(store.deliver, max_request_bytes=limit_bytes))
            response = post(address, body, content_encoding=encoding)
            assert response[0] == status
            if status == 413:
                message = f"The body is larger than {limit_bytes} bytes when decompressed. Send smaller batches."
                assert answer(response) == {
                    "status": 413, "code": 8, "message": message, "delays_s": [], "connection": "close",
                }  # fmt: skip
            assert bool(store.items) is (status == 200)


def test_a_body_of_unknown_length_is_cut_at_the_limit(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver, admission=RequestAdmission(store.deliver, max_request_bytes=10_000))
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = f"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\n"
        client.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        client.sendall(b"2711\r\n" + bytes(0x2711) + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_chunks_are_one_body(serve: Callable[..., str]) -> None:
    store = Store()
    connection = http.client.HTTPConnection(serve(store.deliver), timeout=10)
    connection.request("POST", "/v1/metrics", iter([BODY[:7], BODY[7:]]), {"content-type": PROTOBUF})
    answer = connection.getresponse()
    assert (answer.status, answer.read(), len(store.items)) == (200, b"", 2)
    connection.close()


@pytest.mark.guarded
@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        (OverloadedError("full", retry_after_s=2.1), 429, 8, "3"),
        (OverloadedError("full", retry_after_s=2.0), 429, 8, "2"),
        (OverloadedError("full", retry_after_s=0.2), 429, 8, "1"),
        (ZeroDivisionError(), 503, 14, "1"),
    ],
)
def test_what_may_be_sent_again_says_when(
    serve: Callable[..., str], fault: Exception, status: int, code: int, retry_after: str
) -> None:
    is_ours = isinstance(fault, ZeroDivisionError)
    assert answer(post(serve(Store(fault).deliver))) == {
        "status": status,
        "code": code,
        "message": "The processor failed to take the request; send it again." if is_ours else "full",
        "delays_s": [getattr(fault, "retry_after_s", 1.0)],
        "retry-after": retry_after,
    }


@pytest.mark.guarded
def test_a_fault_of_the_receiver_itself_is_unavailable_too(serve: Callable[..., str]) -> None:
    class Broken(RequestAdmission):
        """Fails in the worker's thread, outside its own guards."""

        def consume_request(self, signal: Any, body: bytes, **options: Any) -> Any:
            raise ZeroDivisionError

    assert answer(post(serve(None, admission=Broken(Store().deliver, retry_after_s=3.0)))) == {
        "status": 503,
        "code": 14,
        "message": "The processor failed to answer the request; send it again.",
        "delays_s": [3.0],
        "retry-after": "3",
    }


def test_what_is_not_safe_in_time_is_unavailable(serve: Callable[..., str]) -> None:
    assert answer(post(serve(lambda *_: Future(), answer_timeout_s=0.05))) == {
        "status": 503,
        "code": 14,
        "message": "The points were not stored in time; send the request again.",
        "delays_s": [1.0],
        "retry-after": "1",
    }


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_where_others_wait_the_answer_comes_before_the_sender_has_gone(serve: Callable[..., str]) -> None:
    clock = Clock()

    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        clock.now_s += 5.0
        return Future()

    admission = RequestAdmission(deliver, clock=clock)
    other = admission.admit_request(10)
    reply = answer(post(serve(deliver, admission=admission, answer_timeout_s=3600.0)))
    assert (reply["status"], reply["message"]) == (503, "The points were not stored in time; send the request again.")
    admission.release_request(other)
    assert admission.pending_bytes > 0  # it goes on


def test_what_no_worker_had_a_turn_for_is_given_up(serve: Callable[..., str]) -> None:
    may_end = threading.Event()

    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        assert may_end.wait(60)
        return Store().deliver(_, __)

    admission = RequestAdmission(deliver)
    url = serve(deliver, admission=admission, workers=1, answer_timeout_s=0.2)
    assert [answer(post(url))["status"] for _ in range(2)] == [503, 503]
    counts = admission.read_counts
    assert (dict(counts.unread_requests), counts.accepted) == ({"queue": 1}, 0)
    may_end.set()
    until(lambda: admission.pending_bytes == 0)
    assert admission.read_counts.accepted == 2  # both points of the one that had begun


def test_a_request_that_lay_unread_for_too_long_is_refused_where_others_wait(serve: Callable[..., str]) -> None:
    admission = RequestAdmission(Store().deliver)
    other = admission.admit_request(10)
    with pytest.raises(OverloadedError, match="has more than 2 s of work before it") as refused:
        admission.admit_request(10, waited_s=3.1)
    assert refused.value.retry_after_s == 1.0
    assert admission.remaining_s(admission.admit_request(10, waited_s=1.5)) < 3.1
    admission.release_request(other)


def test_a_request_that_waits_for_the_answer_of_another_holds_no_body() -> None:
    body = bytes(bytearray(new_predictions(points=2)))
    deliveries: list[Future[Rejections]] = []

    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        deliveries.append(Future())
        return deliveries[-1]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def wait_until(condition: Callable[[], bool]) -> None:
        ends_s = time.monotonic() + 30.0
        while not condition() and time.monotonic() < ends_s:
            await asyncio.sleep(0.005)

    async def send_repeatedly() -> tuple[list[int], bool]:
        admission = RequestAdmission(deliver)
        receiver = HttpReceiver(admission, "127.0.0.1:0")
        headers = [(b"content-type", PROTOBUF.encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/metrics", "headers": headers}
        first = asyncio.create_task(receiver._receive_request(Request(scope, receive)))
        await wait_until(lambda: len(deliveries) == 1)
        before = sys.getrefcount(body)
        others = [asyncio.create_task(receiver._receive_request(Request(scope, receive))) for _ in range(5)]
        progress = admission._recent.find_request(hash_body(body))
        assert progress is not None
        assert progress.result is not None
        shared = progress.result
        await wait_until(lambda: len(shared._done_callbacks) == 6)  # type: ignore[attr-defined]
        await wait_until(lambda: sys.getrefcount(body) <= before)
        is_held = sys.getrefcount(body) > before
        deliveries[0].set_result({})
        responses = await asyncio.gather(first, *others)
        receiver._workers.shutdown()
        return [response.status_code for response in responses], is_held

    assert asyncio.run(send_repeatedly()) == ([200] * 6, False)


def test_bodies_in_arrival_are_bounded_together(serve: Callable[..., str]) -> None:
    store = Store()
    admission = RequestAdmission(store.deliver, max_pending_bytes=len(BODY), retry_after_s=1.5)
    address = serve(store.deliver, admission=admission)
    assert answer(post(address, BODY + b"x")) == {
        "status": 429,
        "code": 8,
        "message": "The processor receives too many bytes at a time. Send the request again later.",
        "delays_s": [1.5],
        "retry-after": "2",
        "connection": "close",
    }
    assert (dict(admission.read_counts.unread_requests), admission.read_counts.refused) == ({"memory": 1}, 0)
    assert post(address, b"")[0] == 200  # what was refused is no longer counted
    assert post(address)[0] == 200
    assert len(store.items) == 2


def test_a_client_that_is_silent_is_timed_out_and_one_that_leaves_is_forgotten(
    serve: Callable[..., str],
) -> None:
    store = Store()
    address = serve(store.deliver, body_timeout_s=0.2)
    host, port = address.split(":")
    head = f"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 10\r\n\r\nabc"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        head_and_body = b"".join(iter(lambda: client.recv(1000), b""))
        assert head_and_body.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nconnection: close\r\n" in head_and_body
        status = Status.FromString(head_and_body.partition(b"\r\n\r\n")[2])
        assert (status.code, status.message) == (
            4,
            "No more of the body arrived within 0.2 s; send the request again.",
        )
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
    assert post(address)[0] == 200
    assert len(store.items) == 2


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_a_token_is_read_without_case(serve: Callable[..., str], scheme: str) -> None:
    address = serve(Store().deliver, token="secret")
    assert post(address, BODY, authorization=f"{scheme} secret")[0] == 200
    assert post(address, BODY, authorization=f"{scheme} secre")[0] == 401
    assert post(address, BODY, authorization="Basic secret")[0] == 401


def test_a_token_is_demanded(serve: Callable[..., str]) -> None:
    address = serve(Store().deliver, token="secret")
    response = post(address, authorization="Bearer wrong")
    message = "A bearer token is required; send it as 'Authorization: Bearer <token>'."
    assert (refused(response), response[1]["www-authenticate"]) == ((401, 16, message), "Bearer")
    assert post(address)[0] == 401
    assert post(address, authorization="Bearer secret")[0] == 200


def test_a_port_that_is_taken_is_named_with_its_option(serve: Callable[..., str]) -> None:
    address = serve(Store().deliver)
    with pytest.raises(PortUnavailableError, match=rf"{address}.*receiver\.http"):
        HttpReceiver(RequestAdmission(Store().deliver), address).start()
    with pytest.raises(PortUnavailableError, match=r"host\.invalid:0.*receiver\.http"):
        HttpReceiver(RequestAdmission(Store().deliver), "host.invalid:0").start()


def test_the_defaults_outlast_a_slow_sender_and_the_pause_between_two_exports() -> None:
    receiver = HttpReceiver(RequestAdmission(Store().deliver), "127.0.0.1:0")
    assert (WORKERS, BACKLOG, BODY_TIMEOUT_S, ANSWER_TIMEOUT_S) == (4, 2048, 10.0, 30.0)
    assert KEEP_ALIVE_S == 75
    receiver.stop(0.0)


def test_a_certificate_that_cannot_be_read_is_an_error_of_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    receiver = HttpReceiver(
        RequestAdmission(Store().deliver), "127.0.0.1:0", tls=TlsFiles(certificate=missing, key=missing)
    )
    with pytest.raises(ConfigurationError, match=rf"receiver\.tls: {missing} cannot be read"):
        receiver.start()
    receiver.stop(0.0)


def test_many_clients_at_once(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    with ThreadPoolExecutor(max_workers=12) as pool:
        codes = list(pool.map(lambda _: post(address, new_predictions(points=2))[0], range(60)))
    assert (codes, len(store.items)) == ([200] * 60, 120)


def test_stopping_lets_a_request_in_progress_end(capfd: pytest.CaptureFixture[str]) -> None:
    arrived, safe = threading.Event(), Future[Rejections]()

    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        arrived.set()
        return safe

    receiver = HttpReceiver(RequestAdmission(deliver), "127.0.0.1:0")
    address = receiver.start()
    with ThreadPoolExecutor(max_workers=2) as pool:
        answer = pool.submit(post, address)
        assert arrived.wait(10)
        stopping = pool.submit(receiver.stop, 10.0)
        safe.set_result({})
        assert answer.result(10)[0] == 200
        stopping.result(10)
    with pytest.raises(ConnectionRefusedError):
        post(address)
    assert capfd.readouterr() == ("", "")


def test_a_receiver_that_was_never_started_can_be_stopped() -> None:
    HttpReceiver(RequestAdmission(Store().deliver), "127.0.0.1:0").stop(1.0)


def test_tls_demands_a_client_certificate_where_an_authority_is_set(serve: Callable[..., str], tmp_path: Path) -> None:
    server, client = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "client")
    tls = TlsFiles(certificate=server.certificate, key=server.key, client_ca=client.certificate)
    address = serve(Store().deliver, tls=tls)
    trusting = ssl.create_default_context(cafile=str(server.certificate))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        post_encrypted(address, trusting)
    trusting.load_cert_chain(client.certificate, client.key)
    assert post_encrypted(address, trusting) == 200


def post_encrypted(address: str, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection(address, timeout=10, context=context)
    try:
        connection.request("POST", "/v1/metrics", BODY, {"content-type": PROTOBUF})
        return connection.getresponse().status
    finally:
        connection.close()


def raw_request(address: str, text: bytes) -> bytes:
    """Sends bytes and leaves without an answer if they are not a whole request; returns the head of the answer."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(text)
        return connection.recv(65536) if text.endswith(b"!") else b""


def test_every_request_that_is_refused_unread_is_counted_with_the_bytes_that_were_read(
    serve: Callable[..., str],
) -> None:
    admission = RequestAdmission(Store().deliver, max_request_bytes=1_000)
    address = serve(Store().deliver, admission=admission, token="secret", body_timeout_s=0.2)
    allowed = {"content-type": PROTOBUF, "authorization": "Bearer secret"}

    def status(method: str, path: str, body: Any, **headers: str) -> int:
        with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            connection.request(method, path, body, {**allowed, **headers})
            with connection.getresponse() as answered:
                return answered.status

    compressed = gzip.compress(b"x" * 2_000)
    statuses = [
        status("POST", "/v1/profiles", b"12345"),
        status("GET", "/v1/metrics", None),
        status("POST", "/v1/metrics", b"12345", **{"content-type": "text/plain"}),
        status("POST", "/v1/metrics", b"12345", **{"content-encoding": "snappy"}),
        status("POST", "/v1/metrics", b"12345", authorization="Bearer other"),
        status("POST", "/v1/metrics", b"x" * 2_000),
        status("POST", "/v1/metrics", compressed, **{"content-encoding": "gzip"}),
        status("POST", "/v1/metrics", b"no gzip", **{"content-encoding": "gzip"}),
    ]
    assert statuses == [404, 405, 415, 415, 401, 413, 413, 400]
    head = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    head += b"authorization: Bearer secret\r\ncontent-length: 100\r\n\r\n"
    assert b" 408 " in raw_request(address, head + b"123456!")
    raw_request(address, head + b"123")
    until(lambda: admission.read_counts.unread_requests.get("incomplete"))
    counts = admission.read_counts
    assert dict(counts.unread_requests) == {
        "not_found": 1,
        "bad_method": 1,
        "unsupported": 2,
        "unauthorized": 1,
        "too_large": 2,
        "timeout": 1,
        "incomplete": 1,
    }
    assert dict(counts.unread_bytes) == {
        "not_found": 0,
        "bad_method": 0,
        "unsupported": 0,
        "unauthorized": 0,
        "too_large": len(compressed),
        "timeout": 7,
        "incomplete": 3,
    }
    assert counts.malformed == 1


def test_a_compressed_request_that_finds_no_room_is_counted_as_it_was_sent(serve: Callable[..., str]) -> None:
    store = Store()
    admission = RequestAdmission(store.deliver, max_pending_bytes=1_000)
    body = gzip.compress(b"x" * 900)
    place = admission.admit_request(990)
    status, *_ = post(serve(store.deliver, admission=admission), body, **{"content-encoding": "gzip"})
    admission.release_request(place)
    assert (status, dict(admission.read_counts.unread_bytes)) == (429, {"memory": len(body)})
