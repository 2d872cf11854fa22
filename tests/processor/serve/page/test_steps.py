from __future__ import annotations

from typing import Any

import pytest

from otel_mlmon.processor.serve.page.steps import check_alerts, find_next_step, list_monitoring_steps


def stream(name: str, state: str = "ok", learned: int = 5_000) -> dict[str, Any]:
    return {"stream": name, "state": state, "fault": "", "learned_count": learned, "required_count": 5_000,
            "calibrating": False, "calibrated_ratio": 1.0}  # fmt: skip


def model(*streams: dict[str, Any], predictions: int = 10, p50: float | None = 0.1) -> dict[str, Any]:
    return {"latency": {"p50_s": p50}, "predictions": predictions, "streams": list(streams)}


SETUP = {"notifiers": [{"name": "webhook-0", "kind": "webhook", "outcomes": {}}]}


def states(document: dict[str, Any], setup: dict[str, Any] = SETUP) -> list[str]:
    return [step.state for step in list_monitoring_steps(document, setup)]


def test_all_five_work() -> None:
    document = model(stream("prediction.label"), stream("input.age", "drift"))
    assert states(document) == ["works"] * 5
    assert find_next_step(list_monitoring_steps(document, SETUP)) is None


@pytest.mark.parametrize(
    ("document", "number", "state", "text"),
    [
        (model(stream("prediction.label"), stream("input.age"), p50=None), 1, "waits", "no call in the last minutes"),
        (model(stream("input.age"), predictions=0), 2, "missing", "no output is read as a prediction"),
        (model(stream("prediction.label", "learning", 40), stream("input.age")), 3, "waits",
         "learning the reference: 40 of 5000 values"),
        (model(stream("prediction.label")), 4, "missing", "no features arrive"),
        (model(stream("prediction.label"), {**stream("input.age", "error"), "fault": "another key"}), 4, "broken",
         "1 of 1 features cannot be judged: another key"),
    ],
)  # fmt: skip
def test_the_next_thing_to_do(document: dict[str, Any], number: int, state: str, text: str) -> None:
    steps = list_monitoring_steps(document, SETUP)
    assert (steps[number - 1].state, steps[number - 1].text) == (state, text)
    following = find_next_step(steps)
    assert following is not None
    assert following.number == number
    assert following.todo


def test_what_is_awaited_is_said_in_a_few_words() -> None:
    document = model(stream("prediction.label", "learning", 40), stream("input.age", "learning", 40), p50=None)
    plain, compared = (
        list_monitoring_steps(document, SETUP),
        list_monitoring_steps(document, SETUP, compared_version="7"),
    )
    assert [step.brief for step in plain] == ["no calls", "", "still learning", "still learning", "still learning"]
    assert compared[2].brief == "still learning; until then compared with version 7"
    assert (compared[:2], compared[3:]) == (plain[:2], plain[3:])
    judged = list_monitoring_steps(model(stream("prediction.label"), stream("input.age")), SETUP, compared_version="7")
    assert [step.brief for step in judged] == [""] * 5


def test_no_alert_can_come_while_everything_is_learned() -> None:
    document = model(stream("prediction.label", "learning", 5_000), stream("input.age", "learning", 40))
    steps = list_monitoring_steps(document, SETUP)
    assert [step.state for step in steps] == ["works", "works", "waits", "waits", "waits"]
    assert steps[2].text == "the reference is being learned"
    assert steps[4].text == "no rule can judge this version before a reference is learned"
    assert states(document, {"notifiers": []})[4] == "missing"


@pytest.mark.parametrize(
    ("notifiers", "state"),
    [
        ([], "missing"),
        ([{"name": "log-0", "kind": "log", "outcomes": {"delivered": 3}}], "missing"),
        ([{"name": "webhook-0", "kind": "webhook", "outcomes": {"dead_letter.given_up": 1, "transient": 9}}], "broken"),
        ([{"name": "webhook-0", "kind": "webhook", "outcomes": {"transient": 2, "delivered": 1}}], "works"),
        ([{"name": "pager-0", "kind": "pager"}], "works"),
    ],
)
def test_alerts_reach_somebody(notifiers: list[dict[str, Any]], state: str) -> None:
    step = check_alerts({"notifiers": notifiers})
    assert step.state == state
    assert bool(step.todo) == (state != "works")
