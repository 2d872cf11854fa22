"""A sketch as bytes, for the store: compact, exact and cheap, since every point is written when it comes.

Little-endian: one byte of kind, the kind's fixed fields, then its arrays. No exchange format; those are JSON.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import ExactSum, Moments

_MOMENTS: Final = struct.Struct("<qddiI")
_HISTOGRAM: Final = struct.Struct("<I")
_EXPONENTIAL: Final = struct.Struct("<iI")


def encode(sketch: Sketch) -> bytes:
    """The bytes of a sketch; `decode` is the inverse."""
    if isinstance(sketch, int):
        return b"i%d" % sketch
    if isinstance(sketch, Histogram):
        bounds = np.array(sketch.bounds, dtype="<f8").tobytes()
        head = b"h" + _HISTOGRAM.pack(len(sketch.bounds))
        return head + bounds + _whole(sketch.counts) + _moments(sketch.moments)
    head = b"e" + _EXPONENTIAL.pack(sketch.scale, sketch.ordinals.size)
    return head + _whole(sketch.ordinals) + _whole(sketch.counts) + _moments(sketch.moments)


def decode(blob: bytes) -> Sketch:
    """A sketch from its bytes.

    Raises:
        StoreError: They are not those of a sketch.
    """
    try:
        if blob[:1] == b"i":
            return int(blob[1:])
        if blob[:1] == b"h":
            return _histogram(blob)
        if blob[:1] == b"e":
            return _exponential(blob)
    except (struct.error, ValueError) as error:
        raise StoreError(f"a stored sketch is damaged: {error}") from error
    raise StoreError(f"a stored sketch is of unknown kind {blob[:1]!r}")


def _histogram(blob: bytes) -> Histogram:
    (size,) = _HISTOGRAM.unpack_from(blob, 1)
    at = 1 + _HISTOGRAM.size
    bounds = np.frombuffer(blob, dtype="<f8", count=size, offset=at)
    counts = np.frombuffer(blob, dtype="<i8", count=size + 1, offset=at + 8 * size)
    moments = _read_moments(blob, at + 16 * size + 8)
    return Histogram(bounds=tuple(bounds.tolist()), counts=counts.astype(np.int64), moments=moments)


def _exponential(blob: bytes) -> ExponentialHistogram:
    scale, size = _EXPONENTIAL.unpack_from(blob, 1)
    at = 1 + _EXPONENTIAL.size
    ordinals = np.frombuffer(blob, dtype="<i8", count=size, offset=at)
    counts = np.frombuffer(blob, dtype="<i8", count=size, offset=at + 8 * size)
    return ExponentialHistogram(
        scale=scale,
        ordinals=ordinals.astype(np.int64),
        counts=counts.astype(np.int64),
        moments=_read_moments(blob, at + 16 * size),
    )


def _whole(numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> bytes:
    return numbers.astype("<i8", copy=False).tobytes()


def _moments(moments: Moments) -> bytes:
    units = moments.exact_sum
    # The unit is 2^-1074: almost all of a usual sum's 1,100 bits are zeros at its end.
    shift = (units & -units).bit_length() - 1 if units else 0
    mantissa = units >> shift
    body = mantissa.to_bytes(mantissa.bit_length() // 8 + 1, "little", signed=True)
    return _MOMENTS.pack(moments.count, moments.minimum, moments.maximum, shift, len(body)) + body


def _read_moments(blob: bytes, at: int) -> Moments:
    count, minimum, maximum, shift, length = _MOMENTS.unpack_from(blob, at)
    body = blob[at + _MOMENTS.size :]
    if len(body) != length:
        raise ValueError(f"{len(body)} bytes where {length} are announced")
    units = int.from_bytes(body, "little", signed=True) << shift
    return Moments(count=count, exact_sum=ExactSum(units), minimum=minimum, maximum=maximum)
