"""What the page says of six seeded incidents and of a quiet fleet."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from markupsafe import Markup

from otel_mlmon.processor.serve.page import alert_view, home_view
from otel_mlmon.processor.serve.page.condition import count_urgent_problems, describe_condition
from otel_mlmon.processor.serve.page.deploy import name_compared_version
from otel_mlmon.processor.serve.page.facts import describe_cause
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.steps import list_monitoring_steps
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.simulated_processor import START_NS
from tests.support.incidents import INCIDENTS, PANE_S, SETUP, simulate, source_of

SINCE = "since 00:05:00"
LOAD = ["Calls as before: 25.1 a second", "Device as before: CUDA (NVIDIA GPU)"]
FACTS = {
    "slow": [f"latency: 55 % over 200 ms {SINCE}, 1 % allowed", *LOAD],
    "failing": [f"errors: 20 % failed {SINCE}, 1 % allowed"],
    "class-gone": [f"prediction.label: class approve: 70 % → 81 % {SINCE}; class decline: 9.7 % → 0 %"],
    "unit": [
        f"input.age: mean 41.3 → mean 497 {SINCE}",
        "No drift of the predictions was seen; a small one would not be yet",
    ],
    "fallback": [
        f"latency: 53 % over 200 ms {SINCE}, 1 % allowed",
        "It runs on CPU, although CUDA (NVIDIA GPU) was asked for",
        LOAD[0],
    ],
    "deploy": [
        f"errors: 30 % failed {SINCE}, 1 % allowed",
        "failed calls, last minute of each: 30 % in version 8, 0 % in version 7",
        "prediction.label: class decline: 10 % in version 7, 58 % in the first 1 000 of version 8",
        "Version 7 had its last calls about 2026-01-01 00:05:00 UTC",
    ],
}  # fmt: skip
BARS = {name: ["reference", "now"] for name in INCIDENTS} | {
    "class-gone": ["reference", SINCE], "deploy": ["version 7", "version 8"],
}  # fmt: skip
PICTURES = {
    "slow": "p95 of latency, last ", "fallback": "p95 of latency, last ", "failing": "failed calls, last ",
    "deploy": "failed calls, last ", "class-gone": f"prediction.label reference{SINCE}",
    "unit": f"input.age reference{SINCE}",
}  # fmt: skip
REASONS = {
    "slow": ["Critical: 55 % of the calls; from 14 % on it is critical."],
    "failing": ["Critical: 20 % of the calls; from 14 % on it is critical."],
    "class-gone": ["Critical: a class that was 9.7 % of the predictions is gone."],
    "unit": ["Critical: 100 % of the values moved; from 25 % on it is critical."],
    "fallback": ["Critical: 53 % of the calls; from 14 % on it is critical."],
    "deploy": ["Critical: 30 % of the calls; from 14 % on it is critical."],
}


@pytest.fixture(scope="module")
def deploy() -> Iterator[SimulatedProcessor]:
    """A version of which so few calls fail that there is no alert yet."""
    incident = INCIDENTS["deploy"]
    early = replace(incident, trouble=replace(incident.trouble, failed_ratio=0.05))
    processor, _ = simulate(early, start_ns=START_NS)
    with processor:
        yield processor


def plain(text: str) -> str:
    return Markup(text).striptags().replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_named_with_its_onset_and_what_to_do(name: str) -> None:
    incident = INCIDENTS[name]
    processor, trouble_ns = simulate(incident, start_ns=START_NS)
    with processor:
        home = home_view.build_home_view(source_of(processor), query="", page=1)
        alerts = alert_view.build_alerts_view(source_of(processor))
    first, *others = home["rows"]
    condition = first["condition"]
    assert (first["id"], first["document"]["version"]) == (incident.model, incident.trouble.version)
    assert condition.state == "firing"
    assert plain(condition.headline) == incident.headline
    assert abs(condition.since_ns - trouble_ns) <= 3 * PANE_S * 10**9
    assert any(incident.action in action.striptags() for action in condition.actions)
    facts = [plain(fact).partition(", since")[0] for fact in condition.facts]
    assert facts == FACTS[name]
    assert [plain(text) for text in condition.severity_reasons] == REASONS[name]
    assert bool(condition.traces) == (name not in ("class-gone", "unit"))
    assert all(url == f"https://jaeger.example/trace/{trace}" for trace, url in condition.traces)
    if condition.traces:
        assert condition.trace_subject == ("slow calls" if name in ("slow", "fallback") else "failed calls")
    assert plain(first["picture_title"]).startswith(PICTURES[name])
    assert not condition.outlook
    assert [title for title, _ in first["shares"].bars] == BARS[name]
    assert [row["id"] for row in home["troubled"]] == [incident.model]
    assert home["is_critical"]
    assert {row["condition"].state for row in others} == ({"ok", "replaced"} if name == "deploy" else {"ok"})
    commands = [command.split()[:3] for _, command in first["commands"]]
    relearn = [["otel-mlmon", "reference", "relearn"]] if name in ("class-gone", "unit") else []
    assert commands == [*relearn, ["otel-mlmon", "alert", "silence"]]
    assert first["recent"] == "last minute"
    # The page of alerts says the same.
    (row,) = alerts["active"]
    assert (row["headline"], row["since_ns"]) == (condition.headline, condition.since_ns)
    assert (tuple(row["facts"]), tuple(row["actions"])) == (condition.facts, condition.actions)
    assert row["commands"] == first["commands"]


@pytest.fixture(scope="module")
def quiet() -> Iterator[dict[str, object]]:
    processor, _ = simulate(None, start_ns=START_NS)
    with processor:
        yield home_view.build_home_view(source_of(processor), query="", page=1)


def test_a_quiet_fleet_has_no_trouble(quiet: dict[str, object]) -> None:
    assert (quiet["troubled"], quiet["total"], quiet["counts"]) == ([], 3, {"ok": 3})
    for row in quiet["rows"]:  # type: ignore[attr-defined]
        assert (row["condition"].facts, row["condition"].actions, row["condition"].since_ns) == ((), (), 0)
        assert row["condition"].headline == "nothing to do"
        note = (
            r"The daily variation of 2 inputs, the confidence and the predicted classes is still being learned: "
            r"for some days only changes of \d\d % of the values or more are noticed\."
        )
        assert re.fullmatch(note, plain(row["condition"].note))


def outlook(source: PageSource, change: Any) -> str:
    """What is said of the new version, after a change of the documents."""
    overview = copy.deepcopy(dict(source.overview))
    model = overview["versions"]["churn"]["8"]
    source = replace(source, overview=overview, setup=copy.deepcopy(dict(source.setup)))
    change(model, source)
    return plain(describe_condition(source, "churn", model).outlook)


def stream_of(model: Any, name: str) -> Any:
    return next(stream for stream in model["streams"] if stream["stream"] == name)


def test_why_there_is_no_alert_yet_and_when_there_would_be_one(deploy: SimulatedProcessor) -> None:
    source = source_of(deploy)

    def set_errors(**values: object) -> Any:
        return lambda model, _: stream_of(model, "errors").update(values)

    def switch_off(model: Any, _: PageSource) -> None:
        model["rules"] = [rule for rule in model["rules"] if rule["rule"] != "errors"]

    def recover(model: Any, _: PageSource) -> None:
        model["error_ratio"] = 0.0
        stream_of(model, "errors").update(state="learning", current_shares=[1.0, 0.0])

    def await_for(model: Any, changed: PageSource) -> None:
        changed.setup["alert_for_s"] = 300.0  # type: ignore[index]
        rule = next(rule for rule in model["rules"] if rule["rule"] == "errors")
        rule.update(state="pending", changed_ns=START_NS)

    measuring = "No alert yet: the rule errors still measures how much failures vary by themselves"
    learning = {"state": "learning", "log10_evidence": 0.0}
    assert outlook(source, set_errors(**learning, calibrated_ratio=0.5)) == (
        f"{measuring}; at this traffic for about 50 s more."
    )
    assert outlook(source, set_errors(**learning, calibrated_ratio=0.0)) == f"{measuring}."
    judged = {"state": "ok", "log10_evidence": 2.0, "log10_alarm_line": 8.0}
    assert outlook(source, set_errors(**judged)) == (
        "No alert yet: the evidence has come 25 % of the way to the alarm line."
    )
    assert (
        outlook(source, set_errors(state="ok", log10_evidence=0.0))
        == "No alert yet: there are too few calls to be sure yet."
    )
    assert (
        outlook(source, set_errors(**{**judged, "log10_evidence": 8.0}))
        == "No alert yet: it is beyond chance, and has not spent five minutes of the month's budget yet."
    )
    assert (
        outlook(source, set_errors(state="ok", log10_evidence=0.0, current_shares=[1.0, 0.0]))
        == "No alert yet: it is within the 1 % of calls that are allowed."
    )
    assert outlook(source, switch_off) == "No alert comes of it, since the rule errors is switched off."
    assert outlook(source, recover) == "No alert comes of it, since the rule version_drift is switched off."
    assert outlook(source, await_for) == (
        "No alert yet: there is one when it has lasted 5 min, about 2026-01-01 00:05:00 UTC."
    )


def test_a_deploy_that_was_meant_is_no_longer_shown_after_two_hours(deploy: SimulatedProcessor) -> None:
    source = source_of(deploy)
    overview = copy.deepcopy(dict(source.overview))
    model = overview["versions"]["churn"]["8"]
    model["error_ratio"] = 0.0
    source = replace(source, overview=overview)
    stream_of(model, "errors").update(state="learning", current_shares=[1.0, 0.0])
    condition = describe_condition(source, "churn", model)
    assert list_monitoring_steps(model, SETUP, compared_version=name_compared_version(condition.deploy))[2].brief == (
        "still learning; until then compared with version 7"
    )
    assert (condition.state, condition.actions[0].striptags()) == (
        "pending", "Compare with version 7; go back to it unless the change of version 8 was meant.",
    )  # fmt: skip
    assert plain(condition.headline) == "since its deploy 58 % of predictions are decline, 10 % in version 7"
    model["updated_ns"] += 2 * 3_600 * 10**9
    assert describe_condition(source, "churn", model).state == "learning"


def cause(**values: object) -> dict[str, Any]:
    return {"stream": "prediction.label", "origin": "learned", "reference": "class a: 60 %", "current": "70 %",
            "bins": ["a", "b"], "reference_shares": [0.6, 0.4], "current_shares": [0.7, 0.3], **values}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (cause(), "prediction.label: class a: 60 % → 70 %"),
        (cause(current="100 %", current_shares=[1.0, 0.0]),
         "prediction.label: class a: 60 % → 100 %; class b: 40 % → 0 %"),
        (cause(reference="class b: 40 %", current="0 %", current_shares=[1.0, 0.0]),
         "prediction.label: class b: 40 % → 0 %"),
        (cause(stream="latency", origin="budget", reference="1 % allowed", current="7 % over 200 ms"),
         "latency: 7 % over 200 ms, 1 % allowed"),
        (cause(stream="<b>", reference="\n<i>", current="\u202e"), "&lt;b&gt;: \\n&lt;i&gt; → \\u202e"),
    ],
)  # fmt: skip
def test_what_is_allowed_and_what_was_measured_are_told_apart(document: dict[str, Any], text: str) -> None:
    described = describe_cause(document)
    assert str(described).replace("<bdi>", "").replace("</bdi>", "").replace("\N{NO-BREAK SPACE}", " ") == text


def describe_other(source: PageSource, version: str, **values: object) -> Any:
    """What is said of a version, after a change of its document."""
    overview = copy.deepcopy(dict(source.overview))
    overview["alerts"] = []
    overview["versions"]["churn"][version].update(values)
    changed = replace(source, overview=overview)
    return describe_condition(changed, "churn", overview["versions"]["churn"][version])


def test_a_version_that_was_replaced_is_called_so_and_its_figures_are_of_its_end(deploy: SimulatedProcessor) -> None:
    source = source_of(deploy)
    rows = {row["document"]["version"]: row for row in home_view.build_home_view(source, query="churn", page=1)["rows"]}
    row = rows["7"]
    assert row["condition"].state == "replaced"
    assert plain(row["condition"].headline) == "version 8 has its calls since about 2026-01-01 00:05:00 UTC"
    assert (row["recent"], row["steps"], row["condition"].note) == ("its last minute, until about 00:05:00", (), "")
    assert plain(row["picture_title"]) == "p95 of latency, 5 min until 00:05:00"
    assert (rows["8"]["recent"], rows["8"]["condition"].replacement) == ("last minute", None)
    # Whatever its last calls were like, nothing is wrong with it any more.
    errors = {"stream": "errors", "state": "learning", "origin": "budget", "current_count": 900,
              "current_shares": [0.5, 0.5], "reference_shares": [0.99, 0.01]}  # fmt: skip
    assert describe_other(source, "7", streams=[errors]).state == "replaced"
    # It still has calls, so few that none in 80 s is chance, or it sends zeros since less than a minute.
    last_ns = source.overview["versions"]["churn"]["8"]["updated_ns"]
    assert describe_other(source, "7", updated_ns=last_ns).state == "ok"
    assert describe_other(source, "7", throughput_per_s=0.01).state == "ok"
    assert describe_other(source, "7", updated_ns=last_ns - 300 * 10**9, throughput_per_s=0.01).state == "replaced"
    assert describe_other(source, "7", updated_ns=last_ns, throughput_per_s=0.0).state == "ok"


def test_a_model_that_is_silent_as_a_whole_was_not_replaced(deploy: SimulatedProcessor) -> None:
    source = source_of(deploy)
    later = replace(source, now_ns=source.now_ns + 3_600 * 10**9)
    assert describe_other(later, "8").replacement is None


@pytest.fixture(scope="module")
def early() -> Iterator[SimulatedProcessor]:
    """A version that fails since its first call, so early that no rule judges it yet."""
    processor, _ = simulate(replace(INCIDENTS["deploy"], panes=4), start_ns=START_NS)
    with processor:
        yield processor


def test_trouble_before_any_alert_is_on_every_page(early: SimulatedProcessor) -> None:
    source = source_of(early)
    assert source.overview["alerts"] == []
    home = home_view.build_home_view(source, query="", page=1)
    condition = home["rows"][0]["condition"]
    assert (condition.state, home["is_critical"], count_urgent_problems(source)) == ("trouble", True, 1)
    assert re.fullmatch(r"[23]\d % of calls fail since its deploy; go back to version 7", plain(condition.headline))
    assert condition.actions[0].striptags().startswith("Go back to version 7")
    assert plain(condition.outlook).startswith("No alert yet: ")
    assert [row["id"] for row in home["troubled"]] == ["churn"]
    waiting = alert_view.build_alerts_view(source)["waiting"]
    assert [(row["id"], row["condition"].headline) for row in waiting] == [("churn", condition.headline)]
    # Rolled back, it is over.
    calm = copy.deepcopy(dict(source.overview))
    calm["versions"]["churn"]["7"]["updated_ns"] += 60 * 10**9
    rolled_back = replace(source, overview=calm)
    assert count_urgent_problems(rolled_back) == 0
    assert describe_condition(rolled_back, "churn", calm["versions"]["churn"]["8"]).state == "replaced"
