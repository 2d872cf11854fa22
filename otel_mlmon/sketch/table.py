"""A table of many sketches with all their counts in one array, so that thousands cost a few array operations.

A row is a histogram or an exponential histogram, and is the same as the object that it stands for, bit for bit: what
rows are merged to and subtracted to does not depend on whether the objects are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.sketch.exponential import MAX_BUCKETS, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import ExactSum, Moments, list_exact_units
from otel_mlmon.types import Bools, Counts, Floats, Indices

AnyHistogram: TypeAlias = Histogram | ExponentialHistogram
Bounds: TypeAlias = tuple[float, ...]
"""The upper bounds of explicit buckets."""
SketchLayout: TypeAlias = tuple[Bounds | None, int, int]
"""The bounds, the scale and the number of buckets of a histogram: those of two with equal ones may be subtracted."""

K = TypeVar("K", bound=Hashable)

_SAFE_COUNT: Final = 2**48
"""A sum of as many counts below it as a row may have fits into 64 bits."""


@dataclass(slots=True, kw_only=True, eq=False)
class SketchTable:
    """Holds n histograms as the rows of one table, which does not change once it is built or filled.

    Memory: 16 bytes a bucket.
    """

    bounds: list[Bounds | None]
    """The bounds of each row; None for an exponential histogram."""
    scales: list[int]
    """The scale of each exponential histogram; 0 for the other rows."""
    starts: list[int]
    """The position of the first bucket of each row, and the number of all buckets; n + 1."""
    ordinals: Counts
    """The ordinals of buckets in exponential histograms, 1, 2, … in the others: increasing within a row."""
    counts: Counts
    """The values in each bucket; above 0 in those of exponential histograms."""
    numbers: list[int]
    """The number of values of each row."""
    sums: list[int]
    """Their exact sum, in units of 2^-1074."""
    minima: list[float]
    maxima: list[float]

    @classmethod
    def from_sketches(cls, sketches: Sequence[AnyHistogram]) -> SketchTable:
        """Builds a sketch table with one row for each of the given histograms."""
        arrays = [
            np.arange(1, sketch.counts.size + 1) if isinstance(sketch, Histogram) else sketch.ordinals
            for sketch in sketches
        ]
        return cls(
            bounds=[sketch.bounds if isinstance(sketch, Histogram) else None for sketch in sketches],
            scales=[0 if isinstance(sketch, Histogram) else sketch.scale for sketch in sketches],
            starts=list(accumulate((array.size for array in arrays), initial=0)),
            ordinals=_join_arrays(arrays),
            counts=_join_arrays([sketch.counts for sketch in sketches]),
            numbers=[sketch.moments.count for sketch in sketches],
            sums=[int(sketch.moments.exact_sum) for sketch in sketches],
            minima=[sketch.moments.minimum for sketch in sketches],
            maxima=[sketch.moments.maximum for sketch in sketches],
        )

    @classmethod
    def gather_rows(cls, rows: Sequence[TableRow]) -> SketchTable:
        """Builds a sketch table from rows of other sketch tables, in the given order."""
        by_table = groupby(rows, key=itemgetter(0))
        return cls.gather_runs(
            run for table, group in by_table for run in list_runs(table, list(map(itemgetter(1), group)))
        )

    @classmethod
    def gather_runs(cls, runs: Iterable[TableRun]) -> SketchTable:
        """Builds a sketch table from runs of adjacent rows of other sketch tables, in the given order."""
        runs = _join_runs(runs)
        if len(runs) == 1 and runs[0][2] - runs[0][1] == len(runs[0][0].numbers):
            return runs[0][0]
        sizes = [table.starts[row + 1] - table.starts[row] for table, first, end in runs for row in range(first, end)]
        return cls(
            bounds=[bounds for table, first, end in runs for bounds in table.bounds[first:end]],
            scales=[scale for table, first, end in runs for scale in table.scales[first:end]],
            starts=list(accumulate(sizes, initial=0)),
            ordinals=_join_arrays(
                [table.ordinals[table.starts[first] : table.starts[end]] for table, first, end in runs]
            ),
            counts=_join_arrays([table.counts[table.starts[first] : table.starts[end]] for table, first, end in runs]),
            numbers=[number for table, first, end in runs for number in table.numbers[first:end]],
            sums=[units for table, first, end in runs for units in table.sums[first:end]],
            minima=[minimum for table, first, end in runs for minimum in table.minima[first:end]],
            maxima=[maximum for table, first, end in runs for maximum in table.maxima[first:end]],
        )

    @classmethod
    def build_empty(cls) -> SketchTable:
        """Builds a sketch table without rows; rows are added to its lists, and `fill_buckets` completes it."""
        none = np.zeros(0, dtype=np.int64)
        return cls(
            bounds=[], scales=[], starts=[0], ordinals=none, counts=none, numbers=[], sums=[], minima=[], maxima=[]
        )

    def fill_buckets(self, counts: NDArray[np.uint64], ordinals: Counts, totals: Sequence[float] | Floats) -> list[int]:
        """Fills in the bucket counts of all rows of a sketch table; returns how many values each row's buckets hold.

        Args:
            counts: The values in each bucket, empty ones too, in the order of the rows.
            ordinals: The ordinals of the buckets.
            totals: The sums of the rows; one that is not finite becomes 0.
        """
        starts = np.array(self.starts)
        if int(counts.max(initial=0)) < _SAFE_COUNT:
            cumulative = np.zeros(counts.size + 1, dtype=np.uint64)
            counts.cumsum(out=cumulative[1:])
            cumulative = cumulative[starts]
            held: list[int] = (cumulative[1:] - cumulative[:-1]).tolist()
        else:
            held = [sum(counts[start:end].tolist()) for start, end in pairwise(self.starts)]
        self.sums += list_exact_units(np.array(totals, dtype=np.float64))
        if np.count_nonzero(counts) < counts.size:
            is_kept = counts > 0
            if any(bounds is not None for bounds in self.bounds):
                is_explicit = np.array([bounds is not None for bounds in self.bounds], dtype=np.bool_)
                is_kept |= np.repeat(is_explicit, np.diff(starts))
            kept = np.flatnonzero(is_kept)
            self.starts = kept.searchsorted(starts).tolist()
            counts, ordinals = counts[kept], ordinals[kept]
        self.counts, self.ordinals = counts.view(np.int64), ordinals
        return held

    def build_sketch(self, row: int) -> AnyHistogram:
        """Builds the histogram object of one row of the sketch table, which holds nothing else of the table."""
        start, end = self.starts[row], self.starts[row + 1]
        moments = Moments(
            count=self.numbers[row],
            exact_sum=ExactSum(self.sums[row]),
            minimum=self.minima[row],
            maximum=self.maxima[row],
        )
        bounds = self.bounds[row]
        if bounds is not None:
            return Histogram(bounds=bounds, counts=self.counts[start:end].copy(), moments=moments)
        return ExponentialHistogram(
            scale=self.scales[row],
            ordinals=self.ordinals[start:end].copy(),
            counts=self.counts[start:end].copy(),
            moments=moments,
        )

    def is_exponential(self, rows: Iterable[int]) -> bool:
        """Returns whether all of some rows of the sketch table are exponential histograms."""
        return {self.bounds[row] for row in rows} <= {None}

    def list_layouts(self, rows: Sequence[int]) -> list[SketchLayout]:
        """Lists the layouts of rows of the sketch table."""
        bounds, scales, starts = self.bounds, self.scales, self.starts
        return [(bounds[row], scales[row], starts[row + 1] - starts[row]) for row in rows]

    def subtract(self, earlier: SketchTable) -> tuple[SketchTable, list[bool]]:
        """Subtracts an earlier state from each running total (row); returns the differences, and which rows have one.

        There is none for a row that was reset or has other buckets than before: there `subtract` of the sketch tells.

        Args:
            earlier: The former states; each row has the same layout as the one here.
        """
        sizes = np.diff(self.starts)
        row_of = np.repeat(np.arange(sizes.size), sizes)
        counts = self.counts - earlier.counts
        is_wrong = np.zeros(sizes.size, dtype=np.bool_)
        is_wrong[row_of[(self.ordinals != earlier.ordinals) | (counts < 0)]] = True
        is_wrong |= sizes == 0
        is_explicit = np.array([bounds is not None for bounds in self.bounds], dtype=np.bool_)
        kept = (counts > 0) | is_explicit[row_of]
        ends = np.concatenate((np.zeros(1, dtype=np.intp), np.cumsum(kept)))
        table = SketchTable(
            bounds=self.bounds,
            scales=self.scales,
            starts=ends[np.array(self.starts)].tolist(),
            ordinals=self.ordinals[kept],
            counts=counts[kept],
            numbers=[later - before for later, before in zip(self.numbers, earlier.numbers, strict=True)],
            sums=[later - before for later, before in zip(self.sums, earlier.sums, strict=True)],
            minima=self.minima,
            maxima=self.maxima,
        )
        return table, (~is_wrong).tolist()

    def merge_rows(self, keys: Sequence[K]) -> tuple[SketchTable, dict[K, list[int]]]:
        """Merges rows with equal keys; returns a sketch table, and by key its rows there.

        A key has a row for each set of bounds, and an exponential one: what `merge_all` of the sketches returns.

        Args:
            keys: Of each row.
        """
        if len(set(keys)) == len(keys):
            return self, {key: [row] for row, key in enumerate(keys)}
        kinds: list[Bounds | int] = [
            scale if bounds is None else bounds for bounds, scale in zip(self.bounds, self.scales, strict=True)
        ]
        groups: defaultdict[tuple[K, Bounds | int], list[int]] = defaultdict(list)
        for row, group in enumerate(zip(keys, kinds, strict=True)):
            groups[group].append(row)
        table, rows = SketchTable.from_sketches(self._merge_groups(list(groups.values()))), dict[K, list[int]]()
        for row, (key, _) in enumerate(groups):
            rows.setdefault(key, []).append(row)
        return table._merge_scales(rows)

    def _merge_scales(self, rows: dict[K, list[int]]) -> tuple[SketchTable, dict[K, list[int]]]:
        """Merges those exponential rows of each key that have different scales."""
        exponential = {key: [row for row in group if self.bounds[row] is None] for key, group in rows.items()}
        mixed = {key: group for key, group in exponential.items() if len(group) > 1}
        if not mixed:
            return self, rows
        parts = [[self.build_sketch(row) for row in group] for group in mixed.values()]
        merged = SketchTable.from_sketches(
            [ExponentialHistogram.merge_all([p for p in part if isinstance(p, ExponentialHistogram)]) for part in parts]
        )
        first = len(self.numbers)
        for row, (key, group) in enumerate(mixed.items(), start=first):
            rows[key] = [*(other for other in rows[key] if other not in group), row]
        present = [(self, row) for row in range(first)]
        return SketchTable.gather_rows([*present, *((merged, row) for row in range(len(mixed)))]), rows

    def _merge_groups(self, groups: Sequence[Sequence[int]]) -> list[AnyHistogram]:
        """Merges the histograms of each group of rows, which have the same scale or bounds."""
        group_of_row = np.empty(len(self.numbers), dtype=np.intp)
        sizes = list(map(len, groups))
        group_of_row[list(chain.from_iterable(groups))] = np.repeat(np.arange(len(groups)), sizes)
        is_explicit = np.array([self.bounds[rows[0]] is not None for rows in groups], dtype=np.bool_)
        layout = _GroupedBuckets(self, group_of_row, is_explicit)
        merged: list[AnyHistogram] = []
        for group, rows in enumerate(groups):
            bounds, scale = self.bounds[rows[0]], self.scales[rows[0]]
            if layout.is_too_wide[group]:
                sketches = map(self.build_sketch, rows)
                parts = [sketch for sketch in sketches if isinstance(sketch, ExponentialHistogram)]
                merged.append(ExponentialHistogram.merge_all(parts))
                continue
            moments = Moments(
                count=sum([self.numbers[row] for row in rows]),
                exact_sum=ExactSum(sum([self.sums[row] for row in rows])),
                minimum=min([self.minima[row] for row in rows]),
                maximum=max([self.maxima[row] for row in rows]),
            )
            if bounds is not None:
                merged.append(Histogram(bounds=bounds, counts=layout.list_all_counts(group), moments=moments))
            else:
                ordinals, counts = layout.list_filled_buckets(group)
                merged.append(ExponentialHistogram(scale=scale, ordinals=ordinals, counts=counts, moments=moments))
        return merged


TableRow: TypeAlias = tuple[SketchTable, int]

TableRun: TypeAlias = tuple[SketchTable, int, int]
"""Adjacent rows of a sketch table: the table, its first row, and the row after the last one."""


class PointValue(NamedTuple):
    """Holds the value of a data point: a counter's number, or a histogram as a row of a shared table."""

    counter: int | None = None
    table: SketchTable | None = None
    """None for a counter."""
    row: int = 0

    @classmethod
    def from_sketch(cls, sketch: AnyHistogram | int) -> PointValue:
        """Wraps a counter's number, or one histogram object, as the value of a data point."""
        if isinstance(sketch, int):
            return cls(sketch)
        return cls(None, SketchTable.from_sketches([sketch]))

    @classmethod
    def from_number(cls, table: SketchTable | None, number: int) -> PointValue:
        """Wraps a row of a table as the value of a data point, or a counter's number where there is no table."""
        return cls(number) if table is None else cls(None, table, number)

    @property
    def number(self) -> int:
        """The row of the histogram in its table, or the counter's number."""
        return self.row if self.table is not None else self.counter or 0

    @property
    def sketch(self) -> AnyHistogram | int:
        """The value of the data point as a counter's number or a histogram object."""
        return self.table.build_sketch(self.row) if self.table is not None else self.counter or 0

    @property
    def total(self) -> int:
        """The number of values that the data point counts."""
        return self.table.numbers[self.row] if self.table is not None else self.counter or 0

    def has_same_form(self, other: PointValue) -> bool:
        """Returns whether two data points can be subtracted: both counters, or histograms of the same bounds."""
        if self.table is None or other.table is None:
            return self.table is other.table
        return self.table.bounds[self.row] == other.table.bounds[other.row]

    def subtract(self, earlier: PointValue) -> PointValue | None:
        """Subtracts an earlier value of the same form from a running total; returns None if the total was reset."""
        later, before = self.sketch, earlier.sketch
        if isinstance(later, int) and isinstance(before, int):
            return PointValue(later - before) if later >= before else None
        difference: AnyHistogram | None = None
        if isinstance(later, Histogram) and isinstance(before, Histogram):
            difference = later.subtract(before)
        if isinstance(later, ExponentialHistogram) and isinstance(before, ExponentialHistogram):
            difference = later.subtract(before)
        return None if difference is None else self.from_sketch(difference)

    def __eq__(self, other: object) -> bool:
        """Returns whether two data points have the same value, in whatever tables their histograms are."""
        return isinstance(other, PointValue) and self.has_same_form(other) and self.sketch == other.sketch


class _GroupedBuckets:
    """Adds up the bucket counts of groups of histogram rows, each group in its own stretch of one array.

    A group has a stretch for its negative ordinals, one for zeros and one for the positive ones, each from its lowest
    ordinal to its highest.
    """

    def __init__(self, table: SketchTable, group_of_row: Indices, is_explicit: Bools) -> None:
        sizes, ordinals, counts = np.diff(table.starts), table.ordinals, table.counts
        groups = is_explicit.size
        sides = 3 * np.repeat(group_of_row, sizes) + np.sign(ordinals) + 1
        # Within a row the ordinals increase: the first and the last of a side are its lowest and highest.
        is_first = np.ones(ordinals.size, dtype=np.bool_)
        is_first[1:] = sides[1:] != sides[:-1]
        is_first[np.array(table.starts[:-1], dtype=np.intp)[sizes > 0]] = True
        firsts = np.flatnonzero(is_first)
        lasts = np.append(firsts[1:], ordinals.size)[: firsts.size] - 1
        lowest = np.full(3 * groups, np.iinfo(np.int64).max)
        highest = np.full(3 * groups, -1 - np.iinfo(np.int64).max)
        np.minimum.at(lowest, sides[firsts], ordinals[firsts])
        np.maximum.at(highest, sides[firsts], ordinals[lasts])
        is_used = highest >= lowest
        lowest[~is_used] = 0
        widths = np.where(is_used, highest - lowest + 1, 0)
        self.is_too_wide = (widths.reshape(-1, 3) > MAX_BUCKETS).any(1) & ~is_explicit
        """By group, whether its buckets are too far apart for its scale."""
        if self.is_too_wide.any():
            widths[np.repeat(self.is_too_wide, 3)] = 0
            fits = ~self.is_too_wide[sides // 3]
            sides, ordinals, counts = sides[fits], ordinals[fits], counts[fits]
        starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(widths)))
        shifts = starts[:-1] - lowest
        array = np.zeros(int(starts[-1]), dtype=np.int64)
        np.add.at(array, shifts[sides] + ordinals, counts)
        filled = np.flatnonzero(array)
        self._array, self._starts = array, starts[::3].tolist()
        self._ordinals, self._counts = filled - np.repeat(shifts, widths)[filled], array[filled]
        self._filled = np.searchsorted(filled, starts[::3]).tolist()

    def list_all_counts(self, group: int) -> Counts:
        """Returns the counts of all buckets of a group of rows, from the lowest bucket to the highest."""
        return self._array[self._starts[group] : self._starts[group + 1]].copy()

    def list_filled_buckets(self, group: int) -> tuple[Counts, Counts]:
        """Returns the ordinals and the counts of those buckets of a group of rows that are not empty."""
        start, end = self._filled[group], self._filled[group + 1]
        return self._ordinals[start:end].copy(), self._counts[start:end].copy()


def list_runs(table: SketchTable, rows: Sequence[int]) -> list[TableRun]:
    """Lists the runs of adjacent rows among rows of one sketch table, in the given order."""
    if rows and list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return [(table, rows[0], rows[0] + len(rows))]
    return _join_runs((table, row, row + 1) for row in rows)


def _join_runs(runs: Iterable[TableRun]) -> list[TableRun]:
    """Joins each run of rows of a sketch table with the next one where that goes on with the following row."""
    joined: list[TableRun] = []
    for table, first, end in runs:
        if joined and joined[-1][0] is table and joined[-1][2] == first:
            joined[-1] = table, joined[-1][1], end
        else:
            joined.append((table, first, end))
    return joined


def _join_arrays(arrays: Sequence[Counts]) -> Counts:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
