"""Takes the points of a pane that closes out of what is pending, those of all series at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from otel_mlmon.processor.window.series import CompletenessCheck, CountedTimes, PendingPoints, PointKey, TimeSeries
from otel_mlmon.sketch.table import PointValue, SketchTable, TableRow


class ConsumedPoints(NamedTuple):
    """The points that were taken out of a pane, and what each of them adds."""

    groups: list[PendingPoints]
    """In the order of their time."""
    series: list[TimeSeries]
    """Of the points of all groups."""
    increments: list[PointValue | None]
    """Of the same points; None of one that adds nothing."""


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
    members = [series for points in groups for series in points.series]
    increments: list[PointValue | None] = [value for points in groups for value in points.values]
    if any(points.is_cumulative for points in groups):
        differences = _subtract_totals(members, increments)
        first = 0
        for points in groups:
            end = first + len(points.series)
            if points.is_cumulative:
                increments[first:end] = [
                    series.count_total(points, value, differences.get(position), is_complete=is_complete)
                    for position, (series, value) in enumerate(zip(points.series, points.values, strict=True), first)
                ]
            first = end
    return ConsumedPoints(groups, members, increments)


def _subtract_totals(members: Sequence[TimeSeries], values: Sequence[PointValue | None]) -> dict[int, PointValue]:
    """Subtracts the last totals of many series from their next ones at once; returns the differences by position.

    It tells nothing of a series' further points, of a first total, and of other buckets than before.

    Args:
        members: The series of each point.
        values: Of each point.
    """
    positions: list[int] = []
    later: list[TableRow] = []
    earlier: list[TableRow] = []
    present = set[TimeSeries]()
    for position, (series, value) in enumerate(zip(members, values, strict=True)):
        total = series.state.total
        if total is None or total.table is None or value is None or value.table is None or series in present:
            continue
        present.add(series)
        if value.table.has_same_buckets(value.row, total.table, total.row):
            positions.append(position)
            later.append((value.table, value.row))
            earlier.append((total.table, total.row))
    if not positions:
        return {}
    table, is_known = SketchTable.gather_rows(later).subtract(SketchTable.gather_rows(earlier))
    return {
        position: PointValue(None, table, row)
        for row, (position, is_good) in enumerate(zip(positions, is_known, strict=True))
        if is_good
    }
