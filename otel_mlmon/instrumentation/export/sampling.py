"""Finds the inference calls that failed, were unsure or slow, and builds the attributes of spans and events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import CallDescription, CallSummary, Confidences, Predictions
from otel_mlmon.types import Bools, Floats, Ints
from otel_mlmon.vocabulary import name_attributes

LATENCY_WINDOW: Final = 2048
"""Latest calls of a model whose 99th percentile decides which calls are slow."""

MIN_LATENCIES: Final = 500
"""The number of calls of a model from which on its 99th percentile is used."""

MAX_MODELS: Final = 1024
"""Models whose latencies are kept, 16 KiB each; beyond it the oldest begins anew."""

Attributes = dict[str, "str | int | float"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallPriorities:
    """Marks the inference calls of a batch that failed, were slow or unsure, and are sampled before others."""

    failed: Bools
    unsure: Bools
    slow: Bools
    mean_confidence: Floats
    """Mean confidence of the call's rows; NaN if it has none."""
    min_confidence: Floats
    """Lowest confidence of the call's rows; NaN if it has none."""

    @property
    def is_priority(self) -> Bools:
        """Whether each inference call failed, was slow or was unsure; shape (n,)."""
        return self.failed | self.unsure | self.slow


def prioritize(predictions: Predictions, *, slow: Bools | None = None, confidence_floor: float = 0.0) -> CallPriorities:
    """Marks the inference calls of a batch that failed, were slow or unsure.

    Args:
        predictions: n calls.
        slow: Shape (n,), from `SlowCallDetector`; None if none is slow.
        confidence_floor: A call with a row of lower confidence is unsure; within [0, 1].
    """
    calls = len(predictions.errors)
    errors = predictions.errors
    is_failed = [error is not None for error in errors] if any(errors) else np.zeros(calls)
    mean_confidence, min_confidence = _confidence_by_call(predictions.confidences, calls)
    return CallPriorities(
        failed=np.array(is_failed, dtype=bool),
        unsure=_are_unsure(predictions, min_confidence, confidence_floor),
        slow=np.zeros(calls, dtype=bool) if slow is None else slow,
        mean_confidence=mean_confidence,
        min_confidence=min_confidence,
    )


class SlowCallDetector:
    """Finds slow inference calls by a threshold, and by the 99th percentile of each model's durations."""

    def __init__(self) -> None:
        self._durations_ns: dict[str, Ints] = {}

    def detect(self, model: str, durations_ns: Ints, threshold_s: float | None) -> Bools:
        """Marks the inference calls slower than the threshold, or than 99 % of the model's calls before.

        Args:
            model: Name of the model.
            durations_ns: Shape (n,); remembered for the next batch. 0 if nobody measured, which is never slow.
            threshold_s: In seconds, above 0; None to use the percentile alone.
        """
        limit_ns = np.inf if threshold_s is None else threshold_s * 1e9
        past_ns = self._durations_ns.get(model, durations_ns[:0])
        if past_ns.size >= MIN_LATENCIES:
            rank = int(0.99 * (past_ns.size - 1))
            limit_ns = min(limit_ns, float(np.partition(past_ns, rank)[rank]))
        if model not in self._durations_ns and len(self._durations_ns) >= MAX_MODELS:
            del self._durations_ns[next(iter(self._durations_ns))]
        measured_ns = durations_ns[durations_ns > 0]
        self._durations_ns[model] = np.concatenate([past_ns, measured_ns[-LATENCY_WINDOW:]])[-LATENCY_WINDOW:]
        return np.asarray(durations_ns > limit_ns)


def describe_call(predictions: Predictions, priorities: CallPriorities, call: int) -> CallDescription:
    """Describes one inference call of a batch for its span and event."""
    labels = predictions.labels
    batch_size = int(predictions.batch_sizes[call])
    row = int(np.searchsorted(labels.calls, call)) if batch_size == 1 else labels.calls.size
    has_label = row < labels.calls.size and labels.calls[row] == call
    mean, lowest = float(priorities.mean_confidence[call]), float(priorities.min_confidence[call])
    has_confidence = not math.isnan(mean)
    return CallDescription(
        model=predictions.model,
        operation=predictions.operation,
        started_ns=int(predictions.started_ns[call]),
        duration_ns=int(predictions.duration_ns[call]),
        error_type=predictions.errors[call],
        summary=CallSummary(
            batch_size=batch_size,
            head_name=predictions.head_name,
            label=labels.table[int(labels.codes[row])] if has_label else None,
            mean_confidence=mean if has_confidence else None,
            min_confidence=lowest if has_confidence else None,
        ),
    )


def call_attributes(call: CallDescription) -> Attributes:
    """Builds the attributes that spans and events of an inference call share, without inputs and raw outputs."""
    model, summary = call.model, call.summary
    attributes: Attributes = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    if call.duration_ns:
        attributes[semconv.INFERENCE_DURATION] = call.duration_ns / 1e9
    if summary.batch_size:
        attributes[semconv.BATCH_SIZE] = summary.batch_size
    if summary.head_name:
        attributes[semconv.OUTPUT_NAME] = summary.head_name
    if summary.label is not None:
        attributes.update(name_attributes(semconv.PREDICTION_LABEL, summary.label))
    if summary.mean_confidence is not None:
        attributes[semconv.PREDICTION_CONFIDENCE] = summary.mean_confidence
        if summary.batch_size > 1 and summary.min_confidence is not None:
            attributes[semconv.PREDICTION_CONFIDENCE_MIN] = summary.min_confidence
    if call.error_type:
        attributes[semconv.ERROR_TYPE] = call.error_type
    return attributes


def span_attributes(call: CallDescription) -> Attributes:
    """Builds the attributes of an inference call's span, those of the runtime among them."""
    attributes = call_attributes(call)
    attributes.update(call.model.runtime_attributes)
    attributes[semconv.OPERATION_NAME] = call.operation
    return attributes


def _are_unsure(predictions: Predictions, min_confidence: Floats, confidence_floor: float) -> Bools:
    """Marks the inference calls that have a row with a confidence below the limit."""
    is_unsure: Bools = np.asarray(min_confidence < confidence_floor)
    for head in list(predictions.heads.values())[1:]:
        low = head.confidences.calls[head.confidences.values < confidence_floor]
        is_unsure[low] = True
    return is_unsure


def _confidence_by_call(confidences: Confidences, calls: int) -> tuple[Floats, Floats]:
    """Computes the mean and the lowest confidence of each inference call; NaN if it has none."""
    rows = np.bincount(confidences.calls, minlength=calls)
    if (rows == 1).all():
        return confidences.values, confidences.values
    lowest = np.full(calls, np.inf)
    np.minimum.at(lowest, confidences.calls, confidences.values)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(confidences.calls, weights=confidences.values, minlength=calls) / rows
    return mean, np.where(rows > 0, lowest, np.nan)
