"""Reads OTLP JSON, which differs from protobuf JSON: trace and span ids are hex, enumerations are numbers only.

Everything else is as in protobuf JSON: camelCase keys, 64-bit numbers as text or number, bytes in base64, unknown keys
ignored, and 100 levels at most, which is the limit of protobuf itself.
Source: opentelemetry-proto, specification.md, JSON Protobuf Encoding. `google.protobuf.json_format` takes hex ids for
base64 and refuses unknown keys.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.data_point import DataPoint, PointGroup
from otel_mlmon.processor.receive.decode import decode_metrics

AnyMessage = TypeVar("AnyMessage", bound=Message)

MAX_DEPTH: Final = 100

HEX_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def decode_points_json(line: str | bytes) -> list[DataPoint]:
    """Decodes the data points of one OTLP JSON metrics request, as the Collector's file exporter writes it.

    Points that break the data model are left out; requests of other signals have no points.

    Raises:
        MalformedError: It is not OTLP JSON; the message says where.
    """
    decoded = decode_metrics(read_json_message(ExportMetricsServiceRequest(), line))
    return [point for item in decoded.items if isinstance(item, PointGroup) for point in item.list_points()]


def read_json_message(message: AnyMessage, text: str | bytes) -> AnyMessage:
    """Fills an OTLP protobuf message from a JSON object and returns it.

    Raises:
        MalformedError: The text is not JSON, or a value is not of its key's type; the message says which.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    _fill_message(message, document, "", depth=1)
    return message


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} must be in quotes")


def _fill_message(message: Message, document: object, path: str, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedError(f"more than {MAX_DEPTH} levels deep")
    if not isinstance(document, dict):
        raise MalformedError(f"{path or 'the document'}: not an object")
    for field in message.DESCRIPTOR.fields:
        value = document.get(field.json_name)
        if value is None:
            continue
        field_path = f"{path}.{field.json_name}" if path else str(field.json_name)
        part = getattr(message, field.name)
        if hasattr(part, "extend"):  # repeated; descriptors of protobuf 5 and 6 say so in different ways
            if not isinstance(value, list):
                raise MalformedError(f"{field_path}: not an array")
            _fill_repeated_field(part, field, value, field_path, depth=depth + 1)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            part.SetInParent()  # so that an empty object is set, and a missing one is not
            _fill_message(part, value, field_path, depth=depth + 1)
        else:
            setattr(message, field.name, _convert_field_value(field, value, field_path))


def _fill_repeated_field(items: Any, field: FieldDescriptor, values: list[object], path: str, *, depth: int) -> None:
    for index, value in enumerate(values):
        item_path = f"{path}[{index}]"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill_message(items.add(), value, item_path, depth=depth)
        else:
            items.append(_convert_field_value(field, value, item_path))


def _convert_field_value(field: FieldDescriptor, value: object, path: str) -> Any:
    is_bytes = field.type == FieldDescriptor.TYPE_BYTES
    converted: Any
    try:
        converted = _convert_bytes(field, value) if is_bytes else _CONVERTERS[field.cpp_type](value)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedError(f"{path}: {value!r:.60}: {error}") from error
    limits: tuple[int, int] | None = _RANGES.get(field.cpp_type)
    if limits is not None and not limits[0] <= converted <= limits[1]:
        raise MalformedError(f"{path}: {value!r:.60}: out of range")
    return converted


def _convert_bytes(field: FieldDescriptor, value: object) -> bytes:
    text = _convert_text(value)
    if field.json_name in HEX_KEYS:
        if not _HEX.fullmatch(text):
            raise ValueError("not hexadecimal")
        return bytes.fromhex(text)
    try:
        # The URL-safe alphabet and missing padding are both allowed.
        return base64.b64decode(text.translate({45: 43, 95: 47}) + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _convert_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    value.encode()  # raises for half a surrogate pair, which is JSON but no text
    return value


def _convert_integer(value: object) -> int:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise ValueError("not a number")
        exact = Decimal(value)
        if abs(exact) >= 2**64:
            raise ValueError("out of range")
        value = float(exact) if exact != int(exact) else int(exact)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError("not a whole number")
    return int(value)


def _convert_enumeration(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not the number of an enumeration")
    return value


def _convert_double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError("not a number")
    if isinstance(value, str) and value not in _SPECIAL and not _NUMBER.fullmatch(value):
        raise ValueError("not a number")
    return float(value)


def _convert_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


# What Python's own `int`, `float` and `fromhex` read besides: underscores, blanks, digits of other scripts.
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
_SPECIAL: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_HEX: Final = re.compile(r"([0-9a-fA-F]{2})*")
_CONVERTERS: Final[Mapping[int, Callable[[object], Any]]] = {
    FieldDescriptor.CPPTYPE_INT32: _convert_integer,
    FieldDescriptor.CPPTYPE_INT64: _convert_integer,
    FieldDescriptor.CPPTYPE_UINT32: _convert_integer,
    FieldDescriptor.CPPTYPE_UINT64: _convert_integer,
    FieldDescriptor.CPPTYPE_DOUBLE: _convert_double,
    FieldDescriptor.CPPTYPE_FLOAT: _convert_double,
    FieldDescriptor.CPPTYPE_BOOL: _convert_boolean,
    FieldDescriptor.CPPTYPE_ENUM: _convert_enumeration,
    FieldDescriptor.CPPTYPE_STRING: _convert_text,
}
_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
