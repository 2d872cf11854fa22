"""Reads a node of an ONNX graph, and the values of small tensors.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A tensor's values are read only if
it is small and asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from otel_mlmon.instrumentation.runtime.onnxruntime.graph.wire import (
    MESSAGE,
    VARINT,
    Field,
    ModelContent,
    ModelFileError,
    convert_to_signed_integer,
    iterate_protobuf_fields,
    read_packed_varints,
    read_protobuf_float,
    read_protobuf_text,
)

Span: TypeAlias = tuple[int, int]
"""First byte, and the one after the last, of a message."""

Scalars: TypeAlias = "tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"


class SmallTensor(NamedTuple):
    """Holds the values of a small constant in an ONNX model."""

    values: Scalars
    rank: int
    """The number of its axes; 0 of a single value."""


MAX_FIELDS: Final = 10_000
"""Nodes and tensors of a graph, and fields of a node, that are walked over: 10 ms."""

MAX_VALUES: Final = 4096
MAX_CONSTANT_BYTES: Final = 1 << 18
"""A constant that is larger, or has more values, holds weights and is not read."""

MAX_NAME_CHARACTERS: Final = 128
"""Characters of a class name that are read."""

_FLOAT, _INT32, _INT64, _STRING, _DOUBLE = 1, 6, 7, 8, 11
_RAW_FORMATS: Final = {_FLOAT: "f", _INT32: "i", _INT64: "q", _DOUBLE: "d", 2: "B", 3: "b", 4: "H", 5: "h", 9: "B"}


class GraphNode:
    """One node of an ONNX graph, or one call of a function, whose attributes are read when needed.

    Args:
        content: The model.
        span: Where the node is.
    """

    def __init__(self, content: ModelContent, span: Span) -> None:
        self._content = content
        self.span = span
        self._attributes: dict[str, Span] = {}
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.operator: str = ""
        self.domain: str = ""
        for count, (number, wire, start, end) in enumerate(iterate_protobuf_fields(content, *span)):
            if count > MAX_FIELDS:
                raise ModelFileError("too_large")
            if wire != MESSAGE:
                continue
            if number == 1:
                self.inputs.append(read_protobuf_text(content, start, end))
            elif number == 2:
                self.outputs.append(read_protobuf_text(content, start, end))
            elif number == 4:
                self.operator = read_protobuf_text(content, start, end)
            elif number == 5:
                self._attributes[_read_attribute_name(content, (start, end))] = (start, end)
            elif number == 7:
                self.domain = read_protobuf_text(content, start, end)

    def read_integer_attribute(self, name: str, default: int = 0) -> int:
        """Reads an integer attribute of an ONNX node."""
        for number, wire, value, _ in self._list_attribute_fields(name):
            if (number, wire) == (3, VARINT):
                return convert_to_signed_integer(value)
        return default

    def read_string_attribute(self, name: str, default: str = "") -> str:
        """Reads a string attribute of an ONNX node."""
        for number, wire, start, end in self._list_attribute_fields(name):
            if (number, wire) == (4, MESSAGE):
                return read_protobuf_text(self._content, start, end)
        return default

    def read_list_attribute(self, name: str) -> Scalars | None:
        """Reads a short list that is an attribute of an ONNX node; None if there is none, or it is long."""
        values: list[int | float | str] = []
        for number, wire, start, end in self._list_attribute_fields(name):
            if len(values) > MAX_VALUES or (wire == MESSAGE and end - start > MAX_CONSTANT_BYTES):
                return None
            if number == 8 and wire == VARINT:
                values.append(convert_to_signed_integer(start))
            elif number == 8 and wire == MESSAGE:
                values.extend(read_packed_varints(self._content.read_range(start, end)))
            elif number == 9 and wire == MESSAGE:
                values.append(read_protobuf_text(self._content, start, end)[:MAX_NAME_CHARACTERS])
            elif number == 7 and wire == MESSAGE:
                values.extend(_unpack_numbers("f", self._content.read_range(start, end)))
            elif number == 7:
                values.append(read_protobuf_float(self._content, start))
        return tuple(values) or None  # type: ignore[return-value]

    def read_tensor_attribute(self, name: str) -> SmallTensor | None:
        """Reads a small tensor that is an attribute of an ONNX node."""
        for number, wire, start, end in self._list_attribute_fields(name):
            if (number, wire) == (5, MESSAGE):
                return read_tensor(self._content, (start, end))
        return None

    def find_subgraph(self, name: str) -> Span | None:
        """Returns where a graph that is an attribute of an ONNX node stands in the model's file."""
        for number, wire, start, end in self._list_attribute_fields(name):
            if (number, wire) == (6, MESSAGE):
                return start, end
        return None

    def has_attribute(self, name: str) -> bool:
        """Returns whether an ONNX node has an attribute of the given name."""
        return name in self._attributes

    def _list_attribute_fields(self, name: str) -> Sequence[Field]:
        span = self._attributes.get(name)
        if span is None:
            return ()
        found = []
        for count, entry in enumerate(iterate_protobuf_fields(self._content, *span)):
            if count > MAX_VALUES + 8:
                break
            found.append(entry)
        return found


def read_constant_node(node: GraphNode) -> SmallTensor | None:
    """Reads the value of an ONNX node `Constant`."""
    if node.has_attribute("value"):
        return node.read_tensor_attribute("value")
    if node.has_attribute("value_int"):
        return SmallTensor((node.read_integer_attribute("value_int"),), 0)
    values = node.read_list_attribute("value_ints") or node.read_list_attribute("value_strings")
    return SmallTensor(values, 1) if values else None


def read_tensor_name(content: ModelContent, span: Span) -> str:
    """Reads the name of an ONNX tensor."""
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 8 and wire == MESSAGE:
            return read_protobuf_text(content, start, end)
    return ""


def read_tensor(content: ModelContent, span: Span) -> SmallTensor | None:
    """Reads an ONNX tensor; None if it is large, stored in another file, or of an unsupported type."""
    if span[1] - span[0] > MAX_CONSTANT_BYTES:
        return None
    kind, rank = 0, 0
    values: list[int | float | str] = []
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 1:
            rank += 1 if wire == VARINT else len(read_packed_varints(content.read_range(start, end)))
        elif number == 2:
            kind = start
        elif number == 6 and wire == MESSAGE:
            values.append(read_protobuf_text(content, start, end)[:MAX_NAME_CHARACTERS])
        elif number in {5, 7}:
            values.extend(
                [convert_to_signed_integer(start)]
                if wire == VARINT
                else read_packed_varints(content.read_range(start, end))
            )
        elif number == 4 and wire == MESSAGE:
            values.extend(_unpack_numbers("f", content.read_range(start, end)))
        elif number == 9 and wire == MESSAGE and kind in _RAW_FORMATS:
            values.extend(_unpack_numbers(_RAW_FORMATS[kind], content.read_range(start, end)))
        if len(values) > MAX_VALUES:
            return None
    return SmallTensor(tuple(values), rank) if values else None  # type: ignore[arg-type]


def _unpack_numbers(kind: str, data: bytes) -> tuple[Any, ...]:
    size = struct.calcsize(kind)
    return struct.unpack(f"<{len(data) // size}{kind}", data[: len(data) // size * size])


def _read_attribute_name(content: ModelContent, span: Span) -> str:
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 1 and wire == MESSAGE:
            return read_protobuf_text(content, start, end)
    return ""
