"""What every reported statistic promises, whatever it measures; those of installed packages too."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.detect.statistics.statistic import Statistic
from otel_mlmon.types import Counts

ALL = STATISTICS.load_all_plugins()
COUNTS = arrays(np.int64, 5, elements=st.integers(0, 10_000))
IN_UNIT_INTERVAL = {"jensen_shannon", "hellinger", "total_variation", "l_infinity", "cramers_v", "kolmogorov_smirnov"}


@pytest.fixture(params=sorted(ALL))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def statistic(name: str) -> Statistic:
    return ALL[name]


@pytest.mark.parametrize("counts", [[40, 30, 20, 10], [1], [7, 0, 0], [10**15, 10**15]])
def test_equal_counts_are_at_zero(statistic: Statistic, counts: list[int]) -> None:
    measurement = statistic.measure(build_samples(np.array(counts), np.array(counts)))
    assert measurement.value == pytest.approx(0.0, abs=1e-7)
    assert measurement.p_value in (None, pytest.approx(1.0))


def test_equal_shares_are_at_zero(name: str, statistic: Statistic) -> None:
    # The half count of PSI's smoothing weighs more in the smaller sample.
    within = 1e-4 if name == "psi" else 1e-7
    counts = np.array([40, 30, 20, 10])
    assert statistic.measure(build_samples(counts * 10, counts)).value == pytest.approx(0.0, abs=within)


def test_a_move_is_above_zero(statistic: Statistic) -> None:
    assert statistic.measure(build_samples(np.array([40, 30, 20, 10]), np.array([10, 20, 30, 40]))).value > 0.1


def test_it_has_the_p_value_that_it_says_it_has(statistic: Statistic) -> None:
    measurement = statistic.measure(build_samples(np.array([40, 30, 20, 10]), np.array([10, 20, 30, 40])))
    assert (measurement.p_value is not None) == statistic.has_p_value


@pytest.mark.parametrize("bins", [2, 10, 100])
@pytest.mark.parametrize("threshold", [0.05, 0.2, 1.0])
def test_more_bins_or_a_smaller_threshold_need_no_fewer_values(
    statistic: Statistic, bins: int, threshold: float
) -> None:
    count = statistic.min_count(bins=bins, threshold=threshold)
    assert isinstance(count, int)
    assert count > 0
    assert statistic.min_count(bins=bins + 1, threshold=threshold) >= count
    assert statistic.min_count(bins=bins, threshold=threshold / 2) >= count


@given(COUNTS, COUNTS)
@settings(deadline=None, max_examples=100)
def test_in_range_and_symmetric(reference: Counts, current: Counts) -> None:
    for name, statistic in ALL.items():
        measurement = statistic.measure(build_samples(reference, current))
        assert 0.0 <= measurement.value < math.inf
        assert measurement.value <= 1.0 or name not in IN_UNIT_INTERVAL
        assert measurement.p_value is None or 0.0 <= measurement.p_value <= 1.0
        assert measurement.noise is None or 0.0 <= measurement.noise < math.inf
        mirrored = statistic.measure(build_samples(current, reference))
        assert mirrored.value == pytest.approx(measurement.value, rel=1e-6, abs=1e-9)


@given(COUNTS, COUNTS, st.permutations(range(5)))
@settings(deadline=None, max_examples=60)
def test_the_order_of_unordered_bins_does_not_matter(reference: Counts, current: Counts, order: list[int]) -> None:
    for statistic in ALL.values():
        if not statistic.needs_ordered_bins:
            value = statistic.measure(build_samples(reference, current)).value
            permuted = statistic.measure(build_samples(reference[order], current[order])).value
            assert permuted == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_order_matters_to_those_that_need_it(statistic: Statistic) -> None:
    """Two moves to the neighbour, and the same two moves one behind the other."""
    reference, current, order = np.array([40, 30, 20, 10]), np.array([30, 40, 10, 20]), [0, 2, 1, 3]
    alternating = statistic.measure(build_samples(reference, current)).value
    permuted = statistic.measure(build_samples(reference[order], current[order])).value
    assert (permuted > 1.5 * alternating) == statistic.needs_ordered_bins


def test_wasserstein_counts_bins() -> None:
    before = np.array([[100, 0, 0], [100, 0, 0]])
    now = np.array([[0, 100, 0], [0, 0, 100]])
    assert ALL["wasserstein"].measure(build_samples(before, now)).value == pytest.approx([1.0, 2.0])


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
    measurement = statistic.measure(build_samples(np.array(reference), np.array(current)))
    columns = (measurement.value, measurement.p_value, measurement.noise)
    assert all(math.isfinite(float(number)) for number in columns if number is not None)
    if not (sum(reference) and sum(current)):
        assert float(measurement.value) == 0.0
        assert measurement.p_value is None or float(measurement.p_value) == 1.0


def test_disjoint_samples_are_at_one() -> None:
    disjoint = build_samples(np.array([1_000, 0, 0]), np.array([0, 0, 1_000]))
    values = {name: ALL[name].measure(disjoint).value for name in IN_UNIT_INTERVAL}
    assert values == {name: pytest.approx(1.0, abs=1e-6) for name in IN_UNIT_INTERVAL}


def test_a_thousand_bins(statistic: Statistic) -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.multinomial(10_000, np.full(1_000, 0.001), size=2)
    assert 0.0 <= statistic.measure(build_samples(reference, current)).value < 10_000.0


@given(st.integers(1, 20), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_a_row_does_not_depend_on_the_others(bins: int, seed: int) -> None:
    """To the last bit; empty samples among them."""
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(0, 300, (2, 6, bins)) * rng.integers(0, 2, (2, 6, bins))
    for statistic in ALL.values():
        together = statistic.measure(build_samples(reference, current))
        assert together.value.shape == (6,)
        for row in range(6):
            alone = statistic.measure(build_samples(reference[row], current[row]))
            columns = ((alone.value, together.value), (alone.p_value, together.p_value), (alone.noise, together.noise))
            for one, column in columns:
                assert (one is None) == (column is None)
                assert one is None or column is None or float(one) == float(column[row])
