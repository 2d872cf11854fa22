"""Decompresses request bodies up to a limit, so that a small body cannot become a large one in memory."""

from __future__ import annotations

import zlib
from typing import Final

import zstandard

from otel_mlmon.errors import MalformedError

ENCODINGS: Final = ("identity", "gzip", "deflate", "zstd")
"""The content encodings that are supported. Source: opentelemetry-proto, specification.md asks for gzip and none."""

MAX_ZSTD_WINDOW_BYTES: Final = 8 * 2**20
"""The most that a zstd frame may ask the decoder to remember. Source: RFC 9659."""

_ZSTD_SLICE_BYTES: Final = 512
"""The decoder has no limit on its output, and a block of 4 bytes can become 128 KiB: a slice becomes 16 MiB at most."""

_ZLIB_SLICE_BYTES: Final = 2**16
"""The bytes after a gzip member are copied, a slice of them at most."""

MAX_MEMBERS: Final = 1_000
"""The most gzip members or zstd frames of a body: small ones cost more time than bytes."""

_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15


class BodyTooLargeError(Exception):
    """An error: a request body is larger than a limit; the text is a sentence that says which limit."""


def build_size_error(max_bytes: int) -> BodyTooLargeError:
    """Returns the error of a body that is larger than `max_bytes`."""
    return BodyTooLargeError(f"The body is larger than {max_bytes} bytes when decompressed.")


def inflate_body(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Decompresses a request body up to a limit; gzip members or zstd frames in a row are one body.

    Choice: `deflate` is the zlib format (RFC 9110, 8.4.1.2), or the raw one that some senders use for it.

    Raises:
        BodyTooLargeError: It is above `max_bytes` when decompressed; one byte more is held at most, of zstd 16 MiB.
        MalformedError: It is truncated, or not in this encoding.
    """
    if encoding == "identity":
        if len(body) > max_bytes:
            raise build_size_error(max_bytes)
        return body
    try:
        if encoding == "gzip":
            return _decompress_zlib(body, _GZIP, max_bytes)
        if encoding == "zstd":
            return _decompress_zstd(body, max_bytes)
        is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _decompress_zlib(body, _ZLIB if is_zlib else _RAW, max_bytes)
    except (zlib.error, zstandard.ZstdError) as error:
        raise MalformedError(f"The body is not valid {encoding}.") from error


def _decompress_zlib(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room_bytes = max_bytes
    position = 0
    for _ in range(MAX_MEMBERS):
        decompressor = zlib.decompressobj(window_bits)
        while not decompressor.eof:
            piece = body[position : position + _ZLIB_SLICE_BYTES]
            if not piece:
                raise MalformedError("The compressed body is truncated.")
            part = decompressor.decompress(piece, room_bytes + 1)
            position += len(piece) - len(decompressor.unused_data)
            room_bytes -= len(part)
            if room_bytes < 0:
                raise build_size_error(max_bytes)
            parts.append(part)
        if window_bits != _GZIP or position == len(body):
            return b"".join(parts)
    raise MalformedError(f"The compressed body has more than {MAX_MEMBERS:,} members.")


def _decompress_zstd(body: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room_bytes = max_bytes
    position = 0
    for _ in range(MAX_MEMBERS):
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES).decompressobj()
        while not decompressor.eof:
            piece = body[position : position + _ZSTD_SLICE_BYTES]
            if not piece:
                raise MalformedError("The compressed body is truncated.")
            part = decompressor.decompress(piece)
            position += len(piece) - len(decompressor.unused_data)
            room_bytes -= len(part)
            if room_bytes < 0:
                raise build_size_error(max_bytes)
            parts.append(part)
        if position == len(body):
            return b"".join(parts)
    raise MalformedError(f"The compressed body has more than {MAX_MEMBERS:,} frames.")
