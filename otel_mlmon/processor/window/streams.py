"""What a point means for the streams of its model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import Sketch
from otel_mlmon.sketch.categories import Categories
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import StreamSketch

OK: Final = "ok"
FAILED: Final = "failed"

COUNTERS: Final = frozenset(metric.name for metric in (semconv.PREDICTIONS, semconv.MISSING_VALUES, semconv.CATEGORY))
"""Metrics whose points are whole numbers; those of the others are histograms."""

_SINGLE: Final = {
    semconv.PREDICTIONS.name: (semconv.STREAM_LABEL,),
    semconv.CONFIDENCE.name: (semconv.STREAM_CONFIDENCE,),
    semconv.VALUE.name: (semconv.STREAM_VALUE,),
    semconv.DURATION.name: (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS),
}
_INPUTS: Final = frozenset(metric.name for metric in (semconv.FEATURE, semconv.MISSING_VALUES, semconv.CATEGORY))


def streams_of(metric: str, name: str) -> tuple[str, ...]:
    """Names of the streams that a metric feeds; empty if it feeds none.

    Args:
        metric: Its name.
        name: What it is split by: for inputs the feature.
    """
    if metric in _INPUTS:
        return (f"{semconv.STREAM_INPUT_PREFIX}{name}",)
    return _SINGLE.get(metric, ())


def stream_sketches(metric: str, name: str, category: str, added: Sketch) -> Iterable[tuple[str, StreamSketch]]:
    """What `added` is for each of the streams that its metric feeds, in the order of `streams_of`."""
    return zip(streams_of(metric, name), _sketches(metric, name, category, added), strict=True)


def merged(panes: Iterable[Mapping[str, StreamSketch]]) -> dict[str, StreamSketch]:
    """The same pane as several processors saw parts of it: what one that saw all would hold, bit for bit."""
    whole: dict[str, StreamSketch] = {}
    for pane in panes:
        for stream, stream_sketch in pane.items():
            mine = whole.get(stream)
            whole[stream] = stream_sketch if mine is None else mine.merge(stream_sketch)
    return whole


def _sketches(metric: str, name: str, category: str, added: Sketch) -> tuple[StreamSketch, ...]:
    if not isinstance(added, int):
        numbers = _numbers(added)
        if metric != semconv.DURATION.name:
            return (numbers,)
        # The metric of a failed call carries its error type, and nothing else splits it.
        return numbers, _class(FAILED if name else OK, numbers.numbers)
    if metric == semconv.MISSING_VALUES.name:
        return (StreamSketch(missing=added),)
    return (_class(category if metric == semconv.CATEGORY.name else name, added),)


def _numbers(sketch: Sketch) -> StreamSketch:
    if isinstance(sketch, Histogram):
        return StreamSketch(explicit={sketch.bounds: sketch})
    return StreamSketch() if isinstance(sketch, int) else StreamSketch(exponential=sketch)


def _class(label: str, count: int) -> StreamSketch:
    return StreamSketch(categories=Categories(counts={label: count} if count else {}))
