"""Counting the messages in a request without parsing it, for requests that there is no room to parse.

Every point that is sent is accounted for: what is refused is counted too, at the cost of skipping over it.
Source: protobuf.dev, encoding: tag = field number << 3 | wire type; the types are 0 varint, 1 64 bits,
2 length and bytes, 5 32 bits.
"""

from __future__ import annotations

import contextlib
from typing import Final, TypeAlias

Path: TypeAlias = "tuple[tuple[int, ...], ...]"

DATA_POINTS: Final[Path] = ((1,), (2,), (2,), (5, 7, 9, 10, 11), (1,))
"""Field numbers from an ExportMetricsServiceRequest down to its data points, of every kind of metric."""

LOG_RECORDS: Final[Path] = ((1,), (2,), (2,))
"""Field numbers from an ExportLogsServiceRequest down to its records."""


def count_messages(body: bytes, path: Path = DATA_POINTS) -> int:
    """How many messages lie at the end of `path`, by skipping over the wire format: no message is built.

    Of a body that is cut off or is not a message, those before the damage are counted.
    """
    found = [0]
    with contextlib.suppress(IndexError):
        _count_level(body, 0, len(body), path, found)
    return found[0]


def _count_level(body: bytes, at: int, end: int, path: Path, found: list[int]) -> None:
    wanted, deeper = path[0], path[1:]
    while at < end:
        tag, at = _varint(body, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(body, at)
        elif wire_type == 2:
            length, at = _varint(body, at)
            if tag >> 3 in wanted:
                if deeper:
                    _count_level(body, at, min(at + length, end), deeper, found)
                else:
                    found[0] += 1
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            return


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    byte = body[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while shift < 70:
        at += 1
        byte = body[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise IndexError("a varint has at most ten bytes")
