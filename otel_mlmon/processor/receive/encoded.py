"""Parses metrics requests with their points left as bytes, and reads exponential histograms from these bytes.

They are read where they are laid out as exporters do it: one field after the other, each once, in the order of their
numbers. It takes a third of what a message takes. Any other layout, exemplars and flags, and whatever breaks a rule, is
left to the message.

Source: opentelemetry-proto, metrics.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint
from opentelemetry.proto.resource.v1 import resource_pb2

from otel_mlmon.errors import MalformedError
from otel_mlmon.sketch.exponential import BIAS, MAX_SCALE, MIN_SCALE, find_bucket_index_range
from otel_mlmon.sketch.exponential import MAX_BUCKETS as MAX_RANGE
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import Counts

MAX_TIME_NS: Final = 2**63 - 1
"""The latest time of a point."""

MAX_COUNT: Final = 2**53
"""The largest count that is exact as a float."""

MAX_TABLE_BUCKETS: Final = 1 << 18
"""The buckets after which a table is full: a request of 64 MiB, a byte each, would take gigabytes at once."""


def _build_request_class(*, has_encoded_points: bool) -> Any:
    """Builds a protobuf class for metrics requests whose points keep their attributes as bytes.

    An embedded message and bytes are the same on the wire. What is left as bytes costs nothing to parse, and the bytes
    of a series that was seen before tell all that its attributes would. Everything else is as in OTLP's own classes.
    Source: protobuf.dev/programming-guides/encoding (length-delimited records).

    Args:
        has_encoded_points: Whether the points of exponential histograms are bytes too.
    """
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, metrics_pb2, metrics_service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type if module is metrics_pb2 else ():
            encoded = "attributes" if message.name.endswith("DataPoint") else ""
            if has_encoded_points and message.name == "ExponentialHistogram":
                encoded = "data_points"
            for part in message.field:
                if part.name == encoded:
                    part.type = FieldDescriptorProto.TYPE_BYTES
                    part.ClearField("type_name")
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(ExportMetricsServiceRequest.DESCRIPTOR.full_name))


MetricsRequest: Final = _build_request_class(has_encoded_points=True)
"""A metrics request whose points have their attributes as bytes; those of exponential histograms are bytes."""

ParsedMetricsRequest: Final = _build_request_class(has_encoded_points=False)
"""The same with messages for all points: what it would take in memory is the most that decoding takes at any time."""

_ExponentialPoint: Final = GetMessageClass(
    ParsedMetricsRequest.DESCRIPTOR.file.pool.FindMessageTypeByName(ExponentialHistogramDataPoint.DESCRIPTOR.full_name)
)


def parse_exponential_point(point: bytes) -> Any:
    """Parses the protobuf message of an exponential histogram's point.

    Raises:
        MalformedError: It is none.
    """
    try:
        return _ExponentialPoint.FromString(point)
    except DecodeError:
        raise MalformedError("A point of an exponential histogram is not one in protobuf.") from None


_HEADER: Final = struct.Struct("<BQBQBQBd")
"""Start, time, count and sum of an exponential histogram, each after its tag."""
_EXTREMES: Final = struct.Struct("<BdBd")
_MAX_OFFSET_SHIFT: Final = 28
"""That of the last byte which an offset needs. A longer one may be malformed, and as long as the whole request."""
_LONG_VARINT: Final = re.compile(rb"[\x80-\xff]{8}")
_ATTRIBUTE, _START, _TIME, _COUNT, _SUM, _SCALE, _ZEROS = 0x0A, 0x11, 0x19, 0x21, 0x29, 0x30, 0x39
_POSITIVE, _NEGATIVE, _MIN, _MAX, _ZERO_THRESHOLD = 0x42, 0x4A, 0x61, 0x69, 0x71
_OFFSET, _BUCKETS = 0x08, 0x12
"""Tags of the fields, in the order in which they are sent."""


_build_tuple: Final = tuple.__new__
"""Builds a named tuple in a third of the time that its name takes."""


class _OtherLayoutError(Exception):
    """An error: the layout of a histogram's bytes is one that only protobuf can parse."""


class EncodedHistogram(NamedTuple):
    """An exponential histogram that was read from its protobuf bytes without parsing them as a message."""

    attributes: bytes
    """The fields of its attributes, as they were sent."""
    start_ns: int
    time_ns: int
    row: EncodedRow
    """Its value."""


class _BucketRun(NamedTuple):
    """A run of adjacent buckets of a histogram whose counts are still encoded."""

    ordinal: int
    """That of the first one sent: the lowest, of negative values the highest."""
    is_negative: bool
    counts: bytes
    """Their counts as varints, at least one."""


EncodedRow: TypeAlias = tuple[int, int, float, float, float, tuple[_BucketRun, ...]]
"""The scale, count, sum, minimum and maximum of an exponential histogram, and its buckets."""


_Buckets: TypeAlias = tuple[int, int, bytes]
"""Where the buckets of one range end, their offset, and their counts as varints."""


class EncodedValues:
    """Exponential histograms that were read from their bytes, collected to build one table of sketches.

    Runs on: one thread.
    """

    def __init__(self) -> None:
        self._rows: list[EncodedRow] = []
        self._size_bytes = 0
        self.table = SketchTable.build_empty()
        """Its values may be read after `build` only."""

    @property
    def is_full(self) -> bool:
        """Whether so many buckets are collected that the table of sketches is to be built now."""
        return self._size_bytes >= MAX_TABLE_BUCKETS

    def add(self, histogram: EncodedHistogram) -> PointValue:
        """Adds a histogram that was read from its bytes."""
        rows, row = self._rows, histogram[3]
        for run in row[5]:
            self._size_bytes += len(run[2])
        rows.append(row)
        return _build_tuple(PointValue, (None, self.table, len(rows) - 1))

    def build(self) -> dict[int, str]:
        """Fills the table of sketches; returns the rows that must not be used, as `PointValues.build` does."""
        if not self._rows:
            return {}
        table = self.table
        scales, numbers, totals, minima, maxima, runs_of = zip(*self._rows, strict=True)
        table.bounds += [None] * len(scales)
        table.scales += scales
        table.numbers += numbers
        table.minima += minima
        table.maxima += maxima
        ordinals, is_negative, packed = zip(*[run for runs in runs_of for run in runs], strict=True)
        counts, sizes = _decode_varints(packed)
        ends = np.cumsum(sizes)
        firsts = np.array(ordinals, dtype=np.int64)
        if any(is_negative):
            is_reversed = np.array(is_negative, dtype=np.bool_)
            firsts -= np.where(is_reversed, sizes - 1, 0)
            places = np.arange(counts.size)
            counts = counts[
                np.where(np.repeat(is_reversed, sizes), np.repeat(2 * ends - sizes - 1, sizes) - places, places)
            ]
        run_counts = np.array(list(map(len, runs_of)), dtype=np.intp)
        table.starts += ends[np.cumsum(run_counts) - 1].tolist()
        held = table.fill_buckets(counts, np.arange(counts.size) + np.repeat(firsts - (ends - sizes), sizes), totals)
        return find_count_faults(table.numbers, held)


def read_encoded_histogram(point: bytes) -> EncodedHistogram | None:
    """Reads an exponential histogram from its bytes; None if only protobuf can parse it.

    That is one in any other layout, with exemplars or flags, or that breaks a rule which can be seen without the sum of
    its buckets.
    """
    try:
        return _read_histogram(point, _skip_attributes(point))
    except (IndexError, struct.error, _OtherLayoutError):  # the first two where it ends too early
        return None


def _read_histogram(point: bytes, position: int) -> EncodedHistogram | None:
    """Reads an exponential histogram from its bytes; `position` is that behind its attributes.

    Raises:
        IndexError: The point ends too early.
        struct.error: Likewise.
        _OtherLayoutError: Only protobuf can parse it.
    """
    attributes, end = point[:position], len(point)
    start_tag, start_ns, time_tag, time_ns, count_tag, count, sum_tag, total = _HEADER.unpack_from(point, position)
    if start_tag != _START or time_tag != _TIME or count_tag != _COUNT or sum_tag != _SUM:
        return None
    position, scale, zero_count = position + _HEADER.size, 0, 0
    if position < end and point[position] == _SCALE:
        code = point[position + 1]
        scale, position = code >> 1 ^ -(code & 1), position + 2
    if not (MIN_SCALE <= scale <= MAX_SCALE and start_ns <= time_ns <= MAX_TIME_NS and time_ns):
        return None
    if position < end and point[position] == _ZEROS:
        zero_count, position = int.from_bytes(point[position + 1 : position + 9], "little"), position + 9
    above = below = None
    if position < end and point[position] == _POSITIVE:
        above = _read_encoded_buckets(point, position + 1, scale)
        position = above[0]
    if position < end and point[position] == _NEGATIVE:
        below = _read_encoded_buckets(point, position + 1, scale)
        position = below[0]
    minimum, maximum = (math.inf, -math.inf) if position == end else _read_extremes(point, position)
    if below is None and not zero_count and above is not None:
        runs: tuple[_BucketRun, ...] = (_build_tuple(_BucketRun, (above[1] + BIAS, False, above[2])),)
    else:
        runs = _list_bucket_runs(below, zero_count, above)
    row = scale, count, total, minimum, maximum, runs
    return _build_tuple(EncodedHistogram, (attributes, start_ns, time_ns, row))


def _skip_attributes(point: bytes) -> int:
    """Returns the position after the attributes in the bytes of a histogram's point.

    Raises:
        IndexError: The point ends before that.
        _OtherLayoutError: One has a size of more than two bytes.
    """
    position = 0
    while point[position] == _ATTRIBUTE:
        size = point[position + 1]
        if size > 127:
            position += 1
            if point[position + 1] > 127:
                raise _OtherLayoutError
            size += (point[position + 1] - 1) << 7
        position += size + 2
    return position


def _read_extremes(point: bytes, position: int) -> tuple[float, float]:
    """Returns the minimum and maximum at the end of a point's bytes, +inf and -inf where they are not given.

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
        position += 9
    if position != len(point):
        raise _OtherLayoutError
    return minimum, maximum


def _list_bucket_runs(below: _Buckets | None, zero_count: int, above: _Buckets | None) -> tuple[_BucketRun, ...]:
    """Lists the runs of buckets of a histogram from the lowest values to the highest, one of zeros among them."""
    runs = [_BucketRun._make((0, False, _encode_varint(zero_count)))]
    if below is not None:
        runs.insert(0, _BucketRun._make((-below[1] - BIAS, True, below[2])))
    if above is not None:
        runs.append(_BucketRun._make((above[1] + BIAS, False, above[2])))
    return tuple(runs)


def _read_encoded_buckets(point: bytes, position: int, scale: int) -> _Buckets:
    """Reads the negative or the positive buckets of an encoded histogram, beginning with their size.

    Raises:
        IndexError: The point ends before that.
        _OtherLayoutError: They are too many, or beyond the range of floats, or a count takes more than 8 bytes, or the
            offset more than 5.
    """
    size, position = point[position], position + 1
    if size > 127:
        size, position = _read_long_size(point, position)
    end, code, shift = position + size, 0, 0
    if point[position] == _OFFSET:
        digit, position = point[position + 1], position + 2
        while digit > 127:
            if shift == _MAX_OFFSET_SHIFT:
                raise _OtherLayoutError
            code |= (digit & 127) << shift
            digit, position, shift = point[position], position + 1, shift + 7
        code |= digit << shift
    if point[position] != _BUCKETS:
        raise _OtherLayoutError
    size, position = point[position + 1], position + 2
    if size > 127:
        size, position = _read_long_size(point, position)
    offset, counts = code >> 1 ^ -(code & 1), point[position:end]
    lowest, highest = find_bucket_index_range(scale)
    if len(counts) != size or not 0 < size <= MAX_RANGE or offset < lowest or offset + size - 1 > highest:
        raise _OtherLayoutError
    if not counts.isascii() and (counts[-1] > 127 or _LONG_VARINT.search(counts)):
        raise _OtherLayoutError
    return end, offset, counts


def _read_long_size(point: bytes, position: int) -> tuple[int, int]:
    """Reads the second byte of the size of a protobuf field; returns the size and the position after it.

    Raises:
        IndexError: The point ends before that.
        _OtherLayoutError: It has more bytes.
    """
    if point[position] > 127:
        raise _OtherLayoutError
    return (point[position - 1] & 127) + (point[position] << 7), position + 1


def _encode_varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes((*digits, number))


def _decode_varints(packed: Sequence[bytes]) -> tuple[NDArray[np.uint64], Counts]:
    """Decodes packed protobuf varints; returns the numbers of all parts in one array, and how many each part has."""
    joined = b"".join(packed)
    data, lengths = np.frombuffer(joined, dtype=np.uint8), np.array(list(map(len, packed)), dtype=np.int64)
    if joined.isascii():
        return data.astype(np.uint64), lengths
    is_last = data < 128
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
    shifts = 7 * (np.arange(data.size) - np.repeat(starts, ends - starts))
    numbers = np.add.reduceat((data & 127).astype(np.uint64) << shifts.astype(np.uint64), starts)
    return numbers, np.diff(np.searchsorted(ends, np.cumsum(lengths), side="right"), prepend=0)


def limit_extremes(minimum: float, maximum: float) -> tuple[float, float]:
    """Returns a histogram's minimum and maximum; +inf and -inf where they are infinite, NaN or out of order."""
    if not minimum <= maximum:  # NaN, or in the wrong order
        return math.inf, -math.inf
    return (minimum if minimum != -math.inf else math.inf), (maximum if maximum != math.inf else -math.inf)


def find_count_faults(numbers: Sequence[int], held: Sequence[int]) -> dict[int, str]:
    """Finds the rows of a table of sketches whose buckets do not hold as many values as stated, each with a reason.

    Args:
        numbers: How many values each row says to have.
        held: How many its buckets hold.
    """
    if held == numbers and max(numbers) <= MAX_COUNT:
        return {}
    faults = {row: find_count_fault(*counts) for row, counts in enumerate(zip(numbers, held, strict=True))}
    return {row: reason for row, reason in faults.items() if reason}


def find_count_fault(count: int, total: int) -> str:
    """Returns why a histogram that states `count` values and holds `total` is rejected; empty if it is valid."""
    if count != total:
        return "count_mismatch"
    return "too_large" if count > MAX_COUNT else ""
