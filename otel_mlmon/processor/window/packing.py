"""Packs many series or data points into one stored record, in which what all of them share is stored once.

A request's points become one record, and so do the series of one sender, so that storing a point costs an entry in a
few lists and no record of its own. Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np

from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.window.packed_numbers import (
    PackedInts,
    PackedSums,
    pack_ints,
    pack_sums,
    unpack_ints,
    unpack_sums,
)
from otel_mlmon.processor.window.series import (
    CountedTimes,
    PendingPoints,
    PointKey,
    SeriesIdentity,
    SeriesKey,
    SeriesState,
)
from otel_mlmon.sketch.table import Bounds, PointValue, SketchTable, list_runs
from otel_mlmon.types import Counts, ModelKey

NO_GAPS: Final[PackedInts] = "", b""
"""The steps between ordinals that are all 1."""

ValueColumn: TypeAlias = tuple[SketchTable | None, Sequence[int]]
"""The table of histograms and the row of each, or None and the number of each counter."""

_COUNTER, _EXPLICIT, _EXPONENTIAL = 0, 1, 2
_NAME_DIGITS: Final = 32

T = TypeVar("T")


class PackedValues(NamedTuple):
    """The values of many data points, packed for storage: counts and moments of all sketches side by side."""

    kinds: bytes
    counters: list[int]
    bounds: list[tuple[float, ...]]
    """All different bounds of explicit histograms."""
    bounds_numbers: list[int]
    """For each explicit histogram, which of them."""
    scales: list[int]
    """One for each exponential histogram."""
    sizes: list[int]
    """The number of counts of each histogram."""
    firsts: list[int]
    """The first ordinal of each exponential histogram with counts: by how much it is above that of the one before."""
    steps: PackedInts
    """From each of its ordinals to the next; `NO_GAPS` where each is 1."""
    counts: PackedInts
    """Those of all histograms, one after the other."""
    numbers: list[int]
    """A part of the moments of each histogram, like the following."""
    sums: PackedSums
    minima: list[float]
    """The least value of each histogram; empty where all are unknown, as the following."""
    maxima: list[float]


class PointRun(NamedTuple):
    """The stored keys of successive data points of one request that have the same times."""

    key: PointKey
    pane_end_ns: int
    time_ns: int
    received_ns: int
    start_ns: int
    """The start in the keys of their series."""
    series: bytes | list[str]
    """The names in these keys: 16 bytes each where all of them are 32 hex digits."""


class PointsRecord(NamedTuple):
    """The stored data points of one request about one model version, whose panes are still open."""

    model: ModelKey
    request: int
    runs: list[PointRun]
    exemplars: dict[int, tuple[str, ...]]
    """By position, of the points that have any: trace ids, each with its value after a colon."""
    values: PackedValues


class SeriesProgress(NamedTuple):
    """The stored progress of several series that have advanced equally far."""

    updated_ns: int
    newest_ns: int
    total_ns: int
    total_received_ns: int
    consumed: tuple[PointKey, ...]
    covered: tuple[tuple[int, int], ...]


class IdentitiesRecord(NamedTuple):
    """The stored identities of the series that one sender has of one model version."""

    model: ModelKey
    sender: str
    identities: list[SeriesIdentity]


class SeriesRecord(NamedTuple):
    """The stored progress of the series that one sender has of one model version, in the order of their identities."""

    model: ModelKey
    sender: str
    progress: list[SeriesProgress]
    """All different ones."""
    progress_numbers: list[int]
    """For each series, which of them."""
    totals_of: list[int]
    """The positions of the series that have a last total."""
    totals: PackedValues


class StoredPoint(NamedTuple):
    """A data point as it was stored while it waited until its pane closes."""

    series: SeriesKey
    key: PointKey
    pane_end_ns: int
    time_ns: int
    received_ns: int
    value: PointValue
    exemplars: tuple[TraceExemplar, ...]


_NO_HISTOGRAMS: Final = PackedValues(
    kinds=b"", counters=[], bounds=[], bounds_numbers=[], scales=[], sizes=[], firsts=[], steps=NO_GAPS,
    counts=pack_ints(np.zeros(0, dtype=np.int64)), numbers=[], sums=pack_sums([]), minima=[], maxima=[],
)  # fmt: skip


def pack_points(request: int, model: ModelKey, groups: Sequence[PendingPoints]) -> PointsRecord:
    """Packs the pending data points of one request about one model version for storage."""
    firsts = accumulate([len(points.series) for points in groups], initial=0)
    return PointsRecord(
        model=model,
        request=request,
        runs=[
            PointRun(
                key=points.key,
                pane_end_ns=points.pane_end_ns,
                time_ns=points.time_ns,
                received_ns=points.received_ns,
                start_ns=points.series[0].state.key.start_ns if points.series else 0,
                series=_pack_names([series.state.key.series for series in points.series]),
            )
            for points in groups
        ],
        exemplars={
            first + position: tuple(f"{trace_id}:{value!r}" for trace_id, value in exemplars)
            for first, points in zip(firsts, groups, strict=False)
            for position, exemplars in points.exemplars.items()
        },
        values=pack_values([(points.table, points.numbers) for points in groups]),
    )


def unpack_points(record: PointsRecord) -> Iterator[StoredPoint]:
    """Yields the data points of a stored record.

    Raises:
        ValueError: The record contradicts itself.
    """
    places = ((run, name) for run in record.runs for name in _unpack_names(run.series))
    for position, ((run, name), value) in enumerate(zip(places, unpack_values(record.values), strict=True)):
        exemplars = tuple(map(_unpack_exemplar, record.exemplars.get(position, ())))
        key = SeriesKey(name, run.start_ns)
        yield StoredPoint(key, run.key, run.pane_end_ns, run.time_ns, run.received_ns, value, exemplars)


def _pack_names(names: Sequence[str]) -> bytes | list[str]:
    """Packs the names of series, as `PointRun` has them."""
    text = "".join(names)
    if set(map(len, names)) == {_NAME_DIGITS} and _is_hex(text):
        return bytes.fromhex(text)
    return list(names)


def _is_hex(text: str) -> bool:
    return not text.strip("0123456789abcdef")  # the strip ends at once at any other character


def _unpack_names(names: bytes | list[str]) -> list[str]:
    """Unpacks the names of series.

    Raises:
        ValueError: They are not whole.
    """
    if isinstance(names, list):
        return names
    text = names.hex()
    if len(text) % _NAME_DIGITS:
        raise ValueError(f"{len(names)} bytes for the names of series")
    return [text[first : first + _NAME_DIGITS] for first in range(0, len(text), _NAME_DIGITS)]


def _unpack_exemplar(text: str) -> TraceExemplar:
    """Unpacks a stored trace id, and its value where one was stored.

    Raises:
        ValueError: The value is no number.
    """
    trace_id, _, value = text.partition(":")
    return TraceExemplar(trace_id, float(value or 0.0))


def pack_series(model: ModelKey, sender: str, states: Sequence[SeriesState]) -> SeriesRecord:
    """Packs the series that one sender has of one model version for storage."""
    progress: dict[SeriesProgress, int] = {}
    numbers = []
    numbers_of: dict[tuple[int, ...], int] = {}
    for state in states:
        times = state.updated_ns, state.newest_ns, state.total_ns, state.total_received_ns
        # Of series that went on alike the counted times are one object: most of them are told apart by four numbers.
        same = *times, id(state.counted)
        if same not in numbers_of:
            present = SeriesProgress(*times, *state.counted)
            numbers_of[same] = progress.setdefault(present, len(progress))
        numbers.append(numbers_of[same])
    totals = {position: state.total for position, state in enumerate(states) if state.total is not None}
    by_table = groupby(totals.values(), key=attrgetter("table"))
    columns = [(table, [total.number for total in group]) for table, group in by_table]
    return SeriesRecord(
        model,
        sender,
        list(progress),
        numbers,
        list(totals),
        pack_values(columns),
    )


def unpack_series(record: SeriesRecord, identities: Sequence[SeriesIdentity]) -> Iterator[SeriesState]:
    """Yields the series of a stored record, given their stored identities.

    Raises:
        ValueError: The record contradicts itself.
    """
    counted = [CountedTimes(progress.consumed, progress.covered) for progress in record.progress]
    totals = dict(zip(record.totals_of, unpack_values(record.totals), strict=True))
    if len(identities) != len(record.progress_numbers):
        raise ValueError(f"{len(identities)} identities for {len(record.progress_numbers)} series")
    if not all(0 <= number < len(record.progress) for number in record.progress_numbers):
        raise ValueError("a series has a progress that is not there")
    for position, (identity, number) in enumerate(zip(identities, record.progress_numbers, strict=True)):
        progress = record.progress[number]
        yield SeriesState(
            key=SeriesKey(identity.series, identity.start_ns),
            sender=record.sender,
            model=record.model,
            metric=identity.metric,
            name=identity.name,
            category=identity.category,
            updated_ns=progress.updated_ns,
            newest_ns=progress.newest_ns,
            total=totals.get(position),
            total_ns=progress.total_ns,
            total_received_ns=progress.total_received_ns,
            counted=counted[number],
        )


def pack_values(columns: Sequence[ValueColumn]) -> PackedValues:
    """Packs the values of data points for storage."""
    kinds = b"".join([_list_kinds(table, numbers) for table, numbers in columns])
    counters = [number for table, numbers in columns if table is None for number in numbers]
    runs = [run for table, numbers in columns if table is not None for run in list_runs(table, numbers)]
    if not runs:
        return _NO_HISTOGRAMS._replace(kinds=kinds, counters=counters)
    table = SketchTable.gather_runs(runs)
    explicit = [row_bounds for row_bounds in table.bounds if row_bounds is not None]
    bounds = {row_bounds: number for number, row_bounds in enumerate(dict.fromkeys(explicit))}
    is_exponential = np.array([row_bounds is None for row_bounds in table.bounds], dtype=np.bool_)
    sizes = np.diff(table.starts)
    ordinals = table.ordinals if is_exponential.all() else table.ordinals[np.repeat(is_exponential, sizes)]
    filled = sizes[is_exponential & (sizes > 0)]
    firsts = np.cumsum(filled) - filled
    steps = ordinals[1:] - ordinals[:-1]
    steps[firsts[1:] - 1] = 1  # from one histogram to the next
    is_known = min(table.minima) != math.inf or max(table.maxima) != -math.inf
    return PackedValues(
        kinds=kinds,
        counters=counters,
        bounds=list(bounds),
        bounds_numbers=[bounds[row_bounds] for row_bounds in explicit],
        scales=[scale for scale, row_bounds in zip(table.scales, table.bounds, strict=True) if row_bounds is None],
        sizes=sizes.tolist(),
        firsts=_list_steps(ordinals[firsts]),
        steps=NO_GAPS if (steps == 1).all() else pack_ints(steps),
        counts=pack_ints(table.counts),
        numbers=table.numbers,
        sums=pack_sums(table.sums),
        minima=table.minima if is_known else [],
        maxima=table.maxima if is_known else [],
    )


def _list_steps(ordinals: Counts) -> list[int]:
    """Lists by how much each ordinal is above the one before, the first by how much it is above 0."""
    steps = ordinals.copy()
    steps[1:] -= ordinals[:-1]
    listed: list[int] = steps.tolist()
    return listed


def _list_kinds(table: SketchTable | None, numbers: Sequence[int]) -> bytes:
    if table is None:
        return bytes([_COUNTER]) * len(numbers)
    bounds = table.bounds
    return bytes([_EXPONENTIAL if bounds[row] is None else _EXPLICIT for row in numbers])


def unpack_values(packed: PackedValues) -> Iterator[PointValue]:
    """Yields the values of data points that were packed for storage.

    Raises:
        ValueError: They contradict each other.
    """
    table = _unpack_table(packed)
    counters, rows = iter(packed.counters), iter(range(len(packed.sizes)))
    for kind in packed.kinds:
        yield (PointValue(_take_next(counters)) if kind == _COUNTER else PointValue(None, table, _take_next(rows)))


def _unpack_table(packed: PackedValues) -> SketchTable:
    """Unpacks the table of the sketches of stored data points.

    Raises:
        ValueError: They contradict each other.
    """
    counts, sizes = unpack_ints(packed.counts), np.array(packed.sizes, dtype=np.int64)
    if int(sizes.sum()) != counts.size or min(packed.sizes, default=0) < 0:
        raise ValueError(f"{counts.size} counts for sketches of {int(sizes.sum())}")
    kinds = packed.kinds.replace(bytes([_COUNTER]), b"")
    is_exponential = np.array([kind == _EXPONENTIAL for kind in kinds], dtype=np.bool_)
    numbers, scales = iter(packed.bounds_numbers), iter(packed.scales)
    sums = unpack_sums(packed.sums, sizes.size)
    minima, maxima = packed.minima, packed.maxima
    if not minima and not maxima:  # all of them are unknown
        minima, maxima = [math.inf] * sizes.size, [-math.inf] * sizes.size
    columns = (kinds, packed.numbers, minima, maxima)
    if any(len(column) != sizes.size for column in columns):
        raise ValueError("there are not as many moments as sketches")
    starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
    ordinals = np.arange(1, counts.size + 1) - np.repeat(starts[:-1], sizes)
    ordinals[np.repeat(is_exponential, sizes)] = _unpack_ordinals(packed, sizes[is_exponential])
    return SketchTable(
        bounds=[None if kind == _EXPONENTIAL else _find_stored_bounds(packed, _take_next(numbers)) for kind in kinds],
        scales=[_take_next(scales) if kind == _EXPONENTIAL else 0 for kind in kinds],
        starts=starts.tolist(),
        ordinals=ordinals,
        counts=counts,
        numbers=packed.numbers,
        sums=sums,
        minima=minima,
        maxima=maxima,
    )


def _unpack_ordinals(packed: PackedValues, sizes: Counts) -> Counts:
    filled = sizes[sizes > 0]
    length = int(filled.sum())
    steps = np.ones(max(length - 1, 0), dtype=np.int64) if packed.steps == NO_GAPS else unpack_ints(packed.steps)
    if steps.size != max(length - 1, 0) or len(packed.firsts) != filled.size:
        raise ValueError("the ordinals are not those of the counts")
    running = np.concatenate((np.zeros(min(length, 1), dtype=np.int64), np.cumsum(steps)))
    starts = np.cumsum(filled) - filled
    firsts = np.cumsum(np.array(packed.firsts, dtype=np.int64))
    ordinals: Counts = running + np.repeat(firsts - running[starts], filled)
    return ordinals


def _find_stored_bounds(packed: PackedValues, number: int) -> Bounds:
    if not 0 <= number < len(packed.bounds):
        raise ValueError("a histogram has bounds that are not there")
    return packed.bounds[number]


def _take_next(values: Iterator[T]) -> T:
    for value in values:
        return value
    raise ValueError("a value is missing")
