"""Reads messages in protobuf's wire format, and skips fields that are not needed.

The format is that of https://protobuf.dev/programming-guides/encoding: a field is a tag, which holds its number and
wire type, and a value, whose length is known before it is read. So the weights of a model cost one seek each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from otel_mlmon.instrumentation.runtime.model_graph import GraphState

PAGE_BYTES: Final = 1 << 16

VARINT: Final = 0
FIXED_64: Final = 1
MESSAGE: Final = 2
FIXED_32: Final = 5

Field: TypeAlias = "tuple[int, int, int, int]"
"""Number, wire type, and of a `VARINT` its value and 0, else the first byte of the value and the one after its last."""

_HEAD_BYTES: Final = 20
"""Bytes of a tag and of a length, or of a number, at most."""


class ModelFileError(Exception):
    """Raised where the content of a model cannot be read.

    Args:
        state: What is reported of it.
    """

    def __init__(self, state: GraphState) -> None:
        super().__init__(state)
        self.state: GraphState = state


class ModelContent:
    """The bytes of a model, of which only the pages that are needed are read, each once.

    Args:
        read_at: Reads so many bytes from a position on.
        size: Bytes that there are.
        max_bytes: Bytes that are read at most; of more, ModelFileError is raised.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], *, size: int, max_bytes: int) -> None:
        self._read_at = read_at
        self._pages: dict[int, bytes] = {}
        self._max_pages = max_bytes // PAGE_BYTES
        self.size: int = size

    def read_range(self, start: int, end: int) -> bytes:
        """Returns the bytes of a model's content from `start` to before `end`.

        Raises:
            ModelFileError: They are not all there, or too many were read.
        """
        number, offset = divmod(start, PAGE_BYTES)
        length = end - start
        if offset + length <= PAGE_BYTES:
            data = self.read_page(number)[offset : offset + length]
        else:
            pages = [self.read_page(at) for at in range(number, -(-end // PAGE_BYTES))]
            data = b"".join(pages)[offset : offset + length]
        if len(data) != length:
            raise ModelFileError("unreadable")
        return data

    def read_field_head(self, position: int) -> tuple[bytes, int]:
        """Returns a page with at least 20 bytes from a position on, and where in the page that is."""
        number, offset = divmod(position, PAGE_BYTES)
        if offset <= PAGE_BYTES - _HEAD_BYTES:
            page = self._pages.get(number) or self.read_page(number)
            if offset <= len(page) - _HEAD_BYTES:
                return page, offset
        return self.read_range(position, min(position + _HEAD_BYTES, self.size)) + bytes(_HEAD_BYTES), 0

    def has_text(self, text: bytes) -> bool:
        """Returns whether the pages of the model that were read so far contain a text."""
        return any(text in page for page in self._pages.values())

    def read_page(self, number: int) -> bytes:
        """Returns a page of the model's bytes by its number, counted from 0."""
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= self._max_pages:
                raise ModelFileError("too_large")
            size = max(0, min(PAGE_BYTES, self.size - number * PAGE_BYTES))
            page = self._read_at(number * PAGE_BYTES, size)
            if len(page) != size:
                raise ModelFileError("missing")  # the file shrank
            self._pages[number] = page
        return page


def iterate_protobuf_fields(content: ModelContent, start: int, end: int) -> Iterator[Field]:
    """Yields the number, type and position of each field of a protobuf message, without reading their values.

    Raises:
        ModelFileError: It is no message.
    """
    position = start
    while position < end:
        page, at = content.read_field_head(position)
        first = position - at
        tag, at = (page[at], at + 1) if page[at] < 128 else _read_varint(page, at)
        wire = tag & 7
        if wire == MESSAGE:
            size, at = (page[at], at + 1) if page[at] < 128 else _read_varint(page, at)
        elif wire == VARINT:
            value, at = _read_varint(page, at)
            position = first + at
            yield tag >> 3, wire, value, 0
            continue
        elif wire in {FIXED_32, FIXED_64}:
            size = 4 if wire == FIXED_32 else 8
        else:
            raise ModelFileError("unreadable")
        position = first + at + size
        if tag < 8 or position > end:
            raise ModelFileError("unreadable")
        yield tag >> 3, wire, first + at, position
    if position != end:
        raise ModelFileError("unreadable")


def read_protobuf_text(content: ModelContent, start: int, end: int, *, max_bytes: int = 4096) -> str:
    """Reads a protobuf string, of which the beginning if it is long."""
    return content.read_range(start, min(end, start + max_bytes)).decode("utf-8", "replace")


def read_protobuf_float(content: ModelContent, start: int) -> float:
    """Reads a little-endian floating-point number of 32 bits from a protobuf message."""
    return float(struct.unpack("<f", content.read_range(start, start + 4))[0])


def convert_to_signed_integer(value: int) -> int:
    """Converts an unsigned integer of 64 bits to the signed one that it stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def read_packed_varints(data: bytes) -> list[int]:
    """Reads the signed integers of a packed protobuf field."""
    values, at = [], 0
    data += bytes(_HEAD_BYTES)
    while at < len(data) - _HEAD_BYTES:
        value, at = _read_varint(data, at)
        values.append(convert_to_signed_integer(value))
    return values


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Reads a protobuf varint at a position; returns the integer, and the position after it."""
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    raise ModelFileError("unreadable")
