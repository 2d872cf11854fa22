"""Keeps the reference of one stream: learned and then frozen, from a profile, or an allowed ratio of calls.

It never learns what it judges. A reference keeps the sketch it was made from. Where later numbers come in coarser
buckets than its edges stand on, it is binned anew from that sketch on the coarser grid: another reference, for which
the evidence starts again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon import semconv, streams
from otel_mlmon.processor.window.binning import (
    Binning,
    ClassBins,
    Grid,
    NumberBins,
    ThresholdBins,
    choose_quantile_bins,
)
from otel_mlmon.processor.window.learning import MIN_VALUES, BlockStatistics, LearningBlocks, has_enough_values
from otel_mlmon.processor.window.series import FAILED, OK
from otel_mlmon.processor.window.window import ReferenceCounts, ReferenceOrigin
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.design_effect import DesignEffect, estimate_design_effect
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingReferenceSettings:
    """The settings of a reference that moves with time."""

    rolling_hours: int
    """How much of the past it holds; 1 or above."""
    lag_hours: int
    """How much older than the panes that are judged by it it is at least; 1 or above."""
    hour_of_week: bool = False
    """Whether each hour of the week has a reference of its own."""

    @property
    def retained_hours(self) -> int:
        """The number of hours whose counts are kept for the moving reference."""
        return self.rolling_hours + 2 * self.lag_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWindowSettings:
    """The settings by which a model's data points are counted and its references are chosen."""

    learn: int = 5000
    """Values after which a stream's learned reference is frozen, if they are homogeneous; 1 or above."""
    learn_for_ns: int = 7 * 86_400_000_000_000
    """The time after which it is frozen in any case, from 200 values on; above 0."""
    learn_panes: int = 1
    """Panes with values that learning takes at least; 1 or above."""
    profile: Profile | None = None
    """The operator's reference; a stream that it has does not learn."""
    embedded_profile: Profile | None = None
    """The reference that the model carries; a stream that it has, and the operator's has not, does not learn."""
    moving: MovingReferenceSettings | None = None
    """Whether the reference moves with time once it is learned; None for one that stays."""
    latency_threshold_s: float = 0.2
    latency_max_ratio: float = 0.01
    """Share of calls that may be over the threshold, within (0, 1)."""
    error_max_ratio: float = 0.01
    """Share of calls that may fail, within (0, 1)."""
    max_labels: int = 50
    """Classes that get a bin of their own."""
    max_features: int = 100
    """Input features that are watched."""

    def find_profile(self, stream: str) -> tuple[StreamSketch, ReferenceOrigin] | None:
        """Returns a stream's counts in the operator's profile, or else in the model's own; None without any."""
        profiles: tuple[tuple[Profile | None, ReferenceOrigin], ...] = (
            (self.profile, "file"),
            (self.embedded_profile, "model"),
        )
        for profile, origin in profiles:
            sketch = profile.streams.get(stream) if profile is not None else None
            if sketch is not None and sketch.total:
                return sketch, origin
        return None

    def find_design_effect(self, stream: str, origin: ReferenceOrigin) -> DesignEffect | None:
        """Returns a stream's design effect in the reference of an origin; None if it is unknown."""
        profile = self.profile if origin == "file" else self.embedded_profile
        return profile.design_effects.get(stream) if profile is not None else None

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the model on labelled data, if either reference profile has one."""
        profiles = (self.profile, self.embedded_profile)
        calibrations = (profile.calibration for profile in profiles if profile is not None)
        return next((calibration for calibration in calibrations if calibration is not None), None)


ALLOWANCE_COUNT: Final = 1_000_000_000
"""The size of an allowance's reference: it is known exactly, so nothing is due to a finite sample."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


@dataclass(slots=True, kw_only=True)
class ReferenceState:
    """The stored state of one stream's reference."""

    sketch: StreamSketch = field(default_factory=StreamSketch)
    """The counts that were learned, or those of the profile."""
    first_ns: int = 0
    """End of the first pane that was learned, Unix nanoseconds; 0 before."""
    is_frozen: bool = False
    """Whether learning is over."""
    statistics: BlockStatistics = field(default_factory=BlockStatistics)
    """Homogeneity of a learned reference, computed when it was frozen."""
    blocks: LearningBlocks = field(default_factory=LearningBlocks)
    grid: Grid = None
    """The positions on which the edges of the bins may lie."""
    generation: int = 0
    """Generation of the bins, which grows with every change of them; counts of different generations do not add up."""


@dataclass(slots=True, kw_only=True)
class StreamReference:
    """The reference of one stream, or the values that it has been learned from so far."""

    stream: str
    settings: ModelWindowSettings
    state: ReferenceState = field(default_factory=ReferenceState)
    reference: ReferenceCounts | None = None
    """None while it is learned."""
    binning: Binning | None = None

    def __post_init__(self) -> None:
        share = _find_allowed_share(self.stream, self.settings)
        profile = self.settings.find_profile(self.stream)
        if share is not None:
            self.binning = _choose_allowance_bins(self.stream, self.settings)
            over = round(share * ALLOWANCE_COUNT)
            counts = np.array([ALLOWANCE_COUNT - over, over], dtype=np.int64)
            self.reference = ReferenceCounts(bins=self.binning.bins, counts=counts, origin="budget")
        elif profile is not None:
            self.state.sketch, origin = profile
            self._count_reference(origin)
        elif self.state.is_frozen:
            self._count_reference("learned")

    def learn_reference(self, sketch: StreamSketch, *, end_ns: int, block_counts: Counts | None = None) -> int:
        """Learns from a pane, and freezes the reference once there are enough and homogeneous values.

        When the time for it is over it is frozen in any case, from `MIN_VALUES` values on.

        Args:
            sketch: The values of the pane.
            end_ns: End of the pane, Unix nanoseconds.
            block_counts: The values over the present bins of the learned blocks; None where they are not counted yet.

        Returns:
            How many values were learned so far.
        """
        state, settings = self.state, self.settings
        state.first_ns = state.first_ns or end_ns
        state.sketch = state.sketch.merge(sketch)
        count = state.sketch.total
        if sketch.total:
            self._add_block(sketch, count, block_counts)
        is_over = end_ns - state.first_ns >= settings.learn_for_ns and count >= min(MIN_VALUES, settings.learn)
        if (count < settings.learn and not is_over) or state.blocks.panes < settings.learn_panes:
            return count
        statistics = state.blocks.statistics()
        if not is_over and not has_enough_values(count, statistics, required=settings.learn):
            return count
        state.statistics, state.is_frozen, state.blocks = statistics, True, LearningBlocks()
        if statistics.is_stationary is False:
            _LOG.warning(
                "Stream %s moved while its reference was learned from %d values: it is used, and may alarm early.",
                self.stream,
                count,
            )
        self._count_reference("learned")
        return count

    def replace(self, settings: ModelWindowSettings) -> StreamReference | None:
        """Applies other settings; returns the new reference that they require, or None if the present one stays.

        Bins go on to stand where the writers can tell numbers apart.
        """
        self.settings = settings
        profile = settings.find_profile(self.stream)
        origin = self.reference.origin if self.reference is not None else None
        is_unaffected = origin in ("budget", "file") or (profile is None and origin != "model")
        if is_unaffected or (profile is not None and profile == (self.state.sketch, origin)):
            return None
        return self.relearn()

    def relearn(self) -> StreamReference:
        """Returns a reference that is learned from the beginning, with bins that all senders' histograms allow."""
        state = ReferenceState(grid=self.state.grid, generation=self.state.generation + 1)
        return StreamReference(stream=self.stream, settings=self.settings, state=state)

    @property
    def is_relearnable(self) -> bool:
        """Whether the reference is learned, or being learned, rather than fixed by a profile or a bound."""
        return self.reference is None or self.reference.origin == "learned"

    def fit_bins(self, sketch: StreamSketch) -> bool:
        """Chooses the reference's bins anew if a sketch does not fit them; returns whether it did."""
        grid = self.binning.find_required_grid(sketch) if self.binning is not None else None
        if grid is None:
            return False
        if isinstance(grid, tuple) and isinstance(self.state.grid, tuple):
            # Writers with different bounds would move the edges to and fro: only bounds that all have stay.
            grid = tuple(sorted(set(grid) & set(self.state.grid)))
        self.state.grid = grid
        self.state.generation += 1
        self._count_reference(self.reference.origin if self.reference is not None else "learned")
        return True

    def stored_state(self) -> ReferenceState:
        """Returns the reference's state to be stored, without the counts that a profile has."""
        if self.reference is None or self.reference.origin == "learned":
            return self.state
        return ReferenceState(grid=self.state.grid, generation=self.state.generation)

    def _add_block(self, sketch: StreamSketch, count: int, block_counts: Counts | None) -> None:
        state, required = self.state, self.settings.learn
        blocks = state.blocks
        blocks.panes += 1
        if blocks.needs_bins(sketch, count, required=required):
            binning = choose_binning(self.stream, state.sketch, grid=None, settings=self.settings)
            blocks.start(binning, count, required=required)
        else:
            blocks.add(sketch, block_counts)

    def _count_reference(self, origin: ReferenceOrigin) -> None:
        state, statistics = self.state, self.state.statistics
        effect = self.settings.find_design_effect(self.stream, origin)
        if origin == "learned" and statistics.design_effect is not None:
            effect = DesignEffect(statistics.design_effect, statistics.differences)
        self.binning = choose_binning(self.stream, state.sketch, grid=state.grid, settings=self.settings)
        self.reference = ReferenceCounts(
            bins=self.binning.bins,
            counts=self.binning.count(state.sketch),
            mean=state.sketch.moments.mean,
            origin=origin,
            is_stationary=statistics.is_stationary if origin == "learned" else None,
            design_effect=effect,
            first_ns=state.first_ns if origin == "learned" else 0,
        )


def _find_allowed_share(stream: str, settings: ModelWindowSettings) -> float | None:
    if stream == semconv.STREAM_LATENCY:
        return settings.latency_max_ratio
    return settings.error_max_ratio if stream == semconv.STREAM_ERRORS else None


def _choose_allowance_bins(stream: str, settings: ModelWindowSettings) -> Binning:
    if stream == semconv.STREAM_LATENCY:
        return ThresholdBins(threshold_s=settings.latency_threshold_s)
    return ClassBins(labels=(OK, FAILED))


def choose_binning(
    stream: str, sketch: StreamSketch, *, grid: Grid, settings: ModelWindowSettings
) -> ClassBins | NumberBins:
    """Chooses the bins of a stream from the values of its reference.

    Args:
        stream: Its name.
        sketch: The counts.
        grid: Where the edges of numbers may lie.
        settings: Of the model.
    """
    family = streams.find_stream_family(stream)
    if family == semconv.STREAM_CONFIDENCE:
        return NumberBins(edges=streams.CONFIDENCE_EDGES, is_fixed=True)
    is_input = stream.startswith(semconv.STREAM_INPUT_PREFIX)
    if sketch.categories.total > sketch.numbers or family == semconv.STREAM_LABEL:
        return ClassBins.choose(sketch, limit=settings.max_labels, has_missing=is_input)
    return choose_quantile_bins(sketch, grid=grid, has_missing=is_input)


def measure_design_effects(profile: Profile, blocks: Sequence[Mapping[str, StreamSketch]]) -> Profile:
    """Returns a profile with the design effect of each stream, measured on values in the order of their time.

    Args:
        profile: Made of all blocks.
        blocks: The values of successive blocks by stream. Of too few, or of a stream without values in most of them,
            nothing is known.
    """
    effects: dict[str, DesignEffect] = {}
    for stream, total in profile.streams.items():
        binning = choose_binning(stream, total, grid=None, settings=ModelWindowSettings())
        table = np.array([binning.count(block[stream]) for block in blocks if stream in block]).reshape(
            -1, binning.bins.count
        )
        effect = estimate_design_effect(table[table.sum(-1) > 0].astype(np.int64))
        if effect is not None:
            effects[stream] = effect
    return dataclasses.replace(profile, design_effects=effects)
