"""Serves ASGI applications with uvicorn so that idle and slow connections cannot keep others out.

uvicorn has no time-out for the head of a request nor for the reading of an answer, and at its limit of connections it
refuses requests instead of closing idle connections. This protocol closes a connection that has sent no whole head
after 10 s, or that takes no more of its answer, and at the limit the one that has been idle longest; what the clients
of broken requests did is logged once a minute.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
import socket
import ssl
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from otel_mlmon.errors import ConfigurationError

if sys.platform != "win32":  # which has no such limit
    import resource

HEAD_TIMEOUT_S: Final = 10.0
ANSWER_INTERVAL_S: Final = 30.0
MIN_ANSWER_BYTES: Final = 64 * 2**10
"""The bytes of a large answer that a client must take in `ANSWER_INTERVAL_S`."""

SEND_BUFFER_BYTES: Final = 128 * 2**10
"""Bytes of an answer that the kernel holds, twice as much on Linux; it tells by thirds of it what a client took."""

MAX_CONNECTIONS: Final = 4096
"""Connections of one receiver at a time, where the process may open as many files."""

OTHER_FILES: Final = 256
"""Files and connections that the process has beside those of its two receivers."""

OLD_CONNECTIONS_S: Final = 30
"""How long requests may go on that began with an earlier certificate."""

LOG_INTERVAL_S: Final = 60.0

_ARRIVED_S: Final = "otel_mlmon.arrived_s"
"""The key of a request's state that says when its last bytes arrived, by the monotonic clock."""

_LAST_DATA_OFFSET: Final = 52
"""Where Linux says in a connection's `tcp_info` how many milliseconds ago its last data came (tcpi_last_data_recv)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The PEM files with which a server uses TLS: certificate, key, and the authority of client certificates."""

    certificate: Path
    """The server's certificate chain."""
    key: Path
    """The certificate's private key."""
    client_ca: Path | None = None
    """The authority whose client certificates are accepted (mTLS); None to ask for none."""

    def check_files(self, option: str) -> None:
        """Checks that the certificate and key files of a TLS server can be read and belong together.

        Raises:
            ConfigurationError: A file cannot be read, or certificate and key do not fit.
        """
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigurationError(f"{option}: {path} cannot be read")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(f"{option}: the certificate and its key cannot be used: {error}") from None


def raise_file_limit() -> None:
    """Raises the process's own limit on open files, as far as it may, to what two receivers need.

    Each connection is an open file, and the usual limit, 1,024, is that of programs of the last century: without files
    nothing could be stored either.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MAX_CONNECTIONS + OTHER_FILES
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def compute_connection_limit() -> int:
    """Returns how many connections one of two receivers may have at a time, by the present limit on open files."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else (soft - OTHER_FILES) // 2
    return max(16, min(MAX_CONNECTIONS, room))


def has_bearer_token(authorization: str, token: str) -> bool:
    """Returns whether an `Authorization` header has this token as `Bearer`, in constant time.

    Source: RFC 6750; RFC 9110, 11.1 (the scheme is in any case).
    """
    scheme, _, credentials = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(credentials.strip().encode(), token.encode())


def measure_read_wait_s(scope: Scope) -> float:
    """Returns how many seconds ago the last bytes of an HTTP request arrived, with the time that they lay unread."""
    arrived_s: float | None = scope.get("state", {}).get(_ARRIVED_S)
    return 0.0 if arrived_s is None else time.monotonic() - arrived_s


class AsgiServer:
    """A server that runs an ASGI application on a thread of its own; prints nothing and handles no signals.

    Args:
        app: The application.
        name: The name of the thread.
        tls: Certificate and key; None for no TLS.
        keep_alive_s: How long a connection without a request stays open, in seconds.
        max_connections: How many connections there are at most.
        head_timeout_s: In how many seconds the whole head of a request must arrive.
        answer_interval_s: In how many seconds a client must take `MIN_ANSWER_BYTES` of a large answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        tls: TlsFiles | None,
        keep_alive_s: int,
        max_connections: int,
        head_timeout_s: float,
        answer_interval_s: float = ANSWER_INTERVAL_S,
    ) -> None:
        self._app = app
        self._name = name
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._max_connections = max_connections
        self._head_timeout_s = head_timeout_s
        self._answer_interval_s = answer_interval_s
        self._listener: socket.socket | None = None
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None

    def start(self, listener: socket.socket) -> None:
        """Starts to accept connections on a listening socket, which `stop` closes."""
        self._listener = listener
        self._running = self._start_uvicorn(listener)

    def reload(self, tls: TlsFiles | None) -> None:
        """Reads the TLS certificates of the server anew, for new connections only.

        Whether TLS is spoken does not change.
        """
        if self._listener is None or self._running is None or self._tls is None or tls is None:
            return
        self._tls = tls
        previous, _ = self._running
        self._running = self._start_uvicorn(self._listener)
        previous.should_exit = True

    def stop(self, grace_s: float, timeout_s: float) -> bool:
        """Stops the server: accepts nothing more, and cuts off what is still in progress after `grace_s` seconds.

        Returns whether it ended within `timeout_s` seconds. Safe before `start`, and twice.
        """
        if self._listener is None or self._running is None:
            return True
        server, thread = self._running
        server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        server.should_exit = True
        thread.join(timeout_s)
        self._listener.close()
        return not thread.is_alive()

    def _start_uvicorn(self, listener: socket.socket) -> tuple[uvicorn.Server, threading.Thread]:
        """Starts a uvicorn server on the listening socket, on which an earlier one may still run."""

        class Connection(_HttpConnection):
            limit = self._max_connections
            timeout_s = self._head_timeout_s
            answer_interval_s = self._answer_interval_s

        tls = self._tls
        client_ca = tls.client_ca if tls is not None else None
        config = uvicorn.Config(
            self._app,
            access_log=False,
            http=Connection,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            loop="asyncio",
            proxy_headers=False,
            server_header=False,
            ssl_ca_certs=str(client_ca) if client_ca is not None else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca is not None else ssl.CERT_NONE,
            ssl_certfile=tls.certificate if tls is not None else None,
            ssl_keyfile=tls.key if tls is not None else None,
            timeout_graceful_shutdown=OLD_CONNECTIONS_S,
            timeout_keep_alive=self._keep_alive_s,
            ws="none",
        )
        config.load()  # here, so that the caller gets the error of a certificate that cannot be read
        server = uvicorn.Server(config)
        sockets = [listener.dup()]
        thread = threading.Thread(target=server.run, args=(sockets,), name=self._name, daemon=True)
        thread.start()
        return server, thread


class _HttpConnection(H11Protocol):
    """One HTTP connection of the server. Runs on: the event loop's thread."""

    limit: int
    timeout_s: float
    answer_interval_s: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _LOGGER
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._idle_since_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress on the connection."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or bool(cycle.response_complete)

    @property
    def is_open(self) -> bool:
        """Whether the connection takes room; a closing one does until its client has taken the answer."""
        return not self.transport.is_closing() or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._start_head_timer()
        present = [other for other in self.connections if isinstance(other, _HttpConnection) and other.is_open]
        if len(present) > self.limit:
            idle = [other for other in present if other.is_idle and other is not self]
            oldest = min(idle, key=lambda other: other._idle_since_s, default=self)
            _LOGGER.warning("A connection without a request was closed to make room: %d are open.", self.limit)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_answer_timer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        previous = self.cycle
        super().handle_events()
        if self.cycle is not previous:
            self._stop_head_timer()

    def data_received(self, data: bytes) -> None:
        if self.is_idle and self._head_timer is None:
            self._start_head_timer()
        arrived_s = time.monotonic() - self._measure_unread_s()
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None:
            cycle.scope["state"][_ARRIVED_S] = arrived_s

    def on_response_complete(self) -> None:
        self._idle_since_s = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_answer_timer()

    def resume_writing(self) -> None:
        self._stop_answer_timer()
        super().resume_writing()

    def _measure_unread_s(self) -> float:
        """Returns for how long a connection's last data lay unread in the kernel; 0 if the kernel does not say."""
        if sys.platform != "linux":
            return 0.0
        connection = self.transport.get_extra_info("socket")
        try:
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_OFFSET + 4)
            return float(struct.unpack_from("=I", information, _LAST_DATA_OFFSET)[0]) / 1000
        except (OSError, struct.error):  # an end of another kind, or an older kernel
            return 0.0

    def _start_answer_timer(self) -> None:
        size_bytes = self.transport.get_write_buffer_size()
        self._answer_timer = self.loop.call_later(self.answer_interval_s, self._check_answer_progress, size_bytes)

    def _check_answer_progress(self, before_bytes: int) -> None:
        self._answer_timer = None
        if before_bytes - self.transport.get_write_buffer_size() >= MIN_ANSWER_BYTES:
            self._start_answer_timer()
            return
        text = "A connection took less than %d bytes of its answer in %g s and was closed."
        _LOGGER.warning(text, MIN_ANSWER_BYTES, self.answer_interval_s)
        self.transport.abort()

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _start_head_timer(self) -> None:
        self._idle_since_s = time.monotonic()
        self._head_timer = self.loop.call_later(self.timeout_s, self._close_idle_connection)

    def _close_idle_connection(self) -> None:
        self._head_timer = None
        if self.is_idle:
            _LOGGER.warning("A connection sent no whole head of a request in %g s and was closed.", self.timeout_s)
            self.transport.abort()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _RepetitionFilter(logging.Filter):
    """A log filter that passes the same message once in `LOG_INTERVAL_S` at most."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now_s = time.monotonic()
        key = str(record.msg)
        if now_s - self._logged_at_s.get(key, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            return False
        self._logged_at_s[key] = now_s
        return True


def _refuse_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


_LOGGER: Final = logging.getLogger("otel_mlmon.connections")
_LOGGER.addFilter(_RepetitionFilter())
