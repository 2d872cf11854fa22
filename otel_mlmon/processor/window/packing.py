"""Packs many series or data points into one stored record, in which what all of them share is stored once.

A request's points become one record, and so do the series of one sender, so that storing a point costs an entry in a
few lists and no record of its own. Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, TypeVar

import numpy as np

from otel_mlmon.processor.window.series import Point, PointKey, PointValue, SeriesKey, SeriesState
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.types import Counts, ModelKey

PackedInts = tuple[str, bytes]
"""The narrowest type that holds all of some numbers of 0 and above, and their bytes."""

_WIDTHS: Final = ((1 << 8, "|u1"), (1 << 16, "<u2"), (1 << 32, "<u4"))
_COUNTER, _EXPLICIT, _EXPONENTIAL = 0, 1, 2

T = TypeVar("T")


class PackedValues(NamedTuple):
    """The values of many data points, packed for storage: counts and moments of all sketches side by side."""

    kinds: bytes
    counters: list[int]
    bounds: list[tuple[float, ...]]
    """All different bounds of explicit histograms."""
    bounds_numbers: list[int]
    """Of each explicit histogram, which of them."""
    scales: list[int]
    """Of each exponential histogram."""
    sizes: list[int]
    """The number of counts of each histogram."""
    firsts: list[int]
    """The first ordinal of each exponential histogram with counts."""
    steps: PackedInts
    """From each of its ordinals to the next."""
    counts: PackedInts
    """Of all histograms."""
    numbers: list[int]
    """Of the moments of each histogram, like the following."""
    sums: list[ExactSum]
    minima: list[float]
    maxima: list[float]


class PointsRecord(NamedTuple):
    """The stored data points of one request about one model version, whose panes are still open."""

    model: ModelKey
    request: int
    series: list[SeriesKey]
    keys: list[PointKey]
    pane_ends_ns: list[int]
    times_ns: list[int]
    received_ns: list[int]
    exemplars: dict[int, tuple[str, ...]]
    """By position, of the points that have any."""
    values: PackedValues


class SeriesIdentity(NamedTuple):
    """The part of a series that never changes, such as its metric and its stream."""

    series: str
    start_ns: int
    metric: str
    name: str
    category: str


class SeriesProgress(NamedTuple):
    """The stored progress of several series that have advanced alike."""

    updated_ns: int
    newest_ns: int
    total_ns: int
    total_received_ns: int
    consumed: tuple[PointKey, ...]
    covered: tuple[tuple[int, int], ...]


class SeriesRecord(NamedTuple):
    """The stored series that one sender has of one model version."""

    model: ModelKey
    sender: str
    identities: list[SeriesIdentity]
    progress: list[SeriesProgress]
    """All different ones."""
    progress_numbers: list[int]
    """Of each series, which of them."""
    totals_of: list[int]
    """The positions of the series that have a last total."""
    totals: PackedValues


def pack_points(request: int, model: ModelKey, entries: Sequence[tuple[SeriesKey, PointKey, Point]]) -> PointsRecord:
    """Packs the pending data points of one request about one model version for storage."""
    points = [point for _, _, point in entries]
    return PointsRecord(
        model=model,
        request=request,
        series=[series for series, _, _ in entries],
        keys=[key for _, key, _ in entries],
        pane_ends_ns=[point.pane_end_ns for point in points],
        times_ns=[point.time_ns for point in points],
        received_ns=[point.received_ns for point in points],
        exemplars={position: point.exemplars for position, point in enumerate(points) if point.exemplars},
        values=pack_values([point.value for point in points]),
    )


def unpack_points(record: PointsRecord) -> Iterator[tuple[SeriesKey, PointKey, Point]]:
    """Yields the data points of a stored record, each with its series and its key.

    Raises:
        ValueError: The record contradicts itself.
    """
    columns = zip(
        record.series,
        record.keys,
        record.pane_ends_ns,
        record.times_ns,
        record.received_ns,
        unpack_values(record.values),
        strict=True,
    )
    for position, (series, key, pane_end_ns, time_ns, received_ns, value) in enumerate(columns):
        exemplars = record.exemplars.get(position, ())
        yield series, key, Point(pane_end_ns, time_ns, received_ns, value, exemplars, record.request)


def pack_series(model: ModelKey, sender: str, states: Sequence[SeriesState]) -> SeriesRecord:
    """Packs the series that one sender has of one model version for storage."""
    progress: dict[SeriesProgress, int] = {}
    identities, numbers = [], []
    for state in states:
        identities.append(SeriesIdentity(*state.key, state.metric, state.name, state.category))
        present = SeriesProgress(
            state.updated_ns,
            state.newest_ns,
            state.total_ns,
            state.total_received_ns,
            tuple(state.consumed),
            tuple(state.covered),
        )
        numbers.append(progress.setdefault(present, len(progress)))
    totals = {position: state.total for position, state in enumerate(states) if state.total is not None}
    return SeriesRecord(
        model, sender, identities, list(progress), numbers, list(totals), pack_values([*totals.values()])
    )


def unpack_series(record: SeriesRecord) -> Iterator[SeriesState]:
    """Yields the series of a stored record.

    Raises:
        ValueError: The record contradicts itself.
    """
    totals = dict(zip(record.totals_of, unpack_values(record.totals), strict=True))
    if not all(0 <= number < len(record.progress) for number in record.progress_numbers):
        raise ValueError("a series has a progress that is not there")
    for position, (identity, number) in enumerate(zip(record.identities, record.progress_numbers, strict=True)):
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
            consumed=list(progress.consumed),
            covered=list(progress.covered),
        )


def pack_values(values: Sequence[PointValue]) -> PackedValues:
    """Packs the values of data points for storage."""
    kinds = bytearray()
    counters: list[int] = []
    bounds: dict[tuple[float, ...], int] = {}
    bounds_numbers: list[int] = []
    scales: list[int] = []
    ordinals: list[Counts] = []
    counts: list[Counts] = []
    moments: list[Moments] = []
    for counter, explicit, exponential in values:
        if exponential is not None:
            kinds.append(_EXPONENTIAL)
            scales.append(exponential.scale)
            ordinals.append(exponential.ordinals)
            counts.append(exponential.counts)
            moments.append(exponential.moments)
        elif explicit is not None:
            kinds.append(_EXPLICIT)
            bounds_numbers.append(bounds.setdefault(explicit.bounds, len(bounds)))
            counts.append(explicit.counts)
            moments.append(explicit.moments)
        else:
            kinds.append(_COUNTER)
            counters.append(counter or 0)
    filled = [array for array in ordinals if array.size]
    joined: Counts = np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)
    steps: Counts = joined[1:] - joined[:-1]
    for start in accumulate(array.size for array in filled[:-1]):
        steps[start - 1] = 0  # from one histogram to the next
    return PackedValues(
        kinds=bytes(kinds),
        counters=counters,
        bounds=list(bounds),
        bounds_numbers=bounds_numbers,
        scales=scales,
        sizes=[array.size for array in counts],
        firsts=[int(array[0]) for array in filled],
        steps=pack_ints(steps),
        counts=pack_ints(np.concatenate(counts) if counts else steps),
        numbers=[entry.count for entry in moments],
        sums=[entry.exact_sum for entry in moments],
        minima=[entry.minimum for entry in moments],
        maxima=[entry.maximum for entry in moments],
    )


def unpack_values(packed: PackedValues) -> Iterator[PointValue]:
    """Yields the values of data points that were packed for storage.

    Raises:
        ValueError: They contradict each other.
    """
    counts = unpack_ints(packed.counts)
    sizes = packed.sizes
    if sum(sizes) != counts.size or min(sizes, default=0) < 0:
        raise ValueError(f"{counts.size} counts for sketches of {sum(sizes)}")
    sketches = zip(
        pairwise(accumulate(sizes, initial=0)),
        map(_moments, packed.numbers, packed.sums, packed.minima, packed.maxima),
        strict=True,
    )
    exponential_sizes = [size for kind, size in zip(_sketch_kinds(packed), sizes, strict=True) if kind == _EXPONENTIAL]
    ordinals = iter(_unpack_ordinals(packed, exponential_sizes))
    counters, scales, bounds = iter(packed.counters), iter(packed.scales), iter(packed.bounds_numbers)
    for kind in packed.kinds:
        if kind == _COUNTER:
            yield PointValue(counter=_next(counters))
            continue
        (start, end), moments = _next(sketches)
        if kind == _EXPLICIT:
            number = _next(bounds)
            if not 0 <= number < len(packed.bounds):
                raise ValueError("a histogram has bounds that are not there")
            explicit = Histogram(bounds=packed.bounds[number], counts=counts[start:end], moments=moments)
            yield PointValue(explicit=explicit)
            continue
        yield PointValue(
            exponential=ExponentialHistogram(
                scale=_next(scales), ordinals=_next(ordinals), counts=counts[start:end], moments=moments
            )
        )


def _sketch_kinds(packed: PackedValues) -> bytes:
    return packed.kinds.replace(bytes([_COUNTER]), b"")


def _unpack_ordinals(packed: PackedValues, sizes: Sequence[int]) -> Iterator[Counts]:
    filled = [size for size in sizes if size]
    steps, length = unpack_ints(packed.steps), sum(filled)
    if steps.size != max(length - 1, 0) or len(packed.firsts) != len(filled):
        raise ValueError("the ordinals are not those of the counts")
    running = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(steps)])
    start, firsts = 0, iter(packed.firsts)
    for size in sizes:
        if not size:
            yield np.zeros(0, dtype=np.int64)
            continue
        yield running[start : start + size] - running[start] + next(firsts)
        start += size


def _moments(number: int, exact_sum: ExactSum, minimum: float, maximum: float) -> Moments:
    return Moments(count=number, exact_sum=exact_sum, minimum=minimum, maximum=maximum)


def _next(values: Iterator[T]) -> T:
    for value in values:
        return value
    raise ValueError("a value is missing")


def pack_ints(values: Counts) -> PackedInts:
    """Packs whole numbers of 0 and above, shape (n,), into the narrowest integer type that holds all of them."""
    largest = int(values.max()) if values.size else 0
    width = next((width for limit, width in _WIDTHS if largest < limit), "<i8")
    return width, values.astype(width).tobytes()


def unpack_ints(packed: PackedInts) -> Counts:
    """Unpacks whole numbers that `pack_ints` packed, shape (n,), int64.

    Raises:
        ValueError: They are of no type that is written, or not whole.
    """
    width, blob = packed
    if width not in {width for _, width in _WIDTHS} | {"<i8"}:
        raise ValueError(f"numbers of type {width!r}")
    return np.frombuffer(blob, dtype=width).astype(np.int64)
