"""From rows to counts over the bins of a reference: what a sketch of those rows would have counted, without it.

With the rows at hand the reference's own edges are enough, so no sketch of a window can be coarser than they are:
an outlier in the data changes nothing. Of ten edges, ten comparisons of a whole block that stays in the cache are
four times as fast as a binary search for each value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.window.binning import Binning, ClassBins, NumberBins
from otel_mlmon.table.cells import as_number, word_of
from otel_mlmon.table.table import Column
from otel_mlmon.types import Counts, Floats


class Counter(Protocol):
    """The rows of one column, ready to be counted."""

    def count(self, start: int, end: int) -> Counts:
        """Shape (K,): rows `start` up to, not with, `end`."""

    def mean(self, start: int, end: int) -> float:
        """Of the numbers in these rows; NaN of none."""


def counter_of(column: Column, binning: Binning, place: Callable[[int], str]) -> Counter:
    """What counts `column` over the bins of `binning`.

    Args:
        column: The rows.
        binning: Of the reference.
        place: Where a row, from 0, is found; asked of the first cell that is not a number, since to find it costs a
            reading of the file.

    Raises:
        ConfigurationError: Numbers are needed, and there are words.
    """
    if isinstance(binning, ClassBins):
        return _Classes(codes=_codes(column, binning), bins=binning.bins.count)
    if not isinstance(binning, NumberBins) or column.numbers is None:
        row = max(column.first_word, 0)
        word = (column.words or ("",))[row]
        raise ConfigurationError(
            f"{place(row)}: column {column.name!r}: {word!r} is not a number, and its reference is numeric"
        )
    return _Values(values=column.numbers, thresholds=thresholds(binning), has_missing=binning.has_missing)


def thresholds(binning: NumberBins) -> tuple[float, ...]:
    """For each edge the t such that a value is above the edge if and only if it is greater than t.

    Buckets of negative values include their lower bound and not their upper one, and zeros are a bucket between
    the two ranges. The largest float below an edge says both.
    """
    cuts = binning.cuts or (1,) * len(binning.edges)
    return tuple(
        edge if cut >= 0 else math.nextafter(edge, -math.inf) for edge, cut in zip(binning.edges, cuts, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    values: Floats
    thresholds: tuple[float, ...]
    has_missing: bool

    def count(self, start: int, end: int) -> Counts:
        block = self.values[start:end]
        present = int(np.count_nonzero(np.isfinite(block)))
        if present < block.size:
            block = block[np.isfinite(block)]
        above = [present, *(int(np.count_nonzero(block > threshold)) for threshold in self.thresholds), 0]
        counts = [more - less for more, less in pairwise(above)]
        return np.array(counts + [end - start - present] * self.has_missing, dtype=np.int64)

    def mean(self, start: int, end: int) -> float:
        block = self.values[start:end]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.add.reduce(block)) / max(block.size, 1)
            if not math.isfinite(mean):
                block = block[np.isfinite(block)]
                mean = float(block.mean()) if block.size else math.nan
        return mean if block.size else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Classes:
    codes: NDArray[np.intp]
    """The bin of each row; `bins` for what is in none."""
    bins: int

    def count(self, start: int, end: int) -> Counts:
        return np.bincount(self.codes[start:end], minlength=self.bins)[: self.bins].astype(np.int64)

    def mean(self, start: int, end: int) -> float:  # noqa: ARG002 - classes have none
        return math.nan


def _codes(column: Column, binning: ClassBins) -> NDArray[np.intp]:
    labels = binning.labels
    other = len(labels) - 1
    missing = other + 1  # the bin of missing values where there is one, and in no bin where there is none
    known: dict[str | None, int] = {label: position for position, label in enumerate(labels)}
    known[None] = missing
    # A column may be numbers in one file and, for one odd cell, words in the other, where 1 is spelled `1.0`.
    for position, label in enumerate(labels):
        known.setdefault(as_number(label), position)
    if column.words is not None:
        codes = {word: _code(word, known, other) for word in set(column.words)}
        return np.fromiter(map(codes.__getitem__, column.words), dtype=np.intp, count=column.rows)
    return _number_codes(column.numbers if column.numbers is not None else np.zeros(0), known, other)


def _code(word: str | None, known: dict[str | None, int], other: int) -> int:
    found = known.get(word)
    return known.get(as_number(word or ""), other) if found is None else found


def _number_codes(numbers: Floats, known: dict[str | None, int], other: int) -> NDArray[np.intp]:
    values: NDArray[Any]
    values, where = _distinct(numbers)
    positions = np.array([known.get(word_of(value), other) for value in values.tolist()], dtype=np.intp)
    return positions[where]


def _distinct(numbers: Floats) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The different values, and which of them each row holds; small whole numbers need no sorting."""
    if numbers.size and np.isfinite(numbers).all():
        low, high = float(numbers.min()), float(numbers.max())
        if (
            high - low < 4096
            and max(-low, high) < 2**53  # beyond, whole numbers have gaps, and then no place among 64 bits
            and (whole := numbers.astype(np.int64) - math.floor(low)).size
            and (numbers % 1 == 0).all()
        ):
            return np.arange(math.floor(low), math.floor(high) + 1, dtype=np.float64), whole.astype(np.intp)
    values, where = np.unique(numbers, return_inverse=True)
    return values, where
