"""Reads the exponential histograms of points from their bytes into one table of sketches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.receive.encoded import find_count_faults
from otel_mlmon.processor.receive.histogram_fields import BucketPlaces, read_fields
from otel_mlmon.sketch.exponential import BIAS
from otel_mlmon.sketch.table import SketchTable
from otel_mlmon.types import Bools, Ints

_MAX_VARINT_BYTES: Final = 8


class HistogramRows(NamedTuple):
    """The exponential histograms of n points, row by row in one table."""

    start_ns: Sequence[int]
    time_ns: Sequence[int]
    table: SketchTable
    """A row for each point; those of `unread` and `faults` must not be used."""
    unread: list[int]
    """The points that only protobuf can parse, in their order."""
    faults: dict[int, str]
    """The points whose buckets contradict their own count, with the reason."""


class BucketCounts(NamedTuple):
    """The counts of the positive or the negative buckets of n histograms, one histogram after the other."""

    counts: NDArray[np.uint64]
    sizes: Ints
    """How many buckets each histogram has."""
    offsets: Ints
    """The index of the first bucket of each."""


def read_histograms(points: Sequence[bytes], positions: Ints) -> HistogramRows:
    """Reads the exponential histograms of one or more points; the arguments are those of `read_fields`."""
    fields = read_fields(points, positions)
    is_read, size = fields.is_read, len(points)
    above = _decode_counts(fields.data, fields.above, is_read)
    below = _decode_counts(fields.data, fields.below, is_read)
    table = SketchTable.build_empty()
    table.bounds += [None] * size
    table.scales += fields.scales
    table.numbers += fields.counts
    table.minima += fields.minima
    table.maxima += fields.maxima
    if below is None and fields.zero_counts is None and above is not None:
        ends, counts, ordinals = above.sizes.cumsum(), above.counts, _count_from(above.offsets + BIAS, above.sizes)
    else:
        ends, counts, ordinals = _order_buckets(below, fields.zero_counts, above, size)
    table.starts += ends.tolist()
    held = table.fill_buckets(counts, ordinals, fields.sums)
    faults = find_count_faults(table.numbers, held)
    unread = [] if np.count_nonzero(is_read) == size else np.flatnonzero(~is_read).tolist()
    for row in unread:
        faults.pop(row, None)
    return HistogramRows(fields.start_ns, fields.time_ns, table, unread, faults)


def _order_buckets(
    below: BucketCounts | None, zero_counts: NDArray[np.uint64] | None, above: BucketCounts | None, size: int
) -> tuple[Ints, NDArray[np.uint64], Ints]:
    """Orders the buckets of histograms from the lowest values to the highest; returns ends, counts and ordinals.

    Args:
        below: The negative buckets, sent from the highest values to the lowest.
        zero_counts: How many zeros each histogram has.
        above: The positive buckets.
        size: The number of histograms.
    """
    none = np.zeros(size, dtype=np.int64)
    lengths_below, lengths_above = (none if part is None else part.sizes for part in (below, above))
    has_zeros = none if zero_counts is None else (zero_counts > 0).astype(np.int64)
    ends = (lengths_below + has_zeros + lengths_above).cumsum()
    counts, ordinals = np.zeros(int(ends[-1]), dtype=np.uint64), np.zeros(int(ends[-1]), dtype=np.int64)
    if above is not None:
        places = _count_from(ends - lengths_above, lengths_above)
        counts[places], ordinals[places] = above.counts, _count_from(above.offsets + BIAS, lengths_above)
    middles = ends - lengths_above - has_zeros
    if zero_counts is not None:
        counts[middles[has_zeros > 0]] = zero_counts[has_zeros > 0]
    if below is not None:
        places = -_count_from(1 - middles, lengths_below)
        counts[places], ordinals[places] = below.counts, -_count_from(below.offsets + BIAS, lengths_below)
    return ends, counts, ordinals


def _decode_counts(data: NDArray[np.uint8], buckets: BucketPlaces | None, is_read: Bools) -> BucketCounts | None:
    """Decodes the counts of buckets, which are varints.

    Args:
        data: The bytes of all points.
        buckets: Where they are; None for none.
        is_read: Is made false where a count takes more than 8 bytes, or does not end.
    """
    if buckets is None:
        return None
    digits = data[_count_from(buckets.starts, buckets.sizes)]
    is_last = digits < 128
    if np.count_nonzero(is_last) == is_last.size:
        return BucketCounts(digits.astype(np.uint64), buckets.sizes, buckets.offsets)
    lasts, ends = np.flatnonzero(is_last), buckets.sizes.cumsum()
    firsts = np.concatenate((lasts[:1] * 0, lasts[:-1] + 1))
    lengths = lasts - firsts + 1
    is_wrong = (buckets.sizes > 0) & ~is_last[ends - 1]
    is_wrong[np.searchsorted(ends, lasts[lengths > _MAX_VARINT_BYTES], side="right")] = True
    if np.count_nonzero(is_wrong):
        is_read &= ~is_wrong
        return _decode_counts(data, buckets._replace(sizes=buckets.sizes * ~is_wrong), is_read)
    numbers = (digits[firsts] & 127).astype(np.uint64)
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= (digits[firsts[longer] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return BucketCounts(numbers, np.diff(np.searchsorted(lasts, ends), prepend=0), buckets.offsets)


def _count_from(firsts: Ints, lengths: Ints) -> Ints:
    """Returns, one after the other, so many successive integers from each of several first ones."""
    ends = lengths.cumsum()
    return np.arange(int(ends[-1])) + np.repeat(firsts - (ends - lengths), lengths)
