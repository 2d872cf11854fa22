"""New model versions, held against the version before, on a simulated clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otel_mlmon.testing import SimulatedProcessor

CALM, MOVED = (0.4, 0.3, 0.2, 0.1), (0.1, 0.3, 0.2, 0.4)
"""Shares of four classes; 30 % of the predictions move from the first class to the last."""
LEARN = {"reference": {"learn": 1000}}
SWITCHED_ON = {"models": {"*": {**LEARN, "version_drift": {"enabled": True}}}}
DEFAULT = {"models": {"*": LEARN}}
CHANGED = "prediction.label: class a: 40 % → 10 %"


class Deploys:
    """Panes of a hundred predictions of one or several versions at once, and of a feature that never moves."""

    def __init__(self, processor: SimulatedProcessor, seed: int = 7) -> None:
        self.processor, self.random = processor, np.random.default_rng(seed)

    def send(
        self, shares: dict[str, tuple[float, ...]], panes: int, *, age: float = 30.0, labels: str = "abcd"
    ) -> None:
        for _ in range(panes):
            self.processor.now_ns += 10 * 10**9
            for version, row in shares.items():
                counts = self.random.multinomial(100, row)
                self.processor.send_counts(
                    "shop",
                    version=version,
                    sender=f"sender-{version}",
                    labels=dict(zip(labels, counts.tolist(), strict=True)),
                    features={"age": self.random.normal(age, 2, 100).tolist()},
                )
            self.processor.advance(0.0)
        self.processor.advance(26.0)

    def change(self, version: str = "2") -> dict[str, Any] | None:
        versions = self.processor.document()["models"]["shop"]["versions"]
        return next((entry["change"] for entry in versions if entry["version"] == version), None)


def test_a_deploy_that_moves_the_predictions_is_told_and_raises_no_alarm() -> None:
    with SimulatedProcessor(DEFAULT) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        assert deploys.change("1") is None
        deploys.send({"2": MOVED}, 8)
        assert deploys.change() is None
        deploys.send({"2": MOVED}, 40)
        change = deploys.change()
        assert change is not None
        assert (change["before"], change["compared"], change["absent"], change["added"]) == ("1", 2, [], [])
        assert 1000 <= change["predictions"] <= 1100
        (moved,) = change["moved"]
        assert moved["stream"] == "prediction.label"
        assert moved["value"] == pytest.approx(0.3, abs=0.05)
        assert [detail.split(":")[0] for detail in moved["details"][:2]] == ["class d", "class a"]
        ((name, body, attributes),) = processor.events
        assert name == "ml.model.version_changed"
        assert body.endswith(f", held against version 1: {change['text']}")
        assert attributes == {
            "ml.model.name": "shop",
            "ml.model.version": "2",
            "ml.model.version.before": "1",
            "ml.model.version.predictions": change["predictions"],
            "ml.model.version.moved": 1,
            "ml.drift.stream": "prediction.label",
            "ml.model.version.value": moved["value"],
            "ml.model.version.reference": moved["reference"],
            "ml.model.version.current": moved["current"],
        }
        assert processor.alerts == []


def test_a_deploy_that_changes_nothing_says_so() -> None:
    with SimulatedProcessor(SWITCHED_ON) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        deploys.send({"2": CALM}, 15)
        change = deploys.change()
        assert change is not None
        assert (change["text"], change["moved"], change["compared"]) == ("no difference found", [], 2)
        assert [attributes["ml.model.version.moved"] for _, _, attributes in processor.events] == [0]
        assert processor.alerts == []


def test_with_the_choice_it_is_one_alert_which_ends_with_a_rollback_also_across_restarts() -> None:
    with SimulatedProcessor(SWITCHED_ON) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        deploys.send({"2": MOVED}, 5)
        processor.restart()
        deploys.send({"2": MOVED}, 10)
        (alert,) = processor.alerts
        assert (alert.rule, alert.version, alert.severity) == ("version_drift", "2", "critical")
        assert alert.causes[0].summary.startswith("total variation 3")
        assert " from version 1, tolerated 2 % " in alert.causes[0].summary
        change = deploys.change()
        processor.restart()
        assert deploys.change() == change
        deploys.send({"2": MOVED}, 20)
        deploys.send({"1": CALM}, 40)
        (_, resolved) = processor.alerts
        assert (resolved.rule, resolved.is_resolved) == ("version_drift", True)
        assert resolved.reason.startswith("This version is retired")
        assert len(processor.events) == 1
        assert deploys.change("1") is None


def test_an_alert_about_a_version_that_stays_ends_after_a_day() -> None:
    with SimulatedProcessor(SWITCHED_ON) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        deploys.send({"2": MOVED}, 15)
        for _ in range(13):
            processor.advance(7200.0)
            deploys.send({"2": MOVED}, 1)
        assert [(alert.rule, alert.is_resolved) for alert in processor.alerts if alert.rule != "no_data"] == [
            ("version_drift", False),
            ("version_drift", True),
        ]


def test_a_canary_is_held_against_the_version_beside_it() -> None:
    with SimulatedProcessor(SWITCHED_ON) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        deploys.send({"1": CALM, "2": MOVED}, 15)
        deploys.send({"1": CALM, "2": MOVED, "3": CALM}, 15)
        second, third = deploys.change("2"), deploys.change("3")
        assert second is not None
        assert third is not None
        assert (second["before"], third["before"]) == ("1", "1")
        assert (len(second["moved"]), third["text"]) == (1, "no difference found")
        assert [(alert.version, alert.rule) for alert in processor.alerts] == [("2", "version_drift")]


def test_new_classes_are_named_and_streams_that_come_or_go_are_told() -> None:
    with SimulatedProcessor(DEFAULT) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        for _ in range(15):
            processor.now_ns += 10 * 10**9
            labels = {"a": 40, "b": 30, "c": 20, "e": 10}
            processor.send_counts("shop", version="2", labels=labels, features={"income": [1.0, 2.0] * 50})
            processor.advance(0.0)
        processor.advance(26.0)
        change = deploys.change()
        assert change is not None
        assert (change["absent"], change["added"]) == (["input.age"], ["input.income"])
        assert set(change["moved"][0]["details"][:2]) == {"class d: 9.8 % → 0 %", "class e: 0 % → 10 %"}
        assert change["text"].endswith("; input.age is no longer sent; input.income is new")


def test_a_version_before_that_still_learns_is_compared_too() -> None:
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 100_000}}}}) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        deploys.send({"2": CALM}, 15, age=40.0)
        change = deploys.change()
        assert change is not None
        assert [cause["stream"] for cause in change["moved"]] == ["input.age"]
        assert change["text"].startswith("input.age: mean 29.9 → mean 40 (total variation 9")


def test_another_model_or_environment_is_no_version() -> None:
    with SimulatedProcessor(DEFAULT) as processor:
        deploys = Deploys(processor)
        deploys.send({"1": CALM}, 30)
        for _ in range(15):
            processor.now_ns += 10 * 10**9
            processor.send_counts("shop", version="2", environment="test", labels={"a": 100})
            processor.send_counts("other", version="2", labels={"a": 100})
            processor.advance(0.0)
        processor.advance(26.0)
        assert processor.events == []


@pytest.mark.parametrize("seed", range(10, 18))
def test_no_deploy_without_a_change_is_reported(seed: int) -> None:
    with SimulatedProcessor(DEFAULT) as processor:
        deploys = Deploys(processor, seed=seed)
        deploys.send({"1": CALM}, 15)
        deploys.send({"2": CALM}, 11)
        assert [body.rpartition(": ")[2] for _, body, _ in processor.events] == ["no difference found"]
