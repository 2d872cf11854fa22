"""The stored state of streams: their evidence, from which a restart continues bit for bit, and their daily cycles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.cycle_statistics import QUARTERS
from otel_mlmon.types import Bools, Floats, Ints

DAY_NS: Final = 86_400_000_000_000
"""Nanoseconds of a day."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DesignEffectColumns:
    """Holds the stored estimates of the design effects of S streams; L levels of blocks, K bins."""

    items: Floats
    """Shape (S,)."""
    is_calibrated: Bools
    """Shape (S,)."""
    long_run: Floats
    """Shape (S, K + 1): fading counts, and their sum."""
    blocks: Floats
    """Shape (S, L, K + 1): counts and items of the unfinished block of each level."""
    means: Floats
    """Shape (S, L, K + 2): the fading mean of the blocks before, as `design_effect.py` keeps it."""
    differences: Floats
    """The differences, stream by stream, and of each level by level, the oldest first; shape (Σ,)."""
    difference_counts: Ints
    """The number of differences of each level, shape (S, L)."""
    pending_counts: Ints
    """The number of differences of each level since the last pane at which the stream was stable, shape (S, L)."""
    prior_estimate: Floats
    """φ of the reference, until enough is known of the live items; 0 then, or where it is not known. Shape (S,)."""
    prior_divisor: Floats
    """Shape (S,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RareBinColumns:
    """Holds the stored bets on the rare bins of S streams, the bins and the bets stream by stream."""

    bin_counts: Ints
    """The number of rare bins of each stream, shape (S,)."""
    bins: Ints
    """Which of the K bins, shape (Σ bin_counts,)."""
    lifts: Floats
    """The nats by which the line of each rose; shaped as `bins`."""
    peaks: Floats
    """The largest ln of the weighted evidence about each since it left 1; shaped as `bins`."""
    since_ns: Ints
    """When it left 1, Unix nanoseconds; shaped as `bins`."""
    bet_counts: Ints
    """The number of bets of each stream whose CUSUM is above 1, shape (S,)."""
    bets: Ints
    """Which of the stream's bets, six a rare bin; shape (Σ bet_counts,)."""
    log_cusums: Floats
    """ln W_j of each bet; shaped as `bets`."""
    onsets_ns: Ints
    """Last pane end at which each bet was at 1, Unix nanoseconds; shaped as `bets`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrafficColumns:
    """Holds the stored traffic of S streams."""

    first_ns: Ints
    """End of the first pane, Unix nanoseconds; 0 before it. Shape (S,)."""
    last_ns: Ints
    """Shape (S,)."""
    hours: Floats
    """Values by hour of the day, UTC, of the last 24; shape (S, 24)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvidenceColumns:
    """Holds the stored evidence of drift of S streams of K bins each, side by side: S rows of an `EvidenceBank`."""

    reference: Floats
    """Counts, shape (S, K)."""
    tolerance: Floats
    """Shape (S,)."""
    is_drift: Bools
    """Shape (S,)."""
    log_e: Floats
    """Shape (S,)."""
    since_ns: Ints
    """Shape (S,)."""
    last_ns: Ints
    """Shape (S,)."""
    history: Floats
    """Shape (S, 3, K): the exponentially weighted counts of the components that learn."""
    has_cycle: Bools
    """Whether the counts to be expected followed a daily cycle at the last pane, shape (S,)."""
    expected: Floats
    """The counts that were to be expected, as `history`, of the C streams with a cycle; shape (C, 3, K)."""
    contributions: Floats
    """Shape (S, K)."""
    component_counts: Ints
    """The number of components of each stream whose CUSUM is above 1; all others are at 1. Shape (S,)."""
    components: Ints
    """Which components these are, stream by stream; shape (Σ component_counts,)."""
    log_cusums: Floats
    """ln W_j of each component; shaped as `components`."""
    onsets_ns: Ints
    """Last pane end at which each component was at 1, Unix nanoseconds; shaped as `components`."""
    rare_bins: RareBinColumns | None
    """None for one-sided evidence, which has none."""
    design_effects: DesignEffectColumns
    traffic: TrafficColumns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamColumns:
    """Holds the evidence of S streams of K bins each, and the bins and the direction it is about."""

    bins: list[tuple[str, ...]]
    """The names of the bins of each stream."""
    direction: Direction
    evidence: EvidenceColumns


@dataclass(slots=True, kw_only=True)
class CycleDay:
    """Holds the counts of one day that a daily cycle is learned from."""

    day: int
    """Days since 1970, in the time zone of the stream."""
    counts: NDArray[np.int32]
    """By slot, shape (slots, K)."""
    excursions: Floats = field(default_factory=lambda: np.zeros(0))
    """How far a quarter of an hour was from its slot at most, as total variation, shape (slots,); empty for nowhere."""


@dataclass(slots=True, kw_only=True)
class CycleState:
    """Holds the stored state of the daily cycle of one stream."""

    bins: tuple[str, ...]
    """The names of the bins that are counted."""
    first_ns: int
    """Start of the first pane, Unix nanoseconds."""
    day: int
    """The present day, in days since 1970."""
    today: Ints
    """Its counts by quarter of an hour, shape (96, K)."""
    effect: float = 1.0
    """φ when the last day ended."""
    is_quiet: bool = True
    """Whether the evidence stayed below half of the alarm line today."""
    loud_hours: int = 0
    """The hours of today in which it did not, the lowest bit for the first."""
    evidence: float = 0.0
    """The evidence after the last pane, as a part of the alarm line."""
    other_weekday: int = -1
    """The weekday that today is as, 0 for a Monday; below 0 while that is its own."""
    other_since_ns: int = 0
    """When the first day of a holiday was found to be as another weekday; 0 for none."""
    other_from: int = 0
    """The weekday that it was."""
    slots: int = QUARTERS
    """Slots of a day."""
    is_smoothed: bool = False
    """Whether neighbouring slots are taken together."""
    days: list[CycleDay] = field(default_factory=list)
    """The accepted days, the oldest first."""
    pending: CycleDay | None = None
    """The day before today, while it is not known whether the evidence at its end heals."""
    inherited: list[CycleDay] = field(default_factory=list)
    """Days of the version before, which serve until enough days of their kind are accepted."""
    time_zone: str = ""
    """The time zone by which days are counted; empty for UTC."""
