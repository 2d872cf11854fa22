"""Exemplars: in a histogram's bucket, or beside a label's count, the trace of one of the calls that are in it.

Choice: of calls whose spans were made, with those spans' own ids and the calls' own times, so no exemplar points at a
span that nobody has; calls outside any trace that were slow, unsure or failed have spans too. A span is made after its
call was counted, so an exemplar may come one collection after its value. Source: opentelemetry-specification,
metrics/data-model.md#exemplars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
from opentelemetry.context import Context

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.metrics import Attributes, model_attributes
from otel_mlmon.instrumentation.export.sampling import Interest
from otel_mlmon.types import ModelKey

MOST: Final = 8
"""Calls told of a batch, metric and set of attributes: an offer costs as much as a `record` of the SDK's."""

Offer = Callable[[semconv.Metric, float, Attributes, Context, int], None]
"""Metric, value, attributes, context of the span, Unix time in nanoseconds."""


class Exemplars:
    """Chooses among the calls with spans, and offers their values.

    Runs on: the thread behind.

    Args:
        offer: Takes one value that was observed before.
    """

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._stage = guard("exemplars")

    def tell(self, predictions: Predictions, found: Interest, made: Mapping[int, Context], offset_ns: int) -> None:
        """Offer durations, lowest confidences and labels of the calls in `made`, which have spans.

        Args:
            predictions: The calls.
            found: What is special about them.
            made: The context of the span of each call that has one.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        if not made or self._stage.is_open:
            return
        with self._stage:
            base = model_attributes(ModelKey(predictions.model.name, predictions.model.version))
            ended_ns = predictions.started_ns + predictions.duration_ns + offset_ns
            for metric, attributes, values in _series(predictions, found, made, base):
                for value, call in _spread(values):
                    self._offer(metric, value, attributes, made[call], int(ended_ns[call]))


def _series(
    predictions: Predictions, found: Interest, made: Iterable[int], base: Attributes
) -> Iterable[tuple[semconv.Metric, Attributes, list[tuple[float, int]]]]:
    """Values and their calls, by metric and attributes."""
    durations: dict[str, list[tuple[float, int]]] = {}
    for call in made:
        durations.setdefault(predictions.errors[call] or "", []).append(
            (int(predictions.duration_ns[call]) / 1e9, call)
        )
    for error, values in durations.items():
        yield semconv.DURATION, {**base, semconv.ERROR_TYPE: error} if error else base, values
    yield semconv.CONFIDENCE, base, [(float(found.lowest[call]), call) for call in made if found.lowest[call] >= 0]
    said = predictions.labels
    labels: dict[str, list[tuple[float, int]]] = {}
    for row in np.flatnonzero(np.isin(said.calls, list(made))).tolist():
        labels.setdefault(said.table[int(said.codes[row])], []).append((1.0, int(said.calls[row])))
    for label, values in labels.items():
        yield semconv.PREDICTIONS, {**base, semconv.PREDICTION_LABEL: label}, values[-1:]


def _spread(values: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most `MOST`, evenly over the ranks, the lowest and the highest among them: in many buckets."""
    if len(values) <= MOST:
        return values
    ordered = sorted(values)
    return [ordered[rank] for rank in np.linspace(0, len(ordered) - 1, MOST).astype(int).tolist()]
