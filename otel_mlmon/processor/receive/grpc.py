"""Receives OTLP over gRPC: the three collector services and `grpc.health.v1`, on a synchronous server.

Choice: the synchronous server, since it was measured 20 % faster than `grpc.aio`; its handlers take raw bytes, since
admission is decided before parsing, and take them as a stream of one message, which is the same on the wire, since
token and room are looked at before a body is received (`arrivals.py`). Retry delays go out in two trailers: Go's
exporters read the standard `grpc-status-details-bin`, Python's only `google.rpc.retryinfo-bin`.
Source: opentelemetry-proto, specification.md, OTLP/gRPC; grpc/grpc, doc/health-checking.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor import address as addresses
from otel_mlmon.processor.address import NetworkAddress
from otel_mlmon.processor.connections import HEAD_TIMEOUT_S, TlsFiles, compute_connection_limit, has_bearer_token
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.arrivals import ArrivingBodies
from otel_mlmon.processor.receive.codec import Signal
from otel_mlmon.processor.receive.inflate import BodyTooLargeError, build_size_error
from otel_mlmon.processor.receive.load import MAX_PENDING_REQUESTS, MAX_QUEUE_S, AdmittedRequest
from otel_mlmon.processor.receive.outcomes import ExportResult
from otel_mlmon.processor.receive.responses import encode_response, encode_retry_info, encode_status

OPTION: Final = "receiver.grpc"
TLS_OPTION: Final = "receiver.tls"
WORKERS: Final = MAX_PENDING_REQUESTS + 32
"""A thread for every request that may wait for its points to be stored, and some that refuse the others at once."""

MAX_CONCURRENT_STREAMS: Final = 100
"""Requests of one connection at a time; its client holds the others back."""

MAX_CALLS: Final = 4096
"""Requests of all connections at a time; the others are refused before they are received."""

MAX_REFUSED_CALLS: Final = 3 * MAX_CALLS
"""Requests that wait to be refused for that; what comes beyond gRPC itself refuses, without a delay."""

MAX_ARRIVING_BODIES: Final = 4
"""Bodies that are received at a time, unless the largest requests leave room for fewer."""

MAX_CONNECTION_AGE_S: Final = 1800.0
"""After this time clients are asked to connect again, so that load balancers can move them."""

IDLE_TIMEOUT_S: Final = 600.0
"""A connection without a request in so long is closed in good order; its client connects again when it has one."""

ANSWER_TIMEOUT_S: Final = 30.0
"""A request whose points are not stored after this time is answered with "unavailable"."""

SERVICES: Final[Mapping[Signal, str]] = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
}
METHODS: Final[Mapping[str, Signal]] = {f"/{service}/Export": signal for signal, service in SERVICES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A gRPC status with which a call is refused."""

    code: grpc.StatusCode
    message: str
    retry_after_s: float | None = None


class GrpcReceiver:
    """An OTLP/gRPC server.

    Runs on: `workers` threads of its own. A request holds one of them until its points are stored.

    Args:
        admission: Where requests are handed in.
        address: `host:port`; port 0 takes any that is free.
        workers: How many requests wait at a time; more wait unread in their connections.
        max_calls: How many requests there are at a time, those that wait unread included; others are refused.
        max_connection_age_s: After how many seconds a connection is closed in good order.
        tls: The files of certificate, key and client authority; None for no TLS.
        token: The token that senders must present as `authorization: Bearer <token>`; None to ask for none.
        answer_timeout_s: How long a request waits for its points to be stored, in seconds, where no other waits.
        patience_s: How long a request waits until it is received, and how long receiving it may take while others wait,
            in seconds.

    Raises:
        ConfigurationError: `address` is not a `host:port`.
    """

    def __init__(
        self,
        admission: RequestAdmission,
        address: str,
        *,
        workers: int = WORKERS,
        max_calls: int = MAX_CALLS,
        max_connection_age_s: float = MAX_CONNECTION_AGE_S,
        tls: TlsFiles | None = None,
        token: str | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float = MAX_QUEUE_S,
    ) -> None:
        self._admission = admission
        self._address = addresses.parse_network_address(address, option=OPTION)
        self._token = token
        self._answer_timeout_s = answer_timeout_s
        self._tls = tls
        self._max_calls = max_calls
        self._threads = _CallThreads(workers)
        self._refusers = ThreadPoolExecutor(2, "otlp-grpc-refuse")
        self._max_body_bytes = max(2 * admission.max_request_bytes, admission.max_pending_bytes // MAX_ARRIVING_BODIES)
        arriving = max(1, admission.max_pending_bytes // self._max_body_bytes)
        self._bodies = ArrivingBodies(arriving, patience_s=patience_s)
        self._health = health.HealthServicer()
        self._server = grpc.server(
            self._threads,
            options=_build_server_options(self._max_body_bytes, max_connection_age_s),
            maximum_concurrent_rpcs=max_calls + MAX_REFUSED_CALLS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers((_CallHandlers(self._find_handler),))

    def start(self) -> str:
        """Starts the OTLP/gRPC server; returns the bound `host:port`.

        Raises:
            ConfigurationError: The certificate cannot be used.
            PortUnavailableError: The address is in use or not one of this machine.
        """
        addresses.warn_if_exposed(
            self._address, option=OPTION, is_encrypted=self._tls is not None, has_token=self._token is not None
        )
        try:
            port = self._bind_port(str(self._address))
        except RuntimeError:
            port = 0
        if not port:
            self._end_threads()
            raise addresses.build_port_error(
                self._address, option=OPTION, why="it is in use or not one of this machine"
            )
        self._server.start()
        for name in ("", *SERVICES.values()):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return str(NetworkAddress(self._address.host, port))

    def stop(self, grace_s: float) -> None:
        """Stops the OTLP/gRPC server: refuses new requests, and cuts off those in progress after `grace_s` seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()
        self._end_threads()

    def reload(self, *, token: str | None, tls: TlsFiles | None) -> None:
        """Replaces the token of the OTLP/gRPC server, and reads its certificates anew for new connections.

        Whether TLS is spoken does not change.
        """
        self._token = token
        if self._tls is not None and tls is not None:
            self._tls, self._certificates = tls, _read_certificates(tls)

    def _bind_port(self, target: str) -> int:
        if self._tls is None:
            return int(self._server.add_insecure_port(target))
        self._tls.check_files(TLS_OPTION)
        self._certificates = _read_certificates(self._tls)
        credentials = grpc.dynamic_ssl_server_credentials(
            self._certificates,
            lambda: self._certificates,
            require_client_authentication=self._tls.client_ca is not None,
        )
        return int(self._server.add_secure_port(target, credentials))

    def _end_threads(self) -> None:
        self._threads.shutdown(wait=False)
        self._refusers.shutdown(wait=False)

    def _find_handler(self, method: str) -> Any:
        """Returns the handler of a gRPC call that has arrived just now. Runs on: the thread of gRPC's events."""
        arrived_s = time.monotonic()
        signal = METHODS.get(method)
        is_refused = self._threads.calls >= self._max_calls

        def handle(bodies: Iterator[bytes], context: Any) -> bytes:
            if signal is None:
                answer: bytes | _Refusal = self._refuse_method()
            elif is_refused:
                answer = self._refuse_call()
            else:
                answer = self._serve_call(signal, bodies, context, arrived_s)
            if isinstance(answer, bytes):
                return answer
            _abort_call(context, answer)

        if is_refused:
            handle.experimental_thread_pool = self._refusers  # type: ignore[attr-defined] # gRPC's own option
        return grpc.stream_unary_rpc_method_handler(handle)

    def _refuse_method(self) -> _Refusal:
        message = "There is no such method; send OTLP metrics, logs or traces."
        self._admission.count_unread("not_found", message, 0)
        return _Refusal(code=grpc.StatusCode.UNIMPLEMENTED, message=message)

    def _refuse_size(self, error: BodyTooLargeError, read_bytes: int) -> _Refusal:
        self._admission.count_unread("too_large", str(error), read_bytes)
        return _Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message=f"{error} Send smaller batches.")

    def _refuse_call(self) -> _Refusal:
        explanation = f"{self._max_calls} calls are in progress."
        self._admission.count_unread("queue", explanation, 0)
        message, delay_s = f"{explanation} Send the request again later.", self._admission.retry_after_s
        return _Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message=message, retry_after_s=delay_s)

    def _serve_call(self, signal: Signal, bodies: Iterator[bytes], context: Any, arrived_s: float) -> bytes | _Refusal:
        answer: bytes | _Refusal = _Refusal(
            code=grpc.StatusCode.UNAVAILABLE,
            message="The processor failed to answer the request; send it again.",
            retry_after_s=self._admission.retry_after_s,
        )
        with guard("receive.grpc"):
            if self._has_valid_token(context):
                answer = self._answer_call(signal, bodies, context, arrived_s)
            else:
                self._admission.count_unread("unauthorized", "Its bearer token is missing or wrong.", 0)
                answer = _Refusal(
                    code=grpc.StatusCode.UNAUTHENTICATED,
                    message="A bearer token is required; send it as 'authorization: Bearer <token>'.",
                )
        return answer

    def _receive_body(
        self, bodies: Iterator[bytes], context: Any, arrived_s: float
    ) -> tuple[bytes, AdmittedRequest] | _Refusal:
        """Receives the body of a gRPC request when its turn comes, and admits it.

        Raises:
            OverloadedError: It was not admitted.
        """
        self._admission.check_room(waited_s=time.monotonic() - arrived_s)
        with self._bodies.await_turn(context.cancel) as is_its_turn:
            waited_s = time.monotonic() - arrived_s
            if not is_its_turn:
                explanation = "The processor receives as many bodies at a time as it has room for."
                self._admission.count_unread("memory", explanation, 0)
                message = f"{explanation} Send the request again later."
                delay_s = self._admission.retry_after_s
                return _Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message=message, retry_after_s=delay_s)
            try:
                body = next(bodies, None)
            except grpc.RpcError:
                body = None
            if body is None:  # the call has ended, and nobody is there to be answered
                explanation = (
                    f"It ended before its body was whole, or that is larger than {self._max_body_bytes} bytes."
                )
                self._admission.count_unread("incomplete", explanation, 0)
                return _Refusal(code=grpc.StatusCode.CANCELLED, message=explanation)
            if len(body) <= self._admission.max_request_bytes:
                return body, self._admission.admit_request(len(body), waited_s=waited_s)
            return self._refuse_size(build_size_error(self._admission.max_request_bytes), len(body))

    def _answer_call(self, signal: Signal, bodies: Iterator[bytes], context: Any, arrived_s: float) -> bytes | _Refusal:
        try:
            if self._measure_remaining_s(context) > 0:
                received = self._receive_body(bodies, context, arrived_s)
                if isinstance(received, _Refusal):
                    return received
                body, place = received
                try:
                    storing = self._admission.consume_request(signal, body, place=place)
                except BodyTooLargeError as error:
                    return self._refuse_size(error, len(body))
                del body, received  # one that waits for the answer of another has no place, and must take no memory
                return encode_response(signal, self._await_storing(storing, place, context))
            explanation = "It arrived after its deadline."  # nobody waits for the answer, and it comes again
            self._admission.count_unread("timeout", explanation, 0)
            return _Refusal(code=grpc.StatusCode.DEADLINE_EXCEEDED, message=explanation)
        except MalformedError as error:
            return _Refusal(code=grpc.StatusCode.INVALID_ARGUMENT, message=str(error))
        except RetryableError as error:
            error.with_traceback(None)  # whose frames hold the body, and the future that holds the error
            is_overload = isinstance(error, OverloadedError)
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if is_overload else grpc.StatusCode.UNAVAILABLE
            return _Refusal(code=code, message=str(error), retry_after_s=error.retry_after_s)

    def _await_storing(self, storing: Future[ExportResult], place: AdmittedRequest, context: Any) -> ExportResult:
        """Waits for a request's points to be stored, as long as its sender waits, or longer where it is the only one.

        Raises:
            UnavailableError: They are not. It goes on, and it does no harm that the request comes again.
        """
        for limit_s in (self._admission.remaining_s(place), self._answer_timeout_s):
            wait([storing], max(0.0, min(limit_s, self._measure_remaining_s(context))))
            if storing.done():
                return storing.result()
            if self._admission.is_crowded:
                break
        message = "The points were not stored in time; send the request again."
        raise UnavailableError(message, retry_after_s=self._admission.retry_after_s)

    def _measure_remaining_s(self, context: Any) -> float:
        """Returns the seconds that a gRPC call may still take; negative where its deadline is over."""
        remaining_s: float | None = context.time_remaining()
        return self._answer_timeout_s if remaining_s is None else min(remaining_s, self._answer_timeout_s)

    def _has_valid_token(self, context: Any) -> bool:
        if self._token is None:
            return True
        return has_bearer_token(str(dict(context.invocation_metadata()).get("authorization", "")), self._token)


class _CallHandlers(grpc.GenericRpcHandler):  # type: ignore[misc] # the library asks for it
    """Finds the handler of each gRPC call, by a function that is given the name of its method."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        self._find = find

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a gRPC call that has arrived just now."""
        return self._find(handler_call_details.method)


class _CallThreads:
    """The threads that answer gRPC calls, with the number of calls that have one or wait for one."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, "otlp-grpc")
        self._lock = threading.Lock()
        self.calls = 0

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs the work of a gRPC call on the next thread that is free."""
        with self._lock:
            self.calls += 1
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._end_call)
        return future

    def shutdown(self, *, wait: bool) -> None:
        """Ends the threads that answer gRPC calls when their work is done."""
        self._pool.shutdown(wait=wait)

    def _end_call(self, _: Future[Any]) -> None:
        with self._lock:
            self.calls -= 1


def _abort_call(context: Any, refusal: _Refusal) -> NoReturn:
    """Ends a gRPC call with an error status; gRPC does that by an exception."""
    trailers: list[tuple[str, bytes]] = [
        (
            "grpc-status-details-bin",
            encode_status(refusal.code.value[0], refusal.message, retry_after_s=refusal.retry_after_s),
        )
    ]
    if refusal.retry_after_s is not None:
        trailers.append(("google.rpc.retryinfo-bin", encode_retry_info(refusal.retry_after_s)))
    context.set_trailing_metadata(tuple(trailers))
    context.abort(refusal.code, refusal.message)
    raise AssertionError("abort raises")


def _build_server_options(max_body_bytes: int, max_connection_age_s: float) -> list[tuple[str, int]]:
    """Returns the options of the gRPC server: its limits on sizes, streams, connections and times.

    Above `max_body_bytes` gRPC ends a call by itself, and nobody here learns why. So that is twice as much as a request
    may have: what is a little too large is received, counted, and refused in words.
    """
    return [
        ("grpc.so_reuseport", 0),  # else a second server on the port would silently get half of the requests
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.max_receive_message_length", max_body_bytes),  # enforced after decompression
        ("grpc.max_allowed_incoming_connections", compute_connection_limit()),
        ("grpc.server_handshake_timeout_ms", round(HEAD_TIMEOUT_S * 1000)),  # also of those that send nothing
        ("grpc.max_connection_idle_ms", round(IDLE_TIMEOUT_S * 1000)),
        ("grpc.max_connection_age_ms", round(max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", 60_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what exporters send is not abuse
    ]


def _read_certificates(tls: TlsFiles) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.client_ca.read_bytes() if tls.client_ca is not None else None,
    )
