"""Defines what the receivers hand on: groups of data points, and the events `ModelLoaded` and `ProviderFallback`.

A point is identified by who counted it (`series`), what it is about (`model`, `metric`, `key`) and when (`start_ns`,
`time_ns`). The same point decoded twice is equal, so a repeated export can be recognised and changes nothing.
Source: opentelemetry-specification, metrics/data-model.md (timeseries, single-writer, temporality).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey


class PointIdentity(NamedTuple):
    """The identity of a data point: its series and its subject, all that is the same in each point of a series."""

    model: ModelKey
    metric: str
    """A name of `semconv.APPLICATION_METRICS`."""
    key: str
    """The label, feature name, output name or error type that the metric is split by; empty if it is not."""
    category: str
    """The attribute by which the metric is split further: the feature's value for `ml.input.category`, the output of a
    model of several heads for `ml.predictions`; else empty."""
    sender: str
    """The process that counted it: 32 hex digits of its resource, which has `service.instance.id`."""
    series: str
    """The time series: 32 hex digits of resource, scope, metric and all attributes. A series has one writer."""


class TraceExemplar(NamedTuple):
    """Names a trace in which one of the values of a point was measured."""

    trace_id: str
    """32 hex digits."""
    value: float = 0.0
    """The measured value, such as the duration of a call in seconds; 0 if that is unknown."""


class DataPoint(NamedTuple):
    """Represents one data point of one metric of one model."""

    identity: PointIdentity
    start_ns: int
    """When counting began, Unix nanoseconds; 0 if unknown."""
    time_ns: int
    """When the point was taken, Unix nanoseconds, above 0."""
    is_cumulative: bool
    """Whether the value counts since `start_ns`; else it counts since the previous point of the series."""
    value: PointValue
    exemplars: tuple[TraceExemplar, ...] = ()
    """At most 4, those of the largest values."""


NO_EXEMPLARS: Final[Mapping[int, tuple[TraceExemplar, ...]]] = MappingProxyType({})
"""The trace exemplars of points that have none: one object for all of them."""


@dataclass(slots=True, kw_only=True, eq=False)
class PointGroup:
    """Holds data points of one request in columns: of one metric of one model, from one sender, of one interval."""

    identities: Sequence[PointIdentity]
    """The identity of each point; the same object as in an earlier request where they are the same ones."""
    start_ns: int
    """When counting began; as `DataPoint` has it, like the following two."""
    time_ns: int
    is_cumulative: bool
    table: SketchTable | None
    """The table of their histograms; None for counters."""
    numbers: Sequence[int]
    """The row of each histogram in the table, or the value of each counter."""
    exemplars: Mapping[int, tuple[TraceExemplar, ...]] = field(default_factory=lambda: NO_EXEMPLARS)
    """The trace exemplars of the points that have any, by position."""

    def list_points(self) -> list[DataPoint]:
        """Returns the data points of the group one by one."""
        return [
            DataPoint(
                identity,
                self.start_ns,
                self.time_ns,
                self.is_cumulative,
                value,
                self.exemplars.get(position, ()),
            )
            for position, (identity, value) in enumerate(zip(self.identities, self.list_values(), strict=True))
        ]

    def list_values(self) -> list[PointValue]:
        """Returns the values of the data points one by one."""
        return [PointValue.from_number(self.table, number) for number in self.numbers]


def group_points(points: Iterable[DataPoint]) -> list[PointGroup]:
    """Groups successive data points that may share a `PointGroup`; their order stays as it is."""
    groups = (list(group) for _, group in groupby(points, _find_shared_part))
    return [_build_group_of_one(group[0]) if len(group) == 1 else _build_point_group(group) for group in groups]


def _find_shared_part(point: DataPoint) -> tuple[object, ...]:
    (model, metric, _, _, sender, _), start_ns, time_ns, is_cumulative, value, _ = point
    return start_ns, time_ns, is_cumulative, sender, metric, id(value.table), model


def _build_group_of_one(point: DataPoint) -> PointGroup:
    """Builds the group of a point that has a time or a start of its own, as all points of a request may have."""
    identity, start_ns, time_ns, is_cumulative, (counter, table, row), exemplars = point
    return PointGroup(
        identities=(identity,),
        start_ns=start_ns,
        time_ns=time_ns,
        is_cumulative=is_cumulative,
        table=table,
        numbers=(row if table is not None else counter or 0,),
        exemplars={0: exemplars} if exemplars else NO_EXEMPLARS,
    )


def _build_point_group(points: Sequence[DataPoint]) -> PointGroup:
    identities, starts_ns, times_ns, are_cumulative, values, exemplars = zip(*points, strict=True)
    table = values[0].table
    rows = [value.number for value in values]
    is_run = table is not None and rows[-1] - rows[0] == len(rows) - 1 and rows == sorted(rows)
    return PointGroup(
        identities=identities,
        start_ns=starts_ns[0],
        time_ns=times_ns[0],
        is_cumulative=are_cumulative[0],
        table=table,
        numbers=range(rows[0], rows[-1] + 1) if is_run else rows,
        exemplars={position: found for position, found in enumerate(exemplars) if found} or NO_EXEMPLARS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded:
    """The event that a process loaded a model, with the reference profile that the model carries."""

    model: ModelKey
    reference: str
    """The text of the reference profile, not parsed yet; empty if the model carries none."""
    provider: str = ""
    """The execution provider that it runs on; empty if unknown."""
    time_ns: int = 0
    """When, by the sender's clock, Unix nanoseconds; 0 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFallback:
    """The event that a model runs on another execution provider than its process asked for first."""

    model: ModelKey
    requested: str
    """The execution provider that was asked for first."""
    provider: str
    """The execution provider that it runs on."""
    time_ns: int = 0
    """When, by the sender's clock, Unix nanoseconds; 0 if unknown."""


TelemetryItem: TypeAlias = PointGroup | ModelLoaded | ProviderFallback
"""One item that a request delivers to the window step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedRequest:
    """The data points or events of one decoded OTLP request, and counts of everything else in the request.

    Of a metrics request, `points` is the number of all its points; of a logs or traces request, `points + unused` is
    the number of its records or spans.
    """

    items: tuple[TelemetryItem, ...] = ()
    ignored: int = 0
    """Points of metrics outside the contract, and points without a recorded value."""
    loop_dropped: int = 0
    """Points that a processor sent."""
    unused: int = 0
    """Log records and spans that the processor does not use."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Rejected points by reason."""

    @property
    def accepted(self) -> int:
        """The number of valid data points or events of the request."""
        return sum([len(item.numbers) if isinstance(item, PointGroup) else 1 for item in self.items])

    @property
    def rejected(self) -> int:
        """The number of data points of the request that break the data model, over all reasons."""
        return sum(self.faults.values())

    @property
    def points(self) -> int:
        """The number of all data points of the request, valid or not."""
        return self.accepted + self.ignored + self.loop_dropped + self.rejected


Rejections: TypeAlias = Mapping[str, int]
"""The answer of the window step about the items of a request: the points that it did not count, by reason."""
