from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import beta

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.drift.accuracy import LEVEL, estimate

MIDDLES = (np.arange(10) + 0.5) / 10
SURE = np.array([0, 0, 0, 0, 0, 0.01, 0.02, 0.03, 0.09, 0.85])
MIXED = np.array([0, 0, 0.02, 0.05, 0.1, 0.13, 0.15, 0.2, 0.2, 0.15])
COUNTS = arrays(np.int64, 10, elements=st.integers(0, 10_000))


def whole(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def test_one_bin_by_hand() -> None:
    # Middle .5: θ ~ Beta(80 + 1, 20 + 1), m = 81/102; of 50 predictions, all in that bin.
    found = estimate(whole(80), whole(100), whole(50))
    assert found is not None
    m = 81 / 102
    of_calibration = m * (1 - m) / 103
    variance = (50 * (m * (1 - m) - of_calibration) + 50**2 * of_calibration) / 50**2
    assert found.estimated == pytest.approx(m)
    assert (found.n, found.supported_ratio) == (50, 1.0)
    size = m * (1 - m) / variance - 1
    expected = beta(m * size, (1 - m) * size).ppf([0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((expected[0] - 0.01, expected[1] + 0.01))


@pytest.mark.simulation
@pytest.mark.parametrize("labelled", [200, 2_000, 10_000])
@pytest.mark.parametrize("n", [100, 1_000, 10_000])
@pytest.mark.parametrize(
    ("seen", "now", "right"),
    [
        (SURE, SURE, MIDDLES),
        (MIXED, MIXED, MIDDLES),
        (SURE, MIXED, MIDDLES),
        (MIXED, SURE, MIDDLES),
        (MIXED, MIXED, 0.8 * MIDDLES),
        (SURE, SURE, np.minimum(MIDDLES + 0.04, 0.999)),
    ],
)
def test_the_interval_holds_what_is_right_as_often_as_it_says(
    labelled: int, n: int, seen: NDArray[np.float64], now: NDArray[np.float64], right: NDArray[np.float64]
) -> None:
    rng = np.random.default_rng((labelled, n, round(1000 * float(seen @ now)), round(1000 * float(right.sum()))))
    repeats, held = 400, 0
    for _ in range(repeats):
        total, window = rng.multinomial(labelled, seen), rng.multinomial(n, now)
        found = estimate(rng.binomial(total, right), total, window)
        assert found is not None
        held += found.low <= rng.binomial(window, right).sum() / n <= found.high
    # Three standard deviations of a binomial below what is stated.
    assert held / repeats >= LEVEL - 3 * (LEVEL * (1 - LEVEL) / repeats) ** 0.5


def test_bursts_widen_the_interval() -> None:
    counts = [estimate(whole(80), whole(100), whole(50), design_effect=phi) for phi in (1.0, 9.0)]
    widths = [found.high - found.low for found in counts if found is not None]
    assert widths[1] > 2 * widths[0]


def test_a_bin_without_labels_is_the_priors_word_and_says_so() -> None:
    found = estimate(whole(0, 90), whole(0, 100), whole(50, 50))
    assert found is not None
    assert found.supported_ratio == 0.5
    assert found.high - found.low > 0.3


def test_without_labels_or_without_a_window_there_is_nothing_to_say() -> None:
    assert estimate(whole(0, 0), whole(0, 0), whole(5, 5)) is None
    assert estimate(whole(1, 1), whole(2, 2), whole(0, 0)) is None


def test_other_bins_are_refused() -> None:
    with pytest.raises(BinMismatchError):
        estimate(whole(1, 1), whole(2, 2), whole(1, 1, 1))


@given(COUNTS, st.floats(0, 1), COUNTS, st.floats(1, 1e6))
@settings(deadline=None, max_examples=100)
def test_whatever_is_counted_the_ends_enclose_the_estimate(
    total: NDArray[np.int64], share: float, window: NDArray[np.int64], phi: float
) -> None:
    found = estimate((total * share).astype(np.int64), total, window, design_effect=phi)
    if found is not None:
        assert 0 <= found.low <= found.estimated <= found.high <= 1
