from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.binning import ClassBins, NumberBins, choose_quantile_bins
from otel_mlmon.processor.window.learning import (
    LEVEL,
    LEVEL_Z,
    MAX_BLOCKS,
    MIN_BLOCK,
    BlockStatistics,
    LearningBlocks,
    has_enough_values,
    is_reference_stationary,
)
from otel_mlmon.reference.design_effect import DesignEffect, compute_chi_squared_quantile, estimate_design_effect
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch

SHARES = np.array([0.4, 0.3, 0.2, 0.1])
BINS = ClassBins(labels=("a", "b", "c", "_OTHER"))


def sticky(rng: np.random.Generator, items: int, run: float, shares: NDArray[np.float64] = SHARES) -> NDArray[np.int64]:
    """Labels that come in runs of a geometric length of mean `run`: φ is 2 `run` - 1."""
    lengths = rng.geometric(1 / run, size=round(2 * items / run) + 50)
    return np.repeat(rng.choice(len(shares), p=shares, size=lengths.size), lengths)[:items]


def blocks_of(labels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    complete = labels[: len(labels) // size * size].reshape(-1, size)
    return np.stack([np.bincount(block, minlength=4) for block in complete])


def sketch(*counts: int) -> StreamSketch:
    return StreamSketch(categories=CategoryCounts(counts=dict(zip("abcd", counts, strict=False))))


@pytest.mark.simulation
@pytest.mark.parametrize("run", [1, 5, 10, 30])
def test_the_design_effect_of_runs_is_found(run: int) -> None:
    rng = np.random.default_rng(run)
    truth = 2 * run - 1
    estimates = [
        estimate_design_effect(blocks_of(sticky(rng, 1000 * truth + 4000, run), 50 + 16 * run)) for _ in range(30)
    ]
    assert truth / 1.5 <= float(np.median([phi.estimate for phi in estimates if phi is not None])) <= truth * 1.5


@pytest.mark.simulation
@pytest.mark.parametrize("run", [1, 10])
def test_quiet_halves_are_alike_and_moved_ones_are_not(run: int) -> None:
    rng = np.random.default_rng(100 + run)
    items, moved = 5000 * run, np.array([0.2, 0.5, 0.2, 0.1])
    quiet = broken = 0
    for _ in range(100):
        before, after, other = (sticky(rng, items // 2, run, p) for p in (SHARES, SHARES, moved))
        for second, is_broken in ((after, False), (other, True)):
            table = blocks_of(np.concatenate([before, second]), 80 * run)
            phi = estimate_design_effect(table)
            assert phi is not None
            if is_broken:
                broken += not is_reference_stationary(table, phi.estimate)
            else:
                quiet += is_reference_stationary(table, phi.estimate)
    assert quiet == 100  # a hundredth of one is expected to differ
    assert broken >= 97


@pytest.mark.parametrize(("freedom", "within"), [(1, 0.08), (3, 0.04), (9, 0.02), (50, 0.002)])
def test_the_quantile_is_that_of_chi_squared_and_never_below(freedom: int, within: float) -> None:
    ratio = compute_chi_squared_quantile(freedom, LEVEL_Z) / chi2.isf(LEVEL, freedom)
    assert 1.0 <= ratio <= 1.0 + within


@pytest.mark.parametrize(
    ("count", "statistics", "enough"),
    [
        (4999, BlockStatistics(), False),
        (5000, BlockStatistics(), True),
        (5000, BlockStatistics(design_effect=1.0, is_stationary=True), True),
        (5000, BlockStatistics(design_effect=5.0, is_stationary=True), True),
        (5000, BlockStatistics(design_effect=5.1, is_stationary=True), False),
        (20_000, BlockStatistics(design_effect=20.0, is_stationary=True), True),
        (99_999, BlockStatistics(design_effect=1e9, is_stationary=True), False),
        (100_000, BlockStatistics(design_effect=1e9, is_stationary=True), True),
        (19_999, BlockStatistics(design_effect=1.0, is_stationary=False), False),
        (20_000, BlockStatistics(design_effect=1.0, is_stationary=False), True),
    ],
)
def test_how_long_is_learned(count: int, statistics: BlockStatistics, enough: bool) -> None:
    assert has_enough_values(count, statistics, required=5000) is enough


def test_few_blocks_say_nothing() -> None:
    learning = LearningBlocks(class_bins=BINS)
    for _ in range(8):
        learning.add(sketch(40, 30, 20, 10))
    assert learning.statistics() == BlockStatistics()
    learning.add(sketch(40, 30, 20, 10))
    assert learning.statistics() == BlockStatistics(design_effect=1.0, differences=8, is_stationary=True)


def test_a_constant_stream_is_one_thing() -> None:
    table = np.full((20, 1), 100)
    assert (estimate_design_effect(table), is_reference_stationary(table, 1.0)) == (DesignEffect(1.0, 0), True)
    wide = np.hstack([table, np.zeros_like(table)])
    assert (estimate_design_effect(wide), is_reference_stationary(wide, 1.0)) == (DesignEffect(1.0, 0), True)


def test_numbers_that_the_bins_cannot_hold_begin_the_blocks_anew() -> None:
    fine = ExponentialHistogram.from_values(np.linspace(1, 1.01, 100))
    coarse = ExponentialHistogram.from_values(np.geomspace(1e-6, 1e6, 100))
    assert coarse.scale < fine.scale
    bins = choose_quantile_bins(StreamSketch(exponential=fine), grid=None, has_missing=True)
    learning = LearningBlocks(number_bins=bins)
    learning.add(StreamSketch(exponential=fine))
    assert learning.blocks != []
    other = choose_quantile_bins(StreamSketch(exponential=coarse), grid=None, has_missing=True)
    assert learning.needs_bins(StreamSketch(exponential=coarse), 5_000, required=5_000)
    learning.start(other, 5_000, required=5_000)
    assert (learning.blocks, learning.binning, learning.block_items) == ([], other, MIN_BLOCK)


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), max_size=200))
@settings(deadline=None, max_examples=50)
def test_blocks_are_bounded_and_lose_no_value(panes: list[tuple[int, int, int, int]]) -> None:
    learning = LearningBlocks(class_bins=BINS)
    for pane in panes:
        learning.add(sketch(*pane))
    assert len(learning.blocks) <= MAX_BLOCKS
    totals = np.array(panes, dtype=np.int64).reshape(-1, 4).sum(axis=0)
    assert np.array(learning.blocks, dtype=np.int64).reshape(-1, 4).sum(axis=0).tolist() == totals.tolist()


@pytest.mark.parametrize(
    "blocks",
    [
        LearningBlocks(),
        LearningBlocks(class_bins=BINS, blocks=[[1, 2], [3, 4]], block_items=100, panes=7),
        LearningBlocks(number_bins=NumberBins(edges=(0.1, 0.2), is_fixed=True)),
        LearningBlocks(number_bins=NumberBins(edges=(1.0,), cuts=(5,), scale=3, has_missing=True), panes=1),
    ],
)
def test_the_state_comes_back_from_its_record(blocks: LearningBlocks) -> None:
    assert decode_record(encode_record(blocks), LearningBlocks) == blocks
