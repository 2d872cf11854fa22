"""Adds predictions up, one array operation a batch and column."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.aggregate.snapshot import Snapshot, Values
from otel_mlmon.instrumentation.decode.predictions import Labels, Predictions
from otel_mlmon.sketch.categories import Categories
from otel_mlmon.types import Floats, ModelKey

Admit = Callable[[str, str, Mapping[str, int]], Mapping[str, int]]
"""Model's name, feature's name or empty for labels, counts; gives the counts that may leave."""


class Aggregator:
    """One snapshot a model.

    Runs on: one thread at a time.

    Args:
        admit: Which labels and categories may be counted by name.
    """

    def __init__(self, *, admit: Admit) -> None:
        self._admit = admit
        self._snapshots: dict[ModelKey, list[Snapshot]] = {}

    def add(self, predictions: Predictions) -> None:
        """Add one batch."""
        model = predictions.model.key
        self._snapshots.setdefault(model, []).append(self._snapshot(model, predictions))

    def take(self) -> list[Snapshot]:
        """What was added since the last time."""
        taken, self._snapshots = self._snapshots, {}
        return [functools.reduce(Snapshot.merge, parts) for parts in taken.values()]

    def _snapshot(self, model: ModelKey, predictions: Predictions) -> Snapshot:
        inputs = predictions.inputs
        sizes = predictions.batch_sizes
        return Snapshot(
            model=model,
            durations_s=_durations(predictions),
            batch_sizes=Values(numbers=sizes[sizes > 0].astype(np.float64)),
            labels=Categories(counts=self._admit(model.name, "", label_counts(predictions.labels))),
            confidences=Values(numbers=predictions.confidences.values),
            values={name: Values(numbers=numbers) for name, numbers in predictions.values.items()},
            features={name: Values(numbers=numbers) for name, numbers in inputs.features.items()},
            missing=Categories(counts=inputs.missing),
            categories={
                name: Categories(counts=self._admit(model.name, name, counts))
                for name, counts in inputs.categories.items()
            },
            samples=inputs.samples,
        )


def label_counts(labels: Labels) -> dict[str, int]:
    """How often each label came; two classes of one name are one label."""
    counts: dict[str, int] = {}
    found = np.bincount(labels.codes, minlength=1)
    for code in np.flatnonzero(found).tolist():
        label = labels.table[code]
        counts[label] = counts.get(label, 0) + int(found[code])
    return counts


def _durations(predictions: Predictions) -> dict[str, Values]:
    calls = np.flatnonzero(predictions.duration_ns)
    if not calls.size:
        return {}
    seconds = predictions.duration_ns[calls] / 1e9
    if not any(predictions.errors):
        return {"": _with_slowest(seconds, predictions, calls)}
    errors = np.array([predictions.errors[call] or "" for call in calls.tolist()])
    return {
        str(error): _with_slowest(seconds[errors == error], predictions, calls[errors == error])
        for error in np.unique(errors)
    }


def _with_slowest(seconds: Floats, predictions: Predictions, calls: NDArray[np.intp]) -> Values:
    slowest = int(seconds.argmax())
    return Values(numbers=seconds, exemplar=(float(seconds[slowest]), predictions.contexts[int(calls[slowest])]))
