from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.accuracy import AccuracyRule, AccuracySection
from otel_mlmon.processor.detect.accuracy import estimate_accuracy, find_lowest_tolerated_accuracy
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.types import Floats
from tests.support.scores import judged

STREAM = "prediction.confidence"
NAMES = tuple(f"{low / 10} … {low / 10 + 0.1:.1f}" for low in range(10))


def over_bins(low: int, high: int) -> NDArray[np.int64]:
    """Counts of two levels of confidence, .55 and .95, over the ten bins."""
    return np.array([0, 0, 0, 0, 0, low, 0, 0, 0, high], dtype=np.int64)


CALIBRATION = Calibration(right=over_bins(50_000, 95_000), total=over_bins(100_000, 100_000))
"""Right in a half of the predictions of low confidence, in 95 % of the others: 72.5 % of all."""


def judge(pane: tuple[int, int], *, design_effect: float = 1.0, state: Any = "ok", **section: str) -> object:
    counts = [over_bins(*levels).tolist() for levels in ((500, 500), pane)]
    _, (window, score) = judged(STREAM, state, names=NAMES, reference=counts[0], pane=counts[1])
    rule = AccuracyRule(AccuracySection.model_validate(section))
    return rule.judge_stream(
        window.replace(calibration=CALIBRATION),
        score.replace(design_effect=design_effect),
        OnsetCounts(),
    )


def test_it_is_off_until_a_bound_is_named() -> None:
    assert not AccuracySection().is_active
    assert AccuracySection.model_validate({"min": "90%"}).is_active
    assert AccuracySection.model_validate({"drop": "3%"}).is_active
    assert not AccuracySection.model_validate({"drop": "3%", "enabled": False}).is_active


def test_the_stricter_bound_counts() -> None:
    assert find_lowest_tolerated_accuracy(0.99, 0.90, 0.03) == pytest.approx(0.96)
    assert find_lowest_tolerated_accuracy(0.91, 0.90, 0.03) == pytest.approx(0.90)
    assert find_lowest_tolerated_accuracy(0.99, 0.90, None) == pytest.approx(0.90)
    assert find_lowest_tolerated_accuracy(0.99, None, 0.03) == pytest.approx(0.96)


def test_a_breach_says_that_it_is_an_estimate_and_how_well_it_is_known() -> None:
    cause = judge((9_000, 1_000), min="70%")
    assert isinstance(cause, AlertCause)
    accuracy = estimate_accuracy(CALIBRATION.right, CALIBRATION.total, over_bins(9_000, 1_000))
    assert accuracy is not None
    assert cause.value == 1.0 - accuracy.estimated
    assert cause.bound == pytest.approx(0.3)
    assert cause.reference == "accuracy 72.5 % of 200 000 labelled"
    assert cause.current == f"an estimated {100 * accuracy.estimated:.1f} %"
    assert cause.summary == (
        f"estimated accuracy {100 * accuracy.estimated:.1f} %, 95 % interval {100 * accuracy.low:.1f} % to "
        f"{100 * accuracy.high:.1f} %, demanded 70.0 % (n = 10 000); an estimate from confidences, no measurement"
    )
    assert cause.origin == ""  # a reference that is learned again makes no model more accurate


def test_an_interval_that_reaches_the_bound_is_no_breach() -> None:
    accuracy = estimate_accuracy(CALIBRATION.right, CALIBRATION.total, over_bins(9_000, 1_000))
    assert accuracy is not None
    assert judge((9_000, 1_000), min=f"{100 * accuracy.high - 0.1:.2f}%") == "ok"
    assert isinstance(judge((9_000, 1_000), min=f"{100 * accuracy.high + 0.1:.2f}%"), AlertCause)


def test_few_predictions_need_more_because_they_are_looked_at_again_and_again() -> None:
    counts = over_bins(45, 5)
    accuracy = estimate_accuracy(CALIBRATION.right, CALIBRATION.total, counts)
    assert accuracy is not None
    bound = accuracy.high + 0.02
    assert bound < accuracy.estimated + 4 * accuracy.sampling_deviation
    assert judge((45, 5), min=f"{100 * bound:.2f}%") == "ok"


def test_bursts_need_more_too() -> None:
    assert isinstance(judge((900, 100), min="70%"), AlertCause)
    assert judge((900, 100), min="70%", design_effect=30.0) == "ok"


def test_a_better_accuracy_is_no_breach() -> None:
    assert judge((100, 9_900), drop="3%") == "ok"


def test_nothing_is_decided_while_the_design_effect_is_not_known_or_without_predictions() -> None:
    assert judge((9_000, 1_000), state="learning", min="70%") is None
    assert judge((0, 0), min="70%") is None


def test_without_labelled_data_it_is_unknown() -> None:
    _, (window, score) = judged(STREAM, "ok")
    rule = AccuracyRule(AccuracySection.model_validate({"min": "70%"}))
    nothing = Calibration(right=over_bins(0, 0), total=over_bins(0, 0))
    assert rule.judge_stream(window, score, OnsetCounts()) == "unknown"
    assert rule.judge_stream(window.replace(calibration=nothing), score, OnsetCounts()) == "unknown"


def test_a_breach_is_critical_from_a_tenth_of_the_predictions_on() -> None:
    rule = AccuracyRule(AccuracySection.model_validate({"min": "70%"}))
    small, large = judge((9_000, 1_000), min="62%"), judge((9_000, 1_000), min="70%")
    assert isinstance(small, AlertCause)
    assert isinstance(large, AlertCause)
    assert (rule.grade_severity([small]), rule.grade_severity([small, large])) == ("warning", "critical")


def draw(rng: np.random.Generator, n: int, *, unsure: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidences, of which a share is unsure, and whether each prediction is right: as often as its confidence."""
    confidences = np.where(rng.random(n) < unsure, rng.uniform(0.5, 0.8, n), rng.uniform(0.9, 1.0, n))
    return np.asarray(confidences), np.asarray(rng.random(n) < confidences)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    confidences, is_right = draw(np.random.default_rng(1), 20_000, unsure=0.1)
    calibration = Calibration.from_predictions(confidences, is_right)
    file = tmp_path / "fraud.reference.json"
    Profile.from_data(model="fraud", confidences=confidences, calibration=calibration).write_file(file)
    return file


def run(processor: SimulatedProcessor, *, panes: int, unsure: float, seed: int) -> Iterator[float]:
    """Sends panes of 100 predictions, and yields how many of the last hundred panes are right."""
    rng = np.random.default_rng(seed)
    rights: list[float] = []
    for _ in range(panes):
        confidences, is_right = draw(rng, 100, unsure=unsure)
        processor.send_counts("fraud", confidences=confidences.tolist())
        processor.advance(10)
        rights.append(float(is_right.mean()))
        yield float(np.mean(rights[-100:]))


def configuration(profile: Path | None, **rule: str) -> dict[str, Any]:
    model = {"accuracy": rule, "confidence": {"enabled": False}, "reference": {"learn": 1_000}}
    if profile is not None:
        model["reference"] = {"file": str(profile)}
    windows = {"pane": "10s", "lateness": "0s", "rolling": "10m"}
    return {"models": {"*": model}, "windows": windows}


def test_the_whole_story_fires_when_accuracy_falls_as_confidence_shows_and_resolves(profile: Path) -> None:
    section = {**configuration(profile, drop="3%"), "alerts": {"keep_firing_for": "0s"}}
    with SimulatedProcessor(section) as processor:
        *_, before = run(processor, panes=150, unsure=0.1, seed=2)
        assert (processor.rule_state("fraud", "accuracy"), processor.alerts) == ("ok", [])
        *_, during = run(processor, panes=120, unsure=0.5, seed=3)
        assert processor.rule_state("fraud", "accuracy") == "firing"
        *_, _ = run(processor, panes=120, unsure=0.1, seed=4)
        assert [(alert.rule, alert.state.value) for alert in processor.alerts] == [
            ("accuracy", "firing"), ("accuracy", "ok")
        ]  # fmt: skip
        text = processor.messages[0]
    assert during < before - 0.08  # it fell in truth
    assert text.startswith("FIRING · warning · fraud 1 · estimated accuracy\n")
    assert "an estimate from confidences, no measurement" in text
    assert "prediction.confidence: accuracy 91.9 % of 20 000 labelled → an estimated " in text
    assert "reference relearn" not in text


def test_a_model_without_labelled_data_is_unknown_in_the_api_and_never_alerts() -> None:
    with SimulatedProcessor(configuration(None, min="90%")) as processor:
        for _ in run(processor, panes=60, unsure=0.9, seed=5):
            pass
        assert (processor.rule_state("fraud", "accuracy"), processor.alerts) == ("unknown", [])
        processor.restart()
        assert processor.rule_state("fraud", "accuracy") == "unknown"
