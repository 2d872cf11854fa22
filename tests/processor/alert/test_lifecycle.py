from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import Alert, AlertLink, RuleState
from otel_mlmon.processor.alert.cause import OnsetCounts, rank_causes
from otel_mlmon.processor.alert.lifecycle import MAX_RESOLVED
from otel_mlmon.processor.alert.records import MAX_EXEMPLARS, RETIRED, AlertsRecord
from otel_mlmon.processor.alert.rules.data_drift import DataDriftRule
from otel_mlmon.processor.alert.rules.rule import Judgement
from otel_mlmon.processor.alert.silence import AlertSilence, SilenceRequest
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.detect.score import DriftScore, State
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.window import StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.alerts import CAUSE
from tests.support.scores import MODEL, SECOND_NS, Judged, judged

Change = tuple[str, RuleState, RuleState]


def ns(at_s: float) -> int:
    """Seconds of a test as Unix nanoseconds."""
    return round((1_000_000 + at_s) * SECOND_NS)


def changes(alerts: list[Alert]) -> list[Change]:
    return [(alert.rule, alert.previous, alert.state) for alert in alerts]


class Run:
    """Alerts, a clock in seconds, and a restart whenever it is asked for.

    Args:
        rules: The sections of all models.
        limits: The section `limits`.
        alerts: The section `list_alerts`.
    """

    def __init__(self, **options: Any) -> None:
        self.configure(**options)
        self.alerts = self.settings.create_state_machine()

    def configure(
        self,
        *,
        for_: str = "0s",
        rules: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        keep_firing_for: str = "0s",
        **alerts: Any,
    ) -> None:
        section = {**alerts, "for": for_, "keep_firing_for": keep_firing_for}
        sections = {"models": {"*": rules or {}}, "limits": limits, "alerts": section}
        self.settings = ProcessorSettings(Config.model_validate(sections))

    def pane(self, at_s: float, *entries: Judged, model: ModelKey = MODEL) -> list[Change]:
        return changes(self.alerts.evaluate_windows(model, dict(entries).values(), ns(at_s)))

    def tick(self, at_s: float) -> list[Change]:
        return changes(self.alerts.advance_clock(ns(at_s)))

    def restart(self, at_s: float) -> None:
        record = decode_record(encode_record(self.alerts.build_record()), AlertsRecord)
        self.alerts = self.settings.create_state_machine(record, now_ns=ns(at_s))

    def state(self, rule: str, model: ModelKey = MODEL) -> RuleState:
        return {(status.model, status.rule): status.state for status in self.alerts.list_current_alerts()}[model, rule]


DRIFT = judged("input.a", "drift")
QUIET = judged("input.a", "ok")
FIRES: Change = ("data_drift", RuleState.OK, RuleState.FIRING)
RESOLVES: Change = ("data_drift", RuleState.FIRING, RuleState.OK)
FALLS_SILENT: Change = ("no_data", RuleState.OK, RuleState.NO_DATA)
LATE_FIRES: Change = ("data_drift", RuleState.PENDING, RuleState.FIRING)
COMES_BACK: Change = ("no_data", RuleState.NO_DATA, RuleState.OK)


def test_drift_fires_once_and_is_resolved_once() -> None:
    run = Run()
    assert run.pane(1, QUIET) == []
    assert run.pane(2, DRIFT) == [FIRES]
    assert run.pane(3, DRIFT) == []
    assert run.pane(4, QUIET) == [RESOLVES]
    assert run.pane(5, QUIET) == []


def test_the_alert_says_when_who_and_where_to_look() -> None:
    run = Run(
        links={"wiki": "https://wiki/{model}"}, runbook_url="https://runbooks/", dashboard_url="https://d?m={model}"
    )
    entry = judged("input.a", "drift", since_ns=3 * SECOND_NS, exemplars=("t1", "t2"))
    (alert,) = run.alerts.evaluate_windows(MODEL, dict([entry]).values(), ns(7))
    assert (alert.model, alert.version, alert.time_ns, alert.onset_ns) == ("digits", "1", ns(7), 3 * SECOND_NS)
    assert alert.exemplars == ("t1", "t2")
    assert alert.links == (
        AlertLink(name="dashboard", url="https://d?m=digits"),
        AlertLink(name="runbook", url="https://runbooks/data_drift.md"),
        AlertLink(name="wiki", url="https://wiki/digits"),
    )
    assert [cause.stream for cause in alert.causes] == ["input.a"]
    (resolved,) = run.alerts.evaluate_windows(MODEL, dict([QUIET]).values(), ns(9))
    assert resolved == replace(alert, state=RuleState.OK, previous=RuleState.FIRING, time_ns=ns(9), sequence=2)
    assert (alert.sequence, alert.incident_ns) == (1, ns(7))
    assert run.alerts.list_alerts() == [resolved]


def test_it_is_resolved_only_when_every_stream_is_ok_again() -> None:
    run = Run()
    other = judged("input.b", "drift")
    assert run.pane(1, DRIFT, other) == [FIRES]
    assert run.pane(2, QUIET) == []  # input.b was not in this pane: it is what it was
    assert run.pane(3, judged("input.b", "learning")) == []
    assert run.pane(4, judged("input.b", "learning")) == []
    assert run.pane(5, judged("input.b", "ok")) == [RESOLVES]


def test_forty_features_are_one_alert_with_forty_causes() -> None:
    run = Run()
    entries = [judged(f"input.{index}", "drift") for index in range(40)]
    (alert,) = run.alerts.evaluate_windows(MODEL, dict(entries).values(), ns(1))
    assert len(alert.causes) == 40


def test_for_is_how_long_drift_must_last() -> None:
    run = Run(for_="10s")
    assert run.pane(0, DRIFT) == []
    assert run.state("data_drift") is RuleState.PENDING
    assert run.tick(60) == []  # time alone is no evidence
    assert run.pane(61, QUIET) == []
    assert run.state("data_drift") is RuleState.OK
    assert run.pane(62, DRIFT) == []
    assert run.pane(71, DRIFT) == []
    assert run.pane(72, DRIFT) == [("data_drift", RuleState.PENDING, RuleState.FIRING)]


def test_keep_firing_for_is_how_long_quiet_must_last() -> None:
    run = Run(keep_firing_for="10s")
    assert run.pane(0, DRIFT) == [FIRES]
    assert run.pane(1, QUIET) == []
    assert run.pane(5, DRIFT) == []
    assert run.pane(6, QUIET) == []
    assert run.tick(60) == []  # time alone is no evidence of health
    assert run.pane(15.9, QUIET) == []
    assert run.pane(16, QUIET) == [RESOLVES]


def test_silence_is_told_once_and_never_looks_like_ok() -> None:
    run = Run()
    run.pane(0, QUIET, judged("latency", "ok"))
    assert run.tick(599) == []
    assert run.state("data_drift") is RuleState.OK
    assert run.tick(600) == [FALLS_SILENT]
    assert run.tick(601) == []
    assert {status.state for status in run.alerts.list_current_alerts()} == {RuleState.NO_DATA}
    assert run.pane(700, judged("latency", "ok")) == [COMES_BACK]
    assert run.state("data_drift") is RuleState.OK


def test_what_fires_keeps_firing_through_silence() -> None:
    run = Run()
    run.pane(0, DRIFT)
    assert run.tick(3 * 86400) == [FALLS_SILENT]
    assert run.state("data_drift") is RuleState.FIRING
    assert run.pane(3 * 86400 + 1, DRIFT) == [COMES_BACK]


def test_an_empty_pane_is_silence_too() -> None:
    run = Run()
    run.pane(0, QUIET)
    assert run.pane(599, judged("input.a", "ok", pane=(0, 0))) == []
    assert run.tick(600) == [FALLS_SILENT]


def test_a_new_version_raises_no_alarm_about_the_old_one() -> None:
    run = Run()
    new = ModelKey("digits", "2")
    run.pane(0, DRIFT)
    run.pane(300, judged("latency", "ok", model=new), model=new)
    run.pane(800, judged("latency", "ok", model=new), model=new)
    # The old one is retired, and what it fired is over.
    ended = run.alerts.advance_clock(ns(900))
    assert (changes(ended), [alert.reason for alert in ended]) == ([RESOLVES], [RETIRED.format("5m")])
    assert run.state("latency") is RuleState.NO_DATA  # of the old one: not ok, and not told
    # A day later the old version is forgotten.
    run.pane(86400, judged("latency", "ok", model=new), model=new)
    assert run.tick(86400) == []
    assert {status.model for status in run.alerts.list_current_alerts()} == {new}


def test_a_model_that_is_forgotten_ends_what_it_told_and_is_gone() -> None:
    run = Run()
    run.pane(0, DRIFT)
    assert run.tick(14 * 86400) == [FALLS_SILENT]
    ended = run.alerts.remove_model(MODEL, ns(14 * 86400))
    assert changes(ended) == [RESOLVES, COMES_BACK]
    reason = "It was silent for so long that it is forgotten."
    assert [alert.reason for alert in (*ended, *run.alerts.list_alerts())] == [reason] * 4
    assert (run.alerts.list_current_alerts(), run.alerts.build_record().models) == ([], [])
    assert run.alerts.remove_model(MODEL, ns(14 * 86400)) == []
    assert run.tick(15 * 86400) == []


def test_a_version_that_brings_data_ends_the_silence_of_the_name() -> None:
    run = Run()
    new = ModelKey("digits", "2")
    run.pane(0, QUIET)
    assert run.tick(600) == [FALLS_SILENT]
    assert run.pane(700, judged("latency", "ok", model=new), model=new) == [COMES_BACK]
    assert run.tick(701) == []


def test_a_stream_that_vanished_from_a_live_model_is_forgotten() -> None:
    run = Run()
    assert run.pane(0, DRIFT) == [FIRES]
    assert run.pane(86399, judged("latency", "ok")) == []
    assert run.tick(86399) == []
    assert run.pane(86400, judged("latency", "ok")) == []
    assert run.tick(86400) == [RESOLVES]


def test_a_rule_that_is_switched_off_is_not_judged_and_ends_what_it_fired() -> None:
    run = Run()
    run.pane(0, DRIFT)
    run.configure(rules={"data_drift": {"enabled": False}, "no_data": {"enabled": False}})
    run.restart(1)
    assert run.tick(2) == [RESOLVES]
    assert run.pane(3, DRIFT) == []
    assert run.tick(10_000) == []
    assert "data_drift" not in {status.rule for status in run.alerts.list_current_alerts()}


@pytest.mark.parametrize(("off", "on"), [("data_drift", "latency"), ("latency", "data_drift")])
def test_a_rule_that_is_switched_off_hides_none_of_the_others(off: str, on: str) -> None:
    run = Run()
    slow = judged("latency", "drift", pane=(50, 50), reference=(99, 1))
    assert sorted(rule for rule, _, state in run.pane(0, DRIFT, slow) if state is RuleState.FIRING) == [
        "data_drift", "latency",
    ]  # fmt: skip
    run.configure(rules={off: {"enabled": False}, "no_data": {"enabled": False}})
    run.restart(1)
    assert run.tick(2) == [(off, RuleState.FIRING, RuleState.OK)]
    # Its stream has vanished: nothing but the clock ends it.
    assert run.pane(90_000, judged("confidence", "ok")) == []
    assert run.tick(90_000) == [(on, RuleState.FIRING, RuleState.OK)]


def test_the_rules_of_some_models_are_theirs_alone() -> None:
    run = Run()
    other = ModelKey("other", "1")
    run.pane(0, QUIET)
    run.pane(0, judged("input.a", "drift", model=other), model=other)
    every = run.alerts.list_current_alerts()
    assert {status.model for status in every} == {MODEL, other}
    wanted = [other, ModelKey("nobody", "1")]
    assert run.alerts.list_current_alerts(wanted) == [status for status in every if status.model == other]
    assert run.alerts.list_current_alerts([]) == []


def test_streams_that_are_gone_end_what_only_they_fired() -> None:
    run = Run()
    other = judged("input.b", "drift")
    assert run.pane(0, DRIFT, other) == [FIRES]
    assert run.alerts.remove_streams([DRIFT[0]], ns(1), "It was learned again.") == []
    (alert,) = run.alerts.remove_streams([other[0]], ns(2), "It was learned again.")
    assert (changes([alert]), alert.reason, alert.time_ns) == ([RESOLVES], "It was learned again.", ns(2))
    assert run.alerts.remove_streams([other[0]], ns(3), "It was learned again.") == []


class BrokenAge:
    """Makes the rule `data_drift` fail on `input.age` while it is switched on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = True
        judge: Callable[..., Judgement] = DataDriftRule.judge_stream

        def broken(rule: DataDriftRule, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
            if self.is_on and window.stream.stream == "input.age":
                raise ZeroDivisionError
            return judge(rule, window, score, counts)

        monkeypatch.setattr(DataDriftRule, "judge_stream", broken)


@pytest.mark.guarded
def test_a_rule_that_fails_on_a_stream_is_in_error_until_it_can_judge_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run, broken = Run(), BrokenAge(monkeypatch)
    age = judged("input.age", "drift")
    (alert,) = run.alerts.evaluate_windows(MODEL, dict([age, QUIET]).values(), ns(1))
    assert (alert.state, alert.severity, alert.causes) == (RuleState.ERROR, "warning", ())
    assert alert.reason == "It failed to judge input.age; see the processor's log."
    assert (run.pane(2, age, QUIET), run.tick(2)) == ([], [])
    assert run.alerts.list_alerts() == [alert]
    run.restart(2)
    broken.is_on = False
    assert run.pane(3, judged("input.age", "learning"), QUIET) == []
    assert run.state("data_drift") is RuleState.ERROR
    age = judged("input.age", "ok")
    assert run.pane(4, age) == [("data_drift", RuleState.ERROR, RuleState.OK)]
    assert run.pane(5, age) == []


@pytest.mark.guarded
def test_a_failure_hides_no_breach_of_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    run, broken = Run(), BrokenAge(monkeypatch)
    assert run.pane(1, judged("input.age", "drift"), DRIFT, judged("errors", "drift", pane=(10, 90))) == [
        ("errors", RuleState.OK, RuleState.FIRING), FIRES,
    ]  # fmt: skip
    assert run.pane(2, judged("input.age", "ok"), QUIET) == [("data_drift", RuleState.FIRING, RuleState.ERROR)]
    assert run.pane(3, DRIFT) == [("data_drift", RuleState.ERROR, RuleState.FIRING)]
    broken.is_on = False
    assert run.pane(4, judged("input.age", "ok")) == []
    assert run.pane(5, QUIET) == [RESOLVES]


@pytest.mark.guarded
def test_an_error_lasts_no_longer_than_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = Run(), BrokenAge(monkeypatch)
    latency = judged("latency", "ok")
    assert run.pane(0, judged("input.age", "drift")) == [("data_drift", RuleState.OK, RuleState.ERROR)]
    run.pane(86399, latency)
    assert run.tick(86399) == []
    run.pane(86400, latency)
    assert run.tick(86400) == [("data_drift", RuleState.ERROR, RuleState.OK)]


def test_time_does_not_run_back() -> None:
    run = Run(for_="10s")
    run.pane(100, DRIFT)
    assert run.pane(50, DRIFT) == []
    (alert,) = run.alerts.evaluate_windows(MODEL, dict([DRIFT]).values(), ns(110))
    assert alert.time_ns == ns(110)


def test_active_alerts_show_their_causes_as_they_are_now() -> None:
    run = Run()
    run.pane(1, judged("input.a", "drift", pane=(60, 40)))
    run.pane(2, judged("input.a", "drift", pane=(100, 0), exemplars=("new",)), judged("input.b", "drift"))
    (alert,) = run.alerts.list_alerts()
    assert (alert.time_ns, alert.severity, alert.exemplars) == (ns(1), "critical", ("new",))
    assert [(cause.stream, cause.current) for cause in alert.causes] == [("input.a", "100 %"), ("input.b", "90 %")]


def test_resolved_alerts_are_kept_newest_first_and_few() -> None:
    run = Run()
    for hour in range(0, 400, 2):
        run.pane(3600 * hour, DRIFT)
        run.pane(3600 * (hour + 1), QUIET)
    run.pane(3600 * 400, DRIFT)
    at_ns = [alert.time_ns for alert in run.alerts.list_alerts()]
    assert (len(at_ns), at_ns[0]) == (MAX_RESOLVED + 1, ns(3600 * 400))
    assert at_ns == sorted(at_ns, reverse=True)


def test_a_restart_neither_fires_again_nor_forgets() -> None:
    run = Run()
    assert run.pane(0, DRIFT) == [FIRES]
    before = run.alerts.list_alerts()
    run.restart(5)
    assert run.alerts.list_alerts() == before
    assert run.pane(6, DRIFT) == []
    assert run.pane(7, QUIET) == [RESOLVES]


def test_while_the_processor_was_down_no_model_was_silent() -> None:
    run = Run()
    run.pane(0, QUIET)
    run.tick(100)
    run.restart(5000)
    assert run.tick(5499) == []
    assert run.tick(5500) == [FALLS_SILENT]


BOTH = (DRIFT, judged("input.b", "drift", since_ns=9 * SECOND_NS))


def test_a_stream_that_joins_is_told_once_when_nothing_was_added_for_a_minute() -> None:
    run = Run()
    run.pane(0, DRIFT)
    assert run.pane(10, *BOTH) == []
    assert run.tick(69) == []
    (update,) = run.alerts.advance_clock(ns(70))
    assert (update.is_update, update.state, update.news, update.joined) == (
        True, RuleState.FIRING, ("input.b",), ("input.b",)
    )  # fmt: skip
    assert (update.onset_ns, update.incident_ns, update.causes[0].stream) == (9 * SECOND_NS, ns(0), "input.b")
    assert [cause.stream for cause in update.causes] == ["input.b", "input.a"]
    run.pane(80, judged("input.b", "ok"), DRIFT)
    run.pane(90, *BOTH)  # it was told
    assert (run.tick(1000)) == [FALLS_SILENT]
    assert run.pane(1010, QUIET, judged("input.b", "ok")) == [COMES_BACK, RESOLVES]


def test_what_left_before_the_minute_was_over_is_no_news() -> None:
    run = Run()
    run.pane(0, DRIFT)
    run.pane(10, *BOTH)
    run.pane(20, judged("input.b", "ok"), DRIFT)
    assert run.tick(200) == []


def test_a_severity_that_rises_is_told_once_and_stays_told() -> None:
    run = Run()
    weak, strong = judged("input.a", "drift", pane=(60, 40)), judged("input.a", "drift", pane=(100, 0))
    run.pane(0, weak)
    run.pane(10, strong)
    (update,) = run.alerts.advance_clock(ns(70))
    assert (update.severity, update.news, update.joined) == ("critical", ("severity",), ())
    run.pane(80, weak)
    run.pane(90, strong)
    assert run.tick(500) == []
    (resolved,) = run.alerts.evaluate_windows(MODEL, dict([QUIET]).values(), ns(510))
    assert resolved.severity == "critical"


def test_two_hundred_features_that_jump_are_one_alert_and_one_update() -> None:
    run = Run()
    told = []
    for pane in range(60):
        features = [judged(f"input.{number}", "drift") for number in range(min(200, 4 * pane * pane + 1))]
        told += run.alerts.evaluate_windows(MODEL, dict(features).values(), ns(10 * pane)) + run.alerts.advance_clock(
            ns(10 * pane)
        )
    assert [(alert.is_beginning, alert.is_update, len(alert.causes)) for alert in told] == [
        (True, False, 1), (False, True, 200)
    ]  # fmt: skip


def test_news_wait_no_longer_than_five_minutes() -> None:
    run = Run()
    run.pane(0, DRIFT)
    told = [run.pane(10 + 50 * number, DRIFT, *(judged(f"input.{at}", "drift") for at in range(number + 1)))
            for number in range(7)]  # fmt: skip
    assert [len(alerts) for alerts in told] == [0, 0, 0, 0, 0, 0, 1]


def test_what_fires_again_soon_is_held_longer_each_time() -> None:
    run = Run()
    told = []
    for second in range(0, 7200, 10):
        told += run.pane(second, DRIFT if second // 100 % 2 == 0 else QUIET)
    assert told == [FIRES, RESOLVES, FIRES]


@pytest.mark.parametrize("period_s", [20, 40, 100, 200, 600, 1200, 2400, 3600])
@pytest.mark.parametrize("loud", [0.4, 0.5, 0.8])
def test_what_swings_around_a_bound_is_one_alert(period_s: int, loud: float) -> None:
    run = Run(keep_firing_for="auto")
    told = []
    for second in range(0, 8 * period_s, 10):
        told += run.pane(second, DRIFT if second % period_s < loud * period_s else QUIET)
    assert told == [FIRES]
    told = [change for second in range(10 * period_s, 10 * period_s + 7300, 10) for change in run.pane(second, QUIET)]
    assert told == [RESOLVES]


@pytest.mark.parametrize(("breach_s", "hold_s"), [(10, 15), (100, 150), (2400, 3600), (86_400, 3600)])
def test_the_longer_it_fired_the_longer_it_must_be_quiet(breach_s: int, hold_s: int) -> None:
    run = Run(keep_firing_for="auto")
    assert run.pane(0, judged("input.a", "drift", since_ns=ns(0))) == [FIRES]
    assert run.pane(breach_s, QUIET) == []
    run.restart(breach_s + 1)
    assert run.pane(breach_s + hold_s - 1, QUIET) == []
    assert run.pane(breach_s + hold_s, QUIET) == [RESOLVES]


def test_the_breach_began_with_its_onset_and_not_with_its_alarm() -> None:
    run = Run(keep_firing_for="auto")
    assert run.pane(100, judged("input.a", "drift", since_ns=ns(0))) == [FIRES]
    assert run.pane(110, QUIET) == []
    assert run.pane(110 + 164, QUIET) == []
    assert run.pane(110 + 165, QUIET) == [RESOLVES]


def test_rules_with_one_cause_name_each_other() -> None:
    run = Run()
    label = judged("prediction.label", "drift")
    first, second = run.alerts.evaluate_windows(MODEL, dict([DRIFT, label]).values(), ns(1))
    assert [[(related.rule, related.stream) for related in alert.related] for alert in (first, second)] == [
        [("data_drift", "input.a")], [("prediction_drift", "prediction.label")],
    ]  # fmt: skip
    assert {alert.rule: [related.rule for related in alert.related] for alert in run.alerts.list_alerts()} == {
        "prediction_drift": ["data_drift"], "data_drift": ["prediction_drift"],
    }  # fmt: skip


def test_rules_that_fire_hours_apart_are_not_related() -> None:
    run = Run()
    run.pane(1, DRIFT)
    late = judged("prediction.label", "drift", since_ns=7200 * SECOND_NS)
    (alert,) = run.alerts.evaluate_windows(MODEL, dict([late]).values(), ns(7300))
    assert alert.related == ()


def silence(start_s: float, end_s: float, **fields: str) -> SilenceRequest:
    options: dict[str, Any] = {"id": "1", "author": "ann", **fields}
    return SilenceRequest(silence=AlertSilence(start_ns=ns(start_s), end_ns=ns(end_s), **options))


def test_what_still_fires_when_its_silence_ends_is_told_then() -> None:
    run = Run()
    run.alerts.announcer.apply_silence(silence(0, 100), ns(0))
    assert run.pane(10, DRIFT) == []
    (shown,) = run.alerts.list_alerts()
    assert (shown.state, shown.silence.startswith("silenced by ann until ")) == (RuleState.FIRING, True)
    run.restart(50)
    assert run.tick(99) == []
    (alert,) = run.alerts.advance_clock(ns(100))
    assert (alert.is_beginning, alert.silence, alert.incident_ns) == (True, "", ns(100))
    assert run.tick(101) == []
    assert run.pane(110, QUIET) == [RESOLVES]


def test_what_ended_in_silence_is_told_to_whoever_knows_that_it_began() -> None:
    run = Run()
    assert run.pane(0, DRIFT) == [FIRES]
    run.alerts.announcer.apply_silence(silence(1, 1000), ns(1))
    assert run.pane(10, *BOTH) == []
    assert run.tick(200) == []  # no update
    assert run.pane(210, QUIET, judged("input.b", "ok")) == [RESOLVES]
    assert run.pane(7200, DRIFT) == [FIRES]


def test_what_began_and_ended_in_silence_is_never_told() -> None:
    run = Run()
    run.alerts.announcer.apply_silence(silence(0, 100), ns(0))
    assert run.pane(10, DRIFT) == []
    assert run.pane(20, QUIET) == []
    assert run.tick(200) == []
    assert [alert.state for alert in run.alerts.list_alerts()] == [RuleState.OK]


def test_a_silence_is_about_its_models_and_rules_and_can_be_ended() -> None:
    run = Run()
    run.alerts.announcer.apply_silence(silence(0, 100, model="fraud-*"), ns(0))
    run.alerts.announcer.apply_silence(silence(0, 1000, id="2", rule="data_*"), ns(0))
    assert run.pane(10, DRIFT, judged("errors", "drift", pane=(10, 90))) == [("errors", RuleState.OK, RuleState.FIRING)]
    run.alerts.announcer.apply_silence(SilenceRequest(expired_id="2"), ns(20))
    assert run.tick(20) == [FIRES]


def test_maintenance_withholds_like_a_silence() -> None:
    # The tests' clock begins at 13:46:40 UTC on 1970-01-12, a Monday.
    run = Run(maintenance=[{"days": ["mon"], "start": "13:00", "end": "14:00", "model": "dig*"}])
    assert run.pane(0, DRIFT) == []
    assert run.tick(13 * 60 + 19) == [FALLS_SILENT] or run.state("data_drift") is RuleState.FIRING


def test_a_silence_names_a_model_in_all_environments_or_in_one() -> None:
    staging, weird = ModelKey("fraud", "1", "staging"), ModelKey("fraud[1]", "1", "a b")
    about = {
        pattern: [silence(0, 1, model=pattern).silence.matches_model(key) for key in (MODEL, staging, weird)]  # type: ignore[union-attr]
        for pattern in (
            "digits",
            "fraud",
            "fraud@staging",
            "fraud@prod",
            "fraud[1]",
            "fraud[1]@a%20b",
            "*",
            "*@staging",
        )
    }
    assert about == {
        "digits": [True, False, False],
        "fraud": [False, True, False],
        "fraud@staging": [False, True, False],
        "fraud@prod": [False, False, False],
        "fraud[1]": [False, False, True],
        "fraud[1]@a%20b": [False, False, True],
        "*": [True, True, True],
        "*@staging": [False, True, False],
    }


Fault = st.sampled_from(["ok", "drift", "both", "failed", "nothing"])


@pytest.mark.guarded
@given(st.lists(st.tuples(Fault, st.sampled_from([1, 40, 70, 400, 700]), st.booleans()), max_size=30), st.data())
@settings(deadline=None, max_examples=60)
def test_whatever_happens_in_silences_nobody_is_told_the_same_twice(
    steps: list[tuple[str, int, bool]], data: st.DataObject
) -> None:
    run = Run(for_=data.draw(st.sampled_from(["0s", "60s"])), keep_firing_for="0s")
    fails, judge, known, now_s = False, DataDriftRule.judge_stream, dict[str, RuleState](), 0

    def judge_or_fail(*arguments: Any) -> Judgement:
        if fails:
            raise ZeroDivisionError
        return judge(*arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(DataDriftRule, "judge_stream", judge_or_fail)
        for fault, elapsed_s, is_toggled in steps:
            now_s += elapsed_s
            fails = fault == "failed"
            if is_toggled:
                active = [entry for entry in run.alerts.announcer.silences if entry.is_active(ns(now_s))]
                request = (
                    SilenceRequest(expired_id=active[0].id) if active else silence(now_s, now_s + 300, id=f"{now_s}")
                )
                run.alerts.announcer.apply_silence(request, ns(now_s))
            second = judged("input.b", "drift" if fault == "both" else "ok")
            panes = (
                {} if fault == "nothing" else dict([DRIFT if fault in ("drift", "both", "failed") else QUIET, second])
            )
            told = run.alerts.evaluate_windows(MODEL, panes.values(), ns(now_s)) if panes else []
            told += run.alerts.advance_clock(ns(now_s))
            is_silent = any(entry.is_active(ns(now_s)) for entry in run.alerts.announcer.silences)
            for alert in told:
                before = known.get(alert.rule, RuleState.OK)
                assert alert.is_resolved or not is_silent
                assert alert.previous is before or (before, alert.previous) == (RuleState.OK, RuleState.PENDING)
                assert alert.state is not before or alert.news
                known[alert.rule] = alert.state
            if not is_silent:  # whoever is told knows all
                records = {
                    name: rule.state for model in run.alerts.build_record().models for name, rule in model.rules.items()
                }
                known_states = {rule: state for rule, state in known.items() if state is not RuleState.OK}
                notified = {RuleState.FIRING, RuleState.ERROR, RuleState.NO_DATA}
                assert known_states == {
                    rule: known.get(rule) if state is RuleState.PENDING else state
                    for rule, state in records.items()
                    if state in notified or (state is RuleState.PENDING and rule in known_states)
                }


MODELS = (ModelKey("a", "1"), ModelKey("a", "2"), ModelKey("b", ""))
step = st.tuples(
    st.sampled_from(MODELS),
    st.lists(
        st.tuples(
            st.sampled_from(["input.a", "input.b", "prediction.label", "errors"]),
            st.sampled_from(["ok", "drift", "learning"]),
        ),
        max_size=3,
    ),
    st.sampled_from([0, 1, 5, 700]),
    st.booleans(),
)


@given(st.lists(step, max_size=25), st.sampled_from(["0s", "3s"]), st.sampled_from(["0s", "3s"]))
@settings(deadline=None, max_examples=150)
def test_restarted_anywhere_it_says_the_same_and_each_rule_takes_turns(
    steps: list[tuple[ModelKey, list[tuple[str, str]], int, bool]], for_: str, keep_firing_for: str
) -> None:
    options: dict[str, Any] = {"for_": for_, "keep_firing_for": keep_firing_for, "limits": {"stale_after": "1000s"}}
    lasting, restarted = Run(**options), Run(**options)
    now_s, last_s, states = 0, 0, dict[str, RuleState]()
    for model, streams, elapsed_s, restarts in steps:
        last_s, now_s = now_s, now_s + elapsed_s
        if restarts:
            # Down for no time at all, so that silence is the same.
            restarted.restart(last_s)
        entries = dict(judged(stream, status, model=model) for stream, status in streams)  # type: ignore[arg-type]
        now_ns = ns(now_s)
        alerts = lasting.alerts.evaluate_windows(model, entries.values(), now_ns) + lasting.alerts.advance_clock(now_ns)
        assert (
            restarted.alerts.evaluate_windows(model, entries.values(), now_ns) + restarted.alerts.advance_clock(now_ns)
            == alerts
        )
        assert restarted.alerts.list_current_alerts() == lasting.alerts.list_current_alerts()
        for alert in alerts:
            # Notifications alternate: never fired twice, never grown or resolved without having fired.
            previous = states.get(alert.fingerprint, RuleState.OK)
            assert (previous is RuleState.OK) != (alert.is_update or alert.is_resolved)
            states[alert.fingerprint] = alert.state
    assert repr(restarted.alerts.build_record()) == repr(lasting.alerts.build_record())


@pytest.mark.parametrize(
    ("at_s", "change"), [(9.999, []), (10.0, [("data_drift", RuleState.PENDING, RuleState.FIRING)])]
)
def test_for_is_crossed_at_its_end(at_s: float, change: list[Change]) -> None:
    run = Run(for_="10s")
    run.pane(0, DRIFT)
    assert run.pane(at_s, DRIFT) == change


@pytest.mark.parametrize(("at_s", "change"), [(13.999, []), (14.0, [RESOLVES])])
def test_keep_firing_for_is_crossed_at_its_end(at_s: float, change: list[Change]) -> None:
    run = Run(keep_firing_for="10s")
    run.pane(0, DRIFT)
    run.pane(4, QUIET)
    assert run.pane(at_s, QUIET) == change


@pytest.mark.parametrize(("at_s", "change"), [(599.999, []), (600.0, [FALLS_SILENT])])
def test_silence_is_crossed_at_its_end(at_s: float, change: list[Change]) -> None:
    run = Run()
    run.pane(0, QUIET)
    assert run.tick(at_s) == change
    assert run.state("latency") is (RuleState.NO_DATA if change else RuleState.OK)


@pytest.mark.parametrize(("at_s", "change"), [(299.999, []), (300.0, [RESOLVES])])
def test_a_version_that_was_replaced_is_retired_after_five_minutes(at_s: float, change: list[Change]) -> None:
    run, new = Run(), ModelKey("digits", "2")
    run.pane(0, DRIFT)
    run.pane(at_s - 1, judged("latency", "ok", model=new), model=new)
    ended = run.alerts.advance_clock(ns(at_s))
    assert changes(ended) == change
    assert [alert.reason for alert in ended] == [RETIRED.format("5m")] * len(change)


def test_no_version_is_retired_while_none_has_traffic_and_one_that_comes_back_is_judged_again() -> None:
    run, new = Run(), ModelKey("digits", "2")
    run.pane(0, DRIFT)
    run.pane(1, judged("latency", "ok", model=new), model=new)
    assert [change for change in run.tick(400) if change != FALLS_SILENT] == []
    run.pane(500, judged("latency", "ok", model=new), model=new)
    assert run.tick(501) == [RESOLVES]
    assert run.pane(510, DRIFT) == [FIRES]


@pytest.mark.parametrize(("at_s", "versions"), [(999.999, 2), (1000.0, 1)])
def test_a_version_that_was_replaced_is_stale_at_its_end(at_s: float, versions: int) -> None:
    run, new = Run(limits={"stale_after": "1000s"}), ModelKey("digits", "2")
    run.pane(0, DRIFT)
    run.pane(at_s - 1, judged("latency", "ok", model=new), model=new)
    run.tick(at_s)
    assert len({status.model for status in run.alerts.list_current_alerts()}) == versions


def test_of_two_environments_neither_replaces_the_other_nor_ends_its_silence() -> None:
    run = Run(limits={"stale_after": "1000s"})
    staging = ModelKey("digits", "1", "staging")
    run.pane(0, DRIFT)
    run.pane(700, judged("latency", "ok", model=staging), model=staging)
    assert run.tick(700) == [FALLS_SILENT]
    run.pane(1500, judged("latency", "ok", model=staging), model=staging)
    assert run.tick(1500) == []
    assert run.state("data_drift") is RuleState.FIRING
    assert [alert.environment for alert in run.alerts.list_alerts()] == ["", ""]
    (alert,) = run.alerts.evaluate_windows(
        staging, dict([judged("input.a", "drift", model=staging)]).values(), ns(1501)
    )
    assert alert.environment == "staging"


def test_the_statuses_of_rules_say_since_when_and_why() -> None:
    run = Run()
    run.pane(1, judged("input.a", "drift", pane=(100, 0)), judged("latency", "ok"))
    statuses = {status.rule: status for status in run.alerts.list_current_alerts()}
    assert list(statuses) == [
        "latency", "errors", "prediction_drift", "confidence", "data_drift", "execution_provider", "no_data",
    ]  # fmt: skip
    drift = statuses["data_drift"]
    assert (drift.model, drift.state, drift.changed_ns, drift.severity) == (MODEL, RuleState.FIRING, ns(1), "critical")
    assert [cause.stream for cause in drift.causes] == ["input.a"]
    assert (statuses["latency"].state, statuses["latency"].changed_ns, statuses["latency"].causes) == (
        RuleState.OK, 0, (),
    )  # fmt: skip
    assert {status.changed_ns for status in run.alerts.list_current_alerts()} == {0, ns(1)}
    run.tick(700)
    silent = {status.rule: status for status in run.alerts.list_current_alerts()}
    assert (silent["latency"].state, silent["latency"].changed_ns) == (RuleState.NO_DATA, ns(1))
    assert (silent["no_data"].changed_ns, silent["data_drift"].state) == (ns(700), RuleState.FIRING)


def test_a_model_that_never_had_data_is_not_silent() -> None:
    run = Run()
    run.pane(0, judged("input.a", "ok", pane=(0, 0)))
    assert run.tick(10**6) == []
    assert {status.state for status in run.alerts.list_current_alerts()} == {RuleState.OK}


def test_the_newest_exemplars_come_first_and_are_few() -> None:
    run = Run()
    run.pane(1, judged("input.a", "drift", exemplars=("a", "b", "c")))
    run.pane(2, judged("input.a", "drift", exemplars=("d", "b", "e", "f")))
    (alert,) = run.alerts.list_alerts()
    assert alert.exemplars == ("d", "b", "e", "f", "a")
    assert len(alert.exemplars) == MAX_EXEMPLARS


def test_causes_are_ranked_by_evidence_then_by_how_much_they_moved_then_by_name() -> None:
    causes = [
        replace(CAUSE, stream="d", margin=2.0, value=0.1),
        replace(CAUSE, stream="c", margin=2.0, value=0.1),
        replace(CAUSE, stream="b", margin=2.001, value=0.3),
        replace(CAUSE, stream="a", margin=1.99, value=0.9),
        replace(CAUSE, stream="e", margin=2.01, value=0.0),
        replace(CAUSE, stream="f", margin=2.004, value=0.2),
    ]
    assert [cause.stream for cause in rank_causes(causes)] == ["e", "b", "f", "c", "d", "a"]


def test_the_onset_of_an_alert_is_that_of_its_first_cause() -> None:
    run = Run()
    entries = [judged("input.a", "drift", since_ns=9), judged("input.b", "drift", since_ns=4)]
    (alert,) = run.alerts.evaluate_windows(MODEL, dict(entries).values(), ns(1))
    assert alert.onset_ns == 4


def test_silence_began_when_data_last_came() -> None:
    run = Run()
    run.pane(3, QUIET)
    (alert,) = run.alerts.advance_clock(ns(700))
    assert (alert.onset_ns, alert.time_ns, alert.severity, alert.title) == (ns(3), ns(700), "warning", "no predictions")


def test_a_pending_rule_that_is_switched_off_is_not_notified() -> None:
    run = Run(for_="10s")
    run.pane(0, DRIFT)
    run.configure(for_="10s", rules={"data_drift": {"enabled": False}})
    run.restart(1)
    assert run.tick(2) == []
    run.configure(for_="10s")
    run.restart(3)
    assert run.state("data_drift") is RuleState.OK
    assert run.alerts.list_alerts() == []


def test_while_the_processor_was_down_no_stream_became_stale() -> None:
    run = Run()
    run.pane(0, DRIFT, judged("latency", "ok"))
    run.restart(86400)
    assert run.tick(86400) == []
    run.pane(86401, judged("latency", "ok"))
    assert run.tick(86401) == []
    assert run.state("data_drift") is RuleState.FIRING


def test_a_restart_at_an_earlier_time_goes_on_at_the_last_one() -> None:
    run = Run()
    run.pane(100, DRIFT)
    run.restart(50)
    (alert,) = run.alerts.evaluate_windows(MODEL, dict([QUIET]).values(), ns(60))
    assert alert.time_ns == ns(100)


def test_a_stream_that_cannot_be_judged_is_no_evidence_that_a_breach_lasts() -> None:
    run = Run(for_="10s")
    run.pane(0, DRIFT)
    assert run.pane(20, judged("input.a", "learning")) == []
    assert run.state("data_drift") is RuleState.PENDING
    assert run.pane(21, DRIFT) == [LATE_FIRES]


def test_a_cause_counts_what_came_since_its_onset_across_a_restart() -> None:
    run = Run()
    for second in range(3):
        run.pane(second, judged("input.a", "drift", pane=(9, 1), rolling=(5000, 5000)))
        run.restart(second)
    (alert,) = run.alerts.list_alerts()
    assert (alert.causes[0].current_count, alert.causes[0].current) == (30, "90 %")


outcome = st.tuples(
    st.sampled_from(["input.a", "input.b", "prediction.label", "prediction.confidence", "errors", "latency"]),
    st.sampled_from(["ok", "weak", "drift", "learning", "no_data"]),
    st.sampled_from([0, 7 * SECOND_NS]),
    st.booleans(),
)


@given(st.lists(st.tuples(st.lists(outcome, max_size=5), st.sampled_from([1, 5, 700])), max_size=25))
@settings(deadline=None, max_examples=150)
def test_a_stream_that_is_calm_is_judged_as_if_its_rules_were_asked(
    steps: list[tuple[list[tuple[str, State, int, bool]], int]],
) -> None:
    run, asking = Run(), Run()
    asking.settings.find_model_rules(MODEL).evidence_rules = frozenset()
    now_s = 0
    for outcomes, elapsed_s in steps:
        now_s += elapsed_s
        entries: dict[StreamKey, tuple[StreamWindow, DriftScore]] = {}
        for stream, state, since_ns, is_absent in outcomes:
            key, (window, score) = judged(stream, state, since_ns=since_ns, pane=(0, 0) if is_absent else (90, 10))
            absence = StreamAbsence(ns(0), 3, 9) if is_absent else None
            entries[key] = window.replace(absence=absence), score
        now_ns = ns(now_s)
        alerts, expected = (each.alerts.evaluate_windows(MODEL, entries.values(), now_ns) for each in (run, asking))
        assert alerts == expected
        assert run.alerts.list_current_alerts() == asking.alerts.list_current_alerts()
    assert repr(run.alerts.build_record()) == repr(asking.alerts.build_record())
