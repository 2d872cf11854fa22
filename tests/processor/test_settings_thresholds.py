from __future__ import annotations

from typing import Any

from otel_mlmon.processor.config import Config
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.threshold import Threshold
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.types import ModelKey

MODEL = ModelKey("fraud", "1")
RULES = [
    {"statistic": "psi", "stream": "prediction.label", "above": 0.2},
    {"statistic": "chi_squared", "p_below": 0.001},
]


def settings(**model: Any) -> Settings:
    return Settings(Config.model_validate({"models": {"fraud": model}}))


def watch(found: Settings, stream: str) -> DetectionPolicy | None:
    return found.watch(StreamKey(MODEL, stream))


def test_without_rules_there_are_no_thresholds_and_the_rule_is_off() -> None:
    found = settings()
    assert watch(found, "prediction.label") == DetectionPolicy(tolerance=0.02, direction="both")
    assert "statistic" not in found.rules(MODEL).enabled


def test_rules_are_thresholds_of_the_streams_they_name() -> None:
    found = settings(statistic={"thresholds": RULES})
    psi = Threshold(statistic="psi", stream="prediction.label", above=0.2)
    chi_squared = Threshold(statistic="chi_squared", p_below=0.001)
    assert "statistic" in found.rules(MODEL).enabled
    assert "statistic" not in found.rules(ModelKey("other", "1")).enabled
    label, feature = watch(found, "prediction.label"), watch(found, "input.age")
    assert label == DetectionPolicy(tolerance=0.02, direction="both", thresholds=(psi, chi_squared))
    assert feature == DetectionPolicy(tolerance=0.05, direction="both", thresholds=(chi_squared,))


def test_a_budget_is_no_sample_to_compare_with() -> None:
    found = settings(statistic={"thresholds": RULES})
    assert watch(found, "latency") == DetectionPolicy(tolerance=0.0, direction="up")
    assert watch(found, "errors") == DetectionPolicy(tolerance=0.0, direction="up")


def test_a_stream_is_watched_for_its_thresholds_alone() -> None:
    off = {"data_drift": {"enabled": False}}
    assert watch(settings(**off), "input.age") is None
    only = watch(settings(**off, statistic={"thresholds": RULES}), "input.age")
    assert only is not None
    assert len(only.thresholds) == 1
    assert "data_drift" not in settings(**off, statistic={"thresholds": RULES}).rules(MODEL).enabled
