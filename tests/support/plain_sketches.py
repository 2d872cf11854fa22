"""Adds up increments to sketches one by one: an oracle for the code that adds many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from otel_mlmon import semconv
from otel_mlmon.processor.window.consumption import Increments
from otel_mlmon.processor.window.series import FAILED, OK, PendingPoints, TimeSeries, list_streams
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.sketch.table import PointValue


def sketch_streams(metric: str, name: str, category: str, increment: PointValue) -> dict[str, StreamSketch]:
    """Converts an increment into a sketch for each of the streams that its metric feeds."""
    names = list_streams(metric, name, category)
    return dict(zip(names, _build_sketches(metric, name, category, increment), strict=True))


def build_increments(series: TimeSeries, value: PointValue) -> Increments:
    """Builds the columns of one increment, as if a point had brought it alone."""
    points = PendingPoints(
        request=1, sender="", key=(0, 1), is_cumulative=False, pane_end_ns=10, time_ns=1, received_ns=1,
        series=[series], table=value.table, numbers=[value.number],
    )  # fmt: skip
    return Increments(points, points.series, points.table, points.numbers)


def _build_sketches(metric: str, name: str, category: str, increment: PointValue) -> tuple[StreamSketch, ...]:
    sketch = increment.sketch
    if not isinstance(sketch, int):
        if isinstance(sketch, Histogram):
            numbers = StreamSketch(explicit={sketch.bounds: sketch})
        else:
            numbers = StreamSketch(exponential=sketch)
        if metric != semconv.DURATION.name:
            return (numbers,)
        # The metric of a failed call carries its error type, and nothing else splits it.
        return numbers, _count_class(FAILED if name else OK, numbers.numbers)
    if metric == semconv.MISSING_VALUES.name:
        return (StreamSketch(missing=sketch),)
    return (_count_class(category if metric == semconv.CATEGORY.name else name, sketch),)


def _count_class(label: str, count: int) -> StreamSketch:
    return StreamSketch(categories=CategoryCounts(counts={label: count} if count else {}))


def merge_streams(panes: Iterable[Mapping[str, StreamSketch]]) -> dict[str, StreamSketch]:
    """Merges parts of a pane, stream by stream: bit for bit what one process that saw all of it would hold."""
    parts: dict[str, list[StreamSketch]] = {}
    for pane in panes:
        for stream, sketch in pane.items():
            parts.setdefault(stream, []).append(sketch)
    return {stream: StreamSketch.merge_all(sketches) for stream, sketches in parts.items()}
