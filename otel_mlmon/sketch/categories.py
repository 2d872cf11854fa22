"""Counts of labels, of which the K most frequent can be kept and the others added to `_OTHER`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from otel_mlmon.semconv import OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """Holds a count for each label.

    Memory: one dictionary entry a label; `top` limits it.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts above 0, by label. `_OTHER` is merged like any other label."""

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts.values())

    def merge(self, other: Categories) -> Categories:
        """Returns the counts of both sets together."""
        merged = dict(self.counts)
        for label, count in other.counts.items():
            merged[label] = merged.get(label, 0) + count
        return Categories(counts=merged)

    def top(self, limit: int) -> Categories:
        """Returns the `limit` most frequent labels, ties by name, and the others added to `_OTHER`."""
        named = [(label, count) for label, count in self.counts.items() if label != OTHER]
        named.sort(key=lambda entry: (-entry[1], entry[0]))
        counts = dict(named[:limit])
        other = sum(count for _, count in named[limit:]) + self.counts.get(OTHER, 0)
        if other:
            counts[OTHER] = other
        return Categories(counts=counts)

    def counts_for(self, labels: Iterable[str]) -> list[int]:
        """Returns the counts in the order of `labels`; the last, `_OTHER`, takes all labels that are not listed."""
        order = list(labels)
        positions = {label: position for position, label in enumerate(order)}
        counts = [0] * len(order)
        for label, count in self.counts.items():
            counts[positions.get(label, len(order) - 1)] += count
        return counts
