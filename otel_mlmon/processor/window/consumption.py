"""Takes the points of a pane that closes out of what is pending, those of all series at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from otel_mlmon.processor.window.series import CompletenessCheck, CountedTimes, PendingPoints, PointKey, TimeSeries
from otel_mlmon.sketch.table import Bounds, PointValue, SketchLayout, SketchTable, TableRun, list_runs


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
    """All points of the pane, in the order of their time."""
    increments: list[Increments]
    """The increments of points that add something, in the order of the groups."""


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
            increments += _count_totals(points, differences.get(id(points)), is_complete)
        else:
            increments.append(Increments(points, points.series, points.table, points.numbers))
    return ConsumedPoints(groups, increments)


class _Differences(NamedTuple):
    """Holds what successive totals of many series exceed the last ones by."""

    table: SketchTable
    rows: Sequence[int | None]
    """The row of each series' difference; None where it is not known yet."""


_NO_TOTAL: Final = PointValue(0)


def _count_totals(
    points: PendingPoints, differences: _Differences | None, is_complete: CompletenessCheck
) -> Iterator[Increments]:
    """Advances series to their next totals; yields what these exceed the last ones by."""
    if differences is not None:
        rows = [row for row in differences.rows if row is not None and differences.table.numbers[row]]
        if len(rows) == len(points.series):  # all of them have grown
            for series, number in zip(points.series, points.numbers, strict=True):
                series.advance_total(points, PointValue(None, points.table, number))
            yield Increments(points, points.series, differences.table, rows)
            return
    known = [None] * len(points.series) if differences is None else differences.rows
    counted: list[tuple[TimeSeries, PointValue]] = []
    for series, value, row in zip(points.series, points.list_values(), known, strict=True):
        difference = None if row is None or differences is None else PointValue(None, differences.table, row)
        increment = series.count_total(points, value, difference, is_complete=is_complete)
        if increment is not None:
            counted.append((series, increment))
    for _, group in groupby(counted, lambda part: id(part[1].table)):
        members, parts = zip(*group, strict=True)
        yield Increments(points, members, parts[0].table, [part.number for part in parts])


def _subtract_totals(groups: Sequence[PendingPoints]) -> dict[int, _Differences]:
    """Subtracts the last totals of many series from their next ones at once; returns the differences by `id` of points.

    It tells nothing of a series' further points, of a first total, and of another layout than before.
    """
    later: list[TableRun] = []
    earlier: list[TableRun] = []
    places: list[tuple[PendingPoints, Sequence[int]]] = []
    present = set[TimeSeries]()
    for points in groups:
        table = points.table
        if table is None or not points.series:
            continue
        lasts = [_NO_TOTAL if series in present else series.state.total or _NO_TOTAL for series in points.series]
        present.update(points.series)
        runs, last_runs = list_runs(table, points.numbers), _list_value_runs(lasts)
        if len(runs) == len(last_runs) == 1 and _list_run_layouts(runs[0]) == _list_run_layouts(last_runs[0]):
            places.append((points, range(len(lasts))))
            later += runs
            earlier += last_runs
            continue
        layouts = zip(table.list_layouts(points.numbers), _list_layouts(lasts), strict=True)
        positions = [position for position, (layout, last) in enumerate(layouts) if layout == last]
        places.append((points, positions))
        later += [(table, row, row + 1) for row in map(points.numbers.__getitem__, positions)]
        earlier += [
            (last.table, last.row, last.row + 1) for last in map(lasts.__getitem__, positions) if last.table is not None
        ]
    if not later:
        return {}
    table, is_known = SketchTable.gather_runs(later).subtract(SketchTable.gather_runs(earlier))
    differences: dict[int, _Differences] = {}
    first = 0
    for points, found in places:
        rows: list[int | None] = [None] * len(points.series)
        for row, position in enumerate(found, start=first):
            rows[position] = row if is_known[row] else None
        differences[id(points)] = _Differences(table, rows)
        first += len(found)
    return differences


def _list_value_runs(values: Sequence[PointValue]) -> list[TableRun]:
    """Lists the runs of rows that values are in; none if they are not all in one table."""
    table = values[0].table
    if table is None or [value.table for value in values].count(table) < len(values):
        return []
    return list_runs(table, [value.row for value in values])


def _list_run_layouts(run: TableRun) -> tuple[list[int], list[int], list[Bounds | None]]:
    """Lists the layouts of a run of rows in columns: equal ones are of as many rows of equal layouts."""
    table, first, end = run
    starts = table.starts[first : end + 1]
    return table.scales[first:end], [start - starts[0] for start in starts], table.bounds[first:end]


def _list_layouts(values: Sequence[PointValue]) -> list[SketchLayout | None]:
    """Lists the layouts of values in their tables; None for a counter."""
    layouts: list[SketchLayout | None] = []
    for table, group in groupby(values, key=attrgetter("table")):
        rows = [value.row for value in group]
        layouts += [None] * len(rows) if table is None else table.list_layouts(rows)
    return layouts
