"""Serves the ASGI application of the web port with uvicorn on a thread of its own."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from otel_mlmon.processor import address as addresses
from otel_mlmon.processor.connections import HEAD_TIMEOUT_S, AsgiServer, TlsFiles

BACKLOG: Final = 128
MAX_CONNECTIONS: Final = 100
KEEP_ALIVE_S: Final = 5
GRACE_S: Final = 1


class WebServer:
    """The HTTP server of the web port; installs no signal handler and prints nothing.

    The socket is bound here rather than by uvicorn, so that port 0 works, its number is known at once, and a port in
    use raises our error instead of ending the process.

    Args:
        app: The application.
        address: `host:port`, an IPv6 host in brackets; port 0 takes any that is free.
        option: The configuration key of the address, for error messages.
        tls: The files of certificate, key and client authority; None for no TLS.
        has_token: Whether the application asks for a token, for the warning of an open port.
        head_timeout_s: How long the head of a request may take, in seconds.

    Raises:
        ConfigurationError: `address` is not a `host:port`.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        *,
        option: str = "web.listen",
        tls: TlsFiles | None = None,
        has_token: bool = False,
        head_timeout_s: float = HEAD_TIMEOUT_S,
    ) -> None:
        self._address = addresses.parse_network_address(address, option=option)
        self._option = option
        self._tls = tls
        self._has_token = has_token
        self._server = AsgiServer(
            app,
            name="otel_mlmon-web",
            tls=tls,
            keep_alive_s=KEEP_ALIVE_S,
            max_connections=MAX_CONNECTIONS,
            head_timeout_s=head_timeout_s,
        )

    def start(self) -> str:
        """Opens the web port and serves it; returns the bound `host:port`.

        Raises:
            ConfigurationError: The certificate cannot be used.
            PortUnavailableError: The address is in use or not one of this machine.
        """
        if self._tls is not None:
            self._tls.check_files("web.tls")
        addresses.warn_if_exposed(
            self._address, option=self._option, is_encrypted=self._tls is not None, has_token=self._has_token
        )
        listener, bound = addresses.open_listening_socket(self._address, option=self._option, backlog=BACKLOG)
        self._server.start(listener)
        return str(bound)

    def reload(self, tls: TlsFiles | None) -> None:
        """Reads the TLS certificates of the web port anew; whether it uses TLS does not change."""
        self._server.reload(tls)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Completes the requests in progress, then closes the web port; returns whether it did so in time.

        Safe before `start`, and twice.
        """
        return self._server.stop(GRACE_S, timeout_s)
