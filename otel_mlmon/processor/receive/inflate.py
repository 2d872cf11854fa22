"""Decompression that stops at a limit: a small body must not become a large one in memory."""

from __future__ import annotations

import zlib
from typing import Final

from otel_mlmon.errors import MalformedError

ENCODINGS: Final = ("identity", "gzip", "deflate")
"""What a `Content-Encoding` may be. Source: opentelemetry-proto, specification.md asks for gzip and none."""

_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15


class TooLargeError(Exception):
    """A body is above the limit."""


def inflate(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body without its `encoding`, one of `ENCODINGS`; several gzip members in a row are one body.

    Choice: `deflate` is the zlib format (RFC 9110, 8.4.1.2), or the raw one that some senders use for it.

    Raises:
        TooLargeError: It is above `max_bytes` when decompressed; no more than that is ever held.
        MalformedError: It is cut off, or not what `encoding` says.
    """
    if encoding == "identity":
        if len(body) > max_bytes:
            raise TooLargeError
        return body
    try:
        if encoding == "gzip":
            return _members(body, _GZIP, max_bytes)
        is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _members(body, _ZLIB if is_zlib else _RAW, max_bytes)
    except zlib.error as error:
        raise MalformedError(f"the body is not {encoding}") from error


def _members(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room_bytes = max_bytes
    while True:
        decompressor = zlib.decompressobj(window_bits)
        part = decompressor.decompress(body, room_bytes + 1)
        room_bytes -= len(part)
        if room_bytes < 0:
            raise TooLargeError
        parts.append(part)
        if not decompressor.eof:
            raise MalformedError("the compressed body is cut off")
        body = decompressor.unused_data
        if window_bits != _GZIP or not body:
            return b"".join(parts)
