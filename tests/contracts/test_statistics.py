"""What every reported statistic promises, whatever it measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otel_mlmon.processor.detect.counts import samples_of
from otel_mlmon.processor.detect.statistics.registry import NEEDS_ORDER, STATISTICS, Statistic
from otel_mlmon.types import Counts

COUNTS = arrays(np.int64, 5, elements=st.integers(0, 10_000))
IN_UNIT_INTERVAL = {"jensen_shannon", "hellinger", "total_variation", "l_infinity", "cramers_v", "kolmogorov_smirnov"}


@pytest.fixture(params=sorted(STATISTICS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def statistic(name: str) -> Statistic:
    return STATISTICS[name]


@pytest.mark.parametrize("counts", [[40, 30, 20, 10], [1], [7, 0, 0], [10**15, 10**15]])
def test_equal_counts_are_at_zero(statistic: Statistic, counts: list[int]) -> None:
    value = statistic(samples_of(np.array(counts), np.array(counts)))
    assert value.value == pytest.approx(0.0, abs=1e-7)
    assert value.p_value in (None, pytest.approx(1.0))


def test_equal_shares_are_at_zero(name: str, statistic: Statistic) -> None:
    # The half count of PSI's smoothing weighs more in the smaller sample.
    within = 1e-4 if name == "psi" else 1e-7
    counts = np.array([40, 30, 20, 10])
    assert statistic(samples_of(counts * 10, counts)).value == pytest.approx(0.0, abs=within)


def test_a_move_is_above_zero(statistic: Statistic) -> None:
    assert statistic(samples_of(np.array([40, 30, 20, 10]), np.array([10, 20, 30, 40]))).value > 0.1


@given(COUNTS, COUNTS)
@settings(deadline=None, max_examples=100)
def test_in_range_and_symmetric(reference: Counts, current: Counts) -> None:
    for name, statistic in STATISTICS.items():
        value = statistic(samples_of(reference, current))
        assert 0.0 <= value.value < math.inf
        assert value.value <= 1.0 or name not in IN_UNIT_INTERVAL
        assert value.p_value is None or 0.0 <= value.p_value <= 1.0
        assert value.noise is None or 0.0 <= value.noise < math.inf
        assert statistic(samples_of(current, reference)).value == pytest.approx(value.value, rel=1e-6, abs=1e-9)


@given(COUNTS, COUNTS, st.permutations(range(5)))
@settings(deadline=None, max_examples=60)
def test_the_order_of_unordered_bins_does_not_matter(reference: Counts, current: Counts, order: list[int]) -> None:
    for name in STATISTICS.keys() - NEEDS_ORDER:
        value = STATISTICS[name](samples_of(reference, current)).value
        assert STATISTICS[name](samples_of(reference[order], current[order])).value == pytest.approx(
            value, rel=1e-6, abs=1e-9
        )


def test_order_matters_where_it_is_needed() -> None:
    before = np.array([[100, 0, 0], [100, 0, 0]])
    now = np.array([[0, 100, 0], [0, 0, 100]])
    assert STATISTICS["wasserstein"](samples_of(before, now)).value == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([0, 0], [0, 0]),
        ([0, 0], [5, 0]),
        ([5, 0], [0, 0]),
        ([100, 0], [0, 100]),
        ([1, 0], [0, 1]),
        ([4 * 10**18, 10**18], [1, 0]),
        ([1e30, 1.0], [1.0, 1e30]),
        ([0], [3]),
    ],
)
def test_finite_on_anything(statistic: Statistic, reference: list[float], current: list[float]) -> None:
    value = statistic(samples_of(np.array(reference), np.array(current)))
    numbers = [float(number) for number in (value.value, value.p_value, value.noise) if number is not None]
    assert all(math.isfinite(number) for number in numbers)
    if not (sum(reference) and sum(current)):
        assert float(value.value) == 0.0
        assert value.p_value is None or float(value.p_value) == 1.0


def test_disjoint_samples_are_at_one() -> None:
    apart = samples_of(np.array([1_000, 0, 0]), np.array([0, 0, 1_000]))
    found = {name: STATISTICS[name](apart).value for name in IN_UNIT_INTERVAL}
    assert found == {name: pytest.approx(1.0, abs=1e-6) for name in IN_UNIT_INTERVAL}


def test_a_thousand_bins(statistic: Statistic) -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.multinomial(10_000, np.full(1_000, 0.001), size=2)
    assert 0.0 < statistic(samples_of(reference, current)).value + 1e-300 < 10_000.0


@given(st.integers(1, 20), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_a_row_does_not_depend_on_the_others(bins: int, seed: int) -> None:
    """To the last bit; empty samples among them."""
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(0, 300, (2, 6, bins)) * rng.integers(0, 2, (2, 6, bins))
    for statistic in STATISTICS.values():
        together = statistic(samples_of(reference, current))
        assert together.value.shape == (6,)
        for row in range(6):
            alone = statistic(samples_of(reference[row], current[row]))
            columns = ((alone.value, together.value), (alone.p_value, together.p_value), (alone.noise, together.noise))
            for one, every in columns:
                assert (one is None) == (every is None)
                assert one is None or every is None or float(one) == float(every[row])
