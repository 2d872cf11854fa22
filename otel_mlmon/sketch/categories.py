"""Counts by label, bounded: the first K labels by themselves, the rest as `_OTHER`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from otel_mlmon.semconv import OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """Counts by label.

    Memory: one dictionary entry a label; `top` bounds it.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    """Every count above 0. `_OTHER` is a label like the others, and survives every merge."""

    @property
    def total(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    def merge(self, other: Categories) -> Categories:
        """Of both sets together; exact, whatever the order."""
        merged = dict(self.counts)
        for label, count in other.counts.items():
            merged[label] = merged.get(label, 0) + count
        return Categories(counts=merged)

    def top(self, limit: int) -> Categories:
        """The `limit` most frequent labels (ties by name), the rest added to `_OTHER`."""
        named = [(label, count) for label, count in self.counts.items() if label != OTHER]
        named.sort(key=lambda entry: (-entry[1], entry[0]))
        kept = dict(named[:limit])
        rest = sum(count for _, count in named[limit:]) + self.counts.get(OTHER, 0)
        if rest:
            kept[OTHER] = rest
        return Categories(counts=kept)

    def counts_for(self, labels: Iterable[str]) -> list[int]:
        """Counts in the order of `labels`, the last of which is `_OTHER` and takes every label not named."""
        order = list(labels)
        known = {label: position for position, label in enumerate(order)}
        counts = [0] * len(order)
        for label, count in self.counts.items():
            counts[known.get(label, len(order) - 1)] += count
        return counts
