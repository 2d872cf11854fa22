"""The streams that drift is looked for in: which metric each is made of, and how those of one output are named."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from otel_mlmon import semconv

STREAM_OUTPUT_PREFIX: Final = "output."

CONFIDENCE_EDGES: Final = tuple(step / 10 for step in range(1, 10))
"""10 equal bins that confidence is judged and calibrated in; they nest in `semconv.CONFIDENCE_BOUNDS`."""

STREAMS: Final[Mapping[str, str]] = {
    semconv.STREAM_LABEL: semconv.PREDICTIONS.name,
    semconv.STREAM_CONFIDENCE: semconv.CONFIDENCE.name,
    semconv.STREAM_VALUE: semconv.VALUE.name,
    f"{semconv.STREAM_LABEL}.<output>": f"{semconv.PREDICTIONS.name} with `{semconv.OUTPUT_NAME}`",
    f"{semconv.STREAM_CONFIDENCE}.<output>": f"{semconv.CONFIDENCE.name} with `{semconv.OUTPUT_NAME}`",
    f"{semconv.STREAM_VALUE}.<output>": f"{semconv.VALUE.name} with `{semconv.OUTPUT_NAME}`",
    f"{STREAM_OUTPUT_PREFIX}<output>.confidence": semconv.ITEM_CONFIDENCE.name,
    f"{semconv.STREAM_INPUT_PREFIX}<feature>": f"{semconv.FEATURE.name}, {semconv.CATEGORY.name}",
    semconv.STREAM_LATENCY: semconv.DURATION.name,
    semconv.STREAM_ERRORS: semconv.DURATION.name,
}
"""The streams that drift is looked for in, and the metrics that each is made of."""


def name_head_stream(stream: str, output: str) -> str:
    """Returns the stream name of one output, `prediction.label.<output>`; `prediction.label` of an only output."""
    return f"{stream}.{output}" if output else stream


def name_item_stream(output: str) -> str:
    """Returns the name of the stream of confidences of an output that holds boxes, tokens or frames."""
    return f"{STREAM_OUTPUT_PREFIX}{output}.confidence"


@lru_cache(maxsize=4_096)
def find_stream_family(stream: str) -> str:
    """Returns the general stream that one output's stream belongs to: `prediction.label` of `prediction.label.color`.

    The scores of boxes, tokens or frames are of the kind of `prediction.confidence`; any other stream is its own kind.
    """
    if stream.startswith(STREAM_OUTPUT_PREFIX):
        return semconv.STREAM_CONFIDENCE
    families = (semconv.STREAM_LABEL, semconv.STREAM_CONFIDENCE, semconv.STREAM_VALUE)
    return next((family for family in families if stream.startswith(f"{family}.")), stream)


def has_hidden_values(stream: str) -> bool:
    """Returns whether a stream is of inputs or regression values, of which only bucket counts are exported."""
    return stream.startswith(semconv.STREAM_INPUT_PREFIX) or find_stream_family(stream) == semconv.STREAM_VALUE
