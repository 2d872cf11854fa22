"""Each statistic against scipy or its formula by hand, on counts whose answers several tools agree about."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, wasserstein_distance

from otel_mlmon.processor.detect.counts import samples_of
from otel_mlmon.processor.detect.statistics.cramers_v import cramers_v
from otel_mlmon.processor.detect.statistics.psi import critical_value, psi, smallest_count
from otel_mlmon.processor.detect.statistics.registry import STATISTICS

REFERENCE = np.array([4_000, 3_000, 2_000, 1_000])
CURRENT = np.array([701, 600, 399, 300])
P, Q = REFERENCE / REFERENCE.sum(), CURRENT / CURRENT.sum()


@pytest.mark.parametrize(("name", "expected"), [
    ("psi", float((Q - P) @ np.log(Q / P))),
    ("jensen_shannon", float(jensenshannon(P, Q, base=2))),
    ("hellinger", math.sqrt(1.0 - float(np.sqrt(P * Q).sum()))),
    ("total_variation", float(np.maximum(P - Q, 0.0).sum())),
    ("l_infinity", 0.05),
    ("wasserstein", float(wasserstein_distance(range(4), range(4), P, Q))),
    ("kolmogorov_smirnov", 0.05),
])  # fmt: skip
def test_value(name: str, expected: float) -> None:
    within = 1e-3 if name == "psi" else 1e-3 if expected == 0.05 else 1e-9
    assert STATISTICS[name](samples_of(REFERENCE, CURRENT)).value == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(("name", "kind"), [("chi_squared", "pearson"), ("g_test", "log-likelihood")])
@pytest.mark.parametrize("bins", [[0, 1, 2, 3], [0, 1]])
def test_two_sample_tests_are_scipys(name: str, kind: str, bins: list[int]) -> None:
    table = np.array([REFERENCE[bins], CURRENT[bins]])
    oracle = chi2_contingency(table, correction=False, lambda_=kind)
    found = STATISTICS[name](samples_of(*table))
    assert found.value == pytest.approx(oracle.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.noise == float(oracle.dof)


def test_bins_empty_on_both_sides_do_not_count() -> None:
    gaps = np.array([4_000, 0, 3_000, 3_000]), np.array([300, 0, 300, 400])
    dense = gaps[0][[0, 2, 3]], gaps[1][[0, 2, 3]]
    for name in ("chi_squared", "g_test", "cramers_v"):
        assert STATISTICS[name](samples_of(*gaps)) == STATISTICS[name](samples_of(*dense))


def test_psi_smooths_by_half_a_count() -> None:
    p, q = np.array([8.5, 0.5, 2.5]) / 11.5, np.array([3.5, 1.5, 0.5]) / 5.5
    value = psi(samples_of(np.array([8, 0, 2]), np.array([3, 1, 0])))
    assert value.value == pytest.approx(float((q - p) @ np.log(q / p)), rel=1e-12)
    assert value.noise == pytest.approx(2 * (1 / 10 + 1 / 4))


def test_psi_critical_value_is_the_simulated_quantile() -> None:
    rng = np.random.default_rng(6)
    samples = zip(rng.multinomial(10_000, P, size=3_000), rng.multinomial(1_000, P, size=3_000), strict=True)
    values = [psi(samples_of(reference, current)) for reference, current in samples]
    line = critical_value(bins=4, reference_count=10_000, current_count=1_000, alpha=0.05)
    share = float(np.mean([value.value > line for value in values]))
    assert 0.035 < share < 0.065
    assert float(np.mean([value.value for value in values])) == pytest.approx(values[0].noise, rel=0.08)
    assert all((value.value > line) == ((value.p_value or 0.0) < 0.05) for value in values)


def test_psi_rule_needs_enough_values() -> None:
    assert smallest_count(bins=10, threshold=0.2) == 180
    assert critical_value(bins=1, reference_count=10, current_count=10, alpha=0.05) == 0.0


def test_total_variation_noise_is_the_simulated_mean() -> None:
    rng = np.random.default_rng(6)
    windows = rng.multinomial(10_000, P, size=2_000)
    values = [STATISTICS["total_variation"](samples_of(REFERENCE, window)) for window in windows]
    # Here only one of the two samples varies, so the mean is smaller by the root of two.
    assert float(np.mean([value.value for value in values])) * math.sqrt(2.0) == pytest.approx(
        values[0].noise, rel=0.05
    )


def test_cramers_v_by_hand() -> None:
    """Of {{60, 40}, {40, 60}}: X² = 8, T = 200; φ̃² = .04 - 1/199, the smaller side 1 - 1/199."""
    value = cramers_v(samples_of(np.array([60, 40]), np.array([40, 60]))).value
    assert value == pytest.approx(math.sqrt((0.04 - 1 / 199) / (1 - 1 / 199)), rel=1e-12)


def test_cramers_v_is_zero_on_noise() -> None:
    rng = np.random.default_rng(3)
    values = [cramers_v(samples_of(*rng.multinomial(1_000, P, size=2))).value for _ in range(200)]
    assert float(np.median(values)) < 0.01
