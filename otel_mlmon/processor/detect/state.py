"""The stored state of a stream: its evidence, from which a restart continues bit for bit, and its daily cycle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.cycle_statistics import QUARTERS
from otel_mlmon.types import Floats, Ints

DAY_NS: Final = 86_400_000_000_000
"""Nanoseconds of a day."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DesignEffectState:
    """Holds the stored estimate of a stream's design effect: one row of `DesignEffects`; L levels of blocks, K bins."""

    items: float
    is_calibrated: bool
    long_run: Floats
    """Shape (K + 1,): fading counts, and their sum."""
    blocks: Floats
    """Shape (L, K + 1): counts and items of the unfinished block of each level."""
    means: Floats
    """Shape (L, K + 2): the fading mean of the blocks before, as `design_effect.py` keeps it."""
    differences: Floats
    """The differences of all levels one after the other, of each level the oldest first; shape (Σ,)."""
    difference_counts: Ints
    """The number of differences of each level, shape (L,)."""
    pending_counts: Ints
    """The number of differences of each level since the last pane at which the stream was stable, shape (L,)."""
    prior_estimate: float = 0.0
    """φ of the reference, until enough is known of the live items; 0 then, or where it is not known."""
    prior_divisor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RareBinState:
    """Holds the stored bets on the R rare bins of a stream: one row of `RareBinEvidence`."""

    bins: Ints
    """Which of the K bins, shape (R,)."""
    lifts: Floats
    """By how much the line of each rose, in nats, shape (R,)."""
    peaks: Floats
    """The largest ln of the weighted evidence about each since it left 1, shape (R,)."""
    since_ns: Ints
    """When it left 1, Unix nanoseconds, shape (R,)."""
    bets: Ints
    """The bets, R times 6, whose CUSUM is above 1, shape (C,)."""
    log_cusums: Floats
    """ln W_j of these, shape (C,)."""
    onsets_ns: Ints
    """Last pane end at which each of these was at 1, Unix nanoseconds, shape (C,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrafficState:
    """Holds the stored traffic of a stream: one row of `DailyTraffic`."""

    first_ns: int
    """End of the first pane, Unix nanoseconds."""
    last_ns: int
    hours: Floats
    """Values by hour of the day, UTC, of the last 24; shape (24,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvidenceState:
    """Holds the stored evidence of drift of a stream of K bins: one row of an `EvidenceBank`."""

    reference: Floats
    """Counts, shape (K,)."""
    tolerance: float
    is_drift: bool
    log_e: float
    since_ns: int
    last_ns: int
    history: Floats
    """Shape (3, K): the exponentially weighted counts of the components that learn."""
    expected: Floats | None = None
    """The same of the counts that were to be expected; None before the stream has a cycle."""
    contributions: Floats
    """Shape (K,)."""
    components: Ints
    """The components whose CUSUM is above 1, shape (C,); all others are at 1."""
    log_cusums: Floats
    """ln W_j of these components, shape (C,)."""
    onsets_ns: Ints
    """Last pane end at which each of these components was at 1, Unix nanoseconds, shape (C,)."""
    rare_bins: RareBinState | None
    """None for one-sided evidence, which has none."""
    design_effect: DesignEffectState
    traffic: TrafficState | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamState:
    """Holds the evidence of one stream, and the bins and the direction it is about."""

    bins: tuple[str, ...]
    """The names of the bins."""
    direction: Direction
    evidence: EvidenceState


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
    """That after the last pane, as a part of the alarm line."""
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
