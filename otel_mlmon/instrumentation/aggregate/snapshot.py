"""OUT Snapshot: what one interval of one model's calls added up to.

Choice: values that go into a histogram are kept as they are until the end of the interval, at most one buffer of them,
since only the reader of the metrics knows its buckets: the views of the host's meter provider may set others than ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from otel_mlmon.sketch.categories import Categories
from otel_mlmon.types import Floats, ModelKey

V = TypeVar("V")

NO_VALUES: Floats = np.zeros(0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """Finite numbers, and the context in which the most telling of them came."""

    numbers: Floats = field(default_factory=lambda: NO_VALUES)
    """Shape (n,)."""
    exemplar: tuple[float, object] | None = None
    """One of the numbers and the OpenTelemetry context of its call, for the reader's exemplars."""

    def merge(self, other: Values) -> Values:
        """Both; the exemplar of the larger number."""
        both = [found for found in (self.exemplar, other.exemplar) if found is not None]
        return Values(
            numbers=np.concatenate([self.numbers, other.numbers]),
            exemplar=max(both, key=lambda found: found[0], default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Counts and values of one model."""

    model: ModelKey
    durations_s: Mapping[str, Values] = field(default_factory=dict)
    """By error type; empty of calls that succeeded."""
    batch_sizes: Values = field(default_factory=Values)
    labels: Categories = field(default_factory=Categories)
    confidences: Values = field(default_factory=Values)
    values: Mapping[str, Values] = field(default_factory=dict)
    """By output."""
    features: Mapping[str, Values] = field(default_factory=dict)
    missing: Categories = field(default_factory=Categories)
    """By feature."""
    categories: Mapping[str, Categories] = field(default_factory=dict)
    """By feature."""
    samples: int = 0

    def merge(self, other: Snapshot) -> Snapshot:
        """Of both intervals together; the model is this one's."""
        return Snapshot(
            model=self.model,
            durations_s=_merged_values(self.durations_s, other.durations_s),
            batch_sizes=self.batch_sizes.merge(other.batch_sizes),
            labels=self.labels.merge(other.labels),
            confidences=self.confidences.merge(other.confidences),
            values=_merged_values(self.values, other.values),
            features=_merged_values(self.features, other.features),
            missing=self.missing.merge(other.missing),
            categories={
                name: self.categories.get(name, Categories()).merge(other.categories.get(name, Categories()))
                for name in {**self.categories, **other.categories}
            },
            samples=self.samples + other.samples,
        )


def _merged_values(one: Mapping[str, Values], other: Mapping[str, Values]) -> dict[str, Values]:
    return {name: one.get(name, Values()).merge(other.get(name, Values())) for name in {**one, **other}}
