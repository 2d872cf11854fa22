"""The dictionary of bets, against an optimiser that knows nothing of its form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import (
    MAX_BINS_OF_PAIRS,
    TILTS,
    Direction,
    DriftAlternatives,
    build_alternatives,
    compute_bin_set_bounds,
    compute_bin_set_sums,
)
from otel_mlmon.types import Floats
from tests.support.balls import largest_mean_in_ball


def ratios_of(alternatives: DriftAlternatives, reference: Floats, radius: float) -> Floats:
    """L of every bet, shape (M·T, K)."""
    bets = np.arange(alternatives.alternative_count)
    rows = np.broadcast_to(reference, (bets.size, reference.size))
    return np.exp(
        alternatives.log_ratios(
            bets,
            compute_bin_set_bounds(compute_bin_set_sums(rows), compute_bin_set_sums(rows), np.full(bets.size, radius)),
        )
    )


def factors_of(
    alternatives: DriftAlternatives, pane: NDArray[Any], reference: Floats, radius: float, idle: float
) -> Floats:
    """ln Π L^c of every bet of one stream, by tilt and pair."""
    out = np.empty((1, alternatives.alternative_count))
    set_shares = compute_bin_set_sums(reference[None])
    bounds = compute_bin_set_bounds(set_shares, set_shares, np.array([radius]))
    alternatives.log_factors(pane[None].astype(float), bounds, np.array([idle]), out=out)
    return out.reshape(TILTS.size, -1)


@pytest.mark.parametrize("bins", [2, 3, 6])
@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_the_mean_over_the_ball_is_at_most_one_and_reaches_it(bins: int, direction: Direction) -> None:
    reference = np.random.default_rng(bins).dirichlet(np.full(bins, 5.0))
    radius = 0.9 * float(reference.min())
    means = [
        largest_mean_in_ball(ratios, reference, radius)
        for ratios in ratios_of(build_alternatives(bins, direction), reference, radius)
    ]
    assert len(means) > 0
    assert means == pytest.approx([1.0] * len(means), abs=1e-12)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_sided_bets_are_monotone(direction: Direction) -> None:
    """So their mean is at most 1 over everything on the other side of the ball as well."""
    reference = np.full(6, 1 / 6)
    steps = np.diff(ratios_of(build_alternatives(6, direction), reference, 0.02), axis=-1)
    assert ((steps >= 0.0) if direction == "up" else (steps <= 0.0)).all()


def test_a_pane_is_the_product_of_its_items() -> None:
    rng = np.random.default_rng(3)
    alternatives = build_alternatives(5, "both")
    reference, pane, radius = rng.dirichlet(np.full(5, 9.0)), rng.multinomial(80, np.full(5, 0.2)), 0.01
    factors = factors_of(alternatives, pane, reference, radius, -1.0).ravel()
    assert factors == pytest.approx(np.log(ratios_of(alternatives, reference, radius)) @ pane, rel=1e-12)


def test_nothing_is_bet_on_bins_that_the_ball_can_empty() -> None:
    reference = np.array([0.9, 0.08, 0.02])
    alternatives = build_alternatives(3, "both")
    factors = factors_of(alternatives, np.array([0, 0, 50]), reference, 0.05, -7.0)
    out_of_the_last = alternatives.loss_sets[:, 2] & ~alternatives.loss_sets[:, 0] & ~alternatives.loss_sets[:, 1]
    assert out_of_the_last.sum() == 3
    assert (factors[:, out_of_the_last] == -7.0).all()
    assert (factors[:, ~out_of_the_last] != -7.0).all()
    everything = factors_of(alternatives, np.ones(3), reference, np.inf, -7.0)
    assert (everything == -7.0).all()


@pytest.mark.parametrize(
    ("bins", "direction", "pairs"),
    [
        (1, "both", 0),
        (2, "both", 2),
        (4, "both", 6 + 4 + 12),
        (10, "both", 18 + 16 + 90),
        (MAX_BINS_OF_PAIRS + 1, "both", 20 + 18),
        (10, "down", 9),
        (2, "up", 1),
    ],
)
def test_the_dictionary(bins: int, direction: Direction, pairs: int) -> None:
    alternatives = build_alternatives(bins, direction)
    assert alternatives.alternative_count == pairs * TILTS.size
    distinct = {
        (up.tobytes(), down.tobytes()) for up, down in zip(alternatives.gain_sets, alternatives.loss_sets, strict=True)
    }
    assert len(distinct) == pairs
    assert not (alternatives.gain_sets & alternatives.loss_sets).any()
