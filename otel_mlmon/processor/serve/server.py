"""Serves an ASGI application with uvicorn on a thread of its own."""

from __future__ import annotations

import socket
import threading
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from otel_mlmon.processor import address as addresses

BACKLOG: Final = 128
MAX_CONNECTIONS: Final = 100
KEEP_ALIVE_S: Final = 5
GRACE_S: Final = 1


class WebServer:
    """Serves `app` until it is stopped; installs no signal handler and prints nothing.

    The socket is bound here rather than by uvicorn, so that port 0 works, its number is known at once, and a port in
    use raises our error instead of ending the process.

    Args:
        app: The application.
        address: `host:port`, an IPv6 host in brackets; port 0 takes any that is free.
        option: The configuration key of the address, for error messages.

    Raises:
        ConfigurationError: `address` is not a `host:port`.
    """

    def __init__(self, app: ASGIApp, address: str, *, option: str = "web.listen") -> None:
        self._address = addresses.parse(address, option=option)
        self._option = option
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,
                http="h11",
                lifespan="off",
                limit_concurrency=MAX_CONNECTIONS,
                log_config=None,
                log_level="error",
                loop="asyncio",
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
                ws="none",
            )
        )
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Starts to listen; returns the bound `host:port`.

        Raises:
            PortUnavailableError: The address is in use or not one of this machine.
        """
        addresses.warn_if_exposed(self._address, option=self._option, is_encrypted=False)
        listener, bound = addresses.listen(self._address, option=self._option, backlog=BACKLOG)
        self._socket = listener
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="otel_mlmon-web", daemon=True)
        self._thread.start()
        return str(bound)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Completes the requests in progress, then closes; returns whether it did so in time.

        Safe before `start`, and twice.
        """
        self._server.should_exit = True
        if self._thread is None or self._socket is None:
            return True
        self._thread.join(timeout_s)
        self._socket.close()
        return not self._thread.is_alive()
