from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_mlmon.errors import ConfigurationError, OverloadedError, PortUnavailableError
from otel_mlmon.processor.connections import TlsFiles
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.data_point import DataPoint, Rejections, TelemetryItem
from otel_mlmon.processor.receive.grpc import SERVICES, GrpcReceiver
from tests.support.certificates import make_certificate
from tests.support.observations import list_points
from tests.support.otlp_requests import counter, new_predictions, predictions, request
from tests.support.processes import until

Deliver = Callable[[tuple[TelemetryItem, ...], float], "Future[Rejections]"]


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
    receivers: list[GrpcReceiver] = []

    def start(deliver: Deliver, *, admission: RequestAdmission | None = None, **options: Any) -> str:
        receivers.append(GrpcReceiver(admission or RequestAdmission(deliver), "127.0.0.1:0", **options))
        return receivers[-1].start()

    start.receivers = receivers  # type: ignore[attr-defined]
    yield start
    for receiver in receivers:
        receiver.stop(0.5)


def export(address: str, message: Any, *, signal: str = "metrics", **options: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICES[signal]}/Export")  # type: ignore[index]
        body = message if isinstance(message, bytes) else message.SerializeToString()
        return metrics.ExportMetricsServiceResponse.FromString(call(body, timeout=10, **options))


def refusal(address: str, message: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as failed:
        export(address, message, **options)
    return failed.value


def delays_s(error: Any) -> tuple[float, float]:
    """From the standard trailer, and from the one that Python's exporters read."""
    trailers = dict(error.trailing_metadata())
    inside, beside = RetryInfo(), RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.details[0].Unpack(inside)
    return inside.retry_delay.ToTimedelta().total_seconds(), beside.retry_delay.ToTimedelta().total_seconds()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_sdks_exporter_is_understood(serve: Callable[..., str], compression: grpc.Compression) -> None:
    store = Store()
    exporter = OTLPMetricExporter(f"http://{serve(store.deliver)}", insecure=True, compression=compression)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    meter = provider.get_meter("otel_mlmon")
    meter.create_counter("ml.predictions").add(5, {"ml.model.name": "fraud", "ml.prediction.label": "spam"})
    duration = meter.create_histogram("ml.inference.duration", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    duration.record(0.5, {"ml.model.name": "fraud"})
    provider.shutdown()
    results = {observation.identity.metric: observation for observation in store.items}
    assert results["ml.predictions"].value.sketch == 5
    assert results["ml.predictions"].identity.model.name == "fraud"
    sketch: Any = results["ml.inference.duration"].value.sketch
    assert (sketch.bounds, sketch.counts.tolist(), sketch.moments.sum) == ((0.1, 1.0), [0, 1, 0], 0.5)


def test_full_and_partial_success(serve: Callable[..., str]) -> None:
    address = serve(Store().deliver)
    assert export(address, predictions()) == metrics.ExportMetricsServiceResponse()
    assert export(address, b"") == metrics.ExportMetricsServiceResponse()
    partial = export(address, request("ml.predictions", "gauge", counter(1), points=2)).partial_success
    assert (partial.rejected_data_points, partial.error_message) == (2, "wrong_type: 2")


def test_logs_and_traces_are_answered(serve: Callable[..., str]) -> None:
    with grpc.insecure_channel(serve(Store().deliver)) as channel:
        logs_stub: Any = LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        trace_stub: Any = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        logs = logs_stub.Export(ExportLogsServiceRequest(), timeout=10)
        traces = trace_stub.Export(ExportTraceServiceRequest(), timeout=10)
    assert (logs, traces) == (ExportLogsServiceResponse(), ExportTraceServiceResponse())


def test_health_is_told_for_every_service(serve: Callable[..., str]) -> None:
    with grpc.insecure_channel(serve(Store().deliver)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        results = [
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            for name in ("", *SERVICES.values())
        ]
    assert results == [health_pb2.HealthCheckResponse.SERVING] * 4


def test_what_is_not_protobuf_is_an_invalid_argument(serve: Callable[..., str]) -> None:
    error = refusal(serve(Store().deliver), b"\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata())


def test_overload_says_when_to_try_again_in_both_trailers(serve: Callable[..., str]) -> None:
    store = Store(OverloadedError("full", retry_after_s=2.5))
    error = refusal(serve(store.deliver), predictions())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert delays_s(error) == (2.5, 2.5)


@pytest.mark.guarded
def test_a_fault_of_ours_is_unavailable_and_never_internal(serve: Callable[..., str]) -> None:
    error = refusal(serve(Store(ZeroDivisionError()).deliver), predictions())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert delays_s(error) == (1.0, 1.0)


def test_a_connection_is_closed_in_good_order_after_its_time_so_that_clients_spread(serve: Callable[..., str]) -> None:
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(serve(Store().deliver, max_connection_age_s=0.3)) as channel:
        channel.subscribe(states.append)
        call = channel.unary_unary(f"/{SERVICES['metrics']}/Export")
        for connections in (1, 2):
            until(lambda: call(predictions().SerializeToString(), timeout=30) is not None)
            until(lambda: states.count(grpc.ChannelConnectivity.READY) >= connections)  # noqa: B023
            until(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)
    assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states


def test_what_is_not_safe_in_time_is_unavailable(serve: Callable[..., str]) -> None:
    error = refusal(serve(lambda *_: Future(), answer_timeout_s=0.05), predictions())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert delays_s(error) == (1.0, 1.0)


def test_where_others_wait_the_answer_comes_before_the_sender_has_gone(serve: Callable[..., str]) -> None:
    now_s = 0.0

    def deliver(_: tuple[TelemetryItem, ...], max_wait_s: float) -> Future[Rejections]:
        nonlocal now_s
        now_s += 5.0
        return Future()

    admission = RequestAdmission(deliver, clock=lambda: now_s)
    admission.admit_request(10)
    error = refusal(serve(deliver, admission=admission, answer_timeout_s=3600.0), predictions())
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "The points were not stored in time; send the request again.",
    )
    assert delays_s(error) == (1.0, 1.0)


def test_above_the_limit_of_calls_each_is_refused_with_a_delay_and_counted(serve: Callable[..., str]) -> None:
    admission = RequestAdmission(Store().deliver)
    address = serve(None, admission=admission, max_calls=2, patience_s=60.0)
    (receiver,) = serve.receivers  # type: ignore[attr-defined]
    with unfinished_calls(address, 2):
        until(lambda: receiver._threads.calls == 2)
        errors = [try_export(address) for _ in range(5)]
        for error in errors:
            assert (error.code(), error.details()) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "2 calls are in progress. Send the request again later.",
            )
            assert delays_s(error) == (1.0, 1.0)
        assert dict(admission.read_counts.unread_requests) == {"queue": 5}
    until(lambda: try_export(address) is None)


def test_while_too_much_waits_a_call_is_refused_before_its_body(serve: Callable[..., str]) -> None:
    now_s = 0.0
    admission = RequestAdmission(Store().deliver, clock=lambda: now_s)
    admission.admit_request(10)
    now_s = 3.0
    with unfinished_calls(serve(None, admission=admission), 1) as (call,):
        error = call.exception(timeout=30)
        assert (error.code(), delays_s(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, (1.0, 1.0))
    assert dict(admission.read_counts.unread_requests) == {"queue": 1}


def test_the_sdks_exporter_waits_as_long_as_it_is_told(serve: Callable[..., str]) -> None:
    store = Store(OverloadedError("full", retry_after_s=0.3))
    exporter = OTLPMetricExporter(f"http://{serve(store.deliver)}", insecure=True)
    provider = MeterProvider(
        metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
        shutdown_on_exit=False,
    )
    counter_ = provider.get_meter("otel_mlmon").create_counter("ml.predictions")
    counter_.add(5, {"ml.model.name": "fraud"})
    provider.force_flush()
    first_s, second_s = store.arrivals_s[:2]
    provider.shutdown()
    assert store.items[0].value.sketch == 5
    assert 0.25 < second_s - first_s < 0.75  # its own backoff would be 0.8 s or more


def test_the_limit_holds_after_decompression(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver, admission=RequestAdmission(store.deliver, max_request_bytes=10_000))
    body = request("x" * 9_000, "sum", counter(1)).SerializeToString()
    assert export(address, body, compression=grpc.Compression.Gzip) == metrics.ExportMetricsServiceResponse()
    body = request("x" * 10_000, "sum", counter(1)).SerializeToString()
    error = refusal(address, body, compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata())  # so it is not sent again


def test_a_token_is_demanded(serve: Callable[..., str]) -> None:
    address = serve(Store().deliver, token="secret")
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        assert refusal(address, predictions(), metadata=metadata).code() is grpc.StatusCode.UNAUTHENTICATED
    answer = export(address, predictions(), metadata=(("authorization", "Bearer secret"),))
    assert answer == metrics.ExportMetricsServiceResponse()


def test_a_port_that_is_taken_is_named_with_its_option(serve: Callable[..., str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(PortUnavailableError, match=rf"{address}.*receiver\.grpc"):
            GrpcReceiver(RequestAdmission(Store().deliver), address).start()
    first = serve(Store().deliver)
    with pytest.raises(PortUnavailableError, match=first):
        GrpcReceiver(RequestAdmission(Store().deliver), first).start()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"receiver\.grpc"):
        GrpcReceiver(RequestAdmission(Store().deliver), "4317")


def test_many_clients_at_once(serve: Callable[..., str]) -> None:
    store = Store()
    address = serve(store.deliver)
    with ThreadPoolExecutor(max_workers=12) as pool:
        answers = list(pool.map(lambda _: export(address, new_predictions(points=5)), range(48)))
    assert answers == [metrics.ExportMetricsServiceResponse()] * 48
    assert len(store.items) == 240


def test_stopping_lets_a_request_in_progress_end() -> None:
    arrived, safe = threading.Event(), Future[Rejections]()

    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        arrived.set()
        return safe

    receiver = GrpcReceiver(RequestAdmission(deliver), "127.0.0.1:0")
    address = receiver.start()
    with ThreadPoolExecutor(max_workers=2) as pool:
        answer = pool.submit(export, address, predictions())
        assert arrived.wait(10)
        stopping = pool.submit(receiver.stop, 10.0)
        safe.set_result({})
        assert answer.result(10) == metrics.ExportMetricsServiceResponse()
        stopping.result(10)
    assert refusal(address, predictions()).code() is grpc.StatusCode.UNAVAILABLE


def test_tls_demands_a_client_certificate_where_an_authority_is_set(serve: Callable[..., str], tmp_path: Path) -> None:
    server, client = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "client")
    tls = TlsFiles(certificate=server.certificate, key=server.key, client_ca=client.certificate)
    address = serve(Store().deliver, tls=tls)
    root = server.certificate.read_bytes()
    shown = (client.key.read_bytes(), client.certificate.read_bytes())
    codes = []
    for pair in ((None, None), shown):
        credentials = grpc.ssl_channel_credentials(root, *pair)
        with grpc.secure_channel(address, credentials) as channel:
            call = channel.unary_unary(f"/{SERVICES['metrics']}/Export")
            try:
                codes.append(call(predictions().SerializeToString(), timeout=10))
            except grpc.RpcError as error:
                codes.append(error.code())
    assert codes == [grpc.StatusCode.UNAVAILABLE, b""]


@contextmanager
def unfinished_calls(address: str, number: int, **options: Any) -> Iterator[list[Any]]:
    """Calls that have begun and send no body."""
    may_end = threading.Event()

    def body() -> Iterator[bytes]:
        may_end.wait(60)
        yield b""

    with grpc.insecure_channel(address) as channel:
        call = channel.stream_unary(f"/{SERVICES['metrics']}/Export")
        calls = [call.future(body(), timeout=60, **options) for _ in range(number)]
        try:
            yield calls
        finally:
            may_end.set()


def test_only_as_many_bodies_arrive_as_there_is_room_for_and_slow_ones_give_way(serve: Callable[..., str]) -> None:
    store = Store()
    admission = RequestAdmission(store.deliver, max_request_bytes=10_000, max_pending_bytes=40_000)
    address = serve(store.deliver, admission=admission, patience_s=0.5)
    with unfinished_calls(address, 2) as slow:
        # The first may come before the slow ones, and waits for nothing then.
        until(lambda: try_export(address) is None and any(call.done() for call in slow))
        assert {call.code() for call in slow if call.done()} == {grpc.StatusCode.CANCELLED}
    until(lambda: admission.read_counts.unread_requests.get("incomplete", 0) >= 1)
    assert len(store.items) >= 1


def try_export(address: str) -> Any:
    """Sends a request; returns the error if it is refused, which must be for now."""
    try:
        export(address, predictions())
    except grpc.RpcError as error:
        return error
    return None


def test_those_without_a_turn_are_refused_for_now_and_counted(serve: Callable[..., str]) -> None:
    store = Store()
    admission = RequestAdmission(store.deliver, max_request_bytes=10_000, max_pending_bytes=10_000)
    address = serve(store.deliver, admission=admission, patience_s=0.0)

    def export_beside_another() -> Any:
        with unfinished_calls(address, 1) as (call,):
            answer = until(lambda: try_export(address) or call.done())
        return None if answer is True else answer  # the unfinished one came second, and was refused itself

    error = until(export_beside_another)
    assert (error.code(), delays_s(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, (1.0, 1.0))
    assert admission.read_counts.unread_requests["memory"] >= 1
    until(lambda: try_export(address) is None)


def test_a_token_is_looked_at_before_the_body(serve: Callable[..., str]) -> None:
    admission = RequestAdmission(Store().deliver)
    address = serve(Store().deliver, admission=admission, token="secret")
    with unfinished_calls(address, 1) as (call,):
        assert call.exception(timeout=30).code() is grpc.StatusCode.UNAUTHENTICATED
    assert (dict(admission.read_counts.unread_requests), dict(admission.read_counts.unread_bytes)) == (
        {"unauthorized": 1},
        {"unauthorized": 0},
    )


def test_bodies_that_are_too_large_and_methods_that_are_none_are_counted(serve: Callable[..., str]) -> None:
    admission = RequestAdmission(Store().deliver, max_request_bytes=1_000)
    address = serve(Store().deliver, admission=admission)
    for options in ({}, {"compression": grpc.Compression.Gzip}):
        for size_bytes in (1_001, 2_000):
            error = refusal(address, b"x" * size_bytes, **options)
            message = "The body is larger than 1000 bytes when decompressed. Send smaller batches."
            assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, message)
            assert "google.rpc.retryinfo-bin" not in dict(error.trailing_metadata())  # so it is not sent again
    assert dict(admission.read_counts.unread_requests) == {"too_large": 4}
    assert dict(admission.read_counts.unread_bytes) == {"too_large": 6_002}
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export")(b"", timeout=10)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert admission.read_counts.unread_requests["not_found"] == 1


def test_a_call_that_grpc_ends_by_itself_is_never_said_to_be_too_large() -> None:
    admission = RequestAdmission(Store().deliver, max_request_bytes=1_000, max_pending_bytes=16_000)
    receiver = GrpcReceiver(admission, "127.0.0.1:0")
    address = receiver.start()
    for number in range(1, 11):  # of both ways in which gRPC says so one comes seldom
        assert refusal(address, b"x" * 4_001).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with unfinished_calls(address, 1) as (call,):
            until(lambda: len(receiver._bodies._arrivals) == 1)
            call.cancel()
        until(lambda number=number: dict(admission.read_counts.unread_requests) == {"incomplete": 2 * number})  # type: ignore[misc]
    assert dict(admission.read_counts.unread_bytes) == {"incomplete": 0}
    receiver.stop(0.5)
