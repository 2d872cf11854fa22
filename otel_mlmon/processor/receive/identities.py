"""Finds the identities of series by the bytes of their attributes, and remembers them.

A sender's next request has the same series, mostly in the same order: by the scope's bytes its model and sender are
found again, by the attributes' bytes of a point its identity, and by those of many points at once all of theirs.
Everything is remembered that is a pure function of these bytes, up to `MAX_CACHED_BYTES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from otel_mlmon import semconv
from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.attributes import (
    MAX_ATTRIBUTES_BYTES,
    MAX_CACHED_ATTRIBUTES_BYTES,
    Attributes,
    PointError,
    check_name_lengths,
    encode_canonical_text,
    hash_text,
    read_attribute_name,
    read_attributes,
    read_model_key,
    read_service_key,
)
from otel_mlmon.processor.receive.data_point import PointIdentity
from otel_mlmon.types import Ints, ModelKey

MAX_CACHED_BYTES: Final = 160 * 2**20
"""How much identities of series may take that are remembered, some 200,000; beyond that all are forgotten."""

LEAST_ATTRIBUTE_BYTES: Final = 2
"""The bytes that an attribute takes on the wire besides its content."""

_ENTRY_BYTES: Final = 512
"""The bytes that remembering an identity takes besides its attributes."""

_LAYOUT_BYTES: Final = 1_280
"""The bytes that a `SeriesLayout` takes however few series it has, with what its scope takes to have any."""

_PLACE_BYTES: Final = 64
"""The bytes that the place of a series in a `SeriesLayout` takes besides its attributes."""

_NAMED: Final = {
    **{metric.name: "no_feature_name" for metric in (semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY)},
    semconv.ITEM_CONFIDENCE.name: "no_output_name",
}
"""Metrics that say nothing without their first attribute, and the reason by which a point without it is rejected."""

RawAttributes: TypeAlias = tuple[bytes, ...] | bytes
"""The attributes of a point as they were sent: one by one, or as fields that end with the tag of the next field."""


class IdentityRun(NamedTuple):
    """The identities of successive points of a metric that are about one model."""

    first: int
    """The position of the first point."""
    end: int
    """The position after the last one."""
    identities: tuple[PointIdentity, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesLayout:
    """The series of n successive points of a metric, in their order, by what the bytes of each point begin with."""

    prefixes: Sequence[bytes]
    """The attributes of each point, and the tag of the field that follows; the whole point if it has no identity."""
    positions: Ints
    """The position of that tag, shape (n,); beyond the point if it has no identity."""
    identities: Sequence[PointIdentity | None]
    """None for a point of which only the message says why it has none."""
    runs: Sequence[IdentityRun]
    """The runs of successive points about one model; none if a point has no identity."""

    @classmethod
    def from_points(cls, prefixes: Sequence[bytes], identities: Sequence[PointIdentity | None]) -> SeriesLayout:
        """Builds the layout of points; the arguments are its fields."""
        found = [identity for identity in identities if identity is not None]
        positions = np.array(
            [len(prefix) - (identity is not None) for prefix, identity in zip(prefixes, identities, strict=True)]
        )
        runs: list[IdentityRun] = []
        if len(found) == len(identities):
            for _, group in groupby(found, lambda identity: identity.model):
                run = tuple(group)
                first = runs[-1].end if runs else 0
                runs.append(IdentityRun(first, first + len(run), run))
        return cls(prefixes=prefixes, positions=positions, identities=identities, runs=runs)

    @property
    def size_bytes(self) -> int:
        """How much memory the layout takes, besides the identities."""
        return _LAYOUT_BYTES + sum(map(len, self.prefixes)) + _PLACE_BYTES * len(self.prefixes)

    def fits(self, points: Sequence[bytes]) -> bool:
        """Returns whether points are of the same series in the same order.

        Fields are self-delimiting: what begins with the same bytes has the same attributes, and the tag behind them
        begins the next field.
        """
        return len(points) == len(self.prefixes) and all(map(bytes.startswith, points, self.prefixes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScopeContext:
    """Holds the resource and scope that points share; its model fields apply where a point does not have its own."""

    model: ModelKey
    """Its fields are empty where neither scope nor resource sets them."""
    identity: str
    """The canonical text of resource and scope."""
    sender: str
    identities: dict[str, dict[RawAttributes, PointIdentity]] = field(default_factory=dict)
    """The identities of series that were seen, by metric and attributes."""
    layouts: dict[tuple[str, int], SeriesLayout] = field(default_factory=dict)
    """The layouts of the last request, by metric and the position of the first point."""


class _IdentityCache:
    """Caches the contexts of instrumentation scopes, and with them the identities of their series.

    Runs on: any thread; two that add the same entry at once add an equal one.
    """

    def __init__(self) -> None:
        self.contexts: dict[tuple[bytes, bytes], ScopeContext] = {}
        self.attributes: dict[bytes, bytes] = {}
        """Attributes, each as one object for all series that have it."""
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Counts the bytes of a new cache entry, fewer for a smaller one; empties the cache when it is too large."""
        self.size_bytes = max(self.size_bytes + size_bytes, 0)
        if self.size_bytes > MAX_CACHED_BYTES:
            self.contexts, self.attributes, self.size_bytes = {}, {}, 0


_CACHE: Final = _IdentityCache()


def obtain_scope_context(scope: Any, resource: Any, raw_resource: bytes) -> ScopeContext:
    """Returns what the points of an instrumentation scope share.

    Args:
        scope: The message of the scope.
        resource: The message of its resource.
        raw_resource: The bytes of `resource`.

    Raises:
        PointError: Its attributes or the resource's are too large, or no attributes.
    """
    key = raw_resource, scope.SerializeToString(deterministic=True)
    context = _CACHE.contexts.get(key)
    if context is not None:
        return context
    size_bytes = sum(map(len, key))
    if size_bytes > MAX_ATTRIBUTES_BYTES:
        raise PointError("attributes_too_large")
    resource_attributes, scope_attributes = read_attributes(resource.attributes), read_attributes(scope.attributes)
    canonical_resource = encode_canonical_text(resource_attributes)
    parts = (canonical_resource, scope.name, scope.version, encode_canonical_text(scope_attributes))
    model = read_model_key(scope_attributes, resource_attributes, default=read_service_key(resource_attributes))
    identity = ascii(parts)
    _CACHE.add(size_bytes + len(identity) + _ENTRY_BYTES)
    context = _CACHE.contexts[key] = ScopeContext(
        model=model, identity=identity, sender=hash_text(ascii(canonical_resource))
    )
    return context


def obtain_point_identity(
    raw: tuple[bytes, ...], definition: semconv.Metric, context: ScopeContext, key: RawAttributes | None = None
) -> PointIdentity:
    """Returns the identity that encoded attributes give a point, and remembers it unless the attributes are too long.

    Args:
        raw: The attributes.
        definition: Of the metric.
        context: Of the scope.
        key: By which the identity is remembered; None for the attributes one by one.

    Raises:
        PointError: They are too large, or do not name what they must.
        MalformedError: They are no attributes.
    """
    size_bytes = sum(map(len, raw)) + LEAST_ATTRIBUTE_BYTES * len(raw)
    if size_bytes > MAX_ATTRIBUTES_BYTES:
        raise PointError("attributes_too_large")
    try:
        pairs = [KeyValue.FromString(attribute) for attribute in raw]
    except DecodeError:
        raise MalformedError("The attributes of a point are no attributes.") from None
    identity = _build_point_identity(read_attributes(pairs), definition, context)
    if size_bytes <= MAX_CACHED_ATTRIBUTES_BYTES:
        _CACHE.add(size_bytes + _ENTRY_BYTES)
        if key is None:
            key = tuple(_CACHE.attributes.setdefault(attribute, attribute) for attribute in raw)
        context.identities.setdefault(definition.name, {})[key] = identity
    return identity


def remember_layout(context: ScopeContext, metric: str, first: int, layout: SeriesLayout) -> None:
    """Remembers the layout of the points of a metric from the position `first` on, in place of the last one there.

    It is not remembered where the attributes of a point are so long that its identity is not.
    """
    if max(map(len, layout.prefixes)) > MAX_CACHED_ATTRIBUTES_BYTES:
        return
    former = context.layouts.get((metric, first))
    _CACHE.add(layout.size_bytes - (0 if former is None else former.size_bytes))
    context.layouts[metric, first] = layout


def _build_point_identity(attributes: Attributes, definition: semconv.Metric, context: ScopeContext) -> PointIdentity:
    model = read_model_key(attributes, default=context.model)
    if not model.name:
        raise PointError("no_model_name")
    split = definition.attributes
    if definition.name in _NAMED and split[0] not in attributes:
        raise PointError(_NAMED[definition.name])
    key = read_attribute_name(attributes, split[0]) if split else ""
    category = read_attribute_name(attributes, split[1]) if len(split) > 1 else ""
    check_name_lengths(*model, key, category)
    identity = ascii((context.identity, definition.name, encode_canonical_text(attributes)))
    return PointIdentity(
        model=model,
        metric=definition.name,
        key=key,
        category=category,
        sender=context.sender,
        series=hash_text(identity),
    )
