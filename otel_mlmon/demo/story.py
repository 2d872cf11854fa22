"""The acts of the demo, the alerts expected in each, and the check that these and no others came.

Pure functions of `ApiSnapshot`s, which hold the processor's API documents as they were read. A snapshot belongs to the
act in which it was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

Document = Mapping[str, Any]
"""A JSON object of the processor's API."""

CONFIDENCE_DROP: Final = 0.05
"""A fall of the mean confidence by this much must raise an alert: more than any tolerance and any noise."""

CONFIDENCE_TOLERANCE: Final = 0.02
"""An alert on confidence is wrong if the mean fell by less than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSnapshot:
    """The JSON documents of model and alerts that the processor's API gave at one time of the demo."""

    at_ns: int
    """Unix nanoseconds."""
    act: str
    model: Document | None
    """None while the processor does not know the model."""
    alerts: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAct:
    """Describes one act of the demo: its name, its shortest and longest time, and when it is over."""

    name: str
    headline: str
    min_s: float
    max_s: float
    is_done: Callable[[Sequence[ApiSnapshot]], bool]
    """Returns whether the act is done, from all moments so far."""

    def is_act_over(self, moments: Sequence[ApiSnapshot], elapsed_s: float) -> bool:
        """Returns whether an act of the demo is over, some seconds after it began."""
        return elapsed_s >= self.max_s or (elapsed_s >= self.min_s and self.is_done(moments))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertExpectation:
    """Describes an alert that the demo must raise: its rule, and a stream that it names as a cause."""

    rule: str
    stream: str

    def is_met_by(self, alert: Document) -> bool:
        """Returns whether an alert of the demo is the expected one."""
        return alert["rule"] == self.rule and any(c["stream"] == self.stream for c in alert["causes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAlert:
    """Describes an expected alert of the demo that came: when it fired, and with which numbers."""

    rule: str
    stream: str
    before: str
    now: str
    value: float
    bound: float
    fired_after_s: float
    onset_after_s: float
    resolved_after_s: float | None
    """None if it was not resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """The outcome of the demo: the expected alerts that came, and what went wrong."""

    problems: tuple[str, ...]
    """One sentence for each alert that was expected and did not come, or came and was not expected."""
    alerts: tuple[ExpectedAlert, ...]

    @property
    def has_passed(self) -> bool:
        """Whether the demo raised all expected alerts, and no others."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Returns the outcome of the demo as a JSON object."""
        return {
            "passed": self.has_passed,
            "problems": list(self.problems),
            "expected_alerts": [asdict(alert) for alert in self.alerts],
        }


SHIFTED_STREAMS: Final = (
    AlertExpectation(rule="prediction_drift", stream="prediction.label"),
    AlertExpectation(rule="data_drift", stream="input.image.brightness"),
)
"""The alerts that the change of scene must raise, whatever the model predicts."""

CONFIDENCE: Final = AlertExpectation(rule="confidence", stream="prediction.confidence")


def plan_acts(seconds_per_act: float) -> tuple[DemoAct, ...]:
    """Returns the four acts of the demo in order, which together take at most 7 × `seconds_per_act`."""
    return (
        DemoAct(
            name="learning",
            headline="The processor learns the reference.",
            min_s=0.0,
            max_s=1.75 * seconds_per_act,
            is_done=lambda moments: has_all_references(moments[-1]),
        ),
        DemoAct(
            name="calm",
            headline="No drift: the evidence stays low.",
            min_s=0.75 * seconds_per_act,
            max_s=0.75 * seconds_per_act,
            is_done=lambda _: True,
        ),
        DemoAct(
            name="shift",
            headline="DRIFT: the camera dims; half the images show a 3.",
            min_s=0.75 * seconds_per_act,
            max_s=1.5 * seconds_per_act,
            is_done=lambda moments: all(
                _find_expected_alert(moments[-1:], expectation) for expectation in list_expected_alerts(moments)
            ),
        ),
        DemoAct(
            name="recovery",
            headline="The camera is repaired.",
            min_s=0.5 * seconds_per_act,
            max_s=3.0 * seconds_per_act,
            is_done=lambda moments: is_without_drift(moments[-1]),
        ),
    )


def play_acts(
    story: Sequence[DemoAct],
    *,
    begin: Callable[[DemoAct], None],
    observe: Callable[[DemoAct], ApiSnapshot],
    pause: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[ApiSnapshot]:
    """Plays the acts of the demo one after another; returns all snapshots of the processor's API meanwhile.

    Args:
        story: The acts in order.
        begin: Changes the traffic to that of an act.
        observe: Reads, and shows, the moment.
        pause: Waits until the next moment.
        clock: Seconds, monotonic.

    Returns:
        Every moment, at least one an act.
    """
    moments: list[ApiSnapshot] = []
    for act in story:
        begin(act)
        began_s = clock()
        moments.append(observe(act))
        while not act.is_act_over(moments, clock() - began_s):
            pause()
            moments.append(observe(act))
    return moments


def has_all_references(moment: ApiSnapshot) -> bool:
    """Returns whether every stream of the demo's model has learned its reference."""
    streams = moment.model["streams"] if moment.model else ()
    names = {stream["stream"] for stream in streams}
    return all(expectation.stream in names for expectation in (*SHIFTED_STREAMS, CONFIDENCE)) and not any(
        stream["state"] == "learning" for stream in streams
    )


def is_without_drift(moment: ApiSnapshot) -> bool:
    """Returns whether no alert rule fires and no stream of the demo's model drifts."""
    return (
        moment.model is not None
        and not list_firing_rules(moment)
        and all(stream["state"] != "drift" for stream in moment.model["streams"])
    )


def list_firing_rules(moment: ApiSnapshot) -> frozenset[str]:
    """Returns the names of the alert rules that are firing for the demo's model."""
    rules = moment.model["rules"] if moment.model else ()
    by_model = {rule["rule"] for rule in rules if rule["state"] == "firing"}
    by_alert = {rule for rule, alert in find_latest_alerts(moment.alerts).items() if alert["state"] == "firing"}
    return frozenset(by_model | by_alert)


class AlertFeed:
    """Returns each new alert of the demo once, although the API lists it again and again."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str, int]] = set()

    def take_new_alerts(self, moment: ApiSnapshot) -> list[Document]:
        """Returns the alerts of the demo that were not returned before, oldest first."""
        alerts = []
        for alert in sorted(moment.alerts, key=lambda alert: int(alert["time_ns"])):
            key = (alert["rule"], alert["state"], alert["time_ns"])
            if key not in self._known:
                self._known.add(key)
                alerts.append(alert)
        return alerts


def find_latest_alerts(alerts: Iterable[Document]) -> dict[str, Document]:
    """Returns the latest alert of each alert rule, by the name of the rule."""
    return {alert["rule"]: alert for alert in sorted(alerts, key=lambda alert: int(alert["time_ns"]))}


def list_expected_alerts(moments: Sequence[ApiSnapshot]) -> tuple[AlertExpectation, ...]:
    """Lists the alerts that the demo must raise; the one on confidence only if the mean confidence fell."""
    has_fallen = _measure_confidence_drop(moments) >= CONFIDENCE_DROP
    return (*SHIFTED_STREAMS, CONFIDENCE) if has_fallen else SHIFTED_STREAMS


def check_alerts(moments: Sequence[ApiSnapshot]) -> DemoOutcome:
    """Checks that the demo raised the expected alerts in the expected acts, and no others."""
    before = [moment for moment in moments if moment.act in ("learning", "calm")]
    after = [moment for moment in moments if moment.act in ("shift", "recovery")]
    expectations = list_expected_alerts(moments)
    problems = [
        *_check_alerts_before_shift(before),
        *(
            f"No {item.rule} alert named {item.stream}."
            for item in expectations
            if not _find_expected_alert(after, item)
        ),
        *_check_unexpected_alerts(after, expectations, _measure_confidence_drop(moments)),
        *_check_resolved_alerts(moments, expectations),
    ]
    alerts = (_describe_expected_alert(after, expectation) for expectation in expectations)
    return DemoOutcome(problems=tuple(problems), alerts=tuple(alert for alert in alerts if alert))


def _check_alerts_before_shift(before: Sequence[ApiSnapshot]) -> Iterable[str]:
    if not any(moment.model for moment in before):
        yield "The processor received no telemetry of the model."
    elif not any(has_all_references(moment) for moment in before):
        yield "The processor had not learned a reference for every stream when the shift began."
    for rule in sorted(frozenset().union(*map(list_firing_rules, before))):
        yield f"The {rule} alert fired before the shift."


def _check_unexpected_alerts(
    after: Sequence[ApiSnapshot], expectations: Sequence[AlertExpectation], drop: float
) -> Iterable[str]:
    allowed = {expectation.rule for expectation in expectations}
    if drop >= CONFIDENCE_TOLERANCE:
        allowed.add(CONFIDENCE.rule)
    for rule in sorted(frozenset().union(*map(list_firing_rules, after)) - allowed):
        yield f"The {rule} alert fired, but its streams had not changed."


def _check_resolved_alerts(moments: Sequence[ApiSnapshot], expectations: Sequence[AlertExpectation]) -> Iterable[str]:
    if not moments or moments[-1].act != "recovery":
        yield "The story did not reach its end."
        return
    last = moments[-1]
    for rule in sorted(list_firing_rules(last)):
        yield f"The {rule} alert was still firing at the end."
    alerts = find_latest_alerts(last.alerts)
    for expectation in expectations:
        if (
            expectation.rule not in list_firing_rules(last)
            and _find_expected_alert(moments, expectation)
            and not _is_alert_resolved(alerts, expectation.rule)
        ):
            yield f"The {expectation.rule} alert vanished without being resolved."


def _is_alert_resolved(alerts: Mapping[str, Document], rule: str) -> bool:
    return rule in alerts and alerts[rule]["state"] == "ok"


def _find_expected_alert(moments: Sequence[ApiSnapshot], expectation: AlertExpectation) -> Document | None:
    """Returns an expected alert as it was when it first fired; None if it did not come."""
    alerts = (alert for moment in moments for alert in find_latest_alerts(moment.alerts).values())
    return next((alert for alert in alerts if alert["state"] == "firing" and expectation.is_met_by(alert)), None)


def _measure_confidence_drop(moments: Sequence[ApiSnapshot]) -> float:
    """Returns by how much the mean confidence fell below its reference while the scene was changed."""
    means = [
        stream["mean"]
        for moment in moments
        if moment.act == "shift" and moment.model
        for stream in moment.model["streams"]
        if stream["stream"] == CONFIDENCE.stream
    ]
    drops = [
        float(mean["reference"] - mean["current"])
        for mean in means
        if mean["reference"] is not None and mean["current"] is not None
    ]
    return max(drops, default=0.0)


def _describe_expected_alert(after: Sequence[ApiSnapshot], expectation: AlertExpectation) -> ExpectedAlert | None:
    alert = _find_expected_alert(after, expectation)
    if alert is None:
        return None
    cause = next(cause for cause in alert["causes"] if cause["stream"] == expectation.stream)
    end = find_latest_alerts(after[-1].alerts).get(expectation.rule)
    shifted_ns = after[0].at_ns

    def after_s(time_ns: int) -> float:
        return round((time_ns - shifted_ns) / 1e9, 3)

    return ExpectedAlert(
        rule=expectation.rule,
        stream=expectation.stream,
        before=cause["reference"],
        now=cause["current"],
        value=cause["value"],
        bound=cause["bound"],
        fired_after_s=after_s(alert["time_ns"]),
        onset_after_s=after_s(cause["onset_ns"]),
        resolved_after_s=after_s(end["time_ns"]) if end is not None and end["state"] == "ok" else None,
    )
