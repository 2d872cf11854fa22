"""Checks the columns of stored evidence before they are restored, so that a damaged record is refused as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.arrays import HOURS, list_positions
from otel_mlmon.processor.detect.bets import UNIVERSAL
from otel_mlmon.processor.detect.design_effect import BLOCK_SIZES
from otel_mlmon.processor.detect.dispersion import MAX_DIFFERENCES
from otel_mlmon.processor.detect.rare_bins import BETS
from otel_mlmon.processor.detect.state import DesignEffectColumns, EvidenceColumns, RareBinColumns, StreamColumns
from otel_mlmon.types import Ints


def check_stream_columns(columns: StreamColumns, count: int) -> int:
    """Checks that columns are of so many streams, all of which have the bins of their evidence; returns how many bins.

    Raises:
        BinMismatchError: A stream has other bins than its evidence.
        ValueError: They are of another number of streams.
    """
    streams, bins = columns.evidence.reference.shape
    if not streams == len(columns.bins) == count:
        raise ValueError(
            f"there are {streams} rows of evidence and {len(columns.bins)} lists of bins of {count} streams"
        )
    if any(len(names) != bins for names in columns.bins):
        raise BinMismatchError(f"a stream has other bins than the {bins} of its evidence")
    return int(bins)


def check_evidence_columns(columns: EvidenceColumns, bins: int, direction: Direction, *, components: int) -> None:
    """Checks that the columns of stored evidence fit together.

    Args:
        columns: Of S streams.
        bins: K.
        direction: Which moves are drift.
        components: How many components bet on each stream.

    Raises:
        BinMismatchError: They have not K bins.
        ValueError: They contradict each other.
    """
    count = len(columns.reference)
    if columns.reference.shape != (count, bins) or not count:
        raise BinMismatchError(f"references of shape {columns.reference.shape} in a bank of {bins} bins")
    if (columns.rare_bins is None) != (direction != "both"):
        raise ValueError("two-sided evidence has bets on rare bins, and no other has")
    for name in ("tolerance", "is_drift", "log_e", "since_ns", "last_ns", "has_cycle"):
        _check_shape(columns, name, count)
    _check_shape(columns, "contributions", count, bins)
    _check_shape(columns, "history", count, UNIVERSAL, bins)
    _check_shape(columns, "expected", int(columns.has_cycle.sum()), UNIVERSAL, bins)
    values = columns.log_cusums, columns.onsets_ns
    _check_places(columns.component_counts, np.full(count, components), columns.components, *values)
    if columns.rare_bins is not None:
        _check_rare_bins(columns.rare_bins, count, bins)
    _check_design_effects(columns.design_effects, count, bins)
    for name in ("first_ns", "last_ns"):
        _check_shape(columns.traffic, name, count)
    _check_shape(columns.traffic, "hours", count, HOURS)


def _check_rare_bins(columns: RareBinColumns, count: int, bins: int) -> None:
    sizes, values = columns.bin_counts, (columns.lifts, columns.peaks, columns.since_ns)
    _check_places(sizes, np.full(count, bins), columns.bins, *values)
    _check_places(columns.bet_counts, BETS * sizes, columns.bets, columns.log_cusums, columns.onsets_ns)


def _check_design_effects(columns: DesignEffectColumns, count: int, bins: int) -> None:
    levels = len(BLOCK_SIZES)
    for name in ("items", "is_calibrated", "prior_estimate", "prior_divisor"):
        _check_shape(columns, name, count)
    for name in ("difference_counts", "pending_counts"):
        _check_shape(columns, name, count, levels)
    _check_shape(columns, "long_run", count, bins + 1)
    _check_shape(columns, "blocks", count, levels, bins + 1)
    _check_shape(columns, "means", count, levels, bins + 2)
    counts, pending = columns.difference_counts, columns.pending_counts
    if not ((pending >= 0) & (counts >= 0) & (counts <= MAX_DIFFERENCES)).all():
        raise ValueError(f"a level has less than no differences, or more than {MAX_DIFFERENCES}")
    _check_shape(columns, "differences", int(counts.sum()))


def _check_shape(columns: object, name: str, *shape: int) -> None:
    array: NDArray[Any] = getattr(columns, name)
    if array.shape != shape:
        raise ValueError(f"{name} is of shape {array.shape} instead of {shape}")


def _check_places(counts: Ints, limits: Ints, places: Ints, *values: NDArray[Any]) -> None:
    """Checks values that are stored stream by stream, each with its place in an array of the stream.

    Args:
        counts: The number of values of each stream, shape (S,).
        limits: How many places each stream has, shape (S,).
        places: The places of the values, ascending in each stream; shape (Σ counts,).
        values: The values, shaped as `places`.

    Raises:
        ValueError: They do not fit together.
    """
    if counts.shape != limits.shape or (counts < 0).any() or (counts > limits).any():
        raise ValueError(f"of {limits.size} streams, the numbers of their values are not what they can be")
    if any(array.shape != (counts.sum(),) for array in (places, *values)):
        raise ValueError(f"the values of {limits.size} streams are not {counts.sum()}")
    streams, positions = list_positions(counts)
    is_ascending = (positions[1:] == 0) | (places[1:] > places[:-1])
    if not is_ascending.all() or not ((places >= 0) & (places < limits[streams])).all():
        raise ValueError("the places of some values are not those of their streams")
