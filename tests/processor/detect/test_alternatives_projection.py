"""The likelihood ratios against general-purpose optimisers that know nothing of their form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog, minimize

from otel_mlmon.processor.detect import alternatives as projection
from otel_mlmon.types import Floats
from tests.support.balls import largest_mean_in_ball

WEIGHTS = arrays(np.float64, st.integers(2, 12), elements=st.floats(0.001, 1.0))


def two_sided(alternatives: Floats, reference: Floats, radius: float) -> Floats:
    return np.asarray(projection.compute_two_sided_ratios(alternatives[None], reference[None], np.array([radius]))[0])


def lowest_member(reference: Floats, radius: float) -> Floats:
    return np.asarray(projection.find_lowest_distribution(reference[None], np.array([radius]))[0])


def one_sided(alternatives: Floats, lowest: Floats) -> Floats:
    return np.asarray(projection.compute_one_sided_ratios(alternatives[None], lowest[None])[0])


def random_pair(seed: int, bins: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(bins)), rng.dirichlet(np.full(bins, 3.0))


def largest_mean_not_below(ratios: Floats, lowest: Floats) -> float:
    """max E_p[L] over all p whose cumulative sums stay under those of `lowest`."""
    bins = lowest.size
    solution = linprog(
        -ratios, A_ub=np.tril(np.ones((bins, bins))), b_ub=np.cumsum(lowest), A_eq=np.ones((1, bins)), b_eq=[1.0]
    )
    return float(-solution.fun)


def smallest_divergence_in_ball(q: Floats, reference: Floats, radius: float) -> float:
    """min KL(q‖p) over TV(p, r) <= d, by SLSQP."""
    bins = reference.size

    def p_of(x: Floats) -> Floats:
        return np.asarray(reference + x[:bins] - x[bins:])

    def divergence(x: Floats) -> float:
        return float(q @ np.log(q / np.maximum(p_of(x), 1e-12)))

    def slope(x: Floats) -> Floats:
        part = q / np.maximum(p_of(x), 1e-12)
        return np.concatenate([-part, part])

    solution = minimize(
        divergence,
        np.full(2 * bins, radius / bins / 2.0),
        jac=slope,
        method="SLSQP",
        bounds=[(0.0, radius)] * bins + [(0.0, min(radius, share * 0.999999)) for share in reference],
        constraints=[
            {"type": "eq", "fun": lambda x: x[:bins].sum() - x[bins:].sum()},
            {"type": "ineq", "fun": lambda x: radius - x[:bins].sum()},
        ],
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return float(solution.fun)


@pytest.mark.parametrize("seed", range(12))
def test_two_sided_projection_is_slsqps(seed: int) -> None:
    q, r = random_pair(seed, 3 + seed % 6)
    q = (q + 0.01) / (q + 0.01).sum()
    radius = 0.02 + 0.02 * (seed % 4)
    ratios = two_sided(q[None], r, radius)[0]
    assert q @ np.log(ratios) == pytest.approx(smallest_divergence_in_ball(q, r, radius), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_two_sided_mean_over_the_ball_is_at_most_one_and_reaches_it(seed: int) -> None:
    q, r = random_pair(seed, 3 + seed)
    ratios = two_sided(q[None], r, 0.03)[0]
    assert largest_mean_in_ball(ratios, r, 0.03) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_one_sided_mean_over_its_null_set_is_at_most_one_and_reaches_it(seed: int) -> None:
    q, r = random_pair(seed, 3 + seed)
    lowest = lowest_member(r, 0.03)
    ratios = one_sided(q[None], lowest)[0]
    assert largest_mean_not_below(ratios, lowest) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_one_sided_nearest_member_is_in_the_null_set_and_no_neighbour_is_nearer(seed: int) -> None:
    q, r = random_pair(seed, 6)
    lowest = lowest_member(r, 0.05)
    nearest = q / one_sided(q[None], lowest)[0]
    assert nearest.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.cumsum(nearest) <= np.cumsum(lowest) + 1e-12).all()
    best = q @ np.log(nearest)
    for other in np.random.default_rng(seed).dirichlet(np.ones(6), 200):
        # Any distribution becomes a member by taking cumulative sums under those of the lowest.
        member = np.diff(np.minimum(np.cumsum(other), np.cumsum(lowest)), prepend=0.0)
        step = 0.999 * nearest + 0.001 * member
        assert q @ np.log(step) <= best + 1e-12


def test_clip_levels_by_hand() -> None:
    """Ten points moved from the first to the second of {.4 .3 .2 .1}, d = .03: a = .4/.33, b = .3/.37."""
    ratios = two_sided(np.array([[0.3, 0.4, 0.2, 0.1]]), np.array([0.4, 0.3, 0.2, 0.1]), 0.03)
    assert ratios.tolist() == [pytest.approx([0.3 / 0.37, 0.4 / 0.33, 1.0, 1.0], abs=1e-15)]


def test_two_bins_one_sided_is_the_bernoulli_ratio() -> None:
    lowest = lowest_member(np.array([0.4, 0.6]), 0.1)
    assert lowest.tolist() == pytest.approx([0.5, 0.5])
    assert one_sided(np.array([[0.7, 0.3], [0.45, 0.55]]), lowest).tolist() == [
        pytest.approx([1.4, 0.6]),
        pytest.approx([1.0, 1.0]),
    ]


def test_an_alternative_that_lacks_a_bin() -> None:
    """More mass missing than d: what is there is weighed against the ball, what is missing weighs nothing."""
    ratios = two_sided(np.array([[1.0, 0.0]]), np.array([0.5, 0.5]), 0.1)
    assert ratios.tolist() == [pytest.approx([1.0 / 0.6, 0.0])]


@given(WEIGHTS, st.floats(0.0, 2.0), st.integers(0, 2**32))
@settings(deadline=None, max_examples=150)
def test_one_within_the_ball_and_an_e_value_anywhere(weights: Floats, radius: float, seed: int) -> None:
    r = weights / weights.sum()
    q = np.random.default_rng(seed).dirichlet(np.ones(r.size))
    ratios = two_sided(q[None], r, radius)[0]
    assert (ratios >= 0.0).all()
    if np.abs(q - r).sum() / 2.0 < radius * (1 - 1e-9):
        assert ratios.tolist() == [1.0] * r.size
    elif np.abs(q - r).sum() / 2.0 > radius * (1 + 1e-9):
        assert q @ np.log(np.maximum(ratios, 1e-300)) > 0.0
    assert ratios @ r + radius * (ratios.max() - ratios.min()) <= 1.0 + 1e-9


@given(WEIGHTS, st.floats(0.0, 1.5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=150)
def test_one_sided_falls_from_bin_to_bin(weights: Floats, radius: float, seed: int) -> None:
    r = weights / weights.sum()
    q = np.random.default_rng(seed).dirichlet(np.full(r.size, 0.5))
    lowest = lowest_member(r, radius)
    assert lowest.sum() == pytest.approx(1.0)
    assert lowest.min() >= 0.0
    ratios = one_sided(q[None], lowest)[0]
    assert (np.diff(ratios) <= 1e-9 * ratios.max()).all()
    assert ratios @ lowest == pytest.approx(1.0, abs=1e-9)


def test_a_move_to_the_other_side_is_nothing() -> None:
    r = np.array([0.1, 0.2, 0.3, 0.4])
    up = np.array([[0.0, 0.0, 0.1, 0.9]])
    assert one_sided(up, lowest_member(r, 0.02)).tolist() == [pytest.approx([1.0] * 4)]
