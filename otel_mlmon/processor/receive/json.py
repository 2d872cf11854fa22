"""OTLP's own JSON, which is not protobuf's: trace and span ids are hex, enumerations are numbers only.

The rest is protobuf's: camelCase keys, 64-bit numbers as text or number, bytes in base64, unknown keys ignored.
Source: opentelemetry-proto, specification.md, JSON Protobuf Encoding. `google.protobuf.json_format` takes hex ids for
base64 and refuses unknown keys.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from otel_mlmon.errors import MalformedError

AnyMessage = TypeVar("AnyMessage", bound=Message)

HEX_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def read_json(message: AnyMessage, text: str | bytes) -> AnyMessage:
    """`message`, filled from a JSON object.

    Raises:
        MalformedError: The text is not JSON, or a value is not of its key's type; says which.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    _fill(message, document, "")
    return message


def _fill(message: Message, document: object, path: str) -> None:
    if not isinstance(document, dict):
        raise MalformedError(f"{path or 'the document'}: not an object")
    for field in message.DESCRIPTOR.fields:
        value = document.get(field.json_name)
        if value is None:
            continue
        where = f"{path}.{field.json_name}" if path else str(field.json_name)
        part = getattr(message, field.name)
        if hasattr(part, "extend"):  # repeated; descriptors of protobuf 5 and 6 say so in different ways
            if not isinstance(value, list):
                raise MalformedError(f"{where}: not an array")
            _append(part, field, value, where)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            part.SetInParent()  # an empty object is there; nothing is not
            _fill(part, value, where)
        else:
            setattr(message, field.name, _checked(field, value, where))


def _append(items: Any, field: FieldDescriptor, values: list[object], where: str) -> None:
    for index, value in enumerate(values):
        at = f"{where}[{index}]"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill(items.add(), value, at)
        else:
            items.append(_checked(field, value, at))


def _checked(field: FieldDescriptor, value: object, where: str) -> Any:
    checked: Any
    try:
        checked = _CHECKS[field.cpp_type](value) if field.type != FieldDescriptor.TYPE_BYTES else _bytes(field, value)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedError(f"{where}: {value!r:.60}: {error}") from error
    allowed: tuple[int, int] | None = _RANGES.get(field.cpp_type)
    if allowed is not None and not allowed[0] <= checked <= allowed[1]:
        raise MalformedError(f"{where}: {value!r:.60}: out of range")
    return checked


def _bytes(field: FieldDescriptor, value: object) -> bytes:
    text = _text(value)
    if field.json_name in HEX_KEYS:
        return bytes.fromhex(text)
    try:
        # The URL-safe alphabet and missing padding are both allowed.
        return base64.b64decode(text.translate({45: 43, 95: 47}) + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    value.encode()  # half a surrogate pair is JSON, and no text
    return value


def _integer(value: object) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError("not a whole number")
    return int(value)


def _enumeration(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not the number of an enumeration")
    return value


def _double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError("not a number")
    return float(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


_CHECKS: Final[Mapping[int, Callable[[object], Any]]] = {
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_DOUBLE: _double,
    FieldDescriptor.CPPTYPE_FLOAT: _double,
    FieldDescriptor.CPPTYPE_BOOL: _truth,
    FieldDescriptor.CPPTYPE_ENUM: _enumeration,
    FieldDescriptor.CPPTYPE_STRING: _text,
}
_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
