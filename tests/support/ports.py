"""Ports of loopback for servers that a test starts itself."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST, HIGHEST = 10_000, 65_000
_choices = random.Random()
_taken: set[int] = set()


def ephemeral_range() -> range:
    """Returns the range of ports that the kernel gives to outgoing connections."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return range(49_152, 65_536)  # as IANA has it
    return range(int(first), int(last) + 1)


def is_free(port: int) -> bool:
    """Returns whether nobody listens on a port of loopback."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Returns a port that nobody listens on, no outgoing connection takes, and this process did not get before."""
    outgoing = ephemeral_range()
    candidates = [port for port in range(LOWEST, HIGHEST) if port not in outgoing and port not in _taken]
    for port in _choices.sample(candidates or list(range(LOWEST, HIGHEST)), k=200):
        if is_free(port):
            _taken.add(port)
            return port
    raise AssertionError("no free port among 200 of loopback")
