"""Receives OTLP over HTTP in protobuf and JSON: `POST /v1/{metrics,logs,traces}`, routed by Starlette on uvicorn.

The event loop reads bodies and answers; decompression, parsing and decoding happen on threads beside it, so that one
large request does not hold up the others. Error bodies are a `google.rpc.Status` in the encoding of
the request.
Source: opentelemetry-proto, specification.md, OTLP/HTTP; RFC 9110 (Allow, Retry-After, Content-Encoding).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor import address as addresses
from otel_mlmon.processor.connections import (
    HEAD_TIMEOUT_S,
    AsgiServer,
    TlsFiles,
    compute_connection_limit,
    has_bearer_token,
    measure_read_wait_s,
)
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.codec import BodyFormat, Signal
from otel_mlmon.processor.receive.inflate import ENCODINGS, BodyTooLargeError, build_size_error, inflate_body
from otel_mlmon.processor.receive.load import AdmittedRequest
from otel_mlmon.processor.receive.outcomes import ExportResult, RefusalReason
from otel_mlmon.processor.receive.responses import encode_response, encode_status

T = TypeVar("T")

OPTION: Final = "receiver.http"
TLS_OPTION: Final = "receiver.tls"
BACKLOG: Final = 2048
WORKERS: Final = 4
BODY_TIMEOUT_S: Final = 10.0
WHOLE_BODY_TIMEOUT_S: Final = 120.0
ANSWER_TIMEOUT_S: Final = 30.0
KEEP_ALIVE_S: Final = 75
"""Above the usual interval of exports, so that senders can reuse their connections."""

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
BODY_FORMATS: Final[Mapping[str, BodyFormat]] = {PROTOBUF: "protobuf", JSON: "json"}

ASSUMED_INFLATION: Final = 8
"""By how much a compressed body grows, until it is decompressed."""

PATHS: Final[Mapping[str, Signal]] = {"/v1/metrics": "metrics", "/v1/logs": "logs", "/v1/traces": "traces"}

_CLOSE: Final = {"connection": "close"}  # because the remaining body is not read

# google.rpc.Code of each HTTP status. Source: googleapis, google/rpc/code.proto.
_RPC_CODES: Final = {400: 3, 401: 16, 404: 12, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}


class RequestRefusedError(Exception):
    """An error: an HTTP request is answered with an error status.

    Args:
        status_code: The HTTP status.
        message: What happened and what the sender can do.
        reason: The reason by which it is counted; None if it is counted already.
        read_bytes: How much of its body was read.
        retry_after_s: After how many seconds the sender may try again; None if it must not.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        reason: RefusalReason | None = None,
        read_bytes: int = 0,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.reason = reason
        self.read_bytes = read_bytes
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))

    def response(self, request: Request) -> Response:
        """Returns the error response, a `google.rpc.Status`, in JSON where the request is JSON."""
        media_type = _read_content_type(request)
        media_type = media_type if media_type in BODY_FORMATS else PROTOBUF
        code, body_format = _RPC_CODES[self.status_code], BODY_FORMATS[media_type]
        body = encode_status(code, str(self), retry_after_s=self.retry_after_s, body_format=body_format)
        return Response(body, status_code=self.status_code, headers=self.headers, media_type=media_type)


class HttpReceiver:
    """An OTLP/HTTP server.

    Runs on: one thread of its own for the event loop, and `workers` threads that decode requests.

    Args:
        admission: Where requests are handed in.
        address: `host:port`; port 0 takes any that is free.
        workers: How many requests are decompressed and decoded at a time.
        tls: The files of certificate, key and client authority; None for no TLS.
        token: The token that senders must present as `Authorization: Bearer <token>`; None to ask for none.
        head_timeout_s: How long the head of a request may take, in seconds.
        body_timeout_s: How long a sender may pause while it sends a body, in seconds.
        answer_timeout_s: How long a request waits for its points to be stored, in seconds, where no other waits.

    Raises:
        ConfigurationError: `address` is not a `host:port`.
    """

    def __init__(
        self,
        admission: RequestAdmission,
        address: str,
        *,
        workers: int = WORKERS,
        tls: TlsFiles | None = None,
        token: str | None = None,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._admission = admission
        self._address = addresses.parse_network_address(address, option=OPTION)
        self._tls = tls
        self._token = token
        self._body_timeout_s = body_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._workers = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="otlp-http")
        self._arriving_bytes = 0
        """The bytes of bodies that are not whole yet; touched by event loops only."""
        self._server = AsgiServer(
            self._create_router(),
            name="otlp-http",
            tls=tls,
            keep_alive_s=KEEP_ALIVE_S,
            max_connections=compute_connection_limit(),
            head_timeout_s=head_timeout_s,
        )

    def start(self) -> str:
        """Starts the OTLP/HTTP server; returns the bound `host:port`.

        Raises:
            ConfigurationError: The certificate cannot be used.
            PortUnavailableError: The address is in use or not one of this machine.
        """
        if self._tls is not None:
            self._tls.check_files(TLS_OPTION)
        addresses.warn_if_exposed(
            self._address, option=OPTION, is_encrypted=self._tls is not None, has_token=self._token is not None
        )
        listener, bound = addresses.open_listening_socket(self._address, option=OPTION, backlog=BACKLOG)
        self._server.start(listener)
        return str(bound)

    def reload(self, *, token: str | None, tls: TlsFiles | None) -> None:
        """Replaces the token of the OTLP/HTTP server, and reads its certificates anew for new connections.

        Whether TLS is spoken does not change.
        """
        self._token = token
        self._server.reload(tls)

    def stop(self, grace_s: float) -> None:
        """Stops the OTLP/HTTP server: refuses new requests, and cuts off those in progress after `grace_s` seconds."""
        self._server.stop(grace_s, grace_s + 5)
        self._workers.shutdown(wait=False)

    def _create_router(self) -> Router:
        routes = [Route(path, _Endpoint(self._handle_export)) for path in PATHS]
        return Router(routes, redirect_slashes=False, default=_Endpoint(self._handle_export))

    async def _handle_export(self, request: Request) -> Response:
        """Answers one OTLP request. An internal error is never answered with 500, at which senders drop the batch."""
        refusal = self._build_unavailable_error("The processor failed to answer the request; send it again.")
        with guard("receive.http"):
            try:
                return await self._receive_request(request)
            except RequestRefusedError as error:
                refusal = error.with_traceback(None)  # whose frames hold this one, and this one the refusal
                if error.reason is not None:
                    self._admission.count_unread(error.reason, str(error), error.read_bytes)
            except ClientDisconnect:
                return Response()  # which reaches nobody
        return refusal.response(request)

    async def _receive_request(self, request: Request) -> Response:
        signal = PATHS.get(request.scope["path"])
        if signal is None:
            message = f"There is no such path; send OTLP to one of {', '.join(PATHS)}."
            raise RequestRefusedError(404, message, reason="not_found")
        if request.method != "POST":
            message = "Only POST is supported; send the request with POST."
            raise RequestRefusedError(405, message, reason="bad_method", headers={"allow": "POST"})
        self._check_token(request.headers.get("authorization", ""))
        body_format, encoding = _read_body_encoding(request)
        size_bytes = int(request.headers.get("content-length", 0))
        if size_bytes > self._admission.max_request_bytes:
            raise _build_large_body_error(build_size_error(self._admission.max_request_bytes), 0)
        result = await self._consume_body(
            signal,
            await self._read_body(request),
            body_format,
            encoding,
            waited_s=measure_read_wait_s(request.scope),
        )
        answer = encode_response(signal, result, body_format)
        return Response(answer, media_type=_read_content_type(request))

    def _check_token(self, credentials: str) -> None:
        if self._token is None or has_bearer_token(credentials, self._token):
            return
        message = "A bearer token is required; send it as 'Authorization: Bearer <token>'."
        raise RequestRefusedError(401, message, reason="unauthorized", headers={"www-authenticate": "Bearer"})

    async def _read_body(self, request: Request) -> bytes:
        """Reads the body of a request as it was sent; the bytes of all bodies that arrive together are bounded."""
        chunks: list[bytes] = []
        size_bytes = 0
        ends_s = asyncio.get_running_loop().time() + WHOLE_BODY_TIMEOUT_S
        try:
            while True:
                event = await asyncio.wait_for(request.receive(), self._body_timeout_s)
                if asyncio.get_running_loop().time() > ends_s:
                    message = f"The body took more than {WHOLE_BODY_TIMEOUT_S:g} s to arrive; send smaller batches."
                    raise RequestRefusedError(408, message, reason="timeout", read_bytes=size_bytes, headers=_CLOSE)
                if event["type"] == "http.disconnect":
                    self._admission.count_unread("incomplete", "It ended before its body was whole.", size_bytes)
                    raise ClientDisconnect
                chunk = event.get("body", b"")
                chunks.append(chunk)
                size_bytes += len(chunk)
                self._arriving_bytes += len(chunk)
                if size_bytes > self._admission.max_request_bytes:
                    raise _build_large_body_error(build_size_error(self._admission.max_request_bytes), size_bytes)
                if self._arriving_bytes > self._admission.max_pending_bytes:
                    raise RequestRefusedError(
                        429,
                        "The processor receives too many bytes at a time. Send the request again later.",
                        reason="memory",
                        read_bytes=size_bytes,
                        retry_after_s=self._admission.retry_after_s,
                        headers=_CLOSE,
                    )
                if not event.get("more_body", False):
                    return b"".join(chunks)
        except asyncio.TimeoutError:
            message = f"No more of the body arrived within {self._body_timeout_s:g} s; send the request again."
            raise RequestRefusedError(408, message, reason="timeout", read_bytes=size_bytes, headers=_CLOSE) from None
        finally:
            self._arriving_bytes -= size_bytes

    async def _consume_body(
        self, signal: Signal, body: bytes, body_format: BodyFormat, encoding: str, *, waited_s: float
    ) -> ExportResult:
        sent_bytes = len(body)
        try:
            size_bytes = sent_bytes * (1 if encoding == "identity" else ASSUMED_INFLATION)
            place = self._admission.admit_request(size_bytes, sent_bytes=sent_bytes, waited_s=waited_s)
            decoding = self._workers.submit(self._inflate_and_consume, signal, body, body_format, encoding, place)
            del body  # one that waits for the answer of another has no place any more, and must take no memory
            return await self._await_work(await self._await_work(decoding, place), place)
        except (BodyTooLargeError, MalformedError, RetryableError) as error:
            error.with_traceback(None)  # whose frames hold the body, and futures that hold the error
            raise _build_refusal(error, sent_bytes) from None

    async def _await_work(self, work: Future[T], place: AdmittedRequest) -> T:
        """Waits for work on an admitted request as long as its sender does, or longer where it is the only one.

        Raises:
            UnavailableError: It is not done. What has begun goes on, and it does no harm that the request comes again.
        """
        waiting = asyncio.wrap_future(work)
        for limit_s in (self._admission.remaining_s(place), self._answer_timeout_s):
            await asyncio.wait({waiting}, timeout=max(0.0, min(limit_s, self._answer_timeout_s)))
            if waiting.done():
                return waiting.result()
            if self._admission.is_crowded:
                break
        if work.cancel():  # no worker had a turn for it
            self._admission.release_request(place)
            self._admission.count_unread("queue", "No worker could begin with it in time.", place.sent_bytes)
        waiting.cancel()
        message = "The points were not stored in time; send the request again."
        raise UnavailableError(message, retry_after_s=self._admission.retry_after_s)

    def _inflate_and_consume(
        self, signal: Signal, body: bytes, body_format: BodyFormat, encoding: str, place: AdmittedRequest
    ) -> Future[ExportResult]:
        """Decompresses an admitted request and hands on its data points. Runs on: a worker's thread."""
        is_consumed = False
        try:
            inflated = inflate_body(body, encoding, max_bytes=self._admission.max_request_bytes)
            is_consumed = True
        except MalformedError as error:
            self._admission.count_malformed(str(error))
            raise
        finally:
            if not is_consumed:
                self._admission.release_request(place)
        return self._admission.consume_request(signal, inflated, body_format=body_format, place=place)

    def _build_unavailable_error(self, message: str) -> RequestRefusedError:
        return RequestRefusedError(503, message, retry_after_s=self._admission.retry_after_s)


class _Endpoint:
    """An ASGI application of one request handler, without Starlette's wrappers for exceptions.

    They cost a tenth of a small request, and the handlers here do not raise.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


def _build_refusal(error: BodyTooLargeError | MalformedError | RetryableError, read_bytes: int) -> RequestRefusedError:
    """Returns the answer to a request that could not be taken."""
    if isinstance(error, BodyTooLargeError):
        return _build_large_body_error(error, read_bytes)
    if isinstance(error, MalformedError):
        return RequestRefusedError(400, str(error))
    status_code = 429 if isinstance(error, OverloadedError) else 503
    return RequestRefusedError(status_code, str(error), retry_after_s=error.retry_after_s)


def _build_large_body_error(error: BodyTooLargeError, read_bytes: int) -> RequestRefusedError:
    message = f"{error} Send smaller batches."
    return RequestRefusedError(413, message, reason="too_large", read_bytes=read_bytes, headers=_CLOSE)


def _read_body_encoding(request: Request) -> tuple[BodyFormat, str]:
    """Returns the format and the content encoding of a request's body."""
    content_type = _read_content_type(request)
    if content_type not in BODY_FORMATS:
        message = f"Content type {content_type or 'none'} is not supported; send one of {', '.join(BODY_FORMATS)}."
        raise RequestRefusedError(415, message, reason="unsupported")
    encoding = request.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        supported = ", ".join(ENCODINGS)
        message = f"Content encoding {encoding} is not supported; send one of {supported}."
        raise RequestRefusedError(415, message, reason="unsupported", headers={"accept-encoding": supported})
    return BODY_FORMATS[content_type], encoding


def _read_content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
