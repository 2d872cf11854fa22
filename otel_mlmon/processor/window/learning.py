"""Decides whether a stream has enough values, and homogeneous ones, to learn its reference from.

The first tenth of the values chooses bins; what comes after is counted over them in blocks of successive panes. The
blocks answer two questions when the required values are there:

- φ, the design effect (`reference/design_effect.py`), which goes with the reference, so that it is judged by at once.
- Are the halves alike: the two-sample chi-squared of the first half of the blocks against the second, over φ, against
  its quantile at `LEVEL`. A reference that moved while it was learned is none.

Learning goes on until N/φ is a fifth of the required values (1,000 of 5,000), 20 times as long at most; and while the
halves differ, 4 times as long at most. Then the reference is used all the same, and reported as such. It ends in any
case when the time for it is over, from 200 values on: of little traffic bins are chosen after 20 values, and chosen
anew after a tenth of what is required.

Source: Wilson & Hilferty, 1931: their quantile of chi-squared is at `LEVEL` 7 % too large with one degree of freedom,
4 % with three, 1 % with ten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon.processor.window.binning import ClassBins, NumberBins
from otel_mlmon.reference.design_effect import compute_chi_squared_quantile, estimate_design_effect
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts

CHOOSING_SHARE: Final = 0.1
"""Share of the required values that chooses the bins."""
MIN_BLOCK: Final = 50
"""The smallest number of values in a block."""
MAX_BLOCKS: Final = 64
"""The largest number of blocks; beyond it neighbours are joined in pairs."""
EARLY_BLOCK: Final = 20
"""The size of a block before enough values are there to choose the bins for good."""
MIN_VALUES: Final = 200
"""The smallest number of values in a learned reference."""
EFFECTIVE_SHARE: Final = 0.2
"""The smallest N/φ of a learned reference, as a share of the required values."""
MAX_UNSTATIONARY: Final = 4
MAX_BURSTY: Final = 20
"""The largest multiple of the required values that learning takes."""
LEVEL_Z: Final = 3.719
"""The standard normal quantile at 1 - `LEVEL`."""
LEVEL: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStatistics:
    """The measures of how much successive blocks of a stream's values differ; None where there are too few blocks."""

    design_effect: float | None = None
    differences: int = 0
    """How many pairs of blocks it was estimated from."""
    is_stationary: bool | None = None


@dataclass(slots=True, kw_only=True)
class LearningBlocks:
    """Counts of a stream's values by successive blocks of panes, while its reference is learned.

    Memory: `MAX_BLOCKS` count vectors.
    """

    class_bins: ClassBins | None = None
    number_bins: NumberBins | None = None
    """The blocks are counted over one of the two; both are None before it is chosen."""
    blocks: list[list[int]] = field(default_factory=list)
    block_items: int = MIN_BLOCK
    """Values that fill a block."""
    panes: int = 0
    """Panes with values."""
    chosen_count: int = 0
    """Values from which the bins were chosen."""

    @property
    def binning(self) -> ClassBins | NumberBins | None:
        """The bins by which values are counted while a reference is learned; None before they are chosen."""
        return self.class_bins if self.class_bins is not None else self.number_bins

    def needs_bins(self, sketch: StreamSketch, count: int, *, required: int) -> bool:
        """Returns whether bins must be chosen now: there are none, a pane does not fit, or it was too early.

        Args:
            sketch: The values of the pane.
            count: All values so far.
            required: Values that learning takes.
        """
        enough = CHOOSING_SHARE * required
        if self.binning is None or self.binning.find_required_grid(sketch) is not None:
            return count >= min(enough, EARLY_BLOCK)
        return self.chosen_count < enough <= count

    def start(self, binning: ClassBins | NumberBins | None, count: int, *, required: int) -> None:
        """Begins to count over other bins, which were chosen from `count` values; None for no bins."""
        self.class_bins = binning if isinstance(binning, ClassBins) else None
        self.number_bins = binning if isinstance(binning, NumberBins) else None
        self.chosen_count = count
        self.blocks, self.block_items = [], MIN_BLOCK if count >= CHOOSING_SHARE * required else EARLY_BLOCK

    def add(self, sketch: StreamSketch, counted: Counts | None = None) -> None:
        """Adds the values of a pane over the present bins, counted or to be counted; nothing while there are none."""
        if self.binning is None:
            return
        counts = (self.binning.count(sketch) if counted is None else counted).tolist()
        if self.blocks and sum(self.blocks[-1]) < self.block_items:
            self.blocks[-1] = [block + pane for block, pane in zip(self.blocks[-1], counts, strict=True)]
        else:
            self.blocks.append(counts)
        if len(self.blocks) > MAX_BLOCKS:
            table = np.array(self.blocks[:MAX_BLOCKS]).reshape(MAX_BLOCKS // 2, 2, -1).sum(axis=1)
            self.blocks = [*table.tolist(), *self.blocks[MAX_BLOCKS:]]
            self.block_items *= 2

    def statistics(self) -> BlockStatistics:
        """Computes from the full blocks the design effect, and whether the stream is stationary."""
        table = np.array([block for block in self.blocks if sum(block) >= self.block_items], dtype=np.int64)
        effect = estimate_design_effect(table)
        if effect is None:
            return BlockStatistics()
        return BlockStatistics(
            design_effect=effect.estimate,
            differences=effect.differences,
            is_stationary=is_reference_stationary(table, effect.estimate),
        )


def has_enough_values(count: int, statistics: BlockStatistics, *, required: int) -> bool:
    """Returns whether `count` homogeneous values are enough for a reference that needs `required` of them."""
    if count < required:
        return False
    if statistics.is_stationary is False and count < MAX_UNSTATIONARY * required:
        return False
    effective = count / (statistics.design_effect or 1.0)
    return effective >= EFFECTIVE_SHARE * required or count >= MAX_BURSTY * required


def is_reference_stationary(blocks: Counts, phi: float) -> bool:
    """Tests whether the first half of the blocks, shape (B, K), is distributed like the second, at `LEVEL`."""
    middle = int(np.searchsorted(np.cumsum(blocks.sum(axis=1)), blocks.sum() / 2)) + 1
    halves = np.stack([blocks[:middle].sum(axis=0), blocks[middle:].sum(axis=0)]).astype(np.float64)
    halves = halves[:, halves.sum(axis=0) > 0]
    if halves.shape[1] < 2 or not halves.sum(axis=1).all():
        return True
    expected = halves.sum(axis=1)[:, None] * halves.sum(axis=0) / halves.sum()
    statistic = float(((halves - expected) ** 2 / expected).sum())
    return statistic / phi <= compute_chi_squared_quantile(halves.shape[1] - 1, LEVEL_Z)
