"""References that an administrator has learned again, on a simulated clock."""

from __future__ import annotations

import json

import numpy as np
import pytest

from otel_mlmon.testing import SimulatedProcessor

CONFIGURATION = {"models": {"*": {"reference": {"learn": 1000}}}, "web": {"listen": "0.0.0.0:8080"}}
CALM, DRIFTED = (0.4, 0.3, 0.2, 0.1), (0.1, 0.3, 0.2, 0.4)


class Traffic:
    """Panes of a hundred predictions, and of two features that move with them."""

    def __init__(self, processor: SimulatedProcessor) -> None:
        self.processor, self.random = processor, np.random.default_rng(7)

    def send(self, shares: tuple[float, ...], panes: int) -> None:
        for _ in range(panes):
            counts = self.random.multinomial(100, shares)
            self.processor.now_ns += 10 * 10**9
            self.processor.send_counts(
                "shop",
                labels=dict(zip("abcd", counts.tolist(), strict=True)),
                features={
                    "age": self.random.normal(30 + 10 * shares[3], 2, 100).tolist(),
                    "income": self.random.normal(1000, 100, 100).tolist(),
                },
            )
            self.processor.advance(0.0)
        self.processor.advance(26.0)


def test_a_stream_that_is_learned_again_forgets_what_it_was_and_the_others_stay() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        traffic = Traffic(processor)
        traffic.send(CALM, 30)
        traffic.send(DRIFTED, 20)
        assert {alert.rule for alert in processor.alerts} == {"prediction_drift", "data_drift"}
        income = processor.stream("shop", "input.income")
        processor.relearn("shop", streams=("input.age",))
        assert processor.rule_state("shop", "data_drift") == "ok"
        assert processor.rule_state("shop", "prediction_drift") == "firing"
        assert processor.stream_state("shop", "input.age") == "learning"
        other = processor.stream("shop", "input.income")
        assert income is not None
        assert other == {**income, "detectable": other and other["detectable"]}  # fewer streams share the budget
        resolved = processor.alerts[-1]
        assert (resolved.rule, resolved.is_resolved) == ("data_drift", True)
        assert resolved.reason == "The reference is learned again, as an administrator asked."
        processor.restart()
        assert processor.stream_state("shop", "input.age") == "learning"
        traffic.send(DRIFTED, 30)
        age = processor.stream("shop", "input.age")
        assert age is not None
        assert (age["state"], age["reference_count"]) == ("weak", 1000)
        assert processor.rule_state("shop", "data_drift") == "ok"
        # What was learned is judged by: the old normal is a drift now.
        traffic.send(CALM, 20)
        assert processor.stream_state("shop", "input.age") == "drift"


def test_an_unknown_model_or_stream_changes_nothing() -> None:
    with SimulatedProcessor(CONFIGURATION) as processor:
        Traffic(processor).send(CALM, 12)
        before = json.dumps(processor.document())
        processor.relearn("nobody", streams=("input.age",))
        processor.relearn("shop", streams=("input.nothing", "latency"))
        assert json.dumps(processor.document()) == before


@pytest.mark.parametrize(
    ("web", "address"),
    [
        ("0.0.0.0:8080", ""),
        ("127.0.0.1:8080", ""),
        ("[::]:81", " --url 'http://[::1]:81'"),
        ("", None),
        ("127.0.0.1:0", None),
    ],
)
def test_the_command_stands_in_the_alert(web: str, address: str | None) -> None:
    with SimulatedProcessor({**CONFIGURATION, "web": {"listen": web}}) as processor:
        traffic = Traffic(processor)
        traffic.send(CALM, 30)
        traffic.send(DRIFTED, 20)
        alert = processor.find_alerts(rule="prediction_drift")[0]
        command = f"otel-mlmon reference relearn shop --model-version 1 --stream prediction.label{address}"
        assert alert.relearn_command == ("" if address is None else command)
        assert ("If normal" in processor.messages[0]) is (address is not None)
