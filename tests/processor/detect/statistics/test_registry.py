"""Each statistic against scipy or its formula by hand; and one that a package adds, from its file to a YAML rule."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, chi2_contingency, wasserstein_distance

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.detect.statistics.statistic import Measurement
from otel_mlmon.processor.settings import ProcessorSettings
from tests.support.scores import judged

REFERENCE = np.array([4_000, 3_000, 2_000, 1_000])
CURRENT = np.array([701, 600, 399, 300])
P, Q = REFERENCE / REFERENCE.sum(), CURRENT / CURRENT.sum()


def measure(name: str, reference: NDArray[np.int64], current: NDArray[np.int64]) -> Measurement:
    return STATISTICS.load_plugin(name).measure(build_samples(reference, current))


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
    within = 1e-3 if name == "psi" or expected == 0.05 else 1e-9
    assert measure(name, REFERENCE, CURRENT).value == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(("name", "kind"), [("chi_squared", "pearson"), ("g_test", "log-likelihood")])
@pytest.mark.parametrize("bins", [[0, 1, 2, 3], [0, 1]])
def test_two_sample_tests_are_scipys(name: str, kind: str, bins: list[int]) -> None:
    table = np.array([REFERENCE[bins], CURRENT[bins]])
    oracle = chi2_contingency(table, correction=False, lambda_=kind)
    measurement = measure(name, *table)
    assert measurement.value == pytest.approx(oracle.statistic, rel=1e-9)
    assert measurement.p_value == pytest.approx(oracle.pvalue, rel=1e-6)
    assert measurement.noise == float(oracle.dof)


def test_bins_empty_on_both_sides_do_not_count() -> None:
    gaps = np.array([4_000, 0, 3_000, 3_000]), np.array([300, 0, 300, 400])
    dense = gaps[0][[0, 2, 3]], gaps[1][[0, 2, 3]]
    for name in ("chi_squared", "g_test", "cramers_v"):
        assert measure(name, *gaps) == measure(name, *dense)


def test_psi_smooths_by_half_a_count() -> None:
    p, q = np.array([8.5, 0.5, 2.5]) / 11.5, np.array([3.5, 1.5, 0.5]) / 5.5
    measurement = measure("psi", np.array([8, 0, 2]), np.array([3, 1, 0]))
    assert measurement.value == pytest.approx(float((q - p) @ np.log(q / p)), rel=1e-12)
    assert measurement.noise == pytest.approx(2 * (1 / 10 + 1 / 4))
    assert measurement.p_value == pytest.approx(chi2.sf(float(measurement.value) * 40 / 14, 2), rel=1e-9)


def test_the_p_value_of_psi_is_as_often_below_a_level_as_it_says() -> None:
    rng = np.random.default_rng(6)
    measurement = measure("psi", rng.multinomial(10_000, P, size=3_000), rng.multinomial(1_000, P, size=3_000))
    assert measurement.p_value is not None
    assert measurement.noise is not None
    assert 0.035 < float((measurement.p_value < 0.05).mean()) < 0.065
    assert float(measurement.value.mean()) == pytest.approx(float(measurement.noise[0]), rel=0.08)


@pytest.mark.parametrize(("name", "threshold", "count"), [
    ("psi", 0.2, 180),
    ("jensen_shannon", 0.1, 650),
    ("hellinger", 0.1, 450),
    ("total_variation", 0.1, 900),
    ("l_infinity", 0.1, 400),
    ("kolmogorov_smirnov", 0.1, 400),
    ("wasserstein", 0.5, 324),
    ("cramers_v", 0.2, 900),
    ("chi_squared", 30.0, 50),
    ("g_test", 30.0, 50),
])  # fmt: skip
def test_the_smallest_count_of_ten_bins(name: str, threshold: float, count: int) -> None:
    assert STATISTICS.load_plugin(name).min_count(bins=10, threshold=threshold) in (count, count + 1)


def test_total_variation_noise_is_the_simulated_mean() -> None:
    rng = np.random.default_rng(6)
    windows = rng.multinomial(10_000, P, size=2_000)
    measurement = measure("total_variation", np.broadcast_to(REFERENCE, windows.shape), windows)
    assert measurement.noise is not None
    # Here only one of the two samples varies, so the mean is smaller by the root of two.
    assert float(measurement.value.mean()) * math.sqrt(2.0) == pytest.approx(float(measurement.noise[0]), rel=0.05)


def test_cramers_v_by_hand() -> None:
    """Of {{60, 40}, {40, 60}}: X² = 8, T = 200; φ̃² = .04 - 1/199, the smaller side 1 - 1/199."""
    value = measure("cramers_v", np.array([60, 40]), np.array([40, 60])).value
    assert value == pytest.approx(math.sqrt((0.04 - 1 / 199) / (1 - 1 / 199)), rel=1e-12)


def test_cramers_v_is_zero_on_noise() -> None:
    rng = np.random.default_rng(3)
    samples = rng.multinomial(1_000, P, size=(2, 200))
    assert float(np.median(measure("cramers_v", *samples).value)) < 0.01


MINE = """
class Mine:
    needs_ordered_bins = False
    has_p_value = False

    def measure(self, samples):
        from otel_mlmon.processor.detect.statistics.statistic import Measurement

        return Measurement(value=samples.moved[..., 0])

    def min_count(self, *, bins, threshold):
        return 7 * bins


MINE = Mine()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that offers the statistic `mine`."""
    folder = tmp_path / "added_statistic-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: added-statistic\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[otel_mlmon.statistics]\nmine = added_statistic:MINE\n")
    (tmp_path / "added_statistic.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(STATISTICS, "_entry_points", None)
    monkeypatch.setattr(STATISTICS, "_parts", {})
    yield
    sys.modules.pop("added_statistic", None)


YAML = """models:
  digits:
    statistic:
      thresholds:
        - {statistic: mine, above: 0.3}
"""


@pytest.mark.usefixtures("package")
def test_a_statistic_of_a_package_is_reported_and_may_be_named_in_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "processor.yaml"
    path.write_text(YAML)
    settings = ProcessorSettings(load_config(path))
    evaluator = DriftEvaluator(policy_for=settings.find_detection_policy, alarm_line_for=settings.find_alarm_line)
    _, (window, _) = judged("prediction.label", "ok", reference=(500, 500), pane=(90, 10))
    ((_, score),) = evaluator.evaluate([window])
    assert score.statistics is not None
    assert score.statistics.names[-1] == "mine"
    assert score.statistics.values[-1] == pytest.approx(0.4)
    assert [(verdict.statistic, verdict.bound, verdict.min_count, verdict.verdict) for verdict in score.thresholds] == [
        ("mine", 0.3, 14, "breached")
    ]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("statistic: mine, p_below: 0.1", "mine has no p-value: p_below is for psi, chi_squared, g_test"),
        ("statistic: yours, above: 0.1", "must be one of psi, .*, kolmogorov_smirnov, mine"),
    ],
)
def test_a_rule_on_a_statistic_that_cannot_be_is_refused(tmp_path: Path, rule: str, fault: str) -> None:
    path = tmp_path / "processor.yaml"
    path.write_text(YAML.replace("statistic: mine, above: 0.3", rule))
    with pytest.raises(ConfigurationError, match=fault):
        load_config(path)
