"""The sketches of one increment as they were made before many were added up at once: an oracle."""

from __future__ import annotations

from otel_mlmon import semconv
from otel_mlmon.processor.window.series import FAILED, OK, PointValue, list_streams
from otel_mlmon.sketch.stream_sketch import Categories, StreamSketch


def sketch_streams(metric: str, name: str, category: str, increment: PointValue) -> dict[str, StreamSketch]:
    """Converts an increment into a sketch for each of the streams that its metric feeds."""
    names = list_streams(metric, name, category)
    return dict(zip(names, _build_sketches(metric, name, category, increment), strict=True))


def _build_sketches(metric: str, name: str, category: str, increment: PointValue) -> tuple[StreamSketch, ...]:
    if increment.counter is None:
        explicit = {increment.explicit.bounds: increment.explicit} if increment.explicit is not None else {}
        numbers = StreamSketch(explicit=explicit, exponential=increment.exponential)
        if metric != semconv.DURATION.name:
            return (numbers,)
        # The metric of a failed call carries its error type, and nothing else splits it.
        return numbers, _count_class(FAILED if name else OK, numbers.numbers)
    if metric == semconv.MISSING_VALUES.name:
        return (StreamSketch(missing=increment.counter),)
    return (_count_class(category if metric == semconv.CATEGORY.name else name, increment.counter),)


def _count_class(label: str, count: int) -> StreamSketch:
    return StreamSketch(categories=Categories(counts={label: count} if count else {}))
