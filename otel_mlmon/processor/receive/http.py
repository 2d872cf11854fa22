"""Receives OTLP over HTTP in protobuf: `POST /v1/{metrics,logs,traces}`, routed by Starlette on uvicorn.

The event loop reads bodies and answers; decompression, parsing and decoding happen on threads beside it, so that one
large request does not hold up the others. Error bodies are a `google.rpc.Status`.
Source: opentelemetry-proto, specification.md, OTLP/HTTP; RFC 9110 (Allow, Retry-After, Content-Encoding).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from otel_mlmon.errors import MalformedError, OverloadedError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor import address as addresses
from otel_mlmon.processor.receive.admission import Admission, ExportResult, Signal
from otel_mlmon.processor.receive.inflate import ENCODINGS, TooLargeError, inflate
from otel_mlmon.processor.receive.responses import encode_response, encode_status

OPTION: Final = "receiver.http"
BACKLOG: Final = 2048
WORKERS: Final = 4
BODY_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 30.0
KEEP_ALIVE_S: Final = 75
"""Above the usual interval of exports, so that senders can reuse their connections."""

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

PATHS: Final[Mapping[str, Signal]] = {"/v1/metrics": "metrics", "/v1/logs": "logs", "/v1/traces": "traces"}

_CLOSE: Final = {"connection": "close"}  # because the remaining body is not read

# google.rpc.Code of each HTTP status. Source: googleapis, google/rpc/code.proto.
_RPC_CODES: Final = {400: 3, 401: 16, 404: 12, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}


class RequestRefusedError(Exception):
    """A request that is answered with an error status.

    Args:
        status_code: The HTTP status.
        message: What happened and what the sender can do.
        retry_after_s: After how many seconds the sender may try again; None if it must not.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))

    def response(self, request: Request) -> Response:
        """Returns a `google.rpc.Status`, in the encoding of the request where that is JSON."""
        code, message = _RPC_CODES[self.status_code], str(self)
        if _content_type(request) == JSON:
            body, media_type = json.dumps({"code": code, "message": message}).encode(), JSON
        else:
            body, media_type = encode_status(code, message, retry_after_s=self.retry_after_s), PROTOBUF
        return Response(body, status_code=self.status_code, headers=self.headers, media_type=media_type)


class HttpReceiver:
    """An OTLP/HTTP server.

    Runs on: one thread of its own for the event loop, and `workers` threads that decode requests.

    Args:
        admission: Where requests are handed in.
        address: `host:port`; port 0 takes any that is free.
        workers: How many requests are decompressed and decoded at a time.
        certificate: The server's certificate chain, a PEM file; None for no TLS.
        key: The certificate's private key, a PEM file.
        client_ca: The authority whose client certificates are accepted (mTLS), a PEM file; None to ask for none.
        token: The token that senders must present as `Authorization: Bearer <token>`; None to ask for none.
        body_timeout_s: How long a sender may pause while it sends a body, in seconds.
        answer_timeout_s: How long a request waits for its points to be stored, in seconds.

    Raises:
        ConfigurationError: `address` is not a `host:port`.
    """

    def __init__(
        self,
        admission: Admission,
        address: str,
        *,
        workers: int = WORKERS,
        certificate: Path | None = None,
        key: Path | None = None,
        client_ca: Path | None = None,
        token: str | None = None,
        body_timeout_s: float = BODY_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._admission = admission
        self._address = addresses.parse(address, option=OPTION)
        self._token = token
        self._body_timeout_s = body_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._workers = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="otlp-http")
        self._is_encrypted = certificate is not None
        self._arriving_bytes = 0  # touched by the event loop only
        self._server = uvicorn.Server(_server_config(self._router(), certificate, key, client_ca))
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Starts to listen; returns the bound `host:port`.

        Raises:
            PortUnavailableError: The address is in use or not one of this machine.
        """
        addresses.warn_if_exposed(self._address, option=OPTION, is_encrypted=self._is_encrypted)
        self._server.config.load()  # here, so that the caller gets the error of a certificate that cannot be read
        listener, bound = addresses.listen(self._address, option=OPTION, backlog=BACKLOG)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="otlp-http", daemon=True)
        self._thread.start()
        return str(bound)

    def stop(self, grace_s: float) -> None:
        """Accepts no new requests, lets those in progress end within `grace_s` seconds, then cuts them off."""
        if self._thread is not None:
            self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
            self._server.should_exit = True
            self._thread.join(timeout=grace_s + 5)
        self._workers.shutdown(wait=False)

    def _router(self) -> Router:
        routes = [Route(path, _Endpoint(self._export)) for path in PATHS]
        return Router(routes, redirect_slashes=False, default=_Endpoint(_answer_unknown_path))

    async def _export(self, request: Request) -> Response:
        """Answers one request. An internal error is never answered with 500, at which senders drop the batch."""
        refusal = self._unavailable("The processor failed to answer the request; send it again.")
        with guard("receive.http"):
            try:
                return await self._receive(request)
            except RequestRefusedError as error:
                refusal = error
            except ClientDisconnect:
                return Response()  # which reaches nobody
        return refusal.response(request)

    async def _receive(self, request: Request) -> Response:
        signal = PATHS[request.scope["path"]]
        if request.method != "POST":
            message = "Only POST is supported; send the request with POST."
            raise RequestRefusedError(405, message, headers={"allow": "POST"})
        self._check_token(request.headers.get("authorization", ""))
        encoding = _check_encoding(request)
        if int(request.headers.get("content-length", 0)) > self._admission.max_request_bytes:
            raise self._too_large()
        body = await self._read_body(request)
        result = await self._consume(signal, body, encoding)
        return Response(encode_response(signal, result), media_type=PROTOBUF)

    def _check_token(self, credentials: str) -> None:
        if self._token is None or hmac.compare_digest(credentials.encode(), f"Bearer {self._token}".encode()):
            return
        message = "A bearer token is required; send it as 'Authorization: Bearer <token>'."
        raise RequestRefusedError(401, message, headers={"www-authenticate": "Bearer"})

    async def _read_body(self, request: Request) -> bytes:
        """Reads the body as it was sent; the bodies of all requests that arrive together are bounded too."""
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            while True:
                event = await asyncio.wait_for(request.receive(), self._body_timeout_s)
                if event["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = event.get("body", b"")
                chunks.append(chunk)
                size_bytes += len(chunk)
                self._arriving_bytes += len(chunk)
                if size_bytes > self._admission.max_request_bytes:
                    raise self._too_large()
                if self._arriving_bytes > self._admission.max_pending_bytes:
                    self._admission.count_refusal()
                    message = "The processor receives too many bytes at a time; send the request again later."
                    delay_s = self._admission.retry_after_s
                    raise RequestRefusedError(429, message, retry_after_s=delay_s, headers=_CLOSE)
                if not event.get("more_body", False):
                    return b"".join(chunks)
        except asyncio.TimeoutError:
            message = f"No more of the body arrived within {self._body_timeout_s:g} s; send the request again."
            raise RequestRefusedError(408, message, headers=_CLOSE) from None
        finally:
            self._arriving_bytes -= size_bytes

    async def _consume(self, signal: Signal, body: bytes, encoding: str) -> ExportResult:
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._workers, self._decompress_and_consume, signal, body, encoding)
            return await asyncio.wait_for(asyncio.wrap_future(result), self._answer_timeout_s)
        except TooLargeError:
            raise self._too_large() from None
        except MalformedError as error:
            raise RequestRefusedError(400, str(error)) from None
        except OverloadedError as error:
            raise RequestRefusedError(429, str(error), retry_after_s=error.retry_after_s) from None
        except UnavailableError as error:
            raise RequestRefusedError(503, str(error), retry_after_s=error.retry_after_s) from None
        except asyncio.TimeoutError:
            message = f"The points were not stored within {self._answer_timeout_s:g} s; send the request again."
            raise self._unavailable(message) from None

    def _decompress_and_consume(self, signal: Signal, body: bytes, encoding: str) -> Future[ExportResult]:
        """Runs on: a worker's thread."""
        return self._admission.consume(signal, inflate(body, encoding, max_bytes=self._admission.max_request_bytes))

    def _too_large(self) -> RequestRefusedError:
        limit_bytes = self._admission.max_request_bytes
        message = f"The body is larger than {limit_bytes} bytes when decompressed; send smaller batches."
        return RequestRefusedError(413, message, headers=_CLOSE)

    def _unavailable(self, message: str) -> RequestRefusedError:
        return RequestRefusedError(503, message, retry_after_s=self._admission.retry_after_s)


class _Endpoint:
    """An ASGI application of one handler, without the wrappers for exceptions that a function as endpoint gets.

    They cost a tenth of a small request, and the handlers here do not raise.
    """

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


async def _answer_unknown_path(request: Request) -> Response:
    message = f"There is no such path; send OTLP to one of {', '.join(PATHS)}."
    return RequestRefusedError(404, message).response(request)


def _check_encoding(request: Request) -> str:
    """Returns the content encoding of a protobuf body."""
    content_type = _content_type(request)
    if content_type != PROTOBUF:
        shown = content_type or "none"
        raise RequestRefusedError(415, f"Content type {shown} is not supported; send {PROTOBUF}.")
    encoding = request.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        supported = ", ".join(ENCODINGS)
        message = f"Content encoding {encoding} is not supported; send one of {supported}."
        raise RequestRefusedError(415, message, headers={"accept-encoding": supported})
    return encoding


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _server_config(app: Router, certificate: Path | None, key: Path | None, client_ca: Path | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=str(client_ca) if client_ca is not None else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca is not None else ssl.CERT_NONE,
    )
