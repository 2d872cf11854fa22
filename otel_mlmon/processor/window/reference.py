"""The reference of one stream: learned and then frozen, given by a file or by the model itself, or a budget.

It never learns what it judges. A reference keeps the sketch it was made from. Where later numbers come in
coarser buckets than its edges stand on, it is binned anew from that sketch on the coarser grid: another
reference, for which the evidence starts again.
"""

from __future__ import annotations

import logging
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
from otel_mlmon.processor.window.learning import CHOOSING, Learning, Verdict, is_enough
from otel_mlmon.processor.window.settings import ModelSettings
from otel_mlmon.processor.window.streams import FAILED, OK
from otel_mlmon.processor.window.window import Origin, Reference
from otel_mlmon.sketch.stream_sketch import StreamSketch

BUDGET_COUNT: Final = 1_000_000_000
"""The size of a budget's reference: an allowance is known exactly, so nothing is due to a finite sample."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


@dataclass(slots=True, kw_only=True)
class Baseline:
    """The reference of one stream, or the way to it."""

    stream: str
    settings: ModelSettings
    sketch: StreamSketch = field(default_factory=StreamSketch)
    """What was learned, or given."""
    is_frozen: bool = False
    verdict: Verdict = field(default_factory=Verdict)
    """What was found of a learned reference when it was frozen."""
    learning: Learning = field(default_factory=Learning)
    grid: Grid = None
    generation: int = 0
    """Grows with every change of the bins: counts of different generations do not add up."""
    reference: Reference | None = None
    binning: Binning | None = None

    def __post_init__(self) -> None:
        share = _allowed_share(self.stream, self.settings)
        given = self.settings.given(self.stream)
        if share is not None:
            self.binning = _budget_binning(self.stream, self.settings)
            over = round(share * BUDGET_COUNT)
            counts = np.array([BUDGET_COUNT - over, over], dtype=np.int64)
            self.reference = Reference(bins=self.binning.bins, counts=counts, origin="budget")
        elif given is not None:
            self.sketch, origin = given
            self._bin(origin)
        elif self.is_frozen:
            self._bin("learned")

    def learn(self, stream_sketch: StreamSketch) -> None:
        """Add a pane, and freeze if that is enough and one thing."""
        self.sketch = self.sketch.merge(stream_sketch)
        if stream_sketch.total:
            self._gather(stream_sketch)
        is_due = self.sketch.total >= self.settings.learn and self.learning.panes >= self.settings.learn_panes
        verdict = self.learning.verdict() if is_due else Verdict()
        if is_due and is_enough(self.sketch.total, verdict, asked=self.settings.learn):
            self.verdict, self.is_frozen, self.learning = verdict, True, Learning()
            if verdict.is_stationary is False:
                _LOG.warning(
                    "Stream %s moved while its reference was learned from %d values: it is used, and may alarm early.",
                    self.stream,
                    self.sketch.total,
                )
            self._bin("learned")

    def _gather(self, stream_sketch: StreamSketch) -> None:
        binning = self.learning.binning
        if (
            binning is None or binning.misfit(stream_sketch) is not None
        ) and self.sketch.total >= CHOOSING * self.settings.learn:
            binning = _binning(self.stream, self.sketch, grid=None, settings=self.settings)
        self.learning.add(stream_sketch, binning)

    def replaced(self, settings: ModelSettings) -> Baseline | None:
        """The reference under other settings that give another one; None if this one stays, under them.

        Bins go on to stand where those who count can tell numbers apart.
        """
        self.settings = settings
        given = settings.given(self.stream)
        origin = self.reference.origin if self.reference is not None else None
        stays = origin in ("budget", "file") or (given is None and origin != "model")
        if stays or (given is not None and given[1] == origin and given[0] == self.sketch):
            return None
        return Baseline(stream=self.stream, settings=settings, grid=self.grid, generation=self.generation + 1)

    def fit(self, stream_sketch: StreamSketch) -> bool:
        """Bin the reference anew if its edges do not stand on the buckets of `stream_sketch`; whether that was so."""
        grid = self.binning.misfit(stream_sketch) if self.binning is not None else None
        if grid is None:
            return False
        if isinstance(grid, tuple) and isinstance(self.grid, tuple):
            # Writers with different bounds would move the edges to and fro: only what all have stays.
            grid = tuple(sorted(set(grid) & set(self.grid)))
        self.grid = grid
        self.generation += 1
        self._bin(self.reference.origin if self.reference is not None else "learned")
        return True

    def to_state(self) -> dict[str, Any]:
        """As JSON has it; `restore` is its inverse."""
        grid = list(self.grid) if isinstance(self.grid, tuple) else self.grid
        return {**self._learned_state(), "grid": grid, "generation": self.generation}

    @classmethod
    def restore(cls, state: dict[str, Any], *, stream: str, settings: ModelSettings) -> Baseline:
        """From `to_state`; a budget or a profile that was changed since is followed."""
        grid = state["grid"]
        design_effect, is_stationary = state.get("verdict", (None, None))
        return cls(
            stream=stream,
            settings=settings,
            sketch=StreamSketch.from_dict(state.get("sketch", {})),
            is_frozen=state.get("is_frozen", False),
            verdict=Verdict(design_effect=design_effect, is_stationary=is_stationary),
            learning=Learning.from_state(state["learning"]) if "learning" in state else Learning(),
            grid=tuple(grid) if isinstance(grid, list) else grid,
            generation=state["generation"],
        )

    def _learned_state(self) -> dict[str, Any]:
        if self.reference is None:
            return {"sketch": self.sketch.to_dict(), "learning": self.learning.to_state()}
        if self.reference.origin != "learned":
            return {}
        verdict = [self.verdict.design_effect, self.verdict.is_stationary]
        return {"sketch": self.sketch.to_dict(), "is_frozen": True, "verdict": verdict}

    def _bin(self, origin: Origin) -> None:
        self.binning = _binning(self.stream, self.sketch, grid=self.grid, settings=self.settings)
        self.reference = Reference(
            bins=self.binning.bins,
            counts=self.binning.count(self.sketch),
            mean=self.sketch.moments.mean,
            origin=origin,
            is_stationary=self.verdict.is_stationary if origin == "learned" else None,
        )


def _allowed_share(stream: str, settings: ModelSettings) -> float | None:
    if stream == semconv.STREAM_LATENCY:
        return settings.latency_max_ratio
    return settings.error_max_ratio if stream == semconv.STREAM_ERRORS else None


def _budget_binning(stream: str, settings: ModelSettings) -> Binning:
    if stream == semconv.STREAM_LATENCY:
        return BudgetBins(budget_s=settings.latency_threshold_s)
    return ClassBins(labels=(OK, FAILED))


def _binning(stream: str, stream_sketch: StreamSketch, *, grid: Grid, settings: ModelSettings) -> Binning:
    if stream == semconv.STREAM_CONFIDENCE:
        return NumberBins(edges=semconv.CONFIDENCE_EDGES, is_fixed=True)
    is_input = stream.startswith(semconv.STREAM_INPUT_PREFIX)
    if stream_sketch.categories.total > stream_sketch.numbers or stream == semconv.STREAM_LABEL:
        return ClassBins.of(stream_sketch, limit=settings.max_labels, has_missing=is_input)
    return quantile_bins(stream_sketch, grid=grid, has_missing=is_input)
