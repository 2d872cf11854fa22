from __future__ import annotations

import gzip
import re
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.inflate import BodyTooLargeError, inflate_body

MIB = 2**20
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=2000))
def test_what_was_compressed_comes_back(body: bytes) -> None:
    assert inflate_body(body, "identity", max_bytes=2000) == body
    assert inflate_body(gzip.compress(body), "gzip", max_bytes=2000) == body
    assert inflate_body(zlib.compress(body), "deflate", max_bytes=2000) == body
    assert inflate_body(raw_deflate(body), "deflate", max_bytes=2000) == body


def test_gzip_members_in_a_row_are_one_body() -> None:
    assert inflate_body(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", max_bytes=7) == b"one two"
    with pytest.raises(BodyTooLargeError):
        inflate_body(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", max_bytes=6)


def test_members_and_frames_without_number_are_malformed() -> None:
    with pytest.raises(MalformedError, match="more than 1,000 members"):
        inflate_body(gzip.compress(b"") * 200_000, "gzip", max_bytes=10)
    with pytest.raises(MalformedError, match="more than 1,000 frames"):
        inflate_body(zstandard.compress(b"") * 200_000, "zstd", max_bytes=10)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_the_limit_is_exact(encoding: str) -> None:
    compress = COMPRESS[encoding]
    assert inflate_body(compress(bytes(MIB)), encoding, max_bytes=MIB) == bytes(MIB)
    with pytest.raises(BodyTooLargeError):
        inflate_body(compress(bytes(MIB + 1)), encoding, max_bytes=MIB)


def test_a_bomb_is_given_up_before_it_is_in_memory() -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    with pytest.raises(BodyTooLargeError):
        inflate_body(bomb, "gzip", max_bytes=MIB)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_cut_off_or_damaged_is_malformed(encoding: str) -> None:
    compressed = COMPRESS[encoding](b"some body" * 20)
    damaged = compressed[:-5] + bytes([compressed[-5] ^ 0xFF]) + compressed[-4:]
    truncated, invalid = "The compressed body is truncated.", f"The body is not valid {encoding}."
    for body, message in (
        (compressed[:-1], truncated),
        (compressed[:5], truncated),
        (b"\xff" * 20, invalid),
        (damaged, invalid),
    ):
        with pytest.raises(MalformedError, match=f"^{re.escape(message)}$"):
            inflate_body(body, encoding, max_bytes=MIB)
    with pytest.raises(MalformedError):
        inflate_body(b"", encoding, max_bytes=MIB)


def test_raw_deflate_is_told_from_zlib_by_its_head() -> None:
    # Each of these is raw: the first two bytes are no zlib head in one way or the other.
    for body in (b"\x00", b"some body" * 3, bytes(range(64))):
        raw = raw_deflate(body)
        assert inflate_body(raw, "deflate", max_bytes=MIB) == body
    assert inflate_body(zlib.compress(b""), "deflate", max_bytes=0) == b""
    assert inflate_body(raw_deflate(b""), "deflate", max_bytes=0) == b""


def test_zlib_is_not_gzip() -> None:
    with pytest.raises(MalformedError, match=r"^The body is not valid gzip\.$"):
        inflate_body(zlib.compress(b"body"), "gzip", max_bytes=MIB)


def test_what_follows_zlib_data_is_left_out() -> None:
    assert inflate_body(zlib.compress(b"body") + b"tail", "deflate", max_bytes=MIB) == b"body"


def test_what_follows_gzip_data_must_be_gzip() -> None:
    with pytest.raises(MalformedError, match=r"^The body is not valid gzip\.$"):
        inflate_body(gzip.compress(b"body") + b"tail", "gzip", max_bytes=MIB)


def test_zstd_is_decompressed_up_to_the_limit_and_frames_in_a_row_are_one_body() -> None:
    body = bytes(range(256)) * 400
    packed = zstandard.compress(body)
    assert inflate_body(packed, "zstd", max_bytes=len(body)) == body
    assert inflate_body(packed + packed, "zstd", max_bytes=2 * len(body)) == body * 2
    streamed = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    assert inflate_body(streamed.compress(body) + streamed.flush(), "zstd", max_bytes=len(body)) == body
    with pytest.raises(BodyTooLargeError):
        inflate_body(packed, "zstd", max_bytes=len(body) - 1)


def test_a_bomb_of_zstd_is_stopped_early() -> None:
    bomb = zstandard.compress(bytes(2**28))
    assert len(bomb) < 2**15
    tracemalloc.start()
    with pytest.raises(BodyTooLargeError):
        inflate_body(bomb, "zstd", max_bytes=2**20)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**25


@pytest.mark.parametrize("body", [b"", b"no", zstandard.compress(b"x" * 1000)[:-1], zstandard.compress(b"x") + b"tail"])
def test_what_is_not_zstd_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        inflate_body(body, "zstd", max_bytes=10_000)


def test_a_frame_that_asks_for_too_much_memory_is_malformed() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(MalformedError):
        inflate_body(packer.compress(b"x" * 1000) + packer.flush(), "zstd", max_bytes=10_000)
