"""The statistics of blocks against the same formulas written out in plain Python, and every threshold crossed."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency

from otel_mlmon.processor.window.binning import ClassBins
from otel_mlmon.processor.window.learning import (
    LEVEL_Z,
    MAX_BLOCKS,
    MIN_BLOCK,
    BlockStatistics,
    LearningBlocks,
    is_reference_stationary,
)
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.reference.design_effect import MIN_PAIRS, compute_chi_squared_quantile, estimate_design_effect
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch

BINS = ClassBins(labels=("a", "b", "_OTHER"))
TABLES = st.lists(st.tuples(*[st.integers(0, 30)] * 3).filter(any), min_size=1, max_size=40)


def sketch(a: int, b: int = 0) -> StreamSketch:
    return StreamSketch(categories=CategoryCounts(counts={"a": a, "b": b}))


def learn(*counts: int) -> LearningBlocks:
    blocks = LearningBlocks(class_bins=BINS)
    for count in counts:
        blocks.add(sketch(count))
    return blocks


def plain_quantile(freedom: float, z: float) -> float:
    """Wilson & Hilferty 1931."""
    return float(freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3)


def plain_design_effect(blocks: list[list[int]]) -> float | None:
    """As the module's docstring has it."""
    if len(blocks) < MIN_PAIRS + 1:
        return None
    total = sum(map(sum, blocks))
    shares = [sum(column) / total for column in zip(*blocks, strict=True)]
    spread = sum(share * (1 - share) for share in shares)
    if spread <= 0:
        return 1.0
    # The eigenvalues of diag(p) - p p': their sum is the trace, and the sum of their squares that of the square.
    matrix = np.diag(shares) - np.outer(shares, shares)
    freedom = np.trace(matrix) ** 2 / np.trace(matrix @ matrix)
    median = plain_quantile(freedom, 0.0) / freedom
    phi = 1.0
    while len(blocks) >= MIN_PAIRS + 1:
        ratios = []
        for first, second in pairwise(blocks):
            n, m = sum(first), sum(second)
            distance = sum((a / n - b / m) ** 2 for a, b in zip(first, second, strict=True))
            ratios.append(distance / ((1 / n + 1 / m) * spread))
        phi = max(phi, statistics.median(ratios) / median)
        pairs = zip(blocks[::2], blocks[1::2], strict=False)
        blocks = [[a + b for a, b in zip(first, second, strict=True)] for first, second in pairs]
    return phi


@settings(deadline=None)
@given(table=TABLES)
def test_the_design_effect_is_that_of_its_formula(table: list[tuple[int, ...]]) -> None:
    expected = plain_design_effect([list(block) for block in table])
    effect = estimate_design_effect(np.array(table))
    assert (effect and effect.estimate) == (None if expected is None else pytest.approx(expected, rel=1e-6))


def plain_statistic(table: Any) -> tuple[float, int]:
    """Two-sample chi-squared of the halves, and its degrees of freedom."""
    total, count, first = sum(map(sum, table)), 0, []
    for block in table:
        first.append(block)
        count += sum(block)
        if count >= total / 2:
            break
    halves = np.array([np.sum(first, axis=0), np.sum(table, axis=0) - np.sum(first, axis=0)])
    halves = halves[:, halves.sum(axis=0) > 0]
    assume(halves.shape[1] > 1 and halves.sum(axis=1).all())
    result = chi2_contingency(halves, correction=False)
    return float(result.statistic), halves.shape[1] - 1


@settings(deadline=None)
@given(table=TABLES)
def test_the_halves_are_alike_up_to_the_quantile_of_their_chi_squared(table: list[tuple[int, ...]]) -> None:
    statistic, freedom = plain_statistic(table)
    assume(statistic > 1e-9)
    boundary = statistic / plain_quantile(freedom, LEVEL_Z)
    assert is_reference_stationary(np.array(table), boundary * 1.000001)
    assert not is_reference_stationary(np.array(table), boundary * 0.999999)


def test_halves_of_one_block_or_of_one_bin_are_alike() -> None:
    assert is_reference_stationary(np.array([[5, 1, 0]]), 1e-9)
    assert is_reference_stationary(np.array([[5, 0, 0], [9, 0, 0]]), 1e-9)
    assert not is_reference_stationary(np.array([[5, 0, 0], [0, 5, 0]]), 1e-9)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 9.0])
def test_the_quantiles_of_chi_squared(freedom: float) -> None:
    assert compute_chi_squared_quantile(freedom, 0.0) == pytest.approx(float(chi2.median(freedom)), rel=0.04)
    assert compute_chi_squared_quantile(freedom, 1.5) == pytest.approx(plain_quantile(freedom, 1.5))
    assert compute_chi_squared_quantile(freedom, -100.0) == 0.0


@pytest.mark.parametrize(
    ("panes", "blocks"),
    [
        ([MIN_BLOCK - 1] * 4, [2 * MIN_BLOCK - 2] * 2),
        ([MIN_BLOCK] * 3, [MIN_BLOCK] * 3),
        ([MIN_BLOCK // 2] * 5, [MIN_BLOCK, MIN_BLOCK, MIN_BLOCK // 2]),
        ([1, 500, 1], [501, 1]),
    ],
)
def test_a_block_is_full_of_fifty_values(panes: list[int], blocks: list[int]) -> None:
    assert learn(*panes).blocks == [[count, 0, 0] for count in blocks]


def test_blocks_are_joined_two_by_two_when_there_are_more_than_64() -> None:
    full = learn(*[MIN_BLOCK] * MAX_BLOCKS)
    assert (len(full.blocks), full.block_items) == (MAX_BLOCKS, MIN_BLOCK)
    joined = learn(*[MIN_BLOCK] * MAX_BLOCKS, 70, 20, 10, 1)
    assert joined.block_items == 2 * MIN_BLOCK
    assert joined.blocks == [[2 * MIN_BLOCK, 0, 0]] * (MAX_BLOCKS // 2) + [[100, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(("last", "phi"), [(MIN_BLOCK - 1, None), (MIN_BLOCK, 1.0)])
def test_a_block_counts_when_it_is_full(last: int, phi: float | None) -> None:
    blocks = learn(*[MIN_BLOCK] * MIN_PAIRS, last)
    is_stationary = None if phi is None else True
    # Of values that are all alike nothing is known: no difference counts.
    assert blocks.statistics() == BlockStatistics(design_effect=phi, differences=0, is_stationary=is_stationary)


def test_the_bins_of_the_blocks_are_chosen_early_and_again_from_the_first_tenth() -> None:
    reference = StreamReference(stream="prediction.label", settings=ModelWindowSettings(learn=1000, max_labels=1))
    binnings = []
    for pane in (sketch(60, 39), sketch(0, 1)):
        reference.learn_reference(pane, end_ns=0)
        binnings.append(reference.state.blocks.binning)
    assert binnings == [ClassBins(labels=("a", "_OTHER"))] * 2
    assert (reference.state.blocks.chosen_count, reference.state.blocks.block_items) == (100, MIN_BLOCK)
    reference.learn_reference(sketch(3, 4), end_ns=0)
    assert (reference.state.blocks.blocks, reference.state.blocks.panes) == ([[3, 4]], 3)
    reference.learn_reference(StreamSketch(), end_ns=0)
    assert reference.state.blocks.panes == 3


@pytest.mark.parametrize(("values", "panes", "is_frozen"), [(99, 3, False), (100, 2, False), (100, 3, True)])
def test_a_reference_takes_enough_values_of_enough_panes(values: int, panes: int, is_frozen: bool) -> None:
    reference = StreamReference(stream="prediction.label", settings=ModelWindowSettings(learn=100, learn_panes=3))
    for number in range(panes):
        reference.learn_reference(sketch(values - (panes - 1) if number == 0 else 1), end_ns=0)
    assert (reference.state.is_frozen, reference.reference is not None) == (is_frozen, is_frozen)
    assert reference.state.sketch.total == values


HOUR_NS = 3_600 * 10**9


@pytest.mark.parametrize(
    ("per_hour", "values", "hours"),
    [(100, 5_000, 49), (20, 3_380, 168), (1, 200, 199)],
)
def test_learning_ends_with_enough_values_or_when_its_time_is_over(per_hour: int, values: int, hours: int) -> None:
    """Fifty hours of a hundred values; a week of twenty; of one an hour, when there are 200."""
    reference = StreamReference(stream="prediction.label", settings=ModelWindowSettings(learn_panes=10))
    rng = np.random.default_rng(per_hour)
    for hour in range(400):
        counts = rng.multinomial(per_hour, [0.6, 0.4])
        reference.learn_reference(sketch(int(counts[0]), int(counts[1])), end_ns=(hour + 1) * HOUR_NS)
        if reference.state.is_frozen:
            break
    assert (reference.state.sketch.total, hour) == (values, hours)
    assert reference.reference is not None
    effect = reference.reference.design_effect
    assert effect is not None
    assert 1.0 <= effect.estimate < 6.0
    assert effect.differences >= MIN_PAIRS
    assert reference.reference.first_ns == HOUR_NS


def test_fewer_values_than_two_hundred_are_enough_where_fewer_are_asked_for() -> None:
    settings = ModelWindowSettings(learn=100, learn_for_ns=HOUR_NS, learn_panes=1)
    reference = StreamReference(stream="prediction.label", settings=settings)
    for hour in range(3):
        assert not reference.state.is_frozen
        reference.learn_reference(sketch(30, 20), end_ns=(hour + 1) * HOUR_NS)
        if hour == 1:
            break
    assert reference.state.is_frozen


def test_a_reference_that_is_frozen_keeps_its_statistics_and_no_blocks(caplog: pytest.LogCaptureFixture) -> None:
    reference = StreamReference(stream="prediction.label", settings=ModelWindowSettings(learn=1000))
    for number in range(80):
        reference.learn_reference(sketch(50, 0) if number < 10 else sketch(0, 50), end_ns=0)
        if reference.state.is_frozen:
            break
    assert reference.state.sketch.total == 4000
    assert reference.state.blocks == LearningBlocks()
    assert reference.state.statistics.is_stationary is False
    assert reference.reference is not None
    assert reference.reference.is_stationary is False
    assert caplog.messages == [
        "Stream prediction.label moved while its reference was learned from 4000 values: it is used, and may alarm"
        " early."
    ]
