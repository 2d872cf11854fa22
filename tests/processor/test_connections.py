"""Real sockets against real servers: what sends nothing is closed and keeps nobody out."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor import connections
from otel_mlmon.processor.connections import MIN_ANSWER_BYTES, AsgiServer, TlsFiles
from tests.support.certificates import make_certificate
from tests.support.processes import run_python, until

Start = Callable[..., tuple[AsgiServer, int]]


LARGE_BYTES = 8 * 2**20


waits_s: list[float] = []
"""For how long the requests of `/wait` lay unread."""
is_held, may_go = threading.Event(), threading.Event()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/hold":
        is_held.set()
        assert may_go.wait(60)  # holds up the event loop, as work that has the interpreter does
    if scope["path"] == "/wait":
        waits_s.append(connections.measure_read_wait_s(scope))
    text = "x" * LARGE_BYTES if scope["path"] == "/large" else "hello"
    await PlainTextResponse(text)(scope, receive, send)


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[AsgiServer] = []

    def started(**options: Any) -> tuple[AsgiServer, int]:
        settings = {"tls": None, "keep_alive_s": 60, "max_connections": 100, "head_timeout_s": 30.0, **options}
        server = AsgiServer(hello, name="test", **settings)
        listener = socket.create_server(("127.0.0.1", 0))
        server.start(listener)
        servers.append(server)
        return server, int(listener.getsockname()[1])

    yield started
    for server in servers:
        assert server.stop(0.0, 30.0)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    (once,) = (item for item in connections._LOGGER.filters if isinstance(item, connections._RepetitionFilter))
    once._logged_at_s.clear()
    with caplog.at_level(logging.WARNING, logger="otel_mlmon.connections"):
        yield caplog


def is_closed(client: socket.socket) -> bool:
    """Waits for the end of a connection that gets no answer."""
    client.settimeout(30)
    with contextlib.suppress(ConnectionError):
        return client.recv(1) == b""
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when data came")
def test_the_wait_of_a_request_counts_from_its_arrival_in_the_kernel(start: Start) -> None:
    _, port = start()
    is_held.clear()
    may_go.clear()
    waits_s.clear()
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(2)]
    clients[0].request("GET", "/hold")
    assert is_held.wait(60)
    clients[1].request("GET", "/wait")
    sent_s = time.monotonic()
    until(lambda: time.monotonic() - sent_s > 0.5)
    may_go.set()
    assert [client.getresponse().read() for client in clients] == [b"hello", b"hello"]
    assert waits_s[0] > 0.4
    assert connections.measure_read_wait_s({"type": "http"}) == 0.0
    for client in clients:
        client.close()


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_never_ends_is_closed_and_logged_once(
    start: Start, log: pytest.LogCaptureFixture, beginning: bytes
) -> None:
    _, port = start(head_timeout_s=0.3)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    for client in clients:
        client.sendall(beginning)
    assert all(is_closed(client) for client in clients)
    for client in clients:
        client.close()
    messages = [record.getMessage() for record in log.records if "no whole head" in record.getMessage()]
    assert messages == ["A connection sent no whole head of a request in 0.3 s and was closed."]


def test_a_second_head_that_never_ends_is_closed_too(start: Start) -> None:
    _, port = start(head_timeout_s=0.5)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(30)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            answer += client.recv(1000)
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert is_closed(client)


def test_idle_connections_make_room_for_requests(start: Start) -> None:
    _, port = start(max_connections=10)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        connection.close()
    for client in idle[:20]:
        assert is_closed(client)
    for client in idle:
        client.close()


def ask_for_much(port: int) -> socket.socket:
    """Asks for a large answer, of which the client's machine takes only a little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    return client


def read_to_end(client: socket.socket) -> int:
    """How many bytes come until the connection ends."""
    size_bytes = 0
    with contextlib.suppress(ConnectionError):
        while part := client.recv(2**20):
            size_bytes += len(part)
    return size_bytes


def test_a_client_that_takes_no_more_of_its_answer_is_closed_also_after_its_time_to_live(
    start: Start, log: pytest.LogCaptureFixture
) -> None:
    server, port = start(answer_interval_s=1.0, keep_alive_s=0)
    clients = [ask_for_much(port) for _ in range(3)]
    assert server._running is not None
    running, _ = server._running
    until(lambda: not running.server_state.connections)
    assert all(read_to_end(client) < LARGE_BYTES for client in clients)
    for client in clients:
        client.close()
    messages = [record.getMessage() for record in log.records if "of its answer" in record.getMessage()]
    assert messages == ["A connection took less than 65536 bytes of its answer in 1 s and was closed."]


def test_a_client_that_is_slow_gets_all_of_its_answer(start: Start) -> None:
    _, port = start(answer_interval_s=2.5)
    with ask_for_much(port) as client:
        pause = threading.Event()
        size_bytes = 0
        for _ in range(20):
            pause.wait(0.15)  # longer than an interval together
            size_bytes += len(client.recv(MIN_ANSWER_BYTES, socket.MSG_WAITALL))
        while size_bytes < LARGE_BYTES - 1_000 and (part := client.recv(2**20)):
            size_bytes += len(part)
    assert size_bytes >= LARGE_BYTES - 1_000


def test_connections_with_answers_that_nobody_takes_make_room_too(start: Start) -> None:
    _, port = start(max_connections=5, keep_alive_s=0)
    clients = [ask_for_much(port) for _ in range(12)]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()
    assert [read_to_end(client) < LARGE_BYTES for client in clients[:8]] == [True] * 8
    for client in clients:
        client.close()


def test_a_request_that_is_none_is_answered_without_a_line_each(start: Start, log: pytest.LogCaptureFixture) -> None:
    _, port = start()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\x16\x03\x01\r\n\r\n")
            client.settimeout(30)
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert len([record for record in log.records if "Invalid HTTP" in record.getMessage()]) == 1


def served_certificate(port: int, context: ssl.SSLContext) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        return client.getpeercert(binary_form=True)


def test_certificate_and_authority_are_replaced_without_a_new_socket(start: Start, tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    client, other = make_certificate(tmp_path, "client"), make_certificate(tmp_path, "other")
    tls = TlsFiles(certificate=first.certificate, key=first.key, client_ca=client.certificate)
    server, port = start(tls=tls)

    def trusting(authority: Any, shown: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(shown.certificate, shown.key)
        return context

    old = served_certificate(port, trusting(first, client))
    server.reload(TlsFiles(certificate=second.certificate, key=second.key, client_ca=other.certificate))

    def replaced() -> bytes | None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            return served_certificate(port, trusting(second, other))
        return None

    new = until(replaced)
    assert new != old

    def is_refused() -> bool:
        try:
            served_certificate(port, trusting(second, client))
        except (ssl.SSLError, ConnectionError, AssertionError):
            return True
        return False

    assert until(is_refused)


FILE_LIMITS = """
import resource, sys
from otel_mlmon.processor import connections
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
connections.raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], connections.compute_connection_limit())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "files", "limit"), [(64, 2_256, 2_256, 1_000), (64, 9_000, 8_448, 4_096), (64, 100, 100, 16)]
)
def test_as_many_connections_as_the_process_may_open_files(
    soft: int, hard: int, files: int, limit: int, tmp_path: Path
) -> None:
    done = run_python(["-c", FILE_LIMITS, str(soft), str(hard)], cwd=tmp_path)
    assert done.stdout.split() == [str(files), str(limit)], done.stderr


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    with pytest.raises(ConfigurationError, match=r"^web\.tls: the certificate and its key cannot be used: "):
        TlsFiles(certificate=first.certificate, key=second.key).check_files("web.tls")
    with pytest.raises(ConfigurationError, match=rf"^web\.tls: {tmp_path}/none\.pem cannot be read$"):
        TlsFiles(certificate=first.certificate, key=first.key, client_ca=tmp_path / "none.pem").check_files("web.tls")
    TlsFiles(certificate=first.certificate, key=first.key, client_ca=second.certificate).check_files("web.tls")
