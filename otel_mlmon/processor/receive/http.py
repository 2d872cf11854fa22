"""OTLP over HTTP, protobuf: `POST /v1/{metrics,logs,traces}`, on uvicorn without a framework.

The event loop reads and answers; decompression, parsing and decoding happen on threads beside it, so that one
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
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import uvicorn

from otel_mlmon.errors import MalformedError, OverloadedError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor import address as addresses
from otel_mlmon.processor.receive import responses as answers
from otel_mlmon.processor.receive.admission import Admission, Outcome, Signal
from otel_mlmon.processor.receive.inflate import ENCODINGS, TooLargeError, inflate

OPTION: Final = "receiver.http"
BACKLOG: Final = 2048
WORKERS: Final = 4
BODY_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 30.0
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

PATHS: Final[Mapping[str, Signal]] = {"/v1/metrics": "metrics", "/v1/logs": "logs", "/v1/traces": "traces"}

_CLOSE: Final = {"connection": "close"}  # the rest of the body is not read

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]

# google.rpc.Code of each HTTP status. Source: googleapis, google/rpc/code.proto.
_RPC_CODES: Final = {400: 3, 401: 16, 404: 12, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _RefusedError(Exception):
    """A request is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))

    def answer(self, content_type: str) -> _Answer:
        """The status, in the encoding of the request where that is JSON."""
        code, message = _RPC_CODES[self.status], str(self)
        if content_type == JSON:
            body = json.dumps({"code": code, "message": message}).encode()
        else:
            body = answers.status(code, message, retry_after_s=self.retry_after_s)
        headers = {**self.headers, "content-type": content_type if content_type == JSON else PROTOBUF}
        return _Answer(status=self.status, body=body, headers=headers)


class _GoneError(Exception):
    """The client went away before its request was whole."""


class HttpReceiver:
    """An OTLP/HTTP server.

    Runs on: one thread of its own for the event loop, and `workers` threads that read requests.

    Args:
        intake: What takes the requests.
        address: `host:port`; port 0 takes any that is free.
        workers: How many requests are decompressed and decoded at a time.
        certificate: Of the server, PEM, with its chain; None for no TLS.
        key: Of the certificate, PEM.
        client_ca: Who signs the certificates that clients must show (mTLS); None to ask for none.
        token: What clients must send as `Authorization: Bearer <token>`; None to ask for none.
        body_timeout_s: How long a client may be silent while it sends a body, in seconds.
        answer_timeout_s: How long a request waits for its observations to be safe, in seconds.

    Raises:
        ConfigurationError: `address` is not one.
    """

    def __init__(
        self,
        intake: Admission,
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
        self._intake = intake
        self._address = addresses.read(address, option=OPTION)
        self._token = token
        self._body_timeout_s = body_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._workers = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="otlp-http")
        self._is_encrypted = certificate is not None
        self._reading_bytes = 0  # touched by the event loop only
        self._server = uvicorn.Server(_config(self._app, certificate, key, client_ca))
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen, and answer the bound `host:port`.

        Raises:
            PortUnavailableError: The address is taken or not ours to listen on.
        """
        addresses.warn_if_exposed(self._address, option=OPTION, is_encrypted=self._is_encrypted)
        self._server.config.load()  # here, so that a certificate that cannot be read is the caller's to see
        listener, bound = addresses.listen(self._address, option=OPTION, backlog=BACKLOG)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="otlp-http", daemon=True)
        self._thread.start()
        return str(bound)

    def stop(self, grace_s: float) -> None:
        """Take no new requests, let those in progress end within `grace_s` seconds, then cut them off."""
        if self._thread is not None:
            self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
            self._server.should_exit = True
            self._thread.join(timeout=grace_s + 5)
        self._workers.shutdown(wait=False)

    async def _app(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """One request. What fails in here is a fault of ours and never answered 500: senders drop on that."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused: _RefusedError | None = _RefusedError(
            503, "the processor failed to answer the request", retry_after_s=self._intake.retry_after_s
        )
        answer: _Answer | None = None
        with guard("http_receiver"):
            try:
                answer = await self._answer(scope["method"], scope["path"], headers, receive)
            except _RefusedError as error:
                refused = error
            except _GoneError:
                refused = None
        if answer is None and refused is not None:
            answer = refused.answer(_content_type(headers))
        if answer is not None:
            await _respond(send, answer)

    async def _answer(self, method: str, path: str, headers: Mapping[str, str], receive: _Receive) -> _Answer:
        signal = PATHS.get(path)
        if signal is None:
            raise _RefusedError(404, f"no such path; there are {', '.join(PATHS)}")
        if method != "POST":
            raise _RefusedError(405, "only POST is answered here", headers={"allow": "POST"})
        self._check_token(headers.get("authorization", ""))
        encoding = _check_encoding(headers)
        if int(headers.get("content-length", 0)) > self._intake.max_request_bytes:
            raise self._too_large()
        body = await self._body(receive)
        outcome = await self._consume(signal, body, encoding)
        return _Answer(status=200, body=answers.response(signal, outcome))

    def _check_token(self, sent: str) -> None:
        if self._token is not None and not hmac.compare_digest(sent.encode(), f"Bearer {self._token}".encode()):
            challenge = {"www-authenticate": "Bearer"}
            raise _RefusedError(401, "a bearer token is needed", headers=challenge)

    async def _body(self, receive: _Receive) -> bytes:
        """The body as it was sent; all bodies in arrival together are bounded like all that is in flight."""
        parts: list[bytes] = []
        size_bytes = 0
        try:
            while True:
                event = await asyncio.wait_for(receive(), self._body_timeout_s)
                if event["type"] == "http.disconnect":
                    raise _GoneError
                part = event.get("body", b"")
                parts.append(part)
                size_bytes += len(part)
                self._reading_bytes += len(part)
                if size_bytes > self._intake.max_request_bytes:
                    raise self._too_large()
                if self._reading_bytes > self._intake.max_pending_bytes:
                    delay_s = self._intake.retry_after_s
                    message = "too many bytes are being received"
                    raise _RefusedError(429, message, retry_after_s=delay_s, headers=_CLOSE)
                if not event.get("more_body", False):
                    return b"".join(parts)
        except asyncio.TimeoutError:
            raise _RefusedError(408, "the body did not arrive in time", headers=_CLOSE) from None
        finally:
            self._reading_bytes -= size_bytes

    def _too_large(self) -> _RefusedError:
        limit_bytes = self._intake.max_request_bytes
        return _RefusedError(413, f"the body is above {limit_bytes} bytes", headers=_CLOSE)

    async def _consume(self, signal: Signal, body: bytes, encoding: str) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            pending = await loop.run_in_executor(self._workers, self._read, signal, body, encoding)
            return await asyncio.wait_for(asyncio.wrap_future(pending), self._answer_timeout_s)
        except TooLargeError:
            raise self._too_large() from None
        except MalformedError as error:
            raise _RefusedError(400, str(error)) from None
        except OverloadedError as error:
            raise _RefusedError(429, str(error), retry_after_s=error.retry_after_s) from None
        except UnavailableError as error:
            raise _RefusedError(503, str(error), retry_after_s=error.retry_after_s) from None
        except asyncio.TimeoutError:
            delay_s = self._intake.retry_after_s
            message = "the observations were not safe in time"
            raise _RefusedError(503, message, retry_after_s=delay_s) from None

    def _read(self, signal: Signal, body: bytes, encoding: str) -> Future[Outcome]:
        """Runs on: a worker's thread."""
        whole = inflate(body, encoding, max_bytes=self._intake.max_request_bytes)
        return self._intake.consume(signal, whole, "protobuf")


async def _respond(send: _Send, answer: _Answer) -> None:
    headers = {"content-type": PROTOBUF, **answer.headers, "content-length": str(len(answer.body))}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.body})


def _config(
    app: Callable[[_Message, _Receive, _Send], Awaitable[None]],
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None,
) -> uvicorn.Config:
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
        timeout_keep_alive=75,  # above the usual interval of exports, so that their connections stay
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=str(client_ca) if client_ca is not None else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca is not None else ssl.CERT_NONE,
    )


def _check_encoding(headers: Mapping[str, str]) -> str:
    """The content encoding, of a body that is protobuf."""
    content_type = _content_type(headers)
    if content_type != PROTOBUF:
        raise _RefusedError(415, f"{content_type or 'no content type'} is not spoken here, {PROTOBUF} is")
    encoding = headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        spoken = ", ".join(ENCODINGS)
        accept = {"accept-encoding": spoken}
        raise _RefusedError(415, f"content encoding {encoding} is not spoken here, {spoken} are", headers=accept)
    return encoding


def _content_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
