from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import beta

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.detect.accuracy import estimate_accuracy
from otel_mlmon.types import Floats
from tests.support.simulations import choose_size

CONFIDENCES = (np.arange(1_000) + 0.5) / 1_000
LOGITS = np.log(CONFIDENCES / (1.0 - CONFIDENCES))
COUNTS = arrays(np.int64, 10, elements=st.integers(0, 10_000))


def counts_of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def beta_mixture(*parts: tuple[float, float, float]) -> Floats:
    """Of weights and two parameters each, over `CONFIDENCES`."""
    density = sum(weight * beta(a, b).pdf(CONFIDENCES) for weight, a, b in parts)
    shares: Floats = density / density.sum()
    return shares


def logistic(shift: float, slope: float) -> Floats:
    """The share that is right at each confidence, whose logit is a line in that of the confidence."""
    right: Floats = 1.0 / (1.0 + np.exp(-(shift + slope * LOGITS)))
    return right


def of_bins(values: Floats) -> Floats:
    """Sums over the ten bins."""
    sums: Floats = values.reshape(10, -1).sum(1)
    return sums


def test_one_bin_by_hand() -> None:
    # Middle .5: θ ~ Beta(80 + 1, 20 + 1), m = 81/102; of 50 predictions, all in that bin.
    accuracy = estimate_accuracy(counts_of(80), counts_of(100), counts_of(50))
    assert accuracy is not None
    m = 81 / 102
    of_calibration = m * (1 - m) / 103
    of_prior = 2 / 102 * (0.25 / 3) ** 0.5
    sampling = (m * (1 - m) - of_calibration) / 50
    variance = sampling + of_calibration + of_prior**2 + m * (1 - m) / 400
    assert accuracy.sampling_deviation == pytest.approx(sampling**0.5)
    assert accuracy.estimated == pytest.approx(m)
    assert (accuracy.n, accuracy.supported_ratio) == (50, 1.0)
    size = m * (1 - m) / variance - 1
    expected = beta(m * size, (1 - m) * size).ppf([0.025, 0.975])
    assert (accuracy.low, accuracy.high) == pytest.approx((expected[0] - 0.01, expected[1] + 0.01))


def test_confidence_that_moved_inside_its_bin_by_hand() -> None:
    # Labelled alike in both bins, the window's are four in five in the upper one: g = 2 ln 4, but for the one more.
    accuracy = estimate_accuracy(counts_of(25_000, 75_000), counts_of(100_000, 100_000), counts_of(20_000, 80_000))
    assert accuracy is not None
    higher = 2 * (np.log(80_001 / 20_001)) / (12 * 2**2)
    # Of both bins m (1 - m) is c (1 - c): accuracy rises as confidence does.
    assert accuracy.estimated == pytest.approx(0.2 * 0.25 + 0.8 * 0.75 + higher, abs=1e-4)
    inside = (0.2 * 0.25 * 0.75 + 0.8 * 0.75 * 0.25) / 400
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * ((1.5 * higher) ** 2 + inside) ** 0.5, rel=0.02)


RAMP = beta_mixture((1, 2, 1))
BIMODAL = beta_mixture((0.2, 6, 14), (0.8, 14, 3))
SKEWED = beta_mixture((1, 14, 1.2))
LOGIT_NORMAL = (lambda density: density / density.sum())(
    np.exp(-0.5 * ((LOGITS - 1.5) / 1.2) ** 2) / (CONFIDENCES * (1 - CONFIDENCES))
)


@pytest.mark.simulation
@pytest.mark.parametrize("labelled", [200, 10_000])
@pytest.mark.parametrize("n", [100, 10_000])
@pytest.mark.parametrize(
    ("before", "now", "right"),
    [
        (BIMODAL, BIMODAL, logistic(0.4, 0.6)),
        (LOGIT_NORMAL, LOGIT_NORMAL, logistic(-0.5, 1.4)),
        (SKEWED, SKEWED, CONFIDENCES**1.5),
        (RAMP, SKEWED, CONFIDENCES),
        (BIMODAL, RAMP, logistic(0.4, 0.6)),
        (LOGIT_NORMAL, BIMODAL, 0.1 + 0.8 * CONFIDENCES),
    ],
    ids=["bimodal", "logit normal", "skewed", "ramp to skewed", "bimodal to ramp", "logit normal to bimodal"],
)
def test_the_interval_holds_what_is_right_as_often_as_it_says(
    labelled: int, n: int, before: Floats, now: Floats, right: Floats
) -> None:
    """Shapes that nothing was chosen on, and confidence that moves inside the bins too."""
    rng = np.random.default_rng((labelled, n, round(1_000 * float(before @ now * 1_000)), 5))
    repeats, held = choose_size(100, 300), 0
    of_seen, of_now = (of_bins(density * right) / of_bins(density) for density in (before, now))
    for _ in range(repeats):
        total, window = rng.multinomial(labelled, of_bins(before)), rng.multinomial(n, of_bins(now))
        accuracy = estimate_accuracy(rng.binomial(total, of_seen), total, window)
        assert accuracy is not None
        held += accuracy.low <= rng.binomial(window, of_now).sum() / n <= accuracy.high
    # Three standard deviations of a binomial below.
    assert held / repeats >= 0.94 - 3 * (0.94 * 0.06 / repeats) ** 0.5


def test_bursts_widen_the_interval() -> None:
    counts = [estimate_accuracy(counts_of(80), counts_of(100), counts_of(50), design_effect=phi) for phi in (1.0, 9.0)]
    widths = [accuracy.high - accuracy.low for accuracy in counts if accuracy is not None]
    assert widths[1] > 2 * widths[0]


def test_a_bin_without_labels_is_the_priors_word_and_says_so() -> None:
    accuracy = estimate_accuracy(counts_of(0, 90), counts_of(0, 100), counts_of(50, 50))
    assert accuracy is not None
    assert accuracy.supported_ratio == 0.5
    assert accuracy.high - accuracy.low > 0.3


def test_without_labels_or_without_a_window_there_is_nothing_to_say() -> None:
    assert estimate_accuracy(counts_of(0, 0), counts_of(0, 0), counts_of(5, 5)) is None
    assert estimate_accuracy(counts_of(1, 1), counts_of(2, 2), counts_of(0, 0)) is None


def test_other_bins_are_refused() -> None:
    with pytest.raises(BinMismatchError):
        estimate_accuracy(counts_of(1, 1), counts_of(2, 2), counts_of(1, 1, 1))


@given(COUNTS, st.floats(0, 1), COUNTS, st.floats(1, 1e6))
@settings(deadline=None, max_examples=100)
def test_whatever_is_counted_the_ends_enclose_the_estimate(
    total: NDArray[np.int64], share: float, window: NDArray[np.int64], phi: float
) -> None:
    accuracy = estimate_accuracy((total * share).astype(np.int64), total, window, design_effect=phi)
    if accuracy is not None:
        assert 0 <= accuracy.low <= accuracy.estimated <= accuracy.high <= 1
