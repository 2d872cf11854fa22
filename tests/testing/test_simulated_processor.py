"""A user's own question as a unit test: would my alerts fire?"""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey

QUICK = {"models": {"*": {"reference": {"learn": 1000}}}}
STEADY = {"ok": 95, "fraud": 5}


def run(processor: SimulatedProcessor, panes: int, labels: dict[str, int]) -> None:
    for _ in range(panes):
        processor.send_counts("fraud", labels=labels)
        processor.advance(10)


def test_a_shift_of_the_classes_fires_says_what_moved_and_ends() -> None:
    with SimulatedProcessor(QUICK) as processor:
        run(processor, 60, STEADY)
        assert processor.stream_state("fraud", "prediction.label") == "weak"  # its hours are not known yet
        assert (processor.rule_state("fraud", "prediction_drift"), processor.alerts) == ("ok", [])
        begin_ns = processor.now_ns
        run(processor, 60, {"ok": 70, "fraud": 30})
        assert processor.stream_state("fraud", "prediction.label") == "drift"
        assert processor.rule_state("fraud", "prediction_drift") == "firing"
        (alert,) = processor.find_alerts(rule="prediction_drift", about="prediction.label")
        assert (alert.model, alert.version, alert.state.name) == ("fraud", "1", "FIRING")
        assert begin_ns < alert.time_ns < processor.now_ns
        assert "fraud" in processor.messages[0]
        run(processor, 200, STEADY)
        assert [alert.state.name for alert in processor.alerts] == ["FIRING", "OK"]


def test_each_head_of_a_model_is_judged_by_its_own_stream() -> None:
    steady = {"species": {"cat": 60, "dog": 40}, "mood": {"calm": 95, "angry": 5}, "size": {"big": 50, "small": 50}}
    moved = {**steady, "mood": {"calm": 70, "angry": 30}}
    with SimulatedProcessor(QUICK) as processor:

        def send(heads: dict[str, dict[str, int]]) -> None:
            telemetry = MetricsRequestBuilder(
                ModelKey("pets", "1"),
                sender="sender-1",
                start_ns=processor.now_ns - 10_000_000_000,
                end_ns=processor.now_ns,
            )
            for head, labels in heads.items():
                for label, count in labels.items():
                    attributes = {semconv.PREDICTION_LABEL: label, semconv.OUTPUT_NAME: head}
                    telemetry.add_counter_point(semconv.PREDICTIONS, count, attributes)
            processor.receive(telemetry.request)
            processor.advance(10)

        def states() -> dict[str, str | None]:
            return {head: processor.stream_state("pets", f"prediction.label.{head}") for head in steady}

        for _ in range(60):
            send(steady)
        assert states() == dict.fromkeys(steady, "weak")
        for _ in range(60):
            send(moved)
        assert states() == {"species": "weak", "mood": "drift", "size": "weak"}
        about = {name for name in steady if processor.find_alerts(about=f"prediction.label.{name}")}
        assert about == {"mood"}
        assert processor.stream("pets", "prediction.label") is None


def test_a_restart_goes_on_where_it_was() -> None:
    with SimulatedProcessor(QUICK) as processor:
        run(processor, 60, STEADY)
        run(processor, 60, {"ok": 70, "fraud": 30})
        document, alerts = processor.document(), list(processor.alerts)
        processor.restart()
        assert json.dumps(processor.document()) == json.dumps(document)  # NaN is not equal to itself
        run(processor, 6, {"ok": 70, "fraud": 30})
        assert processor.alerts == alerts


def test_every_kind_of_count_reaches_its_stream() -> None:
    with SimulatedProcessor(QUICK) as processor:
        for _ in range(3):
            processor.send_counts(
                "m",
                version="7",
                labels={"a": 1},
                confidences=[0.5, 0.9],
                values=[-3.0, 0.0, 1.5],
                features={"age": [1.0, -2.0, 0.0], "colour": {"red": 2, "blue": 1}},
                missing={"age": 1},
                durations_s=[0.001, 0.5],
                failed_durations_s=[0.002],
            )
            processor.advance(30)
        model = processor.document()["models"]["m"]
        counts = {stream["stream"]: stream["learned_count"] for stream in model["streams"] if stream["learned_count"]}
        assert model["version"] == "7"
        assert model["error_ratio"] == pytest.approx(1 / 3)
    assert counts == {
        "prediction.label": 3,
        "prediction.confidence": 6,
        "prediction.value": 9,
        "input.age": 12,
        "input.colour": 9,
    }


def test_requests_as_they_come_over_the_wire_are_taken() -> None:
    with SimulatedProcessor() as processor:
        assert processor.receive(ExportMetricsServiceRequest()).points == 0
        assert processor.receive(ExportLogsServiceRequest()).points == 0


def test_what_is_not_there_has_no_state() -> None:
    with SimulatedProcessor() as processor:
        assert (processor.stream_state("m", "latency"), processor.rule_state("m", "latency")) == (None, None)


def test_a_wrong_configuration_is_an_error_that_names_the_key() -> None:
    with pytest.raises(ConfigurationError, match="modelz"):
        SimulatedProcessor({"modelz": {}})
