"""Measures the design effect of values that came one after the other, from counts of successive blocks of them.

For neighbouring blocks with shares s, s' of n, n' values, |s - s'|² / ((1/n + 1/n') Σ p(1-p)) is φ on average, and
about φ χ²_ν/ν with ν = (Σλ)²/Σλ², λ the eigenvalues of diag(p) - p pᵀ. The median of at least 8 pairs, over that of
χ²_ν/ν, does not see a single break. Blocks of 1, 2, 4, … are tried, since bursts longer than a block hide from it; the
largest φ counts.

Source: Kish, Survey Sampling, 1965; Satterthwaite 1946; Wilson & Hilferty 1931 for the quantiles of chi-squared.
Choice: the estimate of the detect step (`detect.design_effect`) is not used: it is made for blocks that come one by
one, whereas here all blocks are at hand at once.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Counts

MIN_PAIRS: Final = 8
"""The smallest number of pairs of blocks that φ is estimated from."""


class DesignEffect(NamedTuple):
    """The design effect of a stream (how much more its shares vary than those of independent values), estimated."""

    estimate: float
    """φ, 1 or above."""
    differences: int
    """The pairs of blocks that it was estimated from; 0 where nothing can be known, of values that are all alike."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the design effect as a JSON object, which `from_dict` reads."""
        return {"estimate": self.estimate, "differences": self.differences}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> DesignEffect:
        """Builds a design effect from the JSON object that its `to_dict` has made.

        Raises:
            KeyError: A key is missing.
            ValueError: A number is out of range.
        """
        estimate, differences = float(document["estimate"]), int(document["differences"])
        if not (1.0 <= estimate < math.inf and differences >= 0):
            raise ValueError("a design effect is 1 or above, of 0 differences or more")
        return cls(estimate, differences)


def estimate_design_effect(blocks: Counts) -> DesignEffect | None:
    """Estimates the design effect from counts of successive blocks of values, shape (B, K); None of too few."""
    if len(blocks) <= MIN_PAIRS:
        return None
    shares = blocks.sum(axis=0) / blocks.sum()
    spread = 1.0 - float(shares @ shares)
    if spread <= 0.0:
        return DesignEffect(1.0, 0)
    largest = DesignEffect(1.0, len(blocks) - 1)
    while len(blocks) > MIN_PAIRS:
        items = blocks.sum(axis=1)
        differences = np.diff(blocks / items[:, None], axis=0)
        ratios = (differences**2).sum(axis=1) / ((1 / items[1:] + 1 / items[:-1]) * spread)
        estimate = float(np.median(ratios)) / _compute_median_ratio(shares)
        if estimate > largest.estimate:
            largest = DesignEffect(estimate, len(ratios))
        even = len(blocks) // 2 * 2
        blocks = blocks[:even].reshape(even // 2, 2, -1).sum(axis=1)
    return largest


def compute_chi_squared_quantile(freedom: float, z: float) -> float:
    """Computes the quantile of the chi-squared distribution where the standard normal one has the quantile `z`."""
    tail = 2.0 / (9.0 * freedom)
    return freedom * max(0.0, 1.0 - tail + z * math.sqrt(tail)) ** 3


def _compute_median_ratio(shares: NDArray[np.float64]) -> float:
    """Computes the median of χ²_ν/ν, with as many degrees of freedom ν as the given multinomial shares have."""
    squares, cubes = float(shares @ shares), float(shares**2 @ shares)
    trace = squares - 2.0 * cubes + squares**2
    freedom = (1.0 - squares) ** 2 / trace if trace > 0.0 else 1.0
    return compute_chi_squared_quantile(freedom, 0.0) / freedom
