"""Collects the values of a request's points in one table of sketches, and checks the rules for a single value.

Source: opentelemetry-proto, metrics.proto; opentelemetry-specification, metrics/data-model.md.
"""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np

from otel_mlmon.processor.receive import encoded
from otel_mlmon.processor.receive.attributes import PointError
from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.receive.encoded import find_count_fault, find_count_faults, limit_extremes
from otel_mlmon.sketch.exponential import BIAS, MAX_SCALE, MIN_SCALE, ExponentialHistogram, find_bucket_index_range
from otel_mlmon.sketch.exponential import MAX_BUCKETS as MAX_RANGE
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.table import PointValue, SketchTable

MAX_BUCKETS: Final = 10_000
"""The most buckets of a point, of an exponential histogram those of one range; SDKs send 160."""

MAX_EXEMPLARS: Final = 4
"""The most trace exemplars that are kept of a point."""

MAX_CACHED_BOUNDS: Final = 512
"""Longer bounds are checked each time, and are not remembered."""


class PointValues:
    """The values of a request's points: lists that grow, and a table of sketches that is built of them when full.

    Runs on: one thread.
    """

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._firsts: list[int] = []
        """The ordinal of the first of some buckets that follow each other."""
        self._lengths: list[int] = []
        """How many they are."""
        self._totals: list[float] = []
        self.table = SketchTable.build_empty()
        """Its values may be read after `build` only."""

    @property
    def is_full(self) -> bool:
        """Whether so many buckets are collected that the table of sketches is to be built now."""
        return len(self._counts) >= encoded.MAX_TABLE_BUCKETS

    def add_histogram(self, point: Any) -> PointValue:
        """Adds the value of a point of a histogram with explicit bounds.

        Raises:
            PointError: It breaks a rule.
        """
        counts, table = self._counts, self.table
        explicit_bounds, bucket_counts = point.explicit_bounds, point.bucket_counts
        if len(explicit_bounds) >= MAX_BUCKETS or len(bucket_counts) > MAX_BUCKETS:
            raise PointError("too_many_buckets")
        start, bounds = len(counts), tuple(explicit_bounds)
        counts.extend(bucket_counts)
        if len(counts) == start and not bounds:
            counts.append(point.count)
        if len(counts) - start != len(bounds) + 1:
            del counts[start:]
            raise PointError("bucket_mismatch")
        try:
            table.bounds.append(_intern_bounds(bounds) if len(bounds) <= MAX_CACHED_BOUNDS else _check_bounds(bounds))
        except PointError:
            del counts[start:]
            raise
        self._firsts.append(1)
        self._lengths.append(len(counts) - start)
        return self._add_row(point, 0)

    def add_exponential(self, point: Any) -> PointValue:
        """Adds the value of a point of an exponential histogram; raises as `add_histogram` does."""
        scale = point.scale
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise PointError("bad_scale")
        counts, positive, zero_count = self._counts, point.positive, point.zero_count
        start = len(counts)
        offset, size = positive.offset, _check_bucket_range(positive, scale)
        below: list[int] = []
        if point.HasField("negative") and _check_bucket_range(point.negative, scale):
            below = list(point.negative.bucket_counts)
        counts.extend(positive.bucket_counts)
        if max(size, len(below)) > MAX_RANGE:
            above = counts[start:]
            del counts[start:]
            return _build_reduced_value(point, above, below)
        if below or zero_count:
            # From the most negative value to the most positive one, so that the ordinals are in order already.
            above = counts[start:]
            counts[start:] = [*reversed(below), zero_count, *above]
            self._firsts += (1 - len(below) - point.negative.offset - BIAS, 0)
            self._lengths += (len(below), 1)
        self._firsts.append(offset + BIAS)
        self._lengths.append(size)
        self.table.bounds.append(None)
        return self._add_row(point, scale)

    def build(self) -> dict[int, str]:
        """Fills the table of sketches; returns the rows whose buckets hold another count than stated, with reasons.

        No value of such a row may be used.
        """
        table = self.table
        if not table.numbers:
            return {}
        counts = np.frombuffer(array("Q", self._counts), dtype=np.uint64)
        firsts, lengths = np.array(self._firsts, dtype=np.int64), np.array(self._lengths, dtype=np.int64)
        ordinals = np.arange(counts.size) + np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths)
        return find_count_faults(table.numbers, table.fill_buckets(counts, ordinals, self._totals))

    def _add_row(self, point: Any, scale: int) -> PointValue:
        table = self.table
        row = len(table.numbers)
        minimum, maximum = _read_extremes(point)
        table.scales.append(scale)
        table.starts.append(len(self._counts))
        table.numbers.append(point.count)
        table.minima.append(minimum)
        table.maxima.append(maximum)
        self._totals.append(point.sum)
        return tuple.__new__(PointValue, (None, table, row))


AddValue = Callable[[PointValues, Any], PointValue]

ADD_VALUE: Final[Mapping[str, AddValue]] = {
    "histogram": PointValues.add_histogram,
    "exponential_histogram": PointValues.add_exponential,
}
"""How the value of a histogram is read, by the kind of its metric."""


def _check_bucket_range(buckets: Any, scale: int) -> int:
    """Returns the number of a point's negative or positive buckets, which must lie between 2^-1075 and 2^1024.

    Raises:
        PointError: They do not, or are too many.
    """
    size, offset = len(buckets.bucket_counts), buckets.offset
    if not size:
        return 0
    if size > MAX_BUCKETS:
        raise PointError("too_many_buckets")
    lowest, highest = find_bucket_index_range(scale)
    if offset < lowest or offset + size - 1 > highest:
        raise PointError("bad_offset")
    return size


def _build_reduced_value(point: Any, above: list[int], below: list[int]) -> PointValue:
    """Returns the value of a point with too many buckets, at a reduced scale, in a table of its own."""
    fault = find_count_fault(point.count, sum(above) + sum(below) + point.zero_count)
    if fault:
        raise PointError(fault)
    minimum, maximum = _read_extremes(point)
    return PointValue.from_sketch(
        ExponentialHistogram.from_buckets(
            scale=point.scale,
            zero_count=point.zero_count,
            positive_offset=point.positive.offset,
            positive_counts=np.array(above, dtype=np.int64),
            negative_offset=point.negative.offset,
            negative_counts=np.array(below, dtype=np.int64),
            moments=Moments.from_total(count=point.count, total=point.sum, minimum=minimum, maximum=maximum),
        )
    )


def read_exemplars(point: Any) -> tuple[TraceExemplar, ...]:
    """Returns the trace exemplars of a point with the largest values, `MAX_EXEMPLARS` at most."""
    values: dict[str, float] = {}
    for exemplar in point.exemplars:
        trace_id, value = exemplar.trace_id, exemplar.as_double
        if len(trace_id) == 16 and any(trace_id):
            known = values.setdefault(trace_id.hex(), 0.0)
            values[trace_id.hex()] = value if known < value < math.inf else known
    largest = sorted(values, key=values.__getitem__, reverse=True)[:MAX_EXEMPLARS]
    return tuple(TraceExemplar(trace_id, values[trace_id]) for trace_id in largest)


@functools.lru_cache(maxsize=1024)
def _intern_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Returns checked histogram bounds as one object for all data points that share them.

    Raises:
        PointError: They are no bounds.
    """
    return _check_bounds(bounds)


def _check_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Returns the bounds of a histogram unchanged if they are finite and increasing.

    Raises:
        PointError: They are not finite and strictly increasing; a NaN compares false, so it fails too.
    """
    if not all(map(math.isfinite, bounds)) or not all(low < high for low, high in pairwise(bounds)):
        raise PointError("bounds_not_increasing")
    return bounds


def _read_extremes(point: Any) -> tuple[float, float]:
    """Returns the minimum and maximum of a histogram's point; +inf and -inf where they are unknown."""
    if not point.HasField("min") and not point.HasField("max"):
        return math.inf, -math.inf
    return limit_extremes(
        point.min if point.HasField("min") else -math.inf, point.max if point.HasField("max") else math.inf
    )
