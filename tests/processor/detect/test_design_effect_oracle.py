"""Blocks, differences, calibration and forgetting against a scalar oracle, in panes of any size."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.design_effect import BLOCK_SIZES, DesignEffects
from otel_mlmon.types import Floats
from tests.support.scalar_design_effect import SIZES, ScalarDesignEffect

SIZES_OF_PANES = {
    "small": [1, 7, 20, 50],
    "of one level": [200, 300, 799],
    "at the bounds": [49, 50, 51, 199, 200, 201, 800, 3_200],
    "any": [1, 30, 150, 900, 5_000, 20_000, 60_000],
}


def assert_close(values: Floats, expected: list[float] | list[list[float]]) -> None:
    """Compares to the rounding, at once: `pytest.approx` takes ten times what is tested."""
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)


def test_the_sizes_of_blocks() -> None:
    assert BLOCK_SIZES == SIZES


@pytest.mark.parametrize("name", SIZES_OF_PANES)
@pytest.mark.parametrize("shares", [[0.4, 0.3, 0.2, 0.1], [0.7, 0.3]], ids=["four bins", "two bins"])
@pytest.mark.parametrize("burst", [1, 12])
def test_every_number_is_the_oracles(name: str, shares: list[float], burst: int) -> None:
    rng = np.random.default_rng(burst)
    effects, oracle = DesignEffects(len(shares)), ScalarDesignEffect(shares)
    effects.start(0, np.array(shares))
    rows, sizes = np.array([0]), SIZES_OF_PANES[name]
    for index in range(260):
        counts = rng.multinomial(max(1, int(rng.choice(sizes)) // burst), shares).astype(np.float64) * burst
        effects.add(rows, counts[None], counts.sum(keepdims=True))
        oracle.add(counts.tolist())
        if index % 90 == 89:
            oracle.forget_transition()
        elif index < 120 or index % 50 == 20:
            oracle.be_stable()
        is_stable, has_changed = index < 120 or index % 50 == 20, index % 90 == 89
        effects.forget_transitions(rows, np.array([is_stable]), np.array([has_changed]))
        state = effects.pack([0])
        assert state.difference_counts.tolist() == [[len(values) for values in oracle.differences]]
        assert_close(state.differences, [x for values in oracle.differences for x in values])
        assert state.pending_counts.tolist() == [oracle.pending]
        assert (state.items.tolist(), state.is_calibrated.tolist()) == ([oracle.items], [oracle.is_calibrated])
        assert_close(state.blocks[0, :, :-1], oracle.blocks)
        assert_close(state.blocks[0, :, -1], [sum(block) for block in oracle.blocks])
        assert_close(state.long_run[0], [*oracle.long_run, oracle.long_run_total])
        assert (effects.estimate[0], effects.divisor[0]) == pytest.approx(oracle.estimates, rel=1e-9)
    assert oracle.is_calibrated
    assert max(len(values) for values in oracle.differences) > 8


@pytest.mark.parametrize(("items", "panes"), [(1_000.0, 9), (112.0, 9), (111.0, 10)])
def test_the_bounds_of_calibration(items: float, panes: int) -> None:
    """Eight differences of four even bins are 19 degrees of freedom; a thousand items are needed besides."""
    effects, rows = DesignEffects(4), np.array([0])
    effects.start(0, np.full(4, 0.25))
    count = 0
    while not effects.is_calibrated[0]:
        effects.add(rows, np.full((1, 4), items / 4), np.array([items]))
        count += 1
    assert count == panes


@pytest.mark.parametrize(("items", "is_calibrated"), [(998.0, False), (999.0, True)])
def test_a_thousand_items_are_enough(items: float, is_calibrated: bool) -> None:
    effects, rows = DesignEffects(4), np.array([0])
    effects.start(0, np.full(4, 0.25))
    arrays = effects._arrays
    arrays["difference_counts"][0, 0] = 8
    arrays["differences"][0, 0, -8:] = 1.0
    arrays["items"][0] = items
    effects.add(rows, np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([1.0]))
    assert bool(effects.is_calibrated[0]) == is_calibrated


@pytest.mark.parametrize(("excess", "is_calibrated"), [(0.999, True), (1.0, True), (1.001, False)])
def test_the_items_must_be_two_hundred_times_the_mean_difference(excess: float, is_calibrated: bool) -> None:
    effects, rows = DesignEffects(4), np.array([0])
    effects.start(0, np.full(4, 0.25))
    arrays = effects._arrays
    arrays["difference_counts"][0, 2] = 8
    arrays["differences"][0, 2, -8:] = 10.0 * excess
    arrays["items"][0] = 1_999.0
    effects.add(rows, np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([1.0]))
    assert bool(effects.is_calibrated[0]) == is_calibrated


def test_fifteen_degrees_of_freedom_are_needed() -> None:
    for freedom, is_calibrated in ((15.0 / 6.4, True), (14.99 / 6.4, False)):
        effects, rows = DesignEffects(4), np.array([0])
        effects.start(0, np.full(4, 0.25))
        arrays = effects._arrays
        arrays["freedom"][0] = freedom
        arrays["difference_counts"][0, 2] = 8
        arrays["differences"][0, 2, -8:] = 1.0
        arrays["items"][0] = 5_000.0
        effects.add(rows, np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([1.0]))
        assert bool(effects.is_calibrated[0]) == is_calibrated
