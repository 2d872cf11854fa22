"""OUT MetricSnapshot: the totals of one model's calls over one collection interval.

Choice: values that go into a histogram are kept as they are until the end of the interval, at most one queue of them,
since only the reader of the metrics knows its buckets: the views of the application's meter provider may set others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon.instrumentation.decode.predictions import InputSummary, PredictedLabels, Predictions
from otel_mlmon.types import Floats, ModelKey
from otel_mlmon.vocabulary import Admit

HOLD_S: Final = 30.0
"""Time that labels are held at most until it is settled whether they are few enough to be counted by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricSnapshot:
    """The totals of one model's inference calls between two collections of metrics."""

    model: ModelKey
    durations_s: Mapping[str, Floats] = field(default_factory=dict)
    """Durations by error type; an empty type stands for calls that succeeded."""
    slowest_calls: Mapping[str, tuple[float, object]] = field(default_factory=dict)
    """The longest duration, and the OpenTelemetry context of its call, by error type."""
    batch_sizes: Floats = field(default_factory=lambda: np.zeros(0))
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How often each label was said, by head; of a model's only head the name is empty, here and below."""
    uncounted: Mapping[str, int] = field(default_factory=dict)
    """Rows without a label, by head."""
    confidences: Mapping[str, Floats] = field(default_factory=dict)
    """Confidences by head."""
    values: Mapping[str, Floats] = field(default_factory=dict)
    """Values by output."""
    item_counts: Mapping[str, Floats] = field(default_factory=dict)
    """Boxes, tokens or frames a call, by output."""
    item_confidences: Mapping[str, Floats] = field(default_factory=dict)
    """Their scores, by output."""
    inputs: InputSummary = field(default_factory=InputSummary)


class PredictionAggregator:
    """Adds up the predictions of inference calls, model by model, until metrics are collected.

    Runs on: one thread at a time.

    Args:
        admit: Decides which labels and categories are counted by name.
        settles: Whether that can be decided for good from counts; what it cannot be for is held for `HOLD_S` at most.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        admit: Admit,
        settles: Callable[[str, str, str, Mapping[str, int], Sequence[str]], bool] = lambda *_: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admit = admit
        self._settles = settles
        self._clock = clock
        self._held: dict[tuple[ModelKey, str, str], tuple[float, Mapping[str, int]]] = {}
        """By model, head and feature: since when counts are held, and these."""
        self._snapshots: dict[ModelKey, list[MetricSnapshot]] = {}

    def add_predictions(self, predictions: Predictions) -> None:
        """Adds the predictions of one batch of inference calls to the totals of their model."""
        snapshot = self._summarize_predictions(predictions)
        self._snapshots.setdefault(snapshot.model, []).append(snapshot)

    def take_snapshots(self, *, may_hold: bool = False) -> list[MetricSnapshot]:
        """Returns the totals of each model since the last collection, and starts new ones.

        Args:
            may_hold: Whether labels and categories may be missing, of which it is not settled how they are counted.
        """
        for key, (since_s, counts) in list(self._held.items()):
            if not may_hold or self._clock() - since_s >= HOLD_S:
                del self._held[key]
                model, head, feature = key
                admitted = self._admit(model.name, head, feature, counts, ())
                snapshot = MetricSnapshot(
                    model=model,
                    labels={} if feature else {head: admitted},
                    inputs=InputSummary(categories={feature: admitted} if feature else {}),
                )
                self._snapshots.setdefault(model, []).append(snapshot)
        snapshots, self._snapshots = self._snapshots, {}
        return [merge_snapshots(parts) for parts in snapshots.values()]

    def _summarize_predictions(self, predictions: Predictions) -> MetricSnapshot:
        model, inputs, sizes = predictions.model.model_key, predictions.inputs, predictions.batch_sizes
        durations_s, slowest_calls = _list_durations_by_error(predictions)
        return MetricSnapshot(
            model=model,
            durations_s=durations_s,
            slowest_calls=slowest_calls,
            batch_sizes=sizes[sizes > 0].astype(np.float64),
            labels={
                name: self._admit_or_hold_counts(model, name, "", count_labels(head.labels), head.labels.declared)
                for name, head in predictions.heads.items()
            },
            uncounted={name: int(head.uncounted.sum()) for name, head in predictions.heads.items()},
            confidences={name: head.confidences.values for name, head in predictions.heads.items()},
            values=predictions.values,
            item_counts={name: items.counts for name, items in predictions.items.items()},
            item_confidences={name: items.confidences for name, items in predictions.items.items()},
            inputs=InputSummary(
                features=inputs.features,
                missing=inputs.missing,
                categories={
                    name: self._admit_or_hold_counts(model, "", name, counts, ())
                    for name, counts in inputs.categories.items()
                },
                samples=inputs.samples,
            ),
        )

    def _admit_or_hold_counts(
        self, model: ModelKey, head: str, feature: str, counts: Mapping[str, int], declared: Sequence[str]
    ) -> Mapping[str, int]:
        """Returns those counts of labels that may be exported now, and holds back counts that are still too few."""
        key = (model, head, feature)
        since_s, earlier = self._held.pop(key, (self._clock(), {}))
        counts = _add_up_counts([earlier, counts]) if earlier else counts
        if not counts or self._settles(model.name, head, feature, counts, declared):
            return self._admit(model.name, head, feature, counts, declared)
        self._held[key] = (since_s, counts)
        return {}


def merge_snapshots(snapshots: Sequence[MetricSnapshot]) -> MetricSnapshot:
    """Adds up several snapshots of one model's totals to one."""
    if len(snapshots) == 1:
        return snapshots[0]
    inputs = [snapshot.inputs for snapshot in snapshots]
    # Backwards: of equally slow calls the first is kept.
    calls = [call for snapshot in reversed(snapshots) for call in snapshot.slowest_calls.items()]
    return MetricSnapshot(
        model=snapshots[0].model,
        durations_s=_concatenate_columns(snapshot.durations_s for snapshot in snapshots),
        slowest_calls=dict(sorted(calls, key=lambda call: call[1][0])),
        batch_sizes=np.concatenate([snapshot.batch_sizes for snapshot in snapshots]),
        labels=_add_up_nested_counts([snapshot.labels for snapshot in snapshots]),
        uncounted=_add_up_counts(snapshot.uncounted for snapshot in snapshots),
        confidences=_concatenate_columns(snapshot.confidences for snapshot in snapshots),
        values=_concatenate_columns(snapshot.values for snapshot in snapshots),
        item_counts=_concatenate_columns(snapshot.item_counts for snapshot in snapshots),
        item_confidences=_concatenate_columns(snapshot.item_confidences for snapshot in snapshots),
        inputs=InputSummary(
            features=_concatenate_columns(summary.features for summary in inputs),
            missing=_add_up_counts(summary.missing for summary in inputs),
            categories=_add_up_nested_counts([summary.categories for summary in inputs]),
            samples=sum(summary.samples for summary in inputs),
        ),
    )


def count_labels(labels: PredictedLabels) -> dict[str, int]:
    """Counts how often each label was predicted, by the label's name."""
    counts: dict[str, int] = {}
    counts_by_code = np.bincount(labels.codes)
    for code in np.flatnonzero(counts_by_code).tolist():
        label = labels.table[code]
        counts[label] = counts.get(label, 0) + int(counts_by_code[code])
    return counts


def _list_durations_by_error(predictions: Predictions) -> tuple[dict[str, Floats], dict[str, tuple[float, object]]]:
    seconds = predictions.duration_ns / 1e9
    measured = np.flatnonzero(seconds)
    positions = {"": measured} if measured.size else {}
    if any(predictions.errors):
        errors = np.array([predictions.errors[call] or "" for call in measured.tolist()])
        positions = {str(error): measured[errors == error] for error in np.unique(errors)}
    slowest = {error: int(calls[seconds[calls].argmax()]) for error, calls in positions.items()}
    return (
        {error: seconds[calls] for error, calls in positions.items()},
        {error: (float(seconds[call]), predictions.contexts[call]) for error, call in slowest.items()},
    )


def _concatenate_columns(columns: Iterable[Mapping[str, Floats]]) -> dict[str, Floats]:
    parts: dict[str, list[Floats]] = {}
    for column in columns:
        for name, values in column.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _add_up_nested_counts(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, Mapping[str, int]]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _add_up_counts(part.get(name, {}) for part in parts) for name in names}


def _add_up_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            totals[name] = totals.get(name, 0) + count
    return totals
