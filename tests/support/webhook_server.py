"""Runs a real HTTP server that takes alerts, and answers with faults by a script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A scripted answer of the server to one request."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    waits: bool = False
    """Whether it says nothing until `WebhookServer.release`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request that the server received."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(slots=True)
class WebhookServer:
    """The requests that the server received and its next answers, of which the last is repeated for ever."""

    answers: list[Answer]
    url: str = ""
    received: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    release: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """Returns the received requests, once there are `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, timeout_s), self.received
            return list(self.received)


@contextmanager
def webhook_server(*answers: Answer) -> Iterator[WebhookServer]:
    """Runs a webhook server on a free port, and closes it at the end."""
    server = WebhookServer(list(answers) or [Answer()])
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = False
    http.block_on_close = True
    server.url = f"http://127.0.0.1:{http.server_port}/hook"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: WebhookServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with server.changed:
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                server.received.append(Received(path=self.path, headers=headers, body=body))
                server.changed.notify_all()
            if answer.waits:
                server.release.wait(30)
            try:
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
