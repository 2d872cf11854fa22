"""The detectable shift that a stream states, against the shift that the engine finds in nine of ten days."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.evidence import CALIBRATING, DRIFT, EvidenceBank
from otel_mlmon.processor.detect.measure import StreamRow, measure_detectable
from otel_mlmon.types import Counts, Floats

FLEET_LINE = math.log(6.7e6)
FACTORS = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5])
PANES = 96
DAY_NS = 86_400 * 10**9


class Cell(NamedTuple):
    """What one comparison is of."""

    bins: int
    items: int
    """A day."""
    reference: int
    burst: int = 1
    """Items that come alike, one after the other: φ."""
    tolerance: float = 0.02


GRID = [
    Cell(bins, items, reference, burst, tolerance)
    for bins in (2, 4, 10, 20, 50)
    for items in (1_000, 10_000, 86_400, 1_000_000)
    for reference, burst, tolerance in ((5_000, 1, 0.02), (5_000, 1, 0.05), (50_000, 1, 0.02), (50_000, 10, 0.05))
]


class Streams:
    """Calibrated streams that have just had a quiet day, with what they state."""

    def __init__(self, cell: Cell, shares: Floats, rng: np.random.Generator) -> None:
        self.cell, self.shares, self.rng = cell, shares, rng
        references = rng.multinomial(cell.reference // cell.burst, shares) * cell.burst
        self.bank = EvidenceBank(cell.bins)
        self.rows = np.array([self.bank.add(reference, cell.tolerance) for reference in references])
        self._time_ns = DAY_NS
        while (self.bank.status[self.rows] == CALIBRATING).any():
            self._add(rng.multinomial(max(500 // cell.burst, 50), shares) * cell.burst, DAY_NS // PANES)
        # A day at the traffic of the cell, without the bets: only how much comes is to be known.
        self._time_ns += 2 * DAY_NS
        panes = np.full(self.rows.size, cell.items / 24.0)
        for hour in range(25):
            self.bank.traffic.add(self.rows, panes * (hour > 0), np.full(self.rows.size, self._time_ns))
            self._time_ns += DAY_NS // 24
        streams = [StreamRow(row, 1.0, None, is_budget=False) for row in self.rows.tolist()]
        self.stated = measure_detectable(self.bank, streams, FLEET_LINE, is_over=False)

    def find(self, shares: Floats) -> NDArray[np.bool_]:
        """Whether each stream alarms within a day of other shares."""
        cell, rng = self.cell, self.rng
        panes = min(PANES, max(4, cell.items // cell.burst // 2))
        sessions = cell.items / cell.burst / panes
        found = np.zeros(self.rows.size, dtype=bool)
        for _ in range(panes):
            counts = rng.multinomial(rng.poisson(np.full(self.rows.size, sessions)), shares) * cell.burst
            self._add(counts, DAY_NS // panes)
            found |= self.bank.status[self.rows] == DRIFT
        return found

    def _add(self, counts: Counts, length_ns: int) -> None:
        self._time_ns += length_ns
        self.bank.update(self.rows, counts, np.full(self.rows.size, self._time_ns), FLEET_LINE)


def compare_shifts(cell: Cell, rng: np.random.Generator, runs: int) -> tuple[float, float]:
    """Returns the median of the stated shift, and the stated over the one that was found in nine of ten days.

    The shift goes from the heavier half of the bins to the lighter, which is the hardest to find; NaN where even half
    as much again as was stated is found more seldom.
    """
    shares = rng.dirichlet(np.full(cell.bins, 2.0), FACTORS.size * runs)
    streams = Streams(cell, shares, rng)
    stated = np.array([detectable.shift for detectable in streams.stated])
    sizes = np.nan_to_num(stated, nan=1.0) * np.repeat(FACTORS, runs)
    moved = np.array([_move(row, size) for row, size in zip(shares, sizes, strict=True)])
    found = np.maximum.accumulate(streams.find(moved).reshape(FACTORS.size, runs).mean(1))
    ratio = 1.0 / float(np.interp(0.9, found, FACTORS)) if found[-1] >= 0.9 else math.nan
    return float(np.median(stated)), ratio


def compare_ratios(
    share: float, items: int, reference: int, rng: np.random.Generator, runs: int
) -> tuple[float, float]:
    """Returns the median share that a rare bin is stated to be found at, and the stated over the one that was found."""
    shares = np.tile([0.6 - share, 0.4, share], (FACTORS.size * runs, 1))
    streams = Streams(Cell(3, items, reference), shares, rng)
    totals = streams.bank.column("total")[streams.rows]
    own = streams.bank.column("reference")[streams.rows, 2] / totals
    stated = np.array(
        [
            detectable.new_share if math.isnan(detectable.ratio) else detectable.ratio * known
            for detectable, known in zip(streams.stated, own, strict=True)
        ]
    )
    # By chance a bin may be so frequent in a reference that it is no rare one.
    is_rare = ~np.isnan(stated)
    target = np.where(is_rare, np.minimum(stated * np.repeat(FACTORS, runs), 1.0), share)
    moved = np.stack([0.6 * (1.0 - target), 0.4 * (1.0 - target), target], axis=-1)
    is_found = np.where(is_rare, streams.find(moved), np.nan).reshape(FACTORS.size, runs)
    found = np.maximum.accumulate(np.nanmean(is_found, axis=1))
    ratio = 1.0 / float(np.interp(0.9, found, FACTORS)) if found[-1] >= 0.9 else math.nan
    return float(np.nanmedian(stated)), ratio


def detectable_shifts(seed: int, scale: float) -> Iterator[str]:
    """The shift that is stated over the one that is found in nine of ten days."""
    rng, runs = np.random.default_rng(seed), max(20, int(60 * scale))
    yield f"{runs} runs a size of the shift, which goes from one half of the bins to the other: the hardest to find."
    yield "φ, traffic and reference are the stream's own, estimated; alarm line 6.7e6. A dash: what is stated is so"
    yield "large that no such shift is found in nine of ten days."
    yield ""
    yield "| bins | values a day | reference | φ | tolerance | stated | over what was found |"
    yield "|--:|--:|--:|--:|--:|--:|--:|"
    for cell in GRID:
        stated, ratio = compare_shifts(cell, rng, runs)
        found = "–" if math.isnan(ratio) else f"{ratio:.2f}"
        yield (
            f"| {cell.bins} | {cell.items:,} | {cell.reference:,} | {cell.burst} | {cell.tolerance:g} | {stated:.3f} "
            f"| {found} |"
        )


def detectable_ratios(seed: int, scale: float) -> Iterator[str]:
    """The share of a rare bin that is stated over the one that is found in nine of ten days."""
    rng, runs = np.random.default_rng(seed), max(20, int(60 * scale))
    yield f"{runs} runs a size. Three bins, of which one has the share; independent values, alarm line 6.7e6."
    yield ""
    yield "| share | values a day | reference | stated share | over what was found |"
    yield "|--:|--:|--:|--:|--:|"
    for share in (0.0, 0.002, 0.005, 0.015):
        for items in (10_000, 86_400):
            for reference in (5_000, 50_000):
                stated, ratio = compare_ratios(share, items, reference, rng, runs)
                yield f"| {share:g} | {items:,} | {reference:,} | {stated:.4f} | {ratio:.2f} |"


def _move(shares: Floats, size: float) -> Floats:
    """Moves so much from the heavier half of the bins to the lighter, in proportion."""
    lighter = np.zeros(shares.size, dtype=bool)
    sums = [0.0, 0.0]
    for position in np.argsort(-shares).tolist():
        side = int(sums[0] > sums[1])
        sums[side] += shares[position]
        lighter[position] = side == 1
    if shares[lighter].sum() > 0.5:
        lighter = ~lighter
    taken = min(size, 0.98 * float(shares[~lighter].sum()))
    moved: Floats = shares * np.where(
        lighter, 1.0 + taken / shares[lighter].sum(), 1.0 - taken / shares[~lighter].sum()
    )
    return moved
