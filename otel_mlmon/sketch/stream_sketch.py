"""The mergeable summary of one stream of values: numbers, categories and missing values side by side.

Senders may count one stream in different ways: explicit buckets of other bounds, or exponential buckets. A sketch for
each way is kept, since a conversion of one into another would lose precision for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from otel_mlmon.semconv import OTHER
from otel_mlmon.sketch.exponential import ExponentialHistogram, compute_upper_bounds
from otel_mlmon.sketch.histogram import MAX_VALUES, Histogram, parse_bucket_counts
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.table import AnyHistogram, Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCounts:
    """Holds the number of values of each label or category.

    Memory: one dictionary entry a label; `list_top_categories` limits it.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts above 0, by label. `_OTHER` is merged like any other label."""

    @property
    def total(self) -> int:
        """The number of values counted over all labels."""
        return sum(self.counts.values())

    def merge(self, other: CategoryCounts) -> CategoryCounts:
        """Returns the counts by label of two sets of values together."""
        merged = dict(self.counts)
        for label, count in other.counts.items():
            merged[label] = merged.get(label, 0) + count
        return CategoryCounts(counts=merged)

    def list_top_categories(self, limit: int) -> CategoryCounts:
        """Returns the counts of the most frequent labels, at most `limit`, and those of all others as `_OTHER`."""
        named = [(label, count) for label, count in self.counts.items() if label != OTHER]
        named.sort(key=lambda entry: (-entry[1], entry[0]))
        counts = dict(named[:limit])
        other = sum(count for _, count in named[limit:]) + self.counts.get(OTHER, 0)
        if other:
            counts[OTHER] = other
        return CategoryCounts(counts=counts)

    def select_label_counts(self, labels: Iterable[str]) -> list[int]:
        """Returns the counts of the given labels, in order; the last also takes the counts of labels not given."""
        order = list(labels)
        positions = {label: position for position, label in enumerate(order)}
        counts = [0] * len(order)
        for label, count in self.counts.items():
            counts[positions.get(label, len(order) - 1)] += count
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSketch:
    """Summarizes one stream by mergeable counts: of numbers in buckets, of categories, and of missing values."""

    exponential: ExponentialHistogram | None = None
    """Numbers in exponential buckets; None if no sender uses them."""
    explicit: Mapping[Bounds, Histogram] = field(default_factory=dict)
    """Numbers in explicit buckets, by bounds; more than one entry only if senders use different bounds."""
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    """Classes."""
    missing: int = 0
    """Values that are NaN, None or infinite."""

    @classmethod
    def from_parts(cls, histograms: Iterable[AnyHistogram], classes: Mapping[str, int], missing: int) -> StreamSketch:
        """Builds a stream's sketch from histograms of different bounds, one exponential at most, and other counts."""
        exponential: ExponentialHistogram | None = None
        explicit: dict[Bounds, Histogram] = {}
        for histogram in histograms:
            if isinstance(histogram, Histogram):
                explicit[histogram.bounds] = histogram
            else:
                exponential = histogram
        return cls(
            exponential=exponential, explicit=explicit, categories=CategoryCounts(counts=classes), missing=missing
        )

    @property
    def numbers(self) -> int:
        """The number of the stream's values that are numbers, neither categories nor missing."""
        explicit = sum(histogram.total for histogram in self.explicit.values())
        return explicit + (self.exponential.total if self.exponential is not None else 0)

    @property
    def total(self) -> int:
        """The number of values in the stream, missing ones included."""
        return self.numbers + self.categories.total + self.missing

    @property
    def moments(self) -> Moments:
        """The count, sum and extremes of the stream's numeric values."""
        moments = Moments() if self.exponential is None else self.exponential.moments
        for histogram in self.explicit.values():
            moments = moments.merge(histogram.moments)
        return moments

    def merge(self, other: StreamSketch) -> StreamSketch:
        """Returns the sketch of the values of two sketches together."""
        return self.merge_all((self, other))

    @classmethod
    def merge_all(cls, parts: Sequence[StreamSketch]) -> StreamSketch:
        """Returns the sketch of the values of one or more sketches together."""
        if len(parts) == 1:
            return parts[0]
        exponential = [part.exponential for part in parts if part.exponential is not None]
        explicit: dict[Bounds, list[Histogram]] = {}
        categories: dict[str, int] = {}
        for part in parts:
            for bounds, histogram in part.explicit.items():
                explicit.setdefault(bounds, []).append(histogram)
            for label, count in part.categories.counts.items():
                categories[label] = categories.get(label, 0) + count
        return cls(
            exponential=ExponentialHistogram.merge_all(exponential) if exponential else None,
            explicit={bounds: Histogram.merge_all(histograms) for bounds, histograms in explicit.items()},
            categories=CategoryCounts(counts=categories),
            missing=sum([part.missing for part in parts]),
        )

    def hide_values(self) -> StreamSketch:
        """Returns the sketch without extremes and exact sums, so that only bucket counts tell of the numbers."""
        return replace(
            self,
            exponential=None if self.exponential is None else self.exponential.hide_values(),
            explicit={bounds: histogram.hide_values() for bounds, histogram in self.explicit.items()},
        )

    def quantile(self, q: float) -> float:
        """Estimates the q-quantile of the values that are numbers, `q` in [0, 1]; NaN without numbers.

        If senders count in different ways it is the upper bound of a bucket, else the estimate of the one sketch.
        """
        sketches: list[Histogram | ExponentialHistogram] = [*self.explicit.values()]
        if self.exponential is not None:
            sketches.append(self.exponential)
        if len(sketches) == 1:
            return sketches[0].quantile(q)
        atoms = sorted(atom for sketch in sketches for atom in _list_upper_bounds(sketch))
        rank, cumulative = q * sum(count for _, count in atoms), 0
        for upper, count in atoms:
            cumulative += count
            if cumulative >= rank:
                return upper
        return math.nan

    def to_dict(self) -> dict[str, Any]:
        """Returns the sketch as a JSON object without empty parts, which `from_dict` reads."""
        document: dict[str, Any] = {}
        if self.exponential is not None:
            document["exponential"] = self.exponential.to_dict()
        if self.explicit:
            document["explicit"] = [self.explicit[bounds].to_dict() for bounds in sorted(self.explicit)]
        if self.categories.counts:
            document["categories"] = dict(sorted(self.categories.counts.items()))
        if self.missing:
            document["missing"] = self.missing
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> StreamSketch:
        """Builds a stream's sketch from the JSON object that its `to_dict` has made.

        Raises:
            KeyError: A key of a sketch is missing.
            TypeError: A value is of another type.
            ValueError: A sketch contradicts itself, a key is unknown, or there are more than `MAX_VALUES` values.
        """
        unknown = sorted(set(document) - {"exponential", "explicit", "categories", "missing"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        exponential = document.get("exponential")
        explicit = [Histogram.from_dict(part) for part in document.get("explicit", [])]
        categories, missing = document.get("categories", {}), document.get("missing", 0)
        parse_bucket_counts([*categories.values(), missing])
        sketch = cls(
            exponential=None if exponential is None else ExponentialHistogram.from_dict(exponential),
            explicit={histogram.bounds: histogram for histogram in explicit},
            categories=CategoryCounts(counts={label: count for label, count in categories.items() if count}),
            missing=missing,
        )
        if sketch.total > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        return sketch


def _list_upper_bounds(sketch: Histogram | ExponentialHistogram) -> list[tuple[float, int]]:
    """Returns the upper bound and the count of each bucket of a histogram that is not empty."""
    if isinstance(sketch, ExponentialHistogram):
        bounds = compute_upper_bounds(sketch.ordinals.tolist(), sketch.scale)
        return list(zip(bounds, sketch.counts.tolist(), strict=True))
    last = max(sketch.moments.maximum, *sketch.bounds[-1:], -math.inf)
    uppers = (*sketch.bounds, last)
    filled = np.flatnonzero(sketch.counts).tolist()
    return [(uppers[bucket], int(sketch.counts[bucket])) for bucket in filled]
