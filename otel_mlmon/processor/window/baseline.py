"""The reference of one stream: learned and then frozen, given in a profile, or a budget.

It never learns what it judges. A reference keeps the sketch it was made from. Where later numbers come in
coarser buckets than its edges stand on, it is binned anew from that sketch on the coarser grid: another
reference, for which the evidence starts again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.window.binning import (
    Binning,
    BudgetBins,
    ClassBins,
    Grid,
    NumberBins,
    quantile_bins,
)
from otel_mlmon.processor.window.settings import ModelSettings
from otel_mlmon.processor.window.streams import FAILED, OK
from otel_mlmon.processor.window.window import Reference
from otel_mlmon.sketch.tally import Tally

BUDGET_COUNT: Final = 1_000_000_000
"""The size of a budget's reference: an allowance is known exactly, so nothing is due to a finite sample."""


@dataclass(slots=True, kw_only=True)
class Baseline:
    """The reference of one stream, or the way to it."""

    stream: str
    settings: ModelSettings
    tally: Tally = field(default_factory=Tally)
    """What was learned, or given."""
    is_frozen: bool = False
    grid: Grid = None
    generation: int = 0
    """Grows with every change of the bins: counts of different generations do not add up."""
    reference: Reference | None = None
    binning: Binning | None = None

    def __post_init__(self) -> None:
        share = _allowed_share(self.stream, self.settings)
        profile = self.settings.reference
        given = profile.streams.get(self.stream) if profile is not None else None
        if share is not None:
            self.binning = _budget_binning(self.stream, self.settings)
            over = round(share * BUDGET_COUNT)
            counts = np.array([BUDGET_COUNT - over, over], dtype=np.int64)
            self.reference = Reference(bins=self.binning.bins, counts=counts, origin="budget")
        elif given is not None and given.total:
            self.tally = given
            self._bin()
        elif self.is_frozen:
            self._bin()

    def learn(self, tally: Tally) -> None:
        """Add a pane, and freeze if that is enough."""
        self.tally = self.tally.merge(tally)
        if self.tally.total >= self.settings.learn:
            self.is_frozen = True
            self._bin()

    def fit(self, tally: Tally) -> bool:
        """Bin the reference anew if its edges do not stand on the buckets of `tally`; whether that was so."""
        grid = self.binning.misfit(tally) if self.binning is not None else None
        if grid is None:
            return False
        if isinstance(grid, tuple) and isinstance(self.grid, tuple):
            # Writers with different bounds would move the edges to and fro: only what all have stays.
            grid = tuple(sorted(set(grid) & set(self.grid)))
        self.grid = grid
        self.generation += 1
        self._bin()
        return True

    def to_state(self) -> dict[str, Any]:
        """As JSON has it; `restore` is its inverse."""
        learned = {"tally": self.tally.to_dict(), "is_frozen": self.is_frozen} if self._is_learned else {}
        grid = list(self.grid) if isinstance(self.grid, tuple) else self.grid
        return {**learned, "grid": grid, "generation": self.generation}

    @classmethod
    def restore(cls, state: dict[str, Any], *, stream: str, settings: ModelSettings) -> Baseline:
        """From `to_state`; a budget or a profile that was changed since is followed."""
        grid = state["grid"]
        return cls(
            stream=stream,
            settings=settings,
            tally=Tally.from_dict(state.get("tally", {})),
            is_frozen=state.get("is_frozen", False),
            grid=tuple(grid) if isinstance(grid, list) else grid,
            generation=state["generation"],
        )

    @property
    def _is_learned(self) -> bool:
        return self.reference is None or self.reference.origin == "learned"

    def _bin(self) -> None:
        self.binning = _binning(self.stream, self.tally, grid=self.grid, settings=self.settings)
        self.reference = Reference(
            bins=self.binning.bins,
            counts=self.binning.count(self.tally),
            mean=self.tally.moments.mean,
            origin="learned" if self.is_frozen else "file",
        )


def _allowed_share(stream: str, settings: ModelSettings) -> float | None:
    if stream == semconv.STREAM_LATENCY:
        return settings.latency_share
    return settings.error_share if stream == semconv.STREAM_ERRORS else None


def _budget_binning(stream: str, settings: ModelSettings) -> Binning:
    if stream == semconv.STREAM_LATENCY:
        return BudgetBins(budget_s=settings.latency_budget_s)
    return ClassBins(labels=(OK, FAILED))


def _binning(stream: str, tally: Tally, *, grid: Grid, settings: ModelSettings) -> Binning:
    if stream == semconv.STREAM_CONFIDENCE:
        return NumberBins(edges=semconv.CONFIDENCE_EDGES, is_fixed=True)
    is_input = stream.startswith(semconv.STREAM_INPUT_PREFIX)
    if tally.categories.total > tally.numbers or stream == semconv.STREAM_LABEL:
        return ClassBins.of(tally, limit=settings.max_labels, has_missing=is_input)
    return quantile_bins(tally, grid=grid, has_missing=is_input)
