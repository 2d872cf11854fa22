"""Collects the points of a metrics request: reads each one, checks its rules, and groups those that are valid.

The points of exponential histograms come as bytes, and are read many at a time once all are collected; those that only
protobuf can parse, and all other points, are read from their messages. They keep their order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.receive import encoded
from otel_mlmon.processor.receive.attributes import MAX_ATTRIBUTES_BYTES, PointError
from otel_mlmon.processor.receive.data_point import (
    DataPoint,
    PointGroup,
    PointIdentity,
    group_points,
)
from otel_mlmon.processor.receive.encoded import MAX_COUNT, MAX_TIME_NS, parse_exponential_point
from otel_mlmon.processor.receive.encoded_histograms import HistogramRows, read_histograms
from otel_mlmon.processor.receive.histogram_fields import find_header
from otel_mlmon.processor.receive.identities import (
    LEAST_ATTRIBUTE_BYTES,
    ScopeContext,
    SeriesLayout,
    obtain_point_identity,
    remember_layout,
)
from otel_mlmon.processor.receive.sketches import ADD_VALUE, PointValues, read_exemplars
from otel_mlmon.sketch.table import PointValue, SketchTable

MAX_LAYOUT_POINTS: Final = 1_024
"""The most points of a metric that have one layout: what is read at once is bounded, however long a request is."""

_PLACE_BYTES: Final = 64
"""The bytes that a point which is still encoded counts for, besides its own, of which it may have none."""

_NO_RECORDED_VALUE: Final = 1


class MetricContext(NamedTuple):
    """Holds what the points of a metric share."""

    kind: str
    """The name of the metric's type in protobuf."""
    definition: semconv.Metric
    scope: ScopeContext
    is_cumulative: bool


class _EncodedPoints(NamedTuple):
    """Successive points of a metric of exponential histograms, which are still encoded."""

    points: Sequence[bytes]
    layout: SeriesLayout
    refusals: Mapping[int, str]
    """Why points have no identity in the layout, by position, where their attributes are known to be why."""
    metric: MetricContext
    items: list[DataPoint | PointGroup]
    """Where the points belong among the others."""


class PointCollector:
    """Collects the points of a request, and counts those that are not used.

    Runs on: one thread.
    """

    def __init__(self) -> None:
        self.ignored = 0
        """Points of other metrics, and without a recorded value."""
        self.loop_dropped = 0
        """Points that a processor sent."""
        self.faults: Counter[str] = Counter()
        """Rejected points by reason."""
        self._parts: list[list[DataPoint | PointGroup]] = [[]]
        """The points in the order of the request; the next one belongs into the last part."""
        self._encoded: list[_EncodedPoints] = []
        self._encoded_bytes = 0
        self._values: PointValues | None = None
        """The values of histograms that were read from their messages; None before the first."""
        self._broken: dict[int, tuple[SketchTable, Mapping[int, str]]] = {}
        """The rows whose buckets contradict their own count, by the `id` of their table."""

    def add_messages(self, points: Iterable[Any], metric: MetricContext) -> None:
        """Adds points of a metric that are messages.

        Raises:
            MalformedError: The attributes of a point are no attributes.
        """
        items = self._parts[-1]
        for point in points:
            self._read_message(point, metric, items)

    def add_encoded(self, points: Sequence[bytes], metric: MetricContext) -> None:
        """Adds points of a metric of exponential histograms that are encoded.

        Raises:
            MalformedError: One is no point, or its attributes are no attributes.
        """
        for first in range(0, len(points), MAX_LAYOUT_POINTS):
            part = points[first : first + MAX_LAYOUT_POINTS]
            layout, refusals = metric.scope.layouts.get((metric.definition.name, first)), dict[int, str]()
            if layout is None or not layout.fits(part):
                layout, refusals = _find_series(part, first, metric)
            items: list[DataPoint | PointGroup] = []
            self._parts += items, []
            self._encoded.append(_EncodedPoints(part, layout, refusals, metric, items))
            self._encoded_bytes += sum(map(len, part)) + _PLACE_BYTES * len(part)
            if self._encoded_bytes >= encoded.MAX_TABLE_BUCKETS:
                self._read_encoded()

    def list_items(self) -> list[PointGroup]:
        """Lists the valid points, in the order of the request; nothing may be added afterwards.

        Raises:
            MalformedError: A point of an exponential histogram is none, or its attributes are no attributes.
        """
        self._read_encoded()
        self._build_values()
        groups: list[PointGroup] = []
        single: list[DataPoint] = []
        for item in chain.from_iterable(self._parts):
            if isinstance(item, DataPoint):
                _, rows = self._broken.get(id(item.value.table), (None, ()))
                if item.value.row not in rows:
                    single.append(item)
                continue
            groups += group_points(single)
            single.clear()
            groups.append(item)
        return groups + group_points(single)

    def _read_encoded(self) -> None:
        """Reads the points that are still encoded into one table."""
        parts, self._encoded, self._encoded_bytes = self._encoded, [], 0
        if not parts:
            return
        positions = np.concatenate([part.layout.positions for part in parts])
        rows = read_histograms([point for part in parts for point in part.points], positions)
        unread = frozenset(rows.unread)
        unusable = unread.union(rows.faults)
        end = 0
        for part in parts:
            first, end = end, end + len(part.points)
            interval = _find_interval(rows, first, end)
            if part.layout.runs and interval and unusable.isdisjoint(range(first, end)):
                part.items.extend(
                    PointGroup(
                        identities=run.identities,
                        start_ns=interval[0],
                        time_ns=interval[1],
                        is_cumulative=part.metric.is_cumulative,
                        table=rows.table,
                        numbers=range(first + run.first, first + run.end),
                    )
                    for run in part.layout.runs
                )
            else:
                self._add_rows(rows, first, part, unread)

    def _add_rows(self, rows: HistogramRows, first: int, part: _EncodedPoints, unread: Set[int]) -> None:
        """Adds points one by one, from the rows from `first` on, or from their messages where a row is unread."""
        for row, (point, identity) in enumerate(zip(part.points, part.layout.identities, strict=True), start=first):
            if identity is None or row in unread:
                refusal = part.refusals.get(row - first)
                self._read_message(parse_exponential_point(point), part.metric, part.items, refusal)
            elif row in rows.faults:
                self.faults[rows.faults[row]] += 1
            else:
                value = PointValue(None, rows.table, row)
                part.items.append(
                    DataPoint(identity, rows.start_ns[row], rows.time_ns[row], part.metric.is_cumulative, value)
                )

    def _read_message(
        self,
        point: Any,
        metric: MetricContext,
        items: list[DataPoint | PointGroup],
        refusal: str | None = None,
    ) -> None:
        """Reads a point from its message; adds it to `items`, or counts why it is not used.

        Args:
            point: The message.
            metric: What the points of its metric share.
            items: Takes it.
            refusal: Why its attributes give it no identity, if they were read before.
        """
        if point.flags & _NO_RECORDED_VALUE:
            self.ignored += 1
            return
        try:
            identity = _find_point_identity(point, metric, refusal)
            if metric.kind == "sum":
                value = _read_counter(point)
            else:
                self._values = self._values or PointValues()
                value = ADD_VALUE[metric.kind](self._values, point)
        except PointError as error:
            self.faults[str(error)] += 1
            return
        exemplars = read_exemplars(point) if point.exemplars else ()
        times = point.start_time_unix_nano, point.time_unix_nano
        # A third of the time that `DataPoint(…)` takes.
        items.append(tuple.__new__(DataPoint, (identity, *times, metric.is_cumulative, value, exemplars)))
        if self._values is not None and self._values.is_full:
            self._build_values()

    def _build_values(self) -> None:
        """Builds the table of the values that were read from messages so far."""
        if self._values is None:
            return
        rows, table = self._values.build(), self._values.table
        self._values = None
        if rows:
            self.faults.update(rows.values())
            self._broken[id(table)] = table, rows


def _find_interval(rows: HistogramRows, first: int, end: int) -> tuple[int, int] | None:
    """Returns start and time of the points in some rows; None if they are not the same for all."""
    start_ns, time_ns = rows.start_ns[first], rows.time_ns[first]
    is_shared = rows.start_ns[first:end].count(start_ns) == rows.time_ns[first:end].count(time_ns) == end - first
    return (start_ns, time_ns) if is_shared else None


def _find_series(points: Sequence[bytes], first: int, metric: MetricContext) -> tuple[SeriesLayout, dict[int, str]]:
    """Finds the series of encoded points one by one; remembers their layout if all have an identity.

    Returns the layout, and by position why the attributes of a point give it no identity.

    Args:
        points: Successive points of the metric.
        first: The position of the first one in it.
        metric: What they share.

    Raises:
        MalformedError: The attributes of a point are no attributes.
    """
    prefixes: list[bytes] = []
    identities: list[PointIdentity | None] = []
    refusals: dict[int, str] = {}
    known = metric.scope.identities.setdefault(metric.definition.name, {})
    for place, point in enumerate(points):
        position, identity = find_header(point), None
        prefix = point if position is None else point[: position + 1]
        if position is not None:
            identity = known.get(prefix)
            if identity is None:
                raw = tuple(parse_exponential_point(prefix[:-1]).attributes)
                try:
                    identity = obtain_point_identity(raw, metric.definition, metric.scope, key=prefix)
                except PointError as error:
                    prefix, refusals[place] = point, str(error)
        prefixes.append(prefix)
        identities.append(identity)
    layout = SeriesLayout.from_points(prefixes, identities)
    if layout.runs:
        remember_layout(metric.scope, metric.definition.name, first, layout)
    return layout, refusals


def _find_point_identity(point: Any, metric: MetricContext, refusal: str | None) -> PointIdentity:
    """Checks the times of a data point, and returns the identity that its attributes give it.

    Raises:
        PointError: They break a rule; `refusal` where that is known of the attributes.
        MalformedError: The attributes are none.
    """
    time_ns = point.time_unix_nano
    if not time_ns:
        raise PointError("no_time")
    if time_ns > MAX_TIME_NS or point.start_time_unix_nano > time_ns:
        raise PointError("bad_time")
    if refusal is not None:
        raise PointError(refusal)
    attributes = point.attributes
    if len(attributes) > MAX_ATTRIBUTES_BYTES // LEAST_ATTRIBUTE_BYTES:
        raise PointError("attributes_too_large")
    raw = tuple(attributes)
    identity = metric.scope.identities.setdefault(metric.definition.name, {}).get(raw)
    if identity is None:
        identity = obtain_point_identity(raw, metric.definition, metric.scope)
    return identity


def _read_counter(point: Any) -> PointValue:
    """Returns the value of a counter's data point, which must be a whole number from 0 on.

    Raises:
        PointError: It breaks a rule.
    """
    kind = point.WhichOneof("value")
    if kind is None:
        raise PointError("no_value")
    value = point.as_int if kind == "as_int" else point.as_double
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise PointError("bad_value")
    if value > MAX_COUNT:
        raise PointError("too_large")
    return PointValue(int(value))
