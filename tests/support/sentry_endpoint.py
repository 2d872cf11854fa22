"""A Sentry server on loopback that takes envelopes and OTLP traces over HTTP, as Sentry's own server does."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import until


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, dict(self.headers), body)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Endpoint(http.server.ThreadingHTTPServer):
    """The envelopes and spans that Sentry's clients have sent."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, Any]] = []
        self.otlp_auth: list[str] = []
        self.headers: list[Any] = []
        """Headers of envelopes: `trace` has the sample rate that Sentry weights by."""

    @property
    def dsn(self) -> str:
        """The DSN with which a client sends to this endpoint."""
        return f"http://key@127.0.0.1:{self.server_port}/1"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Note every item of an envelope, or every span of OTLP."""
        if path == "/api/1/envelope/":
            self.headers.append(json.loads(body.partition(b"\n")[0]))
            self.received += items_of(body)
        elif path == "/api/1/integration/otlp/v1/traces/":
            self.otlp_auth.append({name.lower(): value for name, value in headers.items()}["x-sentry-auth"])
            request = ExportTraceServiceRequest.FromString(body)
            self.received += [
                ("otlp", span)
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def of(self, kind: str) -> list[Any]:
        """Returns the received items of one type: `event`, `transaction`, `span` (streamed, flat) or `otlp`."""
        matches = [item for name, item in list(self.received) if name == kind]
        return [span for batch in matches for span in batch["items"]] if kind == "span" else matches

    def wait(self, kind: str, count: int = 1, *, where: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """Returns the items of one type that satisfy `where`, once there are so many."""

        def matches() -> list[Any] | None:
            items = [item for item in self.of(kind) if where(item)]
            return items if len(items) >= count else None

        return until(matches, deadline_s=10, what=f"{count} of type {kind}, got {self.received}")


def items_of(body: bytes) -> Iterator[tuple[str, Any]]:
    """Yields type and payload of the items of an envelope. Source: develop.sentry.dev, SDK, Envelopes."""
    rest = body.partition(b"\n")[2]
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        length = header.get("length")
        payload, rest = (rest[:length], rest[length:].lstrip(b"\n")) if length is not None else rest.split(b"\n", 1)
        yield header["type"], json.loads(payload) if payload.startswith(b"{") else payload


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Runs a Sentry endpoint inside."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def no_sentry() -> Iterator[None]:
    """Sentry as if it had never been initialised, before and after, its threads ended."""

    def forget() -> None:
        client = sentry_sdk.get_client()
        if client.is_active():
            client.close(timeout=2.0)
        sentry_sdk.get_global_scope().set_client(None)
        sentry_sdk.scope._current_scope.set(None)
        sentry_sdk.scope._isolation_scope.set(None)

    forget()
    try:
        yield
    finally:
        forget()


def initialise(to: Endpoint, **options: Any) -> None:
    """`sentry_sdk.init`, without what would stay in the test's process for good: integrations, threads that sleep."""
    quiet = (
        "default_integrations",
        "auto_enabling_integrations",
        "auto_session_tracking",
        "enable_backpressure_handling",
    )
    sentry_sdk.init(dsn=to.dsn, **{**dict.fromkeys(quiet, False), **options})
