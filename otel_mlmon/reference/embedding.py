"""A reference profile inside the model it belongs to: one entry of its ONNX metadata.

The value is one text, the same in the file, in the `ml.model.reference` attribute of `ml.model.loaded`, and in the
processor's state: compact JSON, or, where that is long, `zlib:` and the base64 of its zlib compression.

Embedding appends. A `ModelProto` is a sequence of fields in any order, so the bytes of a `metadata_props` entry after
those of a model are that model with one entry more. Of the model only the outermost field headers are read, to find
an entry of our key that was there before and leave it out (onnx's checker refuses two of one key); weights, operators
and extensions stay bit for bit as they are, whatever their version, and no package of onnx is needed.
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
"""A profile that is larger when it is unpacked is refused: it may come from anywhere."""

MAX_MODEL_BYTES: Final = 2**31 - 1
"""What a protobuf message may weigh; larger models keep their weights in files beside them."""

_METADATA_PROPS: Final = 14
_KEY: Final = 1
_VALUE: Final = 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED_64: 8, _FIXED_32: 4}


def encode_profile(profile: Profile) -> str:
    """One line of ASCII; `decode_profile` is its inverse."""
    plain = json.dumps(profile.to_dict(), separators=(",", ":"), allow_nan=False)
    if len(plain) <= MAX_PLAIN_CHARACTERS:
        return plain
    return COMPRESSED + base64.b64encode(zlib.compress(plain.encode(), 9)).decode()


def decode_profile(text: str) -> Profile:
    """A profile from its text.

    Raises:
        ProfileError: It is not one, or too large.
    """
    plain = text.encode("utf-8", "surrogatepass")
    if text.startswith(COMPRESSED):
        plain = _inflate(text[len(COMPRESSED) :])
    if len(plain) > MAX_BYTES:
        raise ProfileError(f"larger than {MAX_BYTES} bytes")
    try:
        return Profile.from_dict(json.loads(plain))
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"not JSON: {error}") from error


def find_profile(metadata: Mapping[str, str]) -> Profile | None:
    """The profile in a model's metadata, as `onnxruntime` has it in `custom_metadata_map`; None if there is none.

    Raises:
        ProfileError: What is there is not a profile.
    """
    text = metadata.get(REFERENCE_METADATA_KEY, "")
    return decode_profile(text) if text else None


def read_metadata(model: bytes) -> dict[str, str]:
    """The metadata of a serialized `ModelProto`.

    Raises:
        ProfileError: `model` is not one.
    """
    return dict(_entry(model, field) for field in _fields(model) if field.number == _METADATA_PROPS)


def embed_profile(model: bytes, profile: Profile) -> bytes:
    """A model with `profile` in its metadata, in place of one that was there.

    Args:
        model: A serialized `ModelProto`.
        profile: What it is to carry.

    Raises:
        ProfileError: `model` is not one, or is larger with its profile than a protobuf message may be.
    """
    parts, kept = [], 0
    for field in _fields(model):
        if field.number == _METADATA_PROPS and _entry(model, field)[0] == REFERENCE_METADATA_KEY:
            parts.append(model[kept : field.start])
            kept = field.end
    entry = _field(_KEY, REFERENCE_METADATA_KEY.encode()) + _field(_VALUE, encode_profile(profile).encode())
    whole = b"".join([*parts, model[kept:], _field(_METADATA_PROPS, entry)])
    if len(whole) > MAX_MODEL_BYTES:
        raise ProfileError(f"model and profile are larger than {MAX_MODEL_BYTES} bytes together")
    return whole


class _Field(NamedTuple):
    """Where a field of a message lies."""

    number: int
    start: int
    content: int
    end: int


def _fields(message: bytes, start: int = 0, end: int | None = None) -> Iterator[_Field]:
    """The fields of a message, without what is in them."""
    at, end = start, len(message) if end is None else end
    while at < end:
        begin = at
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        content = at
        if wire == _BYTES:
            length, content = _read_varint(message, at)
            at = content + length
        elif wire == _VARINT:
            _, at = _read_varint(message, at)
        else:
            at += _FIXED_SIZES.get(wire, end + 1)
        if not number or at > end:
            raise ProfileError("not an ONNX model")
        yield _Field(number, begin, content, at)


def _entry(model: bytes, field: _Field) -> tuple[str, str]:
    """Key and value of one entry of the metadata."""
    parts = {part.number: model[part.content : part.end] for part in _fields(model, field.content, field.end)}
    return parts.get(_KEY, b"").decode("utf-8", "replace"), parts.get(_VALUE, b"").decode("utf-8", "replace")


def _inflate(text: str) -> bytes:
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


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Base 128, the least significant group first; all but the last with the high bit set."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        group = message[at]
        number |= (group & 127) << shift
        at += 1
        if group < 128:
            return number, at
    raise ProfileError("not an ONNX model")
