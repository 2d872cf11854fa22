from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.policy import Threshold
from otel_mlmon.processor.detect.score import Statistics, ThresholdVerdict
from otel_mlmon.processor.detect.statistics.registry import STATISTICS

PSI = Threshold(statistic="psi", above=0.2)


def test_psi_is_not_judged_below_four_bins_less_one_over_the_threshold() -> None:
    """n = 4(K - 1)/t: with ten bins and .2, 180."""
    statistics = Statistics.from_rows({"psi": (0.3, None, None)})
    expected = ThresholdVerdict(
        statistic="psi", is_p_value=False, value=0.3, bound=0.2, min_count=180, verdict="too few values"
    )
    assert PSI.judge(statistics, count=179, bins=10) == expected
    enough = PSI.judge(statistics, count=180, bins=10)
    assert enough is not None
    assert enough.verdict == "breached"


@pytest.mark.parametrize(("value", "verdict"), [(0.21, "breached"), (0.2, "ok"), (0.0, "ok")])
def test_above(value: float, verdict: str) -> None:
    judged = PSI.judge(Statistics.from_rows({"psi": (value, None, None)}), count=10_000, bins=4)
    assert judged is not None
    assert judged.verdict == verdict


@pytest.mark.parametrize(
    ("p_value", "count", "verdict"),
    [(0.0009, 20, "breached"), (0.001, 20, "ok"), (0.5, 20, "ok"), (1e-9, 19, "too few values")],
)
def test_p_below(p_value: float, count: int, verdict: Literal["ok", "breached", "too few values"]) -> None:
    threshold = Threshold(statistic="chi_squared", p_below=0.001)
    judged = threshold.judge(Statistics.from_rows({"chi_squared": (9.0, p_value, None)}), count=count, bins=4)
    assert judged == ThresholdVerdict(
        statistic="chi_squared", is_p_value=True, value=p_value, bound=0.001, min_count=20, verdict=verdict
    )


def test_a_statistic_that_the_stream_has_not_is_not_judged() -> None:
    assert Threshold(statistic="wasserstein", above=1.0).judge(Statistics(), count=10_000, bins=4) is None
    assert (
        Threshold(statistic="psi", p_below=0.1).judge(Statistics.from_rows({"psi": (1.0, None, None)}), count=9, bins=4)
        is None
    )


def test_the_stream_is_a_pattern() -> None:
    threshold = Threshold(statistic="psi", stream="input.*", above=0.2)
    assert [threshold.is_about_stream(name) for name in ("input.age", "prediction.label")] == [True, False]
    assert PSI.is_about_stream("prediction.label")


@pytest.mark.simulation
@pytest.mark.parametrize("bins", [2, 10, 40])
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("psi", 0.2), ("jensen_shannon", 0.1), ("hellinger", 0.1), ("total_variation", 0.1), ("l_infinity", 0.1),
        ("kolmogorov_smirnov", 0.1), ("wasserstein", 0.5), ("cramers_v", 0.2),
    ],
)  # fmt: skip
def test_at_the_smallest_count_noise_is_half_of_the_threshold_at_most(name: str, bound: float, bins: int) -> None:
    """And a threshold judged there is passed by chance in no more than one window in twenty."""
    rng = np.random.default_rng(bins)
    shares = rng.dirichlet(np.full(bins, 5.0))
    count = Threshold(statistic=name, above=bound).min_count(bins)
    reference = np.broadcast_to(np.round(shares * 1e9), (400, bins))
    values = (
        STATISTICS.load_plugin(name).measure(build_samples(reference, rng.multinomial(count, shares, size=400))).value
    )
    assert values.mean() <= bound / 2.0 * 1.05
    assert (values > bound).mean() <= 0.05 + 3.0 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize("name", ["psi", "chi_squared", "g_test"])
def test_a_p_value_needs_five_values_a_bin_of_whatever_statistic(name: str) -> None:
    assert Threshold(statistic=name, p_below=0.01).min_count(4) == 20
