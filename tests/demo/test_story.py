"""The verdict passes the story as it should be, and names each way in which it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from otel_mlmon.demo.story import (
    AlertFeed,
    ApiSnapshot,
    DemoAct,
    DemoOutcome,
    ExpectedAlert,
    check_alerts,
    find_latest_alerts,
    has_all_references,
    is_without_drift,
    list_expected_alerts,
    list_firing_rules,
    plan_acts,
    play_acts,
)
from tests.support.api_documents import SECOND_NS, START_NS, alert_document, model_document

RULES = ("confidence", "data_drift", "prediction_drift")
DRIFTING = ("prediction.label", "prediction.confidence", "input.image.brightness")


def moment(act: str, at_s: float, model: dict[str, Any] | None, alerts: tuple[dict[str, Any], ...] = ()) -> ApiSnapshot:
    return ApiSnapshot(act=act, at_ns=START_NS + round(at_s * SECOND_NS), model=model, alerts=alerts)


def shifted(at_s: float, rules: tuple[str, ...] = RULES, *, confidence: float = 0.85) -> ApiSnapshot:
    model = model_document(drifting=DRIFTING, confidence=confidence, firing=rules)
    return moment("shift", at_s, model, tuple(alert_document(rule, after_s=2, onset_s=0.5) for rule in rules))


def recovered(at_s: float, rules: tuple[str, ...] = RULES) -> ApiSnapshot:
    fired = [alert_document(rule, after_s=2, onset_s=0.5) for rule in rules]
    resolved = [alert_document(rule, state="ok", after_s=9, onset_s=0.5) for rule in rules]
    return moment("recovery", at_s, model_document(), (*resolved, *fired))


GOOD = (
    moment("learning", -12, None),
    moment("learning", -10, model_document(state="learning")),
    moment("learning", -6, model_document()),
    moment("calm", -2, model_document()),
    moment("shift", 0, model_document()),
    shifted(3),
    recovered(10),
)


def test_the_story_as_it_should_be_passes() -> None:
    times = {"before": "3: 10 %", "now": "3: 55 %", "value": 0.45, "bound": 0.02}
    findings = tuple(
        ExpectedAlert(
            rule=rule,
            stream=stream,
            fired_after_s=2.0,
            onset_after_s=0.5,
            resolved_after_s=9.0,
            **times,  # type: ignore[arg-type]
        )
        for rule, stream in (
            ("prediction_drift", "prediction.label"),
            ("data_drift", "input.image.brightness"),
            ("confidence", "prediction.confidence"),
        )
    )
    assert check_alerts(GOOD) == DemoOutcome(problems=(), alerts=findings)
    assert check_alerts(GOOD).has_passed


@pytest.mark.parametrize(
    ("moments", "missing"),
    [
        pytest.param(
            (),
            (
                "The processor received no telemetry of the model.",
                "No prediction_drift alert named prediction.label.",
                "No data_drift alert named input.image.brightness.",
                "The story did not reach its end.",
            ),
            id="nothing",
        ),
        pytest.param(
            (*GOOD[:2], *GOOD[4:]),
            ("The processor had not learned a reference for every stream when the shift began.",),
            id="not learned",
        ),
        pytest.param(
            (*GOOD[:3], moment("calm", -1, model_document(firing=("latency",))), *GOOD[4:]),
            ("The latency alert fired before the shift.",),
            id="false alarm in the model",
        ),
        pytest.param(
            (
                *GOOD[:3],
                moment("calm", -1, model_document(), (alert_document("data_drift", after_s=-3),)),
                *GOOD[4:],
            ),
            ("The data_drift alert fired before the shift.",),
            id="false alarm in the alerts",
        ),
        pytest.param(
            (
                *GOOD[:5],
                shifted(3, ("confidence", "data_drift")),
                recovered(10, ("confidence", "data_drift")),
            ),
            ("No prediction_drift alert named prediction.label.",),
            id="not seen",
        ),
        pytest.param(
            (
                *GOOD[:5],
                shifted(3, ("data_drift", "prediction_drift")),
                recovered(10, ("data_drift", "prediction_drift")),
            ),
            ("No confidence alert named prediction.confidence.",),
            id="confidence fell unseen",
        ),
        pytest.param(
            (*GOOD[:5], shifted(3, confidence=0.945), GOOD[6]),
            ("The confidence alert fired, but its streams had not changed.",),
            id="confidence did not fall",
        ),
        pytest.param(
            (*GOOD[:5], shifted(3, (*RULES, "errors")), GOOD[6]),
            ("The errors alert fired, but its streams had not changed.",),
            id="another alert",
        ),
        pytest.param(
            (*GOOD[:6], replace(shifted(10), act="recovery")),
            tuple(f"The {rule} alert was still firing at the end." for rule in RULES),
            id="not resolved",
        ),
        pytest.param(
            (*GOOD[:6], moment("recovery", 10, model_document())),
            tuple(
                f"The {rule} alert vanished without being resolved."
                for rule in ("prediction_drift", "data_drift", "confidence")
            ),
            id="vanished",
        ),
        pytest.param(GOOD[:6], ("The story did not reach its end.",), id="cut short"),
    ],
)
def test_the_verdict_names_what_is_missing(moments: tuple[ApiSnapshot, ...], missing: tuple[str, ...]) -> None:
    assert check_alerts(moments).problems == missing
    assert not check_alerts(moments).has_passed


def test_an_alert_about_another_stream_does_not_count() -> None:
    other = alert_document("data_drift", after_s=2)
    other["causes"][0]["stream"] = "input.image.contrast"
    good = GOOD[5]
    wrong = replace(good, alerts=(*[a for a in good.alerts if a["rule"] != "data_drift"], other))
    assert "No data_drift alert named input.image.brightness." in check_alerts((*GOOD[:5], wrong, GOOD[6])).problems


def test_an_alert_that_is_never_resolved_has_no_time_of_it() -> None:
    verdict = check_alerts((*GOOD[:6], replace(shifted(10), act="recovery")))
    assert [finding.resolved_after_s for finding in verdict.alerts] == [None] * 3


def test_a_finding_is_the_alert_as_it_came() -> None:
    later = shifted(5)
    for alert in later.alerts:
        alert["causes"][0] |= {"value": 0.01, "current": "3: 11 %"}
    verdict = check_alerts((*GOOD[:6], later, GOOD[6]))
    assert verdict == check_alerts(GOOD)


def test_a_small_fall_of_confidence_makes_its_alert_neither_wanted_nor_wrong() -> None:
    rules = ("data_drift", "prediction_drift")
    assert check_alerts((*GOOD[:5], shifted(3, RULES, confidence=0.92), GOOD[6])).has_passed
    assert check_alerts((*GOOD[:5], shifted(3, rules, confidence=0.92), recovered(10, rules))).has_passed


def test_expected_takes_confidence_from_the_shift_alone() -> None:
    calm = moment("calm", -1, model_document(confidence=0.5))
    assert [what.rule for what in list_expected_alerts((calm,))] == ["prediction_drift", "data_drift"]
    assert [what.rule for what in list_expected_alerts((calm, shifted(3)))] == [
        "prediction_drift",
        "data_drift",
        "confidence",
    ]


def test_means_that_are_not_known_are_no_fall() -> None:
    model = model_document(drifting=DRIFTING)
    model["streams"][1]["mean"] = {"reference": None, "current": None}
    assert [what.rule for what in list_expected_alerts((moment("shift", 1, model),))] == [
        "prediction_drift",
        "data_drift",
    ]


def test_the_verdict_as_a_document() -> None:
    document = check_alerts(GOOD).to_dict()
    assert (document["passed"], document["problems"]) == (True, [])
    assert document["expected_alerts"][1] == {
        "rule": "data_drift",
        "stream": "input.image.brightness",
        "before": "3: 10 %",
        "now": "3: 55 %",
        "value": 0.45,
        "bound": 0.02,
        "fired_after_s": 2.0,
        "onset_after_s": 0.5,
        "resolved_after_s": 9.0,
    }


def test_states_of_a_moment() -> None:
    assert [has_all_references(entry) for entry in GOOD] == [False, False, True, True, True, True, True]
    assert [is_without_drift(entry) for entry in GOOD] == [False, True, True, True, True, False, True]
    assert [sorted(list_firing_rules(entry)) for entry in GOOD[4:]] == [[], sorted(RULES), []]


def test_a_model_without_an_expected_stream_is_not_watched_yet() -> None:
    model = model_document()
    del model["streams"][2]
    assert not has_all_references(moment("learning", 0, model))


def test_the_newest_alert_of_a_rule_wins_in_any_order() -> None:
    fired, resolved = (
        alert_document("data_drift", after_s=1),
        alert_document("data_drift", state="ok", after_s=2),
    )
    assert find_latest_alerts((fired, resolved)) == find_latest_alerts((resolved, fired)) == {"data_drift": resolved}


def test_news_tells_each_change_once_and_oldest_first() -> None:
    news = AlertFeed()
    fired, resolved = (
        alert_document("data_drift", after_s=1),
        alert_document("data_drift", state="ok", after_s=2),
    )
    assert news.take_new_alerts(moment("shift", 1, None, (fired,))) == [fired]
    assert news.take_new_alerts(moment("shift", 2, None, (fired,))) == []
    assert news.take_new_alerts(moment("recovery", 3, None, (resolved, fired))) == [resolved]
    assert AlertFeed().take_new_alerts(moment("recovery", 3, None, (resolved, fired))) == [fired, resolved]


def played(
    story: tuple[DemoAct, ...], world: dict[str, list[ApiSnapshot]]
) -> tuple[list[str], list[ApiSnapshot], float]:
    """Play with a clock that moves a quarter of a second a pause; an act's last moment repeats."""
    now_s, begun = [0.0], []

    def pause() -> None:
        now_s[0] += 0.25

    def look(act: DemoAct) -> ApiSnapshot:
        moments = world[act.name]
        return moments.pop(0) if len(moments) > 1 else moments[0]

    moments = play_acts(
        story, begin=lambda act: begun.append(act.name), observe=look, pause=pause, clock=lambda: now_s[0]
    )
    return begun, moments, now_s[0]


def test_acts_follow_one_another_as_soon_as_they_are_done() -> None:
    world = {"learning": [*GOOD[:3]], "calm": [GOOD[3]], "shift": [GOOD[4], GOOD[5]], "recovery": [GOOD[6]]}
    begun, moments, elapsed_s = played(plan_acts(8.0), world)
    assert begun == ["learning", "calm", "shift", "recovery"]
    assert elapsed_s == 0.5 + 6.0 + 6.0 + 4.0
    assert check_alerts(moments).has_passed


def test_acts_end_when_their_time_is_over() -> None:
    world = {
        "learning": [GOOD[1]],
        "calm": [GOOD[3]],
        "shift": [GOOD[4]],
        "recovery": [replace(GOOD[5], act="recovery")],
    }
    begun, _, elapsed_s = played(plan_acts(8.0), world)
    assert begun == ["learning", "calm", "shift", "recovery"]
    assert elapsed_s == 7.0 * 8.0
    assert elapsed_s < 60
