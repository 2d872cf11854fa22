from __future__ import annotations

from typing import Any

from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.detect.policy import DetectionPolicy, Threshold
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.types import ModelKey

MODEL = ModelKey("fraud", "1")
RULES = [
    {"statistic": "psi", "stream": "prediction.label", "above": 0.2},
    {"statistic": "chi_squared", "p_below": 0.001},
]


def settings_of(**model: Any) -> ProcessorSettings:
    return ProcessorSettings(Config.model_validate({"models": {"fraud": model}}))


def policy(settings: ProcessorSettings, stream: str) -> DetectionPolicy | None:
    return settings.find_detection_policy(StreamKey(MODEL, stream))


def test_without_rules_there_are_no_thresholds_and_the_rule_is_off() -> None:
    settings = settings_of()
    assert policy(settings, "prediction.label") == DetectionPolicy(tolerance=0.02, direction="both")
    assert "statistic" not in settings.find_model_rules(MODEL).active


def test_rules_are_thresholds_of_the_streams_they_name() -> None:
    settings = settings_of(statistic={"thresholds": RULES})
    psi = Threshold(statistic="psi", stream="prediction.label", above=0.2)
    chi_squared = Threshold(statistic="chi_squared", p_below=0.001)
    assert "statistic" in settings.find_model_rules(MODEL).active
    assert "statistic" not in settings.find_model_rules(ModelKey("other", "1")).active
    label, feature = policy(settings, "prediction.label"), policy(settings, "input.age")
    assert label == DetectionPolicy(tolerance=0.02, direction="both", thresholds=(psi, chi_squared))
    assert feature == DetectionPolicy(tolerance=0.05, direction="both", thresholds=(chi_squared,))


def test_a_budget_is_no_sample_to_compare_with() -> None:
    settings = settings_of(statistic={"thresholds": RULES})
    assert policy(settings, "latency") == DetectionPolicy(tolerance=0.0, direction="up")
    assert policy(settings, "errors") == DetectionPolicy(tolerance=0.0, direction="up", first_divisor=25.0)


def test_a_stream_is_watched_for_its_thresholds_alone() -> None:
    off = {"data_drift": {"enabled": False}}
    assert policy(settings_of(**off), "input.age") is None
    only = policy(settings_of(**off, statistic={"thresholds": RULES}), "input.age")
    assert only is not None
    assert len(only.thresholds) == 1
    assert "data_drift" not in settings_of(**off, statistic={"thresholds": RULES}).find_model_rules(MODEL).active
