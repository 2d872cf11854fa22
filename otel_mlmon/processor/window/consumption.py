"""Takes the points of a pane that closes out of what is pending, those of all series at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from otel_mlmon.processor.window.series import CompletenessCheck, CountedTimes, PendingPoints, PointKey, TimeSeries
from otel_mlmon.sketch.table import PointValue, SketchTable, TableRow


class Increments(NamedTuple):
    """Holds what data points add to their pane, in columns."""

    points: PendingPoints
    """The data points that they are of, which may be more."""
    series: Sequence[TimeSeries]
    table: SketchTable | None
    """The table of histograms; None for counters."""
    numbers: Sequence[int]
    """The row of each histogram in the table, or the increment of each counter."""

    def list_counted_series(self) -> set[TimeSeries]:
        """Returns the series that add any value."""
        table = self.table
        counts = self.numbers if table is None else [table.numbers[row] for row in self.numbers]
        return {series for series, count in zip(self.series, counts, strict=True) if count}


class ConsumedPoints(NamedTuple):
    """The points that were taken out of a pane, and what they add to it."""

    groups: list[PendingPoints]
    """All points, in the order of their time."""
    increments: list[Increments]
    """The increments of those points that add something, in the same order."""


def consume_points(groups: Iterable[PendingPoints], *, is_complete: CompletenessCheck) -> ConsumedPoints:
    """Takes the points of a pane out of what is pending; returns them with their increments.

    Args:
        groups: The points.
        is_complete: Whether a first total counts from its start on.
    """
    groups = sorted(groups, key=attrgetter("order"))
    # Of series that go on alike the counted times are one object, and so are those that follow.
    following: dict[tuple[int, PointKey, bool], tuple[CountedTimes, CountedTimes]] = {}
    for points in groups:
        key = points.key
        is_interval = not points.is_cumulative and key[0] > 0 and key[1] == points.time_ns
        before = after = None
        for series in points.series:
            del series.pending[key]
            state = series.state
            if after is None or state.counted is not before:
                before = state.counted
                step = id(before), key, is_interval
                if step not in following:
                    following[step] = before, before.add([(key, is_interval)])
                after = following[step][1]
            state.counted = after
    totals = [points for points in groups if points.is_cumulative]
    differences = _subtract_totals(totals) if totals else {}
    increments: list[Increments] = []
    for points in groups:
        if points.is_cumulative:
            increments += _count_totals(points, differences, is_complete)
        else:
            increments.append(Increments(points, points.series, points.table, points.numbers))
    return ConsumedPoints(groups, increments)


def _count_totals(
    points: PendingPoints, differences: dict[tuple[int, int], PointValue], is_complete: CompletenessCheck
) -> Iterator[Increments]:
    """Advances series to their next totals; yields what these exceed the last ones by."""
    values = [
        (series, series.count_total(points, value, differences.get((id(points), position)), is_complete=is_complete))
        for position, (series, value) in enumerate(zip(points.series, points.list_values(), strict=True))
    ]
    counted = [(series, value) for series, value in values if value is not None]
    for _, group in groupby(counted, lambda part: id(part[1].table)):
        members, increments = zip(*group, strict=True)
        table = increments[0].table
        yield Increments(points, members, table, [value.number for value in increments])


def _subtract_totals(groups: Sequence[PendingPoints]) -> dict[tuple[int, int], PointValue]:
    """Subtracts the last totals of many series from their next ones at once.

    It tells nothing of a series' further points, of a first total, and of other buckets than before.

    Returns:
        The differences, by the identity of the points and the position among them.
    """
    places: list[tuple[int, int]] = []
    later: list[TableRow] = []
    earlier: list[TableRow] = []
    present = set[TimeSeries]()
    for points in groups:
        table = points.table
        if table is None:
            continue
        for position, (series, row) in enumerate(zip(points.series, points.numbers, strict=True)):
            total = series.state.total
            if total is None or total.table is None or series in present:
                continue
            present.add(series)
            if table.has_same_buckets(row, total.table, total.row):
                places.append((id(points), position))
                later.append((table, row))
                earlier.append((total.table, total.row))
    if not places:
        return {}
    table, is_known = SketchTable.gather_rows(later).subtract(SketchTable.gather_rows(earlier))
    return {
        place: PointValue(None, table, row)
        for row, (place, is_good) in enumerate(zip(places, is_known, strict=True))
        if is_good
    }
