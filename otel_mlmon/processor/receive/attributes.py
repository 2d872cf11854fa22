"""Converts OTLP attributes to Python values, to text, and to the canonical form that identifies a series."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_mlmon import semconv
from otel_mlmon.types import ModelKey
from otel_mlmon.vocabulary import join_bucket_label

Value: TypeAlias = "str | bool | int | float | bytes | list[Value] | tuple[tuple[str, Value], ...] | None"
"""An attribute's value; a tuple of pairs is a map, sorted by key."""

Attributes: TypeAlias = "dict[str, Value]"

MAX_ATTRIBUTES_BYTES: Final = 64 * 2**10
"""The most that the attributes of a point take on the wire, or resource and scope together."""

MAX_CACHED_ATTRIBUTES_BYTES: Final = 4 * 2**10
"""Larger attributes of points are not remembered, but read again each time."""

MAX_NAME_CHARACTERS: Final = 2_048
"""The longest name of a model, version, environment, label, feature, output or category: each is stored.

Source: Grafana Mimir, `max_label_value_length`, whose default it is.
"""

_LABELS: Final = frozenset({semconv.PREDICTION_LABEL, semconv.FEATURE_VALUE})
"""Attributes whose values may be buckets of texts."""


class PointError(Exception):
    """An error: a data point is rejected; the text is the reason, a few fixed words joined by underscores."""


def read_attributes(pairs: Iterable[KeyValue]) -> Attributes:
    """Converts OTLP attributes to a dictionary; of a repeated key, which OTLP forbids, the last value counts."""
    return {pair.key: pair.value.string_value or _convert_value(pair.value) for pair in pairs}


def _convert_value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_convert_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return tuple(sorted(read_attributes(value.kvlist_value.values).items(), key=lambda pair: pair[0]))
    if kind is None or kind == "string_value_strindex":
        return None  # empty, or of the profiling signal, which counts as empty
    plain: Value = getattr(value, kind)
    return plain


def encode_canonical_text(attributes: Attributes) -> str:
    """Encodes attributes as a text: equal for equal attributes in any order, else different.

    `ascii` distinguishes every type from every other ("1", 1, 1.0, True, b"1") and, unlike `repr`, does not depend on
    the Unicode tables of the interpreter.
    """
    return ascii(sorted(attributes.items(), key=lambda pair: pair[0]))


def hash_text(text: str) -> str:
    """Returns a hash of a text of any length, as 32 hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read_first_text(key: str, *levels: Attributes) -> str:
    """Returns the text of an attribute from the first of several attribute levels on which it is not empty."""
    for level in levels:
        text = read_text(level.get(key))
        if text:
            return text
    return ""


def read_model_key(*levels: Attributes, default: ModelKey) -> ModelKey:
    """Reads the key of the model that attributes name, each field from the first level with it, else from `default`."""
    return ModelKey(
        name=read_first_text(semconv.MODEL_NAME, *levels) or default.name,
        version=read_first_text(semconv.MODEL_VERSION, *levels) or default.version,
        environment=read_first_text(semconv.DEPLOYMENT_ENVIRONMENT, *levels) or default.environment,
    )


def read_service_key(resource: Attributes) -> ModelKey:
    """Returns the model key of telemetry that names no model: the name of its service stands for the model."""
    return ModelKey(read_first_text("service.name", resource))


def read_attribute_name(attributes: Attributes, name: str) -> str:
    """Returns the text of an attribute; for a bucket of hashed texts, with the fingerprint of the hash key."""
    text = read_text(attributes.get(name))
    key_id = attributes.get(semconv.TEXT_KEY_ID) if name in _LABELS else None
    return text if key_id is None else join_bucket_label(text, read_text(key_id))


def check_name_lengths(*names: str) -> None:
    """Checks that the names of a data point, which will be stored, are not too long.

    Raises:
        PointError: One is longer than `MAX_NAME_CHARACTERS`.
    """
    if max(map(len, names)) > MAX_NAME_CHARACTERS:
        raise PointError("name_too_long")


def read_text(value: Value) -> str:
    """Returns the text of an attribute value: strings unchanged, empty for None, bytes in base64, others as JSON.

    Source: opentelemetry-specification, common/README.md, AnyValue representation for non-OTLP protocols.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json.dumps(_to_json_value(value), ensure_ascii=False, separators=(",", ":"))


def _to_json_value(value: Value) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_to_json_value(item) for item in value]
    if isinstance(value, tuple):
        return {key: _to_json_value(item) for key, item in value}
    return value
