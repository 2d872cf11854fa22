"""The calibration of a model: how often it is right at each confidence, counted on labelled data.

Predictions are counted over the 10 equal bins of confidence that the processor uses too, so that a calibration can be
applied to the confidence histogram of a window bin by bin. Counts of parts of the data add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import streams
from otel_mlmon.sketch.histogram import parse_bucket_counts
from otel_mlmon.types import Counts
from otel_mlmon.vocabulary import TextBuckets

BINS: Final = len(streams.CONFIDENCE_EDGES) + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Counts by bin of confidence how many labelled predictions there were, and how many of them were right."""

    right: Counts
    """Shape (10,), int64, never above `total`."""
    total: Counts
    """Shape (10,), int64, 0 or above."""

    @classmethod
    def from_predictions(cls, confidences: NDArray[np.floating[Any]], is_right: NDArray[np.bool_]) -> Calibration:
        """Counts predictions by bin of their confidence, and those that were right; arrays of shape (n,)."""
        bins = np.searchsorted(streams.CONFIDENCE_EDGES, confidences, side="left")
        return cls(
            right=np.bincount(bins[is_right], minlength=BINS).astype(np.int64),
            total=np.bincount(bins, minlength=BINS).astype(np.int64),
        )

    @property
    def accuracy(self) -> float:
        """The share of labelled predictions that were right; NaN without predictions."""
        labelled = int(self.total.sum())
        return int(self.right.sum()) / labelled if labelled else float("nan")

    def merge(self, other: Calibration) -> Calibration:
        """Returns the calibration of two sets of labelled predictions together."""
        return Calibration(right=self.right + other.right, total=self.total + other.total)

    def to_dict(self) -> dict[str, Any]:
        """Returns the calibration as a JSON object, which `from_dict` reads."""
        return {"right": self.right.tolist(), "total": self.total.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Calibration:
        """Builds a calibration from the JSON object that its `to_dict` has made.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: There are not 10 bins, or more right predictions than predictions.
        """
        unknown = sorted(set(document) - {"right", "total"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        right, total = parse_bucket_counts(document["right"]), parse_bucket_counts(document["total"])
        if right.size != BINS or total.size != BINS:
            raise ValueError(f"there must be {BINS} bins")
        if (right > total).any():
            raise ValueError("more right predictions than predictions")
        return cls(right=right, total=total)

    def __eq__(self, other: object) -> bool:
        """Returns whether two calibrations have the same counts."""
        return (
            isinstance(other, Calibration)
            and bool(np.array_equal(self.right, other.right))
            and bool(np.array_equal(self.total, other.total))
        )

    __hash__ = None  # type: ignore[assignment]


def split_labelled_rows(outputs: Sequence[Any], rows: int) -> Iterator[slice]:
    """Splits a batch into stretches of rows with and without a predicted label, which rows of NaN lack."""
    is_known = np.ones(rows, dtype=bool)
    for value in outputs:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and len(value) == rows:
            is_known &= np.isfinite(value.reshape(rows, -1)).all(axis=1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):  # ZipMap's
            is_known &= np.array([all(map(np.isfinite, row.values())) for row in value], dtype=bool)
    edges = [0, *(np.flatnonzero(np.diff(is_known)) + 1).tolist(), rows]
    yield from (slice(start, end) for start, end in pairwise(edges))


def resolve_true_label(label: str | None, table: Sequence[str], buckets: TextBuckets) -> str | None:
    """Returns a true label as the model spells it: the class name at a position, or the hash bucket of a text."""
    if label is None or label in table:
        return label
    if label.isdecimal() and int(label) < len(table):
        return table[int(label)]
    bucket = buckets.assign_bucket(label)
    return bucket if bucket in table else label
