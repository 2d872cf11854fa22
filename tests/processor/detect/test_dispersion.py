"""The formulas of the design effect, against integration and by hand."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.stats import chi2

from otel_mlmon.processor.detect.dispersion import (
    AVERAGED,
    MAX_DIFFERENCES,
    MIN_DIFFERENCES,
    combine_levels,
    compute_degrees_of_freedom,
    compute_level_coefficients,
    compute_trimmed_chi_squared_mean,
    compute_trimmed_divisors,
    compute_trimmed_means,
)


@pytest.mark.parametrize("share", [0.75, 0.875, 0.97])
@pytest.mark.parametrize("freedom", [1.0, 2.7, 9.0])
def test_trimmed_mean_against_numerical_integration(freedom: float, share: float) -> None:
    points = (np.arange(200_000) + 0.5) / 200_000 * share
    expected = float(chi2.ppf(points, freedom).mean()) / freedom
    assert float(compute_trimmed_chi_squared_mean(freedom, np.array([share]))[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shares", [[0.4, 0.3, 0.2, 0.1], [0.5, 0.5], [0.99, 0.01], [1 / 3] * 3])
def test_degrees_of_freedom_are_those_of_the_eigenvalues(shares: list[float]) -> None:
    r = np.array(shares)
    eigenvalues = np.linalg.eigvalsh(np.diag(r) - np.outer(r, r))
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert compute_degrees_of_freedom(r) == pytest.approx(float(expected), rel=1e-9)


def test_a_constant_stream_has_one_degree_of_freedom() -> None:
    assert compute_degrees_of_freedom(np.array([1.0])) == 1.0


def test_an_eighth_begun_is_left_out() -> None:
    assert [int(AVERAGED[count]) for count in (0, 1, 8, 9, 16, 17, 64)] == [0, 0, 7, 7, 14, 14, 56]
    assert AVERAGED.size == MAX_DIFFERENCES + 1


def test_the_trimmed_mean_by_hand() -> None:
    differences = np.full((2, MAX_DIFFERENCES), np.inf)
    differences[0, -8:] = [1, 2, 3, 4, 100, 5, 6, 7]
    differences[1, -9:] = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    counts = np.array([8, 9])
    divisors = compute_trimmed_divisors(np.array([2.7, 2.7]), counts)
    assert divisors[0] == pytest.approx(7 * compute_trimmed_chi_squared_mean(2.7, np.array([(7 + 1 / 3) / 8]))[0])
    assert divisors[1] == pytest.approx(7 * compute_trimmed_chi_squared_mean(2.7, np.array([(7 + 1 / 3) / 9]))[0])
    assert compute_trimmed_means(differences, counts, divisors) == pytest.approx([28 / divisors[0], 28 / divisors[1]])


@pytest.mark.parametrize("streams", [1, 2, 3, 7, 64, 300])
def test_a_trimmed_mean_adds_the_smallest_in_order_whatever_the_other_streams_are(streams: int) -> None:
    rng = np.random.default_rng(streams)
    counts = rng.integers(MIN_DIFFERENCES, MAX_DIFFERENCES + 1, streams)
    differences = rng.gamma(0.5, 2.0, (streams, MAX_DIFFERENCES))
    differences[np.arange(MAX_DIFFERENCES) < MAX_DIFFERENCES - counts[:, None]] = np.inf
    divisors = rng.uniform(40.0, 60.0, streams)
    averaged = [count - math.ceil(count / 8) for count in counts.tolist()]
    smallest = [sorted(row)[:count] for row, count in zip(differences.tolist(), averaged, strict=True)]
    expected = [reduce(add, row) / divisor for row, divisor in zip(smallest, divisors.tolist(), strict=True)]
    assert compute_trimmed_means(differences, counts, divisors).tolist() == expected


def test_coefficients_by_hand() -> None:
    """Levels of 7, 8, 8 and 64 differences: the first has no estimate, the second has none below it."""
    (coefficients,) = compute_level_coefficients(np.array([[7, 8, 8, 64]]), np.array([2.5]))
    freedom = [0.8 * 2.5 * differences for differences in (7, 8, 24, 80)]
    exponents = [2.0 * math.log(1e4) / h for h in freedom]
    assert coefficients.tolist() == [
        pytest.approx([0.0, 1.0, 8 / 24, 64 / 80]),
        pytest.approx([h / 2 for h in freedom]),
        pytest.approx([math.inf, *(2.0 * math.sqrt(h) for h in freedom[1:])]),
        pytest.approx([math.expm1(x) / x for x in exponents]),
    ]


def test_a_level_without_differences_is_finite() -> None:
    (coefficients,) = compute_level_coefficients(np.zeros((1, 2), dtype=np.int64), np.array([1.0]))
    assert coefficients[:2].tolist() == [[0.0, 0.0], pytest.approx([0.4, 0.4])]


def combine_by_hand(
    estimates: list[float], coefficients: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> tuple[float, float]:
    """The loop of the docstring, one number at a time."""
    phi, divisor = 1.0, 1.0
    for estimate, (own, half_freedom, odds, caution) in zip(estimates, coefficients.T.tolist(), strict=True):
        if not own:
            continue
        target = phi + own * (estimate - phi)
        x = max(target, phi) / phi
        probability = 1.0 / (1.0 + odds / phi * math.exp(-half_freedom * (x - 1.0 - math.log(x))))
        cautious = 1.0 + (target - 1.0) * caution
        divisor += max(cautious - divisor, 0.0) * probability
        phi += max(target - phi, 0.0) * probability
    return phi, divisor


@pytest.mark.parametrize(
    ("estimates", "counts"),
    [
        ([1.5, 4.0, 3.0], [64, 20, 8]),
        ([0.5, 0.9, 0.8], [64, 20, 8]),
        ([9.0, 2.0, 30.0], [64, 64, 64]),
        ([5.0, 6.0, 7.0], [0, 30, 9]),
        ([1.2, 1.1, 1.05], [8, 8, 7]),
    ],
)
def test_levels_are_combined_as_written(estimates: list[float], counts: list[int]) -> None:
    coefficients = compute_level_coefficients(np.array([counts]), np.array([2.5]))
    phi, divisor = combine_levels(np.array([estimates]), coefficients)
    assert (float(phi[0]), float(divisor[0])) == pytest.approx(combine_by_hand(estimates, coefficients[0]), rel=1e-12)


def test_nothing_known_is_independence() -> None:
    coefficients = compute_level_coefficients(np.zeros((1, 3), dtype=np.int64), np.array([2.5]))
    phi, divisor = combine_levels(np.full((1, 3), 77.0), coefficients)
    assert (phi.tolist(), divisor.tolist()) == ([1.0], [1.0])
