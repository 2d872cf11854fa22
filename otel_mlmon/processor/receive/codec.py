"""Parses OTLP requests of each signal, in protobuf or JSON, and decodes them into data points and events.

A message takes memory however short its encoding is: of 2 bytes an empty span becomes 168, and a request of 64 MiB ten
gigabytes. So what a large body would take is estimated before it is parsed, from the number of messages in it.
Source: protobuf.dev/programming-guides/encoding; the sizes are those of upb, by the fields of a message.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.data_point import DecodedRequest
from otel_mlmon.processor.receive.decode import count_points, decode_metrics
from otel_mlmon.processor.receive.decode_logs import count_log_records, decode_logs
from otel_mlmon.processor.receive.encoded import MetricsRequest, ParsedMetricsRequest
from otel_mlmon.processor.receive.inflate import BodyTooLargeError
from otel_mlmon.processor.receive.json import read_json_message
from otel_mlmon.types import Ints

Signal: TypeAlias = Literal["metrics", "logs", "traces"]
BodyFormat: TypeAlias = Literal["protobuf", "json"]

MAX_PARSED_BYTES: Final = 512 * 2**20
MAX_EXPANSION: Final[Mapping[BodyFormat, int]] = {"protobuf": 96, "json": 160}
"""No body takes more times its own size once it is parsed, by the same estimate."""

_HEADER_BYTES: Final = 24
_POINTER_BYTES: Final = 16
"""The bytes that a message takes in the array of its parent, which is up to twice as long as it must be."""

_WIDTHS: Final[Mapping[int, int]] = {
    FieldDescriptor.CPPTYPE_STRING: 16,
    FieldDescriptor.CPPTYPE_BOOL: 1,
    FieldDescriptor.CPPTYPE_ENUM: 4,
    FieldDescriptor.CPPTYPE_FLOAT: 4,
    FieldDescriptor.CPPTYPE_INT32: 4,
    FieldDescriptor.CPPTYPE_UINT32: 4,
}
"""Bytes of a field in a message, by its type; of all others 8."""

_JSON_BYTES: Final[Mapping[bytes, int]] = {b"{": 400, b"[": 96, b",": 64, b":": 16}
"""The bytes that an object with its message, an array, a further value and its key take."""

_JSON_SLICE_BYTES: Final = 2**16
_COUNTED_BYTES: Final = 2**16

_VARINT_SHIFTS: Final = range(0, 70, 7)
"""The shifts of the bytes of a varint; a longer one is malformed, and would take time by the square of its length."""

_NUMBER_BYTES: Final[Mapping[int, int]] = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes of a field after its tag, by its wire type; groups begin and end, and hold fields."""


class SignalCodec(NamedTuple):
    """How the OTLP requests of one signal are parsed and decoded, and counted where decoding fails."""

    request: Any
    """The class of a request in protobuf."""
    parsed_request: Any
    """The class whose memory bounds what parsing and decoding take."""
    json_request: Any
    """The class of a request in JSON."""
    decode: Callable[[Any], DecodedRequest]
    count: Callable[[Any], int]


def parse_request(signal: Signal, body: bytes, body_format: BodyFormat, *, max_bytes: int = MAX_PARSED_BYTES) -> Any:
    """Parses the body of an OTLP request into the protobuf message of its signal.

    Raises:
        MalformedError: `body` is not a request of this signal.
        BodyTooLargeError: By an estimate it would take more than `max_bytes` of memory.
    """
    codec = CODECS[signal]
    if len(body) * MAX_EXPANSION[body_format] > max_bytes:
        try:
            if body_format == "json":
                size_bytes = _estimate_json_memory(body)
            else:
                layout = _build_size_layout(codec.parsed_request.DESCRIPTOR)
                size_bytes = _bound_protobuf_memory(body, layout)
                if size_bytes > max_bytes:
                    size_bytes = _estimate_protobuf_memory(body, layout, max_bytes)
        except IndexError:
            raise MalformedError(f"The body is not an OTLP {signal} request in protobuf.") from None
        if size_bytes > max_bytes:
            raise BodyTooLargeError(f"The body would take more than {max_bytes} bytes of memory once it is parsed.")
    if body_format == "json":
        try:
            return read_json_message(codec.json_request(), body)
        except MalformedError as error:
            raise MalformedError(f"The body is not an OTLP {signal} request in JSON: {error}.") from None
    try:
        return codec.request.FromString(body)
    except DecodeError:
        raise MalformedError(f"The body is not an OTLP {signal} request in protobuf.") from None


def _decode_traces(request: ExportTraceServiceRequest) -> DecodedRequest:
    return DecodedRequest(unused=_count_spans(request))


def _count_spans(request: ExportTraceServiceRequest) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


CODECS: Final[Mapping[Signal, SignalCodec]] = {
    "metrics": SignalCodec(
        MetricsRequest, ParsedMetricsRequest, ExportMetricsServiceRequest, decode_metrics, count_points
    ),
    "logs": SignalCodec(
        ExportLogsServiceRequest, ExportLogsServiceRequest, ExportLogsServiceRequest, decode_logs, count_log_records
    ),
    "traces": SignalCodec(
        ExportTraceServiceRequest, ExportTraceServiceRequest, ExportTraceServiceRequest, _decode_traces, _count_spans
    ),
}
"""How the requests of each signal are read."""


@dataclass(slots=True, eq=False)
class _ParsedSize:
    """The memory that a protobuf message of one type, or one field of it, takes once it is parsed."""

    size_bytes: int
    """The bytes that each takes."""
    byte_bytes: int = 0
    """The bytes that each byte takes of its encoding, where it is a packed array of small numbers."""
    fields: dict[int, _ParsedSize] = field(default_factory=dict)
    """The fields that take more than their encoding, by number."""


@functools.cache
def _build_size_layout(message: Descriptor) -> _ParsedSize:
    """Returns the memory layout of a protobuf message type; that of a type that nests itself contains itself."""
    return _fill_size_layout(message, {})


def _fill_size_layout(message: Descriptor, layouts: dict[str, _ParsedSize]) -> _ParsedSize:
    if message.full_name in layouts:
        return layouts[message.full_name]
    layout = layouts[message.full_name] = _ParsedSize(_HEADER_BYTES + _POINTER_BYTES)
    empty = GetMessageClass(message)()
    for part in message.fields:
        is_repeated = hasattr(getattr(empty, part.name), "extend")
        width = 8 if is_repeated else _WIDTHS.get(part.cpp_type, 8)
        layout.size_bytes += width
        if part.type == FieldDescriptor.TYPE_MESSAGE:
            layout.fields[part.number] = _fill_size_layout(part.message_type, layouts)
        elif is_repeated and part.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            layout.fields[part.number] = _ParsedSize(2 * _WIDTHS[part.cpp_type])
        elif is_repeated:
            layout.fields[part.number] = _ParsedSize(0, byte_bytes=16)
    return layout


def _bound_protobuf_memory(body: bytes, layout: _ParsedSize) -> int:
    """Returns a fast upper bound of the memory of a complete protobuf message once it is parsed.

    The first byte of a message's tag is known, so there are at most as many messages of a type as there are such bytes.
    """
    sizes_bytes, byte_bytes = _find_tag_sizes(layout)
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(body), _COUNTED_BYTES):
        part = np.frombuffer(body, dtype=np.uint8, count=min(_COUNTED_BYTES, len(body) - start), offset=start)
        counts += np.bincount(part, minlength=256)
    return len(body) * (1 + byte_bytes) + layout.size_bytes + int(counts @ sizes_bytes)


@functools.cache
def _find_tag_sizes(layout: _ParsedSize) -> tuple[Ints, int]:
    """Returns the largest size of a field by the first byte of its tag, and the largest of a byte of packed numbers."""
    sizes_bytes, byte_bytes = np.zeros(256, dtype=np.int64), 0
    layouts, waiting = {id(layout)}, [layout]
    while waiting:
        for number, part in waiting.pop().fields.items():
            first = (number << 3 | 2) & 127
            for byte in (first, first | 128):  # alone, and where more bytes of the tag follow
                sizes_bytes[byte] = max(sizes_bytes[byte], part.size_bytes)
            byte_bytes = max(byte_bytes, part.byte_bytes)
            if id(part) not in layouts:
                layouts.add(id(part))
                waiting.append(part)
    return sizes_bytes, byte_bytes


def _estimate_protobuf_memory(body: bytes, layout: _ParsedSize, max_bytes: int) -> int:
    """Estimates the memory of a protobuf message once it is parsed; stops where it is above `max_bytes`.

    Raises:
        IndexError: It is truncated.
    """
    size_bytes = len(body) + layout.size_bytes
    waiting = [(0, len(body), layout)]
    while waiting and size_bytes <= max_bytes:
        position, end, layout = waiting.pop()
        find_field = layout.fields.get
        while position < end:
            tag = body[position]
            position += 1
            if tag > 127:
                tag, position = _read_varint(body, position - 1)
            if tag & 7 != 2:
                position = _skip_number(body, position, tag & 7)
                continue
            length = body[position]
            position += 1
            if length > 127:
                length, position = _read_varint(body, position - 1)
            part = find_field(tag >> 3)
            if part is not None:
                size_bytes += part.size_bytes + part.byte_bytes * length
                if size_bytes > max_bytes:
                    return size_bytes
                if length and part.fields:
                    waiting.append((position, position + length, part))
            position += length
        if position > end:
            raise IndexError
    return size_bytes


def _skip_number(body: bytes, position: int, wire_type: int) -> int:
    """Returns the position after a protobuf number; groups, which only unknown fields are, count as read."""
    if wire_type == 0:
        return _read_varint(body, position)[1]
    if wire_type in _NUMBER_BYTES:
        return position + _NUMBER_BYTES[wire_type]
    raise IndexError


def _read_varint(body: bytes, position: int) -> tuple[int, int]:
    """Reads a protobuf varint; returns the number and the position after it.

    Raises:
        IndexError: It is truncated, or has more than 10 bytes.
    """
    value = 0
    for shift in _VARINT_SHIFTS:
        byte = body[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise IndexError


def _estimate_json_memory(body: bytes) -> int:
    """Estimates the memory of a JSON document together with the protobuf message that is filled from it."""
    size_bytes, is_text = 2 * len(body), False
    if b"\0" in body:  # in UTF-16 or 32, where a quote may be half of another character
        return size_bytes + sum(size * body.count(sign) for sign, size in _JSON_BYTES.items())
    body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    for start in range(0, len(body), _JSON_SLICE_BYTES):
        parts = body[start : start + _JSON_SLICE_BYTES].split(b'"')
        bare = b"".join(parts[is_text::2])
        size_bytes += sum(size * bare.count(sign) for sign, size in _JSON_BYTES.items())
        is_text ^= len(parts) % 2 == 0
    return size_bytes
