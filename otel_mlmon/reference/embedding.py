"""A reference profile inside the ONNX model it belongs to, as one entry of the model's metadata.

The value is one text, the same in the model, in the `ml.model.reference` attribute of `ml.model.loaded`, and in the
processor's state: compact JSON, or, if that is long, `zlib:` and the base64 of its zlib compression.

Embedding appends. A `ModelProto` is a sequence of fields in any order, so the bytes of a `metadata_props` entry after
those of a model are that model with one entry more. Only the outermost field
headers of the model are read, to drop an older entry of our key (onnx's checker refuses two of one key); weights,
operators and extensions stay as they are, bit for bit, whatever their version, and the onnx package is not needed.
Source: https://protobuf.dev/programming-guides/encoding/ (order, wire types); onnx.proto3, `ModelProto` field 14,
`StringStringEntryProto` fields 1 and 2.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.semconv import REFERENCE_METADATA_KEY

COMPRESSED: Final = "zlib:"
MAX_PLAIN_CHARACTERS: Final = 2_048
"""A longer text is compressed."""

MAX_BYTES: Final = 32 * 2**20
"""The largest profile that is unpacked, in bytes: a profile may come from an untrusted model."""

MAX_MODEL_BYTES: Final = 2**31 - 1
"""The largest protobuf message; larger models keep their weights in files beside them."""

_METADATA_PROPS: Final = 14
_KEY: Final = 1
_VALUE: Final = 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED_64: 8, _FIXED_32: 4}


def encode_profile(profile: Profile) -> str:
    """Encodes a reference profile as one line of ASCII, which `decode_profile` reads."""
    plain = json.dumps(profile.to_dict(), separators=(",", ":"), allow_nan=False)
    if len(plain) <= MAX_PLAIN_CHARACTERS:
        return plain
    return COMPRESSED + base64.b64encode(zlib.compress(plain.encode(), 9)).decode()


def decode_profile(text: str) -> Profile:
    """Decodes a reference profile from the line of ASCII that `encode_profile` has made.

    Raises:
        ProfileError: The text is not a profile, or too large.
    """
    plain = text.encode("utf-8", "surrogatepass")
    if text.startswith(COMPRESSED):
        plain = _unpack_profile_text(text[len(COMPRESSED) :])
    if len(plain) > MAX_BYTES:
        raise ProfileError(f"larger than {MAX_BYTES} bytes")
    try:
        return Profile.from_dict(json.loads(plain))
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"not JSON: {error}") from error


def find_embedded_profile(metadata: Mapping[str, str]) -> Profile | None:
    """Returns the reference profile in the metadata of an ONNX model; None if there is none.

    Raises:
        ProfileError: The entry is not a profile.
    """
    text = metadata.get(REFERENCE_METADATA_KEY, "")
    return decode_profile(text) if text else None


def read_model_metadata(model: bytes) -> dict[str, str]:
    """Reads the metadata entries of an ONNX model, by key, from the bytes of its file.

    Raises:
        ProfileError: `model` is not a serialized model.
    """
    return dict(
        _read_metadata_entry(model, field)
        for field in _iterate_protobuf_fields(model)
        if field.number == _METADATA_PROPS
    )


def embed_profile(model: bytes, profile: Profile) -> bytes:
    """Returns the bytes of an ONNX model with a reference profile in its metadata, in place of an older one.

    Args:
        model: A serialized `ModelProto`.
        profile: The profile to embed.

    Raises:
        ProfileError: `model` is not a serialized model, or is too large for a protobuf message with its profile.
    """
    parts, start = [], 0
    for field in _iterate_protobuf_fields(model):
        if field.number == _METADATA_PROPS and _read_metadata_entry(model, field)[0] == REFERENCE_METADATA_KEY:
            parts.append(model[start : field.start])
            start = field.end
    entry = _encode_protobuf_field(_KEY, REFERENCE_METADATA_KEY.encode()) + _encode_protobuf_field(
        _VALUE, encode_profile(profile).encode()
    )
    content = b"".join([*parts, model[start:], _encode_protobuf_field(_METADATA_PROPS, entry)])
    if len(content) > MAX_MODEL_BYTES:
        raise ProfileError(f"model and profile are larger than {MAX_MODEL_BYTES} bytes together")
    return content


class _ProtobufField(NamedTuple):
    """Describes one protobuf field of an ONNX file: its number, and where it starts and ends."""

    number: int
    start: int
    content: int
    end: int


def _iterate_protobuf_fields(message: bytes, start: int = 0, end: int | None = None) -> Iterator[_ProtobufField]:
    """Yields the fields of a protobuf message without decoding their contents."""
    position, end = start, len(message) if end is None else end
    while position < end:
        begin = position
        tag, position = _read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        content = position
        if wire == _BYTES:
            length, content = _read_varint(message, position)
            position = content + length
        elif wire == _VARINT:
            _, position = _read_varint(message, position)
        else:
            position += _FIXED_SIZES.get(wire, end + 1)
        if not number or position > end:
            raise ProfileError("not an ONNX model")
        yield _ProtobufField(number, begin, content, position)


def _read_metadata_entry(model: bytes, field: _ProtobufField) -> tuple[str, str]:
    """Reads the key and the value of one metadata entry of an ONNX model."""
    parts = {
        part.number: model[part.content : part.end]
        for part in _iterate_protobuf_fields(model, field.content, field.end)
    }
    return parts.get(_KEY, b"").decode("utf-8", "replace"), parts.get(_VALUE, b"").decode("utf-8", "replace")


def _unpack_profile_text(text: str) -> bytes:
    try:
        packed = base64.b64decode(text, validate=True)
        inflater = zlib.decompressobj()
        plain = inflater.decompress(packed, MAX_BYTES + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ProfileError(f"cannot be unpacked: {error}") from error
    if len(plain) > MAX_BYTES:
        raise ProfileError(f"larger than {MAX_BYTES} bytes")
    if not inflater.eof:
        raise ProfileError("cannot be unpacked: it is cut short")
    return plain


def _encode_protobuf_field(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    """Encodes an integer as a protobuf varint: groups of seven bits, the least significant first."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Reads a protobuf varint at a position; returns the integer, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        group = message[position]
        number |= (group & 127) << shift
        position += 1
        if group < 128:
            return number, position
    raise ProfileError("not an ONNX model")
