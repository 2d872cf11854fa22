"""Reads the fields of exponential histograms from the bytes of their points, without parsing them as messages.

They are read where they are laid out as exporters do it: one field after the other, each once, in the order of their
numbers. Any other layout, exemplars and flags, and whatever breaks a rule that can be seen without the sum of the
buckets, is left to the message, which says what is wrong.

Many points are read a field of all of them at a time, which takes some 70 operations on arrays however many they are;
few points are read one by one. Both ways read the same points, and find the same.

Source: opentelemetry-proto, metrics.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.receive.encoded import MAX_TIME_NS, limit_extremes
from otel_mlmon.sketch.exponential import MAX_BUCKETS, MAX_SCALE, MIN_SCALE, find_bucket_index_range
from otel_mlmon.types import Bools, Floats, Ints

FEW_POINTS: Final = 32
"""Fewer points than these are read faster one by one."""

_ATTRIBUTE, _START, _TIME, _COUNT, _SUM, _SCALE, _ZEROS = 0x0A, 0x11, 0x19, 0x21, 0x29, 0x30, 0x39
_POSITIVE, _NEGATIVE, _MIN, _MAX, _ZERO_THRESHOLD = 0x42, 0x4A, 0x61, 0x69, 0x71
_OFFSET, _PACKED_COUNTS = 0x08, 0x12
"""Tags of the fields, in the order in which they are sent."""

_HEADER: Final = struct.Struct("<BQBQBQBd")
"""Start, time, count and sum of an exponential histogram, each after its tag."""
_HEADER_TAGS: Final = np.array([[_START], [_TIME], [_COUNT], [_SUM]], dtype=np.uint8)
_HEADER_PLACES: Final = np.array([[0], [9], [18], [27]])
"""The position of each tag in the header."""
_EXTREMES: Final = struct.Struct("<BdBd")
_EXTREME_PLACES: Final = np.array([[1], [10]])
"""The position of each number in the extremes."""
_ONE, _MAX_TIME = np.uint64(1), np.uint64(MAX_TIME_NS)
_NUMBER_BYTES: Final = 9
"""The bytes of a number of fixed size with its tag."""

_OFFSET_SHIFTS: Final = range(0, 35, 7)
"""The shifts of the bytes of an offset. A longer one may be malformed, and as long as the whole request."""

_SEPARATOR: Final = bytes(1)
"""The byte between two points, which is the tag of no field."""
_PADDING: Final = bytes(64)
"""The bytes after the last point, so that a point which ends too early can be read beyond its end."""

_CODES: Final = np.arange(256)
_SCALES: Final = _CODES >> 1 ^ -(_CODES & 1)
"""The scale by the byte that encodes it."""
_IS_SCALE: Final = (_SCALES >= MIN_SCALE) & (_SCALES <= MAX_SCALE) & (_CODES < 128)
_LOWEST, _HIGHEST = np.array([find_bucket_index_range(min(scale, MAX_SCALE)) for scale in _SCALES.tolist()]).T.copy()
"""The indices of the lowest and the highest bucket that floats can be in, by the byte that encodes the scale."""


class _OtherLayoutError(Exception):
    """An error: the layout of a histogram's bytes is one that only protobuf can parse."""


class BucketPlaces(NamedTuple):
    """Where the counts are of the positive or the negative buckets of n histograms, in the bytes of all points."""

    starts: Ints
    sizes: Ints
    """How many bytes they take; 0 where there are none."""
    offsets: Ints
    """The index of the bucket that is sent first."""


class HistogramFields(NamedTuple):
    """The fields of n exponential histograms, each of them in one sequence."""

    data: NDArray[np.uint8]
    """The bytes of all points, with others between and behind them."""
    is_read: Bools
    """Whether the histogram is laid out as exporters do it; the other fields of one that is not mean nothing."""
    start_ns: Sequence[int]
    time_ns: Sequence[int]
    counts: Sequence[int]
    sums: Sequence[float] | Floats
    scales: Sequence[int]
    zero_counts: NDArray[np.uint64] | None
    """None where all are 0."""
    above: BucketPlaces | None
    below: BucketPlaces | None
    """The positive and the negative buckets; None where no histogram has any."""
    minima: Sequence[float]
    maxima: Sequence[float]
    """The extremes, +inf and -inf where they are unknown."""


def find_header(point: bytes) -> int | None:
    """Returns the position behind the attributes in the bytes of a histogram's point; None if only protobuf finds it.

    The byte there is the tag of the start.
    """
    position = 0
    try:
        while point[position] == _ATTRIBUTE:
            size = point[position + 1]
            if size > 127:
                position += 1
                if point[position + 1] > 127:
                    return None
                size += (point[position + 1] - 1) << 7
            position += size + 2
        return position if point[position] == _START else None
    except IndexError:
        return None


def read_fields(points: Sequence[bytes], positions: Ints) -> HistogramFields:
    """Reads the fields of the exponential histograms of one or more points.

    Args:
        points: The bytes of each.
        positions: The position behind the attributes of each; its end where that is unknown, so that it is not read.
    """
    data = np.frombuffer(_SEPARATOR.join([*points, _PADDING]), dtype=np.uint8)
    sizes = np.array(list(map(len, points)))
    ends = (sizes + len(_SEPARATOR)).cumsum() - len(_SEPARATOR)
    starts = ends - sizes
    if len(points) < FEW_POINTS:
        return _read_few_points(data, points, positions.tolist(), starts)
    return _read_many_points(data, starts + positions, ends)


def _read_many_points(data: NDArray[np.uint8], position: Ints, ends: Ints) -> HistogramFields:
    """Reads the fields of histograms, one field of all of them at a time.

    A point that ends too early, or has other fields, is read on into the next point; then it does not end at its end.

    Args:
        data: The bytes of all points, separated, and `_PADDING`.
        position: That of each header, shape (n,).
        ends: The end of each point.
    """
    words = np.ndarray(data.size - 7, np.dtype("<u8"), data, strides=(1,))
    """The number of 8 bytes at each position."""
    places = position + _HEADER_PLACES
    is_read = np.logical_and.reduce(data[places] == _HEADER_TAGS)
    start_ns, time_ns, counts, sums = words[places + 1]
    is_read &= (start_ns <= time_ns) & (time_ns - _ONE < _MAX_TIME)  # 0 - 1 is above any time
    position = position + _HEADER.size
    has_scale = data[position] == _SCALE
    codes = data[position + 1] * has_scale
    is_read &= _IS_SCALE[codes]
    position += 2 * has_scale
    has_zeros, zero_counts = data[position] == _ZEROS, None
    if np.count_nonzero(has_zeros):
        zero_counts = words[position + 1] * has_zeros
        position += _NUMBER_BYTES * has_zeros
    position, above = _find_buckets(data, position, _POSITIVE, codes, is_read)
    position, below = _find_buckets(data, position, _NEGATIVE, codes, is_read)
    has_extremes, size = data[position] == _MIN, position.size
    minima, maxima = [math.inf] * size, [-math.inf] * size
    if np.count_nonzero(has_extremes):
        is_read &= ~has_extremes | (data[position + _NUMBER_BYTES] == _MAX)
        lowest, highest = words[position + _EXTREME_PLACES].view("<f8")
        is_known = has_extremes & (lowest <= highest)
        minima = np.where(is_known & (lowest != -np.inf), lowest, np.inf).tolist()
        maxima = np.where(is_known & (highest != np.inf), highest, -np.inf).tolist()
        position += _EXTREMES.size * has_extremes
    position += _NUMBER_BYTES * (data[position] == _ZERO_THRESHOLD)
    is_read &= position == ends
    return HistogramFields(
        data,
        is_read,
        start_ns.tolist(),
        time_ns.tolist(),
        counts.tolist(),
        sums.view("<f8"),
        _SCALES[codes].tolist(),
        zero_counts,
        above,
        below,
        minima,
        maxima,
    )


def _find_buckets(
    data: NDArray[np.uint8], behind: Ints, tag: int, codes: NDArray[np.uint8], is_read: Bools
) -> tuple[Ints, BucketPlaces | None]:
    """Finds the positive or the negative buckets of histograms; returns the positions behind, and where they are.

    Args:
        data: The bytes of all points, separated, and `_PADDING`.
        behind: Where each histogram has its buckets, if it has any.
        tag: That of the buckets.
        codes: The byte that encodes the scale of each.
        is_read: Is made false for those that break a rule.
    """
    rows = np.flatnonzero(data[behind] == tag)
    if not rows.size:
        return behind, None
    if rows.size == behind.size:
        ends, places, is_valid = _read_places(data, behind + 1, codes)
        is_read &= is_valid
        return ends, places
    found, places, is_valid = _read_places(data, behind[rows] + 1, codes[rows])
    is_read[rows] &= is_valid
    ends, columns = behind.copy(), np.zeros((3, behind.size), dtype=np.int64)
    ends[rows], columns[:, rows] = found, places
    return ends, BucketPlaces(*columns)


def _read_places(data: NDArray[np.uint8], position: Ints, codes: NDArray[np.uint8]) -> tuple[Ints, BucketPlaces, Bools]:
    """Reads where buckets are; returns the positions behind, the places, and whether each keeps the rules.

    Args:
        data: The bytes of all points, separated, and `_PADDING`.
        position: Where the size of each histogram's buckets is.
        codes: The byte that encodes the scale of each.
    """
    end, position = _read_sizes(data, position)
    end += position
    is_more = data[position] == _OFFSET
    position += is_more
    offsets = np.zeros(position.size, dtype=np.int64)
    for shift in _OFFSET_SHIFTS:
        digits = data[position] * is_more
        offsets += (digits & 127).astype(np.int64) << shift
        position += is_more
        is_more = digits > 127
        if not np.count_nonzero(is_more):
            break
    offsets = offsets >> 1 ^ -(offsets & 1)
    is_valid = (data[position] == _PACKED_COUNTS) & ~is_more
    sizes, starts = _read_sizes(data, position + 1)
    # A size of more than two bytes is taken for another one, which is above `MAX_BUCKETS` or does not fit in the other.
    is_valid &= (starts + sizes == end) & (sizes > 0) & (sizes <= MAX_BUCKETS)
    is_valid &= (offsets >= _LOWEST[codes]) & (offsets + sizes <= _HIGHEST[codes] + 1)
    # No point ends behind the padding's first byte, so that what lies farther away is not read.
    return (
        np.minimum(end, data.size - len(_PADDING) + 1),
        BucketPlaces(starts, sizes * is_valid, offsets),
        is_valid,
    )


def _read_sizes(data: NDArray[np.uint8], position: Ints) -> tuple[Ints, Ints]:
    """Reads sizes of fields, of one or two bytes each; returns them and the positions behind."""
    sizes = data[position].astype(np.int64)
    is_long = sizes > 127
    if not np.count_nonzero(is_long):
        return sizes, position + 1
    sizes += ((data[position + 1].astype(np.int64) - 1) << 7) * is_long
    return sizes, position + 1 + is_long


def _read_few_points(
    data: NDArray[np.uint8], points: Sequence[bytes], positions: Sequence[int], starts: Ints
) -> HistogramFields:
    """Reads the fields of histograms, one histogram after the other.

    Args:
        data: The bytes of all points, separated, and `_PADDING`.
        points: The bytes of each.
        positions: That of each header in its point.
        starts: The position of each point in `data`.
    """
    rows = map(_read_point, points, positions)
    is_read, start_ns, time_ns, counts, sums, scales, zero_counts, above, below, minima, maxima = zip(
        *rows, strict=True
    )
    return HistogramFields(
        data,
        np.array(is_read),
        start_ns,
        time_ns,
        counts,
        sums,
        scales,
        np.array(zero_counts, dtype=np.uint64) if any(zero_counts) else None,
        _join_buckets(above, starts),
        _join_buckets(below, starts),
        minima,
        maxima,
    )


def _join_buckets(buckets: Sequence[_PointBuckets], starts: Ints) -> BucketPlaces | None:
    if not any(buckets):
        return None
    columns = np.array([places or (0, 0, 0) for places in buckets]).T
    return BucketPlaces(columns[0] + starts, columns[1], columns[2])


_PointBuckets: TypeAlias = tuple[int, int, int] | None
"""Where the counts of buckets are in a point, how many bytes they take, and the index of the first one."""

_Row: TypeAlias = tuple[bool, int, int, int, float, int, int, _PointBuckets, _PointBuckets, float, float]
"""The fields of one histogram, as `HistogramFields` has those of many."""

_UNREAD: Final[_Row] = (False, 0, 0, 0, 0.0, 0, 0, None, None, math.inf, -math.inf)


def _read_point(point: bytes, position: int) -> _Row:
    """Reads the fields of a histogram whose header is at a position."""
    try:
        return _read_fields(point, position)
    except (IndexError, struct.error, _OtherLayoutError):  # the first two where it ends too early
        return _UNREAD


def _read_fields(point: bytes, position: int) -> _Row:
    """Reads the fields of a histogram whose header is at a position.

    Raises:
        IndexError: The point ends too early.
        struct.error: Likewise.
        _OtherLayoutError: Only protobuf can parse it.
    """
    end = len(point)
    start_tag, start_ns, time_tag, time_ns, count_tag, count, sum_tag, total = _HEADER.unpack_from(point, position)
    if start_tag != _START or time_tag != _TIME or count_tag != _COUNT or sum_tag != _SUM:
        raise _OtherLayoutError
    position, scale, zero_count = position + _HEADER.size, 0, 0
    if position < end and point[position] == _SCALE:
        code = point[position + 1]
        scale, position = code >> 1 ^ -(code & 1), position + 2
    if not (MIN_SCALE <= scale <= MAX_SCALE and start_ns <= time_ns <= MAX_TIME_NS and time_ns):
        raise _OtherLayoutError
    if position < end and point[position] == _ZEROS:
        zero_count = int.from_bytes(point[position + 1 : position + _NUMBER_BYTES], "little")
        position += _NUMBER_BYTES
    above = below = None
    if position < end and point[position] == _POSITIVE:
        position, above = _read_buckets(point, position + 1, scale)
    if position < end and point[position] == _NEGATIVE:
        position, below = _read_buckets(point, position + 1, scale)
    minimum, maximum = (math.inf, -math.inf) if position == end else _read_extremes(point, position)
    return True, start_ns, time_ns, count, total, scale, zero_count, above, below, minimum, maximum


def _read_buckets(point: bytes, position: int, scale: int) -> tuple[int, _PointBuckets]:
    """Reads where the negative or the positive buckets of a histogram are, beginning with their size.

    Raises:
        IndexError: The point ends before that.
        _OtherLayoutError: They are too many, or beyond the range of floats, or the offset takes more than 5 bytes.
    """
    size, position = _read_size(point, position)
    end, code = position + size, 0
    if point[position] == _OFFSET:
        for shift in _OFFSET_SHIFTS:
            position += 1
            digit = point[position]
            code |= (digit & 127) << shift
            if digit < 128:
                break
        else:
            raise _OtherLayoutError
        position += 1
    if point[position] != _PACKED_COUNTS:
        raise _OtherLayoutError
    size, position = _read_size(point, position + 1)
    offset = code >> 1 ^ -(code & 1)
    lowest, highest = find_bucket_index_range(scale)
    if position + size != end or not 0 < size <= MAX_BUCKETS or offset < lowest or offset + size - 1 > highest:
        raise _OtherLayoutError
    return end, (position, size, offset)


def _read_size(point: bytes, position: int) -> tuple[int, int]:
    """Reads the size of a field, of one or two bytes; returns it and the position behind."""
    size = point[position]
    if size < 128:
        return size, position + 1
    return size + ((point[position + 1] - 1) << 7), position + 2


def _read_extremes(point: bytes, position: int) -> tuple[float, float]:
    """Reads the minimum and maximum at the end of a point, +inf and -inf where they are not given.

    Raises:
        IndexError: The point ends before that.
        _OtherLayoutError: There are other fields.
    """
    minimum, maximum = math.inf, -math.inf
    if point[position] == _MIN:
        _, minimum, tag, maximum = _EXTREMES.unpack_from(point, position)
        if tag != _MAX:
            raise _OtherLayoutError
        minimum, maximum = limit_extremes(minimum, maximum)
        position += _EXTREMES.size
    if position < len(point) and point[position] == _ZERO_THRESHOLD:
        position += _NUMBER_BYTES
    if position != len(point):
        raise _OtherLayoutError
    return minimum, maximum
