"""Packs the values of many data points into one stored record: counters in a list, histograms in columns.

Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np

from otel_mlmon.processor.window.packed_numbers import (
    PackedInts,
    PackedSums,
    pack_ints,
    pack_sums,
    unpack_ints,
    unpack_sums,
)
from otel_mlmon.sketch.table import Bounds, PointValue, SketchTable, list_runs
from otel_mlmon.types import Counts

NO_GAPS: Final[PackedInts] = "", b""
"""The steps between ordinals that are all 1."""

ValueColumn: TypeAlias = tuple[SketchTable | None, Sequence[int]]
"""The table of histograms and the row of each, or None and the number of each counter."""

COUNTER: Final = 0
"""The kind of a counter among the kinds of values."""

_EXPLICIT, _EXPONENTIAL = 1, 2

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
    """The counts of all histograms, one after the other."""
    numbers: list[int]
    """A part of the moments of each histogram, like the following."""
    sums: PackedSums
    minima: list[float]
    """The least value of each histogram; empty where all are unknown, as the following."""
    maxima: list[float]


_NO_HISTOGRAMS: Final = PackedValues(
    kinds=b"", counters=[], bounds=[], bounds_numbers=[], scales=[], sizes=[], firsts=[], steps=NO_GAPS,
    counts=pack_ints(np.zeros(0, dtype=np.int64)), numbers=[], sums=pack_sums([]), minima=[], maxima=[],
)  # fmt: skip


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
        return bytes([COUNTER]) * len(numbers)
    bounds = table.bounds
    return bytes([_EXPONENTIAL if bounds[row] is None else _EXPLICIT for row in numbers])


def unpack_values(packed: PackedValues) -> list[PointValue]:
    """Returns the values of data points that were packed for storage.

    Raises:
        ValueError: They contradict each other.
    """
    table = unpack_table(packed)
    return [
        PointValue.from_number(None if kind == COUNTER else table, number)
        for kind, number in zip(packed.kinds, list_numbers(packed), strict=True)
    ]


def list_numbers(packed: PackedValues) -> list[int]:
    """Lists the value of each counter, and the row of each histogram, in the order of the points.

    Raises:
        ValueError: There are not as many as points.
    """
    counters, rows = iter(packed.counters), iter(range(len(packed.sizes)))
    return [_take_next(counters if kind == COUNTER else rows) for kind in packed.kinds]


def unpack_table(packed: PackedValues) -> SketchTable:
    """Unpacks the table of the sketches of stored data points.

    Raises:
        ValueError: They contradict each other.
    """
    counts, sizes = unpack_ints(packed.counts), np.array(packed.sizes, dtype=np.int64)
    if int(sizes.sum()) != counts.size or min(packed.sizes, default=0) < 0:
        raise ValueError(f"{counts.size} counts for sketches of {int(sizes.sum())}")
    kinds = packed.kinds.replace(bytes([COUNTER]), b"")
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
