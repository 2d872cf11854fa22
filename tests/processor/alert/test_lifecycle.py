from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.alert.alert import Alert, RuleName, State
from otel_mlmon.processor.alert.lifecycle import MAX_RESOLVED, Alerts, AlertSettings
from otel_mlmon.processor.alert.rules import RULES, ModelRules
from otel_mlmon.types import ModelKey
from tests.support.scores import MODEL, SECOND_NS, Judged, judged

SETTINGS = AlertSettings()
Change = tuple[RuleName, State, State]


def ns(at_s: float) -> int:
    """Seconds of a test as Unix nanoseconds."""
    return round((1_000_000 + at_s) * SECOND_NS)


def changes(alerts: list[Alert]) -> list[Change]:
    return [(alert.rule, alert.previous, alert.state) for alert in alerts]


class Run:
    """Alerts, a clock in seconds, and a restart whenever it is asked for."""

    def __init__(self, settings: AlertSettings = SETTINGS) -> None:
        self.settings = settings
        self.alerts = Alerts(settings)

    def pane(self, at_s: float, *entries: Judged, model: ModelKey = MODEL) -> list[Change]:
        return changes(self.alerts.evaluate(model, dict(entries), ns(at_s)))

    def tick(self, at_s: float) -> list[Change]:
        return changes(self.alerts.tick(ns(at_s)))

    def restart(self, at_s: float) -> None:
        state = json.loads(json.dumps(self.alerts.to_state(), allow_nan=False))
        self.alerts = Alerts.from_state(self.settings, state, now_ns=ns(at_s))

    def state(self, rule: RuleName, model: ModelKey = MODEL) -> State:
        return {(status.model, status.rule): status.state for status in self.alerts.current()}[model, rule]


DRIFT = judged("input.a", "drift")
QUIET = judged("input.a", "ok")
FIRES: Change = ("data_drift", State.OK, State.FIRING)
RESOLVES: Change = ("data_drift", State.FIRING, State.OK)
FALLS_SILENT: Change = ("no_data", State.OK, State.NO_DATA)
COMES_BACK: Change = ("no_data", State.NO_DATA, State.OK)


def test_drift_fires_once_and_is_resolved_once() -> None:
    run = Run()
    assert run.pane(1, QUIET) == []
    assert run.pane(2, DRIFT) == [FIRES]
    assert run.pane(3, DRIFT) == []
    assert run.pane(4, QUIET) == [RESOLVES]
    assert run.pane(5, QUIET) == []


def test_the_alert_says_when_who_and_where_to_look() -> None:
    run = Run(AlertSettings(links=(("runbook", "https://wiki"),)))
    entry = judged("input.a", "drift", since_ns=3 * SECOND_NS, exemplars=("t1", "t2"))
    (alert,) = run.alerts.evaluate(MODEL, dict([entry]), ns(7))
    assert (alert.model, alert.version, alert.at_ns, alert.since_ns) == ("digits", "1", ns(7), 3 * SECOND_NS)
    assert (alert.exemplars, alert.links) == (("t1", "t2"), (("runbook", "https://wiki"),))
    assert [cause.stream for cause in alert.causes] == ["input.a"]
    (resolved,) = run.alerts.evaluate(MODEL, dict([QUIET]), ns(9))
    assert resolved == replace(alert, state=State.OK, previous=State.FIRING, at_ns=ns(9))
    assert run.alerts.alerts() == [resolved]


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
    (alert,) = run.alerts.evaluate(MODEL, dict(entries), ns(1))
    assert len(alert.causes) == 40


def test_for_is_how_long_drift_must_last() -> None:
    run = Run(AlertSettings(for_s=10))
    assert run.pane(0, DRIFT) == []
    assert run.state("data_drift") is State.PENDING
    assert run.tick(60) == []  # time alone is no evidence
    assert run.pane(61, QUIET) == []
    assert run.state("data_drift") is State.OK
    assert run.pane(62, DRIFT) == []
    assert run.pane(71, DRIFT) == []
    assert run.pane(72, DRIFT) == [("data_drift", State.PENDING, State.FIRING)]


def test_keep_firing_for_is_how_long_quiet_must_last() -> None:
    run = Run(AlertSettings(keep_firing_for_s=10))
    assert run.pane(0, DRIFT) == [FIRES]
    assert run.pane(1, QUIET) == []
    assert run.pane(5, DRIFT) == []
    assert run.pane(6, QUIET) == []
    assert run.tick(15.9) == []
    assert run.tick(16) == [RESOLVES]


def test_silence_is_told_once_and_never_looks_like_ok() -> None:
    run = Run()
    run.pane(0, QUIET, judged("latency", "ok"))
    assert run.tick(599) == []
    assert run.state("data_drift") is State.OK
    assert run.tick(600) == [FALLS_SILENT]
    assert run.tick(601) == []
    assert {status.state for status in run.alerts.current()} == {State.NO_DATA}
    assert run.pane(700, judged("latency", "ok")) == [COMES_BACK]
    assert run.state("data_drift") is State.OK


def test_what_fires_keeps_firing_through_silence() -> None:
    run = Run()
    run.pane(0, DRIFT)
    assert run.tick(3 * 86400) == [FALLS_SILENT]
    assert run.state("data_drift") is State.FIRING
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
    assert run.tick(900) == []
    assert run.state("latency") is State.NO_DATA  # of the old one: not ok, and not told
    # A day later the old version is forgotten, and with it what it fired.
    run.pane(86400, judged("latency", "ok", model=new), model=new)
    assert run.tick(86400) == [RESOLVES]
    assert {status.model for status in run.alerts.current()} == {new}


def test_a_model_that_is_forgotten_ends_what_it_told_and_is_gone() -> None:
    run = Run()
    run.pane(0, DRIFT)
    assert run.tick(14 * 86400) == [FALLS_SILENT]
    ended = run.alerts.forget(MODEL, ns(14 * 86400))
    assert changes(ended) == [RESOLVES, COMES_BACK]
    reason = {"reason": "It was silent for so long that it is forgotten."}
    assert [alert.attributes for alert in (*ended, *run.alerts.alerts())] == [reason] * 4
    assert (run.alerts.current(), run.alerts.to_state()["models"]) == ([], [])
    assert run.alerts.forget(MODEL, ns(14 * 86400)) == []
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
    off = ModelRules(enabled=frozenset(RULES) - {"data_drift", "no_data"})
    run.settings = AlertSettings(rules_for=lambda _: off)
    run.restart(1)
    assert run.tick(2) == [RESOLVES]
    assert run.pane(3, DRIFT) == []
    assert run.tick(10_000) == []
    assert "data_drift" not in {status.rule for status in run.alerts.current()}


def test_a_rule_that_cannot_be_judged_is_an_error_until_it_is() -> None:
    run = Run()
    (alert,) = run.alerts.fault(MODEL, "data_drift", "reference.json: no such file", ns(1))
    assert (alert.state, alert.attributes) == (State.ERROR, {"reason": "reference.json: no such file"})
    assert run.alerts.fault(MODEL, "data_drift", "again", ns(1)) == []
    assert run.pane(2, judged("input.a", "learning")) == []
    assert run.state("data_drift") is State.ERROR
    assert run.pane(3, QUIET) == [("data_drift", State.ERROR, State.OK)]


def test_time_does_not_run_back() -> None:
    run = Run(AlertSettings(for_s=10))
    run.pane(100, DRIFT)
    assert run.pane(50, DRIFT) == []
    (alert,) = run.alerts.evaluate(MODEL, dict([DRIFT]), ns(110))
    assert alert.at_ns == ns(110)


def test_active_alerts_show_their_causes_as_they_are_now() -> None:
    run = Run()
    run.pane(1, judged("input.a", "drift", pane=(60, 40)))
    run.pane(2, judged("input.a", "drift", pane=(100, 0), exemplars=("new",)), judged("input.b", "drift"))
    (alert,) = run.alerts.alerts()
    assert (alert.at_ns, alert.severity, alert.exemplars) == (ns(1), "critical", ("new",))
    assert [(cause.stream, cause.now) for cause in alert.causes] == [("input.a", "100 %"), ("input.b", "90 %")]


def test_resolved_alerts_are_kept_newest_first_and_few() -> None:
    run = Run()
    for second in range(0, 400, 2):
        run.pane(second, DRIFT)
        run.pane(second + 1, QUIET)
    run.pane(400, DRIFT)
    at_ns = [alert.at_ns for alert in run.alerts.alerts()]
    assert (len(at_ns), at_ns[0]) == (MAX_RESOLVED + 1, ns(400))
    assert at_ns == sorted(at_ns, reverse=True)


def test_a_restart_neither_fires_again_nor_forgets() -> None:
    run = Run()
    assert run.pane(0, DRIFT) == [FIRES]
    before = run.alerts.alerts()
    run.restart(5)
    assert run.alerts.alerts() == before
    assert run.pane(6, DRIFT) == []
    assert run.pane(7, QUIET) == [RESOLVES]


def test_while_the_processor_was_down_no_model_was_silent() -> None:
    run = Run()
    run.pane(0, QUIET)
    run.tick(100)
    run.restart(5000)
    assert run.tick(5499) == []
    assert run.tick(5500) == [FALLS_SILENT]


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(StoreError, match="version 2"):
        Alerts.from_state(SETTINGS, {**Alerts(SETTINGS).to_state(), "version": 2}, now_ns=0)


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


@given(st.lists(step, max_size=25), st.sampled_from([0, 3]), st.sampled_from([0, 3]))
@settings(deadline=None, max_examples=150)
def test_restarted_anywhere_it_says_the_same_and_each_rule_takes_turns(
    steps: list[tuple[ModelKey, list[tuple[str, str]], int, bool]], for_s: float, keep_s: float
) -> None:
    settings_ = AlertSettings(for_s=for_s, keep_firing_for_s=keep_s, stale_after_s=1000)
    whole, cut = Run(settings_), Run(settings_)
    now_s, last_s, told = 0, 0, dict[str, State]()
    for model, streams, elapsed_s, restarts in steps:
        last_s, now_s = now_s, now_s + elapsed_s
        if restarts:
            # Down for no time at all, so that silence is the same.
            cut.restart(last_s)
        entries = dict(judged(stream, status, model=model) for stream, status in streams)  # type: ignore[arg-type]
        now_ns = ns(now_s)
        alerts = whole.alerts.evaluate(model, entries, now_ns) + whole.alerts.tick(now_ns)
        assert cut.alerts.evaluate(model, entries, now_ns) + cut.alerts.tick(now_ns) == alerts
        assert cut.alerts.current() == whole.alerts.current()
        for alert in alerts:
            # What is told alternates: never fired twice, never resolved without having fired.
            was = told.get(alert.fingerprint, State.OK)
            assert (was is State.OK) != (alert.state is State.OK)
            told[alert.fingerprint] = alert.state
    assert cut.alerts.to_state() == whole.alerts.to_state()
