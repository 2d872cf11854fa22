"""Decides whether the values learned so far can be a reference: are there enough, and are they homogeneous.

The first tenth of the values chooses bins; what comes after is counted over them in blocks of successive panes. The
blocks answer two questions when the required values are there:

- φ, the design effect: for neighbouring blocks with shares s, s' of n, n' values, |s - s'|² / ((1/n + 1/n') Σ p(1-p))
  is φ on average, and about φ χ²_ν/ν with ν = (Σλ)²/Σλ², λ the eigenvalues of diag(p) - p pᵀ. Its median over at
  least 8 pairs, over that of χ²_ν/ν, does not see a single break, which is the other question's. Blocks of 1, 2, 4, …
  are tried, since bursts longer than a block hide from it; the largest φ counts.
- Are the halves alike: the two-sample chi-squared of the first half of the blocks against the second, over φ, against
  its quantile at `LEVEL`. A reference that moved while it was learned is none.

Learning goes on until N/φ is a fifth of the required values (1,000 of 5,000), 20 times as long at most; and while the
halves differ, 4 times as long at most. Then the reference is used all the same, and reported as such.

Source: Kish, Survey Sampling, 1965; Satterthwaite 1946; Wilson & Hilferty 1931 for the quantiles of chi-squared: at
`LEVEL` 7 % too large with one degree of freedom, 4 % with three, 1 % with ten.
Choice: the estimate of the detect step (`detect.design_effect`) is not used: it is downstream, and made for blocks that
come one by one, whereas here all blocks are at hand at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.window.binning import ClassBins, NumberBins
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts

CHOOSING_SHARE: Final = 0.1
"""Share of the required values that chooses the bins."""
MIN_BLOCK: Final = 50
"""The smallest number of values in a block."""
MAX_BLOCKS: Final = 64
"""The largest number of blocks; beyond it neighbours are joined in pairs."""
MIN_PAIRS: Final = 8
"""The smallest number of pairs of blocks that φ is estimated from."""
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
    """Holds measures of how successive blocks differ; None where there are too few blocks."""

    design_effect: float | None = None
    is_stationary: bool | None = None


@dataclass(slots=True, kw_only=True)
class LearningBlocks:
    """Counts blocks of successive panes while one stream learns its reference.

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

    @property
    def binning(self) -> ClassBins | NumberBins | None:
        """The bins that the blocks are counted over; None before they are chosen."""
        return self.class_bins if self.class_bins is not None else self.number_bins

    def add(self, sketch: StreamSketch, binning: ClassBins | NumberBins | None) -> None:
        """Counts a pane.

        Args:
            sketch: Its values.
            binning: What to count over from the next pane on, where there is none yet, or the present one cannot hold
                `sketch`; then the blocks begin anew.
        """
        self.panes += 1
        if self.binning is None or self.binning.find_required_grid(sketch) is not None:
            self.class_bins = binning if isinstance(binning, ClassBins) else None
            self.number_bins = binning if isinstance(binning, NumberBins) else None
            self.blocks, self.block_items = [], MIN_BLOCK
            return
        counts = self.binning.count(sketch).tolist()
        if self.blocks and sum(self.blocks[-1]) < self.block_items:
            self.blocks[-1] = [block + pane for block, pane in zip(self.blocks[-1], counts, strict=True)]
        else:
            self.blocks.append(counts)
        if len(self.blocks) > MAX_BLOCKS:
            table = np.array(self.blocks[:MAX_BLOCKS]).reshape(MAX_BLOCKS // 2, 2, -1).sum(axis=1)
            self.blocks = [*table.tolist(), *self.blocks[MAX_BLOCKS:]]
            self.block_items *= 2

    def statistics(self) -> BlockStatistics:
        """Computes the statistics of the full blocks."""
        table = np.array([block for block in self.blocks if sum(block) >= self.block_items], dtype=np.int64)
        phi = estimate_design_effect(table)
        if phi is None:
            return BlockStatistics()
        return BlockStatistics(design_effect=phi, is_stationary=are_halves_alike(table, phi))


def is_learned(count: int, statistics: BlockStatistics, *, required: int) -> bool:
    """Whether `count` values are enough for a reference of which `required` values are asked."""
    if count < required:
        return False
    if statistics.is_stationary is False and count < MAX_UNSTATIONARY * required:
        return False
    effective = count / (statistics.design_effect or 1.0)
    return effective >= EFFECTIVE_SHARE * required or count >= MAX_BURSTY * required


def estimate_design_effect(blocks: Counts) -> float | None:
    """Estimates φ, 1 or above, of blocks with values, shape (B, K); None of fewer than `MIN_PAIRS` + 1."""
    if len(blocks) <= MIN_PAIRS:
        return None
    shares = blocks.sum(axis=0) / blocks.sum()
    spread = 1.0 - float(shares @ shares)
    if spread <= 0.0:
        return 1.0
    largest = 1.0
    while len(blocks) > MIN_PAIRS:
        items = blocks.sum(axis=1)
        differences = np.diff(blocks / items[:, None], axis=0)
        ratios = (differences**2).sum(axis=1) / ((1 / items[1:] + 1 / items[:-1]) * spread)
        largest = max(largest, float(np.median(ratios)) / _median_ratio(shares))
        even = len(blocks) // 2 * 2
        blocks = blocks[:even].reshape(even // 2, 2, -1).sum(axis=1)
    return largest


def are_halves_alike(blocks: Counts, phi: float) -> bool:
    """Whether the first half of the blocks, shape (B, K), is like the second, at `LEVEL`."""
    middle = int(np.searchsorted(np.cumsum(blocks.sum(axis=1)), blocks.sum() / 2)) + 1
    halves = np.stack([blocks[:middle].sum(axis=0), blocks[middle:].sum(axis=0)]).astype(np.float64)
    halves = halves[:, halves.sum(axis=0) > 0]
    if halves.shape[1] < 2 or not halves.sum(axis=1).all():
        return True
    expected = halves.sum(axis=1)[:, None] * halves.sum(axis=0) / halves.sum()
    statistic = float(((halves - expected) ** 2 / expected).sum())
    return statistic / phi <= chi_squared_quantile(halves.shape[1] - 1, LEVEL_Z)


def chi_squared_quantile(freedom: float, z: float) -> float:
    """Computes the quantile of chi-squared where the standard normal has `z`, by Wilson and Hilferty."""
    tail = 2.0 / (9.0 * freedom)
    return freedom * max(0.0, 1.0 - tail + z * math.sqrt(tail)) ** 3


def _median_ratio(shares: NDArray[np.float64]) -> float:
    """Computes the median of χ²_ν/ν, ν of multinomial shares."""
    squares, cubes = float(shares @ shares), float(shares**2 @ shares)
    trace = squares - 2.0 * cubes + squares**2
    freedom = (1.0 - squares) ** 2 / trace if trace > 0.0 else 1.0
    return chi_squared_quantile(freedom, 0.0) / freedom
