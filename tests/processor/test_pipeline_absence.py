"""Streams that are no longer sent although their model has predictions, on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey

PANE, PANE_NS, MINUTE_PANES = "30s", 30 * 10**9, 2
CONFIGURATION = {"models": {"*": {"reference": {"learn": 1000}}}, "windows": {"pane": PANE, "rolling": "10m"}}

Features = Mapping[str, Sequence[float] | Mapping[str, int]]


def everything(random: np.random.Generator) -> dict[str, Any]:
    return {
        "age": random.normal(40, 5, 100).tolist(),
        "income": random.normal(1000, 100, 100).tolist(),
        "colour": dict(zip("rgb", random.multinomial(100, (0.5, 0.3, 0.2)).tolist(), strict=True)),
    }


class Traffic:
    """Panes of a hundred predictions and their features."""

    def __init__(self, processor: SimulatedProcessor) -> None:
        self.processor, self.random = processor, np.random.default_rng(3)

    def send(
        self, minutes: float, without: Sequence[str] = (), *, more: Callable[[int], Features] = lambda _: {}
    ) -> None:
        for pane in range(round(minutes * MINUTE_PANES)):
            features = {name: values for name, values in everything(self.random).items() if name not in without}
            self.processor.now_ns += PANE_NS
            self.processor.send_counts("shop", labels={"a": 60, "b": 40}, features={**features, **more(pane)})
            self.processor.advance()

    def alerts(self) -> list[tuple[str, str, tuple[str, ...]]]:
        return [
            (alert.rule, alert.state.value, tuple(sorted(cause.stream for cause in alert.causes)))
            for alert in self.processor.alerts
        ]


def test_a_feature_that_is_gone_is_told_with_its_name_and_time_and_ends_when_it_is_back() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(20)
        gone_ns = processor.now_ns
        traffic.send(15, without=["age"])
        (alert,) = processor.alerts
        assert (alert.rule, alert.severity, alert.onset_ns) == ("data_drift", "critical", gone_ns)
        assert "input.age is no longer sent since 2026-01-01 00:20:00 UTC" in processor.messages[0]
        assert processor.stream_state("shop", "input.age") == "no_data"
        assert processor.stream_state("shop", "input.income") == "weak"
        assert processor.document()["models"]["shop"]["state"] == "no_data"
        # Long after the rolling window holds nothing of it, and after a restart, it is still gone, and told once.
        traffic.send(20, without=["age"])
        processor.restart()
        traffic.send(10, without=["age"])
        assert processor.stream_state("shop", "input.age") == "no_data"
        assert len(processor.alerts) == 1
        traffic.send(2)
        assert traffic.alerts() == [
            ("data_drift", "firing", ("input.age",)), ("data_drift", "ok", ("input.age",))
        ]  # fmt: skip
        assert processor.stream_state("shop", "input.age") == "weak"


def test_a_silence_goes_on_over_a_restart() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(20)
        traffic.send(6, without=["colour"])
        processor.restart()
        traffic.send(6, without=["colour"])
        assert traffic.alerts() == [("data_drift", "firing", ("input.colour",))]


def test_all_features_gone_are_one_alert() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(20)
        traffic.send(12, without=["age", "income", "colour"])
        assert traffic.alerts() == [("data_drift", "firing", ("input.age", "input.colour", "input.income"))]


def test_a_feature_that_is_gone_before_it_was_learned_is_told_and_learns_on() -> None:
    with SimulatedProcessor({**CONFIGURATION, "models": {"*": {"reference": {"learn": 5000}}}}) as processor:
        traffic = Traffic(processor)
        traffic.send(10)
        traffic.send(12, without=["age"])
        assert traffic.alerts() == [("data_drift", "firing", ("input.age",))]
        traffic.send(1)
        assert traffic.alerts()[1:] == [("data_drift", "ok", ("input.age",))]
        assert processor.stream_state("shop", "input.age") == "learning"


def test_a_head_that_is_gone_is_a_drift_of_the_predictions() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        for pane in range(40 * MINUTE_PANES):
            processor.now_ns += PANE_NS
            start_ns = processor.now_ns - PANE_NS
            telemetry = MetricsRequestBuilder(
                ModelKey("shop", "1"), sender="w", start_ns=start_ns, end_ns=processor.now_ns
            )
            for head in ("size",) if pane >= 20 * MINUTE_PANES else ("size", "colour"):
                for label, count in {"a": 60, "b": 40}.items():
                    words = {semconv.PREDICTION_LABEL: label, semconv.OUTPUT_NAME: head}
                    telemetry.add_counter_point(semconv.PREDICTIONS, count, words)
            processor.receive(telemetry.request)
            processor.advance()
        (alert,) = processor.alerts
        assert (alert.rule, [cause.stream for cause in alert.causes]) == (
            "prediction_drift", [f"{semconv.STREAM_LABEL}.colour"]
        )  # fmt: skip
        assert processor.stream_state("shop", f"{semconv.STREAM_LABEL}.size") == "weak"


def test_a_feature_of_which_all_values_are_missing_is_a_drift_and_not_gone() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(20)
        for _ in range(12 * MINUTE_PANES):
            processor.now_ns += PANE_NS
            features = everything(traffic.random)
            del features["age"]
            processor.send_counts("shop", labels={"a": 60, "b": 40}, features=features, missing={"age": 100})
            processor.advance()
        (alert,) = processor.alerts
        assert [cause.stream for cause in alert.causes] == ["input.age"]
        assert "missing: 0 % → 100 %" in processor.messages[0]
        assert processor.stream_state("shop", "input.age") == "drift"


def test_a_feature_that_comes_once_an_hour_is_not_missed() -> None:
    with SimulatedProcessor({**CONFIGURATION, "windows": {"pane": "1m", "rolling": "1h"}}) as processor:
        random = np.random.default_rng(5)
        for minute in range(8 * 60):
            processor.now_ns += 60 * 10**9
            features = {"rare": random.normal(0, 1, 5).tolist()} if random.random() < 1 / 60 else {}
            processor.send_counts("shop", labels={"a": 60, "b": 40}, features=features)
            processor.advance()
            assert processor.alerts == [], minute


@pytest.mark.parametrize("is_model_gone", [True, False])
def test_a_model_without_traffic_is_silent_and_its_features_are_not_gone(is_model_gone: bool) -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(20)
        for _ in range(20 * MINUTE_PANES if is_model_gone else 0):
            processor.advance(30)
        expected = [("no_data", "no_data", ()), ("no_data", "ok", ())] if is_model_gone else []
        traffic.send(5)
        assert traffic.alerts() == expected


def test_a_muted_feature_is_neither_missed_nor_counts_for_the_model() -> None:
    configuration = {
        **CONFIGURATION, "models": {"*": {"reference": {"learn": 1000}, "data_drift": {"ignore": ["age"]}}}
    }  # fmt: skip
    with SimulatedProcessor(configuration) as processor:
        traffic = Traffic(processor)
        traffic.send(8)
        traffic.send(12, without=["age"])
        assert processor.alerts == []
        assert processor.document()["models"]["shop"]["state"] == "weak"
