from __future__ import annotations

from pathlib import Path

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey

DIGITS = ModelKey("digits", "1")
FRAUD = ModelKey("fraud", "7")


def settings_of(folder: Path, text: str = "") -> ProcessorSettings:
    path = folder / "mlmon.yaml"
    path.write_text(text, encoding="utf-8")
    return ProcessorSettings(load_config(path, {}))


@pytest.mark.parametrize(
    ("stream", "policy"),
    [
        ("prediction.label", DetectionPolicy(tolerance=0.02, direction="both")),
        ("prediction.value", DetectionPolicy(tolerance=0.02, direction="both")),
        ("prediction.confidence", DetectionPolicy(tolerance=0.02, direction="down")),
        ("input.amount", DetectionPolicy(tolerance=0.05, direction="both")),
        ("latency", DetectionPolicy(tolerance=0.0, direction="up")),
        ("errors", DetectionPolicy(tolerance=0.0, direction="up", first_divisor=25.0)),
    ],
)
def test_each_stream_is_judged_as_its_rule_says(tmp_path: Path, stream: str, policy: DetectionPolicy) -> None:
    assert settings_of(tmp_path).find_detection_policy(StreamKey(DIGITS, stream)) == policy


def test_a_model_has_its_own_bounds_and_the_rest_from_the_star(tmp_path: Path) -> None:
    text = """
models:
  "*": {data_drift: {tolerance: 8%}, max_labels: 20}
  fraud: {latency: {threshold: 50ms, max_ratio: 5%}, prediction_drift: {enabled: false}}
"""
    settings = settings_of(tmp_path, text)
    assert settings.find_detection_policy(StreamKey(FRAUD, "prediction.label")) is None
    policy = settings.find_detection_policy(StreamKey(FRAUD, "input.amount"))
    assert policy == DetectionPolicy(tolerance=0.08, direction="both")
    fraud, digits = settings.find_model_settings(FRAUD), settings.find_model_settings(DIGITS)
    assert (fraud.latency_threshold_s, fraud.latency_max_ratio, fraud.max_labels) == (0.05, 0.05, 20)
    assert (digits.latency_threshold_s, digits.latency_max_ratio, digits.max_labels) == (0.2, 0.01, 20)
    assert "prediction_drift" not in settings.find_model_rules(FRAUD).active
    assert "prediction_drift" in settings.find_model_rules(DIGITS).active


def test_the_false_alarm_budget_becomes_the_alarm_line(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "alerts: {false_alarms: 1 per 30d}\nwindows: {pane: 10s}")
    assert settings.find_alarm_line(26) == pytest.approx(6.8286, abs=1e-4)
    assert settings.find_alarm_line(260) == pytest.approx(7.8286, abs=1e-4)


def test_processors_of_a_fleet_share_the_budget_and_one_with_more_streams_than_the_fleet_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = settings_of(tmp_path, "alerts: {false_alarms: 1 per 30d, fleet_streams: 260}\nwindows: {pane: 10s}")
    alone = settings_of(tmp_path, "alerts: {false_alarms: 1 per 30d}\nwindows: {pane: 10s}")
    assert [fleet.find_alarm_line(streams) for streams in (1, 26, 260)] == [alone.find_alarm_line(260)] * 3
    assert caplog.messages == []
    assert [fleet.find_alarm_line(streams) for streams in (261, 520)] == [
        alone.find_alarm_line(261),
        alone.find_alarm_line(520),
    ]
    (message,) = caplog.messages
    assert message.startswith("This processor alone monitors 261 streams, and alerts.fleet_streams says that all ")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_a_number_of_streams_that_cannot_be_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        settings_of(tmp_path, f"alerts:\n  fleet_streams: {value}")
    (fault,) = error.value.faults
    assert ":2: alerts.fleet_streams: must be " in fault


def test_a_reference_file_is_read_at_the_start(tmp_path: Path) -> None:
    profile = Profile.from_data(model="fraud", version="7", labels=["ok"] * 90 + ["fraud"] * 10)
    profile.write_file(tmp_path / "fraud.json")
    settings = settings_of(tmp_path, f"models: {{fraud: {{reference: {{file: '{tmp_path}/fraud.json'}}}}}}")
    assert settings.find_model_settings(FRAUD).profile == profile
    assert settings.find_model_settings(DIGITS).profile is None


def test_every_reference_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "not.json").write_text("{", encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    text = (
        f"models: {{a: {{reference: {{file: '{tmp_path}/list.json'}}}}, "
        f"b: {{reference: {{file: '{tmp_path}/not.json'}}}}}}"
    )
    with pytest.raises(ConfigurationError) as error:
        settings_of(tmp_path, text)
    assert [fault.partition(":")[0] for fault in error.value.faults] == [
        "models.a.reference.file", "models.b.reference.file",
    ]  # fmt: skip
