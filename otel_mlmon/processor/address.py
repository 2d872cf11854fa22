"""Parses and binds the addresses that the processor listens on, and warns of those that the network can reach.

Sockets are bound here rather than by the servers, so that port 0 works, its number is known at once, and a port in use
raises our error, with the option's name, instead of ending the process.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Final, NamedTuple

from otel_mlmon.errors import ConfigurationError, PortUnavailableError

_LOG: Final = logging.getLogger("otel_mlmon.receiver")


class NetworkAddress(NamedTuple):
    """A network address to listen on: a host, without brackets, and a port; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        """Returns the network address as `host:port`, which `parse_network_address` reads."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address; names other than `localhost` count as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_network_address(text: str, *, option: str) -> NetworkAddress:
    """Parses a network address `host:port`, with an IPv6 host in brackets.

    Raises:
        ConfigurationError: `text` is not a `host:port`.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ConfigurationError(f"{option} must be host:port, as in 127.0.0.1:4317, got {text!r}.")
    return NetworkAddress(host, int(port))


def open_listening_socket(
    address: NetworkAddress, *, option: str, backlog: int
) -> tuple[socket.socket, NetworkAddress]:
    """Opens a listening TCP socket for an address; returns the socket, and the address with its real port.

    Raises:
        PortUnavailableError: The address is in use or not one of this machine.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise build_port_error(address, option=option, why=str(error)) from error
    try:
        # So that a restart need not wait for old connections; two servers still cannot listen at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise build_port_error(address, option=option, why=error.strerror or str(error)) from error
    return listener, NetworkAddress(address.host, listener.getsockname()[1])


def build_port_error(address: NetworkAddress, *, option: str, why: str) -> PortUnavailableError:
    """Returns the error that an address cannot be listened on, with the reason and the option to change."""
    return PortUnavailableError(f"cannot listen on {address} ({why}); set {option} to another address")


def warn_if_exposed(address: NetworkAddress, *, option: str, is_encrypted: bool, has_token: bool) -> None:
    """Warns of a listening address that others can reach without TLS or a token, and what they can do there."""
    if address.is_loopback or (is_encrypted and has_token):
        return
    missing = " and without ".join(
        name for name, is_there in (("TLS", is_encrypted), ("a token", has_token)) if not is_there
    )
    _LOG.warning(
        "%s listens on %s WITHOUT %s: whoever can reach this address can %s. Set both, or listen on 127.0.0.1.",
        option,
        address,
        missing,
        "use it" if not has_token else "read what passes, the token too",
    )
