"""Packs many series or data points into one stored record, in which what all of them share is stored once.

A request's points become one record, and so do the series of one sender, so that storing a point costs an entry in a
few lists and no record of its own. Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Final, NamedTuple

from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.window.packed_values import (
    COUNTER,
    PackedValues,
    list_numbers,
    pack_values,
    unpack_table,
    unpack_values,
)
from otel_mlmon.processor.window.series import (
    CountedTimes,
    PendingPoints,
    PointKey,
    SeriesIdentity,
    SeriesKey,
    SeriesState,
)
from otel_mlmon.sketch.table import SketchTable
from otel_mlmon.types import ModelKey

_NAME_DIGITS: Final = 32


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


class StoredPoints(NamedTuple):
    """Stored data points of one request that have the same times, and are all counters or all histograms."""

    run: PointRun
    series: list[SeriesKey]
    table: SketchTable | None
    numbers: list[int]
    """The row of each histogram in the table, or the value of each counter."""
    exemplars: dict[int, tuple[TraceExemplar, ...]]
    """The trace exemplars of the points that have any, by position."""


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


def unpack_points(record: PointsRecord) -> Iterator[StoredPoints]:
    """Yields the data points of a stored record, in order.

    Raises:
        ValueError: The record contradicts itself.
    """
    kinds, numbers = record.values.kinds, list_numbers(record.values)
    table = unpack_table(record.values)
    names = [_unpack_names(run.series) for run in record.runs]
    ends = list(accumulate(map(len, names)))
    if (ends[-1] if ends else 0) != len(kinds):
        raise ValueError(f"{len(kinds)} points of other series")
    for run, run_names, end in zip(record.runs, names, ends, strict=True):
        first = end - len(run_names)
        for is_counter, positions in groupby(range(first, end), lambda position: kinds[position] == COUNTER):
            chosen = list(positions)
            exemplars = {
                number: tuple(map(_unpack_exemplar, record.exemplars[position]))
                for number, position in enumerate(chosen)
                if position in record.exemplars
            }
            keys = [SeriesKey(run_names[position - first], run.start_ns) for position in chosen]
            values = numbers[chosen[0] : chosen[-1] + 1]
            yield StoredPoints(run, keys, None if is_counter else table, values, exemplars)


def _pack_names(names: Sequence[str]) -> bytes | list[str]:
    """Packs the names of series, as `PointRun` has them."""
    text = "".join(names)
    if names and set(map(len, names)) == {_NAME_DIGITS}:
        with suppress(ValueError):
            packed = bytes.fromhex(text)
            if packed.hex() == text:  # spaces are skipped, and large letters read as small ones
                return packed
    return list(names)


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
