"""The demo's story: its acts, what is expected of the processor in each, and the verdict on what was seen.

Pure functions of `Moment`s, which hold the processor's API documents as they were read. A moment is judged by
the act that was on when it was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

Document = Mapping[str, Any]
"""A JSON object of the processor's API."""

CONFIDENCE_DROP: Final = 0.05
"""A mean confidence that is lower by this is an expected alert: more than any tolerance and any noise."""

CONFIDENCE_TOLERANCE: Final = 0.02
"""An alert on confidence is wrong if the mean is not even lower by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the processor's API said at one time."""

    at_ns: int
    """Unix nanoseconds."""
    act: str
    model: Document | None
    """None while the processor does not know the model."""
    alerts: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One part of the story: it ends when it is done, not before `least_s` and not after `most_s`."""

    name: str
    headline: str
    least_s: float
    most_s: float
    is_done: Callable[[Sequence[Moment]], bool]
    """Of all moments so far."""

    def is_over(self, moments: Sequence[Moment], elapsed_s: float) -> bool:
        """Whether the next act begins, `elapsed_s` after this one began."""
        return elapsed_s >= self.most_s or (elapsed_s >= self.least_s and self.is_done(moments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """An alert of `rule` that names `stream` among its causes."""

    rule: str
    stream: str

    def is_met_by(self, alert: Document) -> bool:
        """Whether `alert` is the one."""
        return alert["rule"] == self.rule and any(c["stream"] == self.stream for c in alert["causes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One expected alert as it came: what, how much, when. Times count from the moment the camera dimmed."""

    rule: str
    stream: str
    before: str
    now: str
    value: float
    bound: float
    fired_after_s: float
    onset_after_s: float
    resolved_after_s: float | None
    """None if it never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the processor saw what happened, and nothing else."""

    missing: tuple[str, ...]
    """One sentence for each thing that was expected and not observed, or observed and not expected."""
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """As `otel-mlmon demo --json` prints it."""
        return {
            "passed": self.passed,
            "missing": list(self.missing),
            "findings": [asdict(finding) for finding in self.findings],
        }


SHIFTED_STREAMS: Final = (
    Expectation(rule="prediction_drift", stream="prediction.label"),
    Expectation(rule="data_drift", stream="input.image.brightness"),
)
"""What the change of scene moves, whatever the model makes of it."""

CONFIDENCE: Final = Expectation(rule="confidence", stream="prediction.confidence")


def acts(seconds_per_act: float) -> tuple[Act, ...]:
    """The acts in order; all four take at most 7 × `seconds_per_act`."""
    return (
        Act(
            name="learning",
            headline="The processor learns what normal looks like.",
            least_s=0.0,
            most_s=1.75 * seconds_per_act,
            is_done=lambda moments: is_watching(moments[-1]),
        ),
        Act(
            name="calm",
            headline="All is well. The evidence of drift stays low.",
            least_s=0.75 * seconds_per_act,
            most_s=0.75 * seconds_per_act,
            is_done=lambda _: True,
        ),
        Act(
            name="shift",
            headline="NOW the camera dims; every second image shows a 3.",
            least_s=0.75 * seconds_per_act,
            most_s=1.5 * seconds_per_act,
            is_done=lambda moments: all(_fired(moments[-1:], what) for what in expected(moments)),
        ),
        Act(
            name="recovery",
            headline="The camera is mended.",
            least_s=0.5 * seconds_per_act,
            most_s=3.0 * seconds_per_act,
            is_done=lambda moments: is_quiet(moments[-1]),
        ),
    )


def play(
    story: Sequence[Act],
    *,
    begin: Callable[[Act], None],
    look: Callable[[Act], Moment],
    pause: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Moment]:
    """Play the acts one after another.

    Args:
        story: The acts in order.
        begin: Makes the world as the act has it.
        look: Reads, and shows, the moment.
        pause: Waits until it is worth looking again.
        clock: Seconds, monotonic.

    Returns:
        Every moment that was looked at, at least one an act.
    """
    moments: list[Moment] = []
    for act in story:
        begin(act)
        began_s = clock()
        moments.append(look(act))
        while not act.is_over(moments, clock() - began_s):
            pause()
            moments.append(look(act))
    return moments


def is_watching(moment: Moment) -> bool:
    """Whether every stream has its reference and the expected ones are among them."""
    streams = moment.model["streams"] if moment.model else ()
    names = {stream["stream"] for stream in streams}
    return all(what.stream in names for what in (*SHIFTED_STREAMS, CONFIDENCE)) and not any(
        stream["status"] == "learning" for stream in streams
    )


def is_quiet(moment: Moment) -> bool:
    """Whether the model is known and nothing is firing or drifting."""
    return (
        moment.model is not None
        and not firing(moment)
        and all(stream["status"] != "drift" for stream in moment.model["streams"])
    )


def firing(moment: Moment) -> frozenset[str]:
    """The rules that are firing, by the model's document or by its alerts."""
    rules = moment.model["rules"] if moment.model else ()
    by_model = {rule["rule"] for rule in rules if rule["state"] == "firing"}
    by_alert = {rule for rule, alert in newest(moment.alerts).items() if alert["state"] == "firing"}
    return frozenset(by_model | by_alert)


class News:
    """The alerts that were not told yet, across moments: each change of state once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, int]] = set()

    def of(self, moment: Moment) -> list[Document]:
        """What is new in `moment`, oldest first; asked again, nothing."""
        fresh = []
        for alert in sorted(moment.alerts, key=lambda alert: int(alert["time_ns"])):
            key = (alert["rule"], alert["state"], alert["time_ns"])
            if key not in self._told:
                self._told.add(key)
                fresh.append(alert)
        return fresh


def newest(alerts: Iterable[Document]) -> dict[str, Document]:
    """The last alert of each rule."""
    return {alert["rule"]: alert for alert in sorted(alerts, key=lambda alert: int(alert["time_ns"]))}


def expected(moments: Sequence[Moment]) -> tuple[Expectation, ...]:
    """The alerts that must come: confidence is among them if the model truly became less sure."""
    fell = _confidence_drop(moments) >= CONFIDENCE_DROP
    return (*SHIFTED_STREAMS, CONFIDENCE) if fell else SHIFTED_STREAMS


def judge(moments: Sequence[Moment]) -> Verdict:
    """The verdict on everything that was observed, in order of time."""
    before = [moment for moment in moments if moment.act in ("learning", "calm")]
    after = [moment for moment in moments if moment.act in ("shift", "recovery")]
    wanted = expected(moments)
    missing = [
        *_before_the_shift(before),
        *(f"No {what.rule} alert named {what.stream}." for what in wanted if not _fired(after, what)),
        *_unexpected(after, wanted, _confidence_drop(moments)),
        *_unresolved(moments, wanted),
    ]
    found = (_finding(after, what) for what in wanted)
    return Verdict(missing=tuple(missing), findings=tuple(finding for finding in found if finding))


def _before_the_shift(before: Sequence[Moment]) -> Iterable[str]:
    if not any(moment.model for moment in before):
        yield "The processor never saw the model."
    elif not any(is_watching(moment) for moment in before):
        yield "The processor had not learned a reference for every stream when the camera dimmed."
    for rule in sorted(frozenset().union(*map(firing, before))):
        yield f"The {rule} alert fired while all was well."


def _unexpected(after: Sequence[Moment], wanted: Sequence[Expectation], drop: float) -> Iterable[str]:
    allowed = {what.rule for what in wanted}
    if drop >= CONFIDENCE_TOLERANCE:
        allowed.add(CONFIDENCE.rule)
    for rule in sorted(frozenset().union(*map(firing, after)) - allowed):
        yield f"The {rule} alert fired, and nothing that it watches had changed."


def _unresolved(moments: Sequence[Moment], wanted: Sequence[Expectation]) -> Iterable[str]:
    if not moments or moments[-1].act != "recovery":
        yield "The story did not reach its end."
        return
    last = moments[-1]
    for rule in sorted(firing(last)):
        yield f"The {rule} alert was still firing at the end."
    alerts = newest(last.alerts)
    for what in wanted:
        if what.rule not in firing(last) and _fired(moments, what) and not _is_resolved(alerts, what.rule):
            yield f"The {what.rule} alert vanished without being resolved."


def _is_resolved(alerts: Mapping[str, Document], rule: str) -> bool:
    return rule in alerts and alerts[rule]["state"] == "ok"


def _fired(moments: Sequence[Moment], what: Expectation) -> Document | None:
    """The alert that met the expectation, as it was when it first did: later its numbers follow the traffic."""
    alerts = (alert for moment in moments for alert in newest(moment.alerts).values())
    return next((alert for alert in alerts if alert["state"] == "firing" and what.is_met_by(alert)), None)


def _confidence_drop(moments: Sequence[Moment]) -> float:
    """The most that the mean confidence of a rolling window was below the reference's, while shifted."""
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


def _finding(after: Sequence[Moment], what: Expectation) -> Finding | None:
    alert = _fired(after, what)
    if alert is None:
        return None
    cause = next(cause for cause in alert["causes"] if cause["stream"] == what.stream)
    end = newest(after[-1].alerts).get(what.rule)
    shifted_ns = after[0].at_ns

    def after_s(time_ns: int) -> float:
        return round((time_ns - shifted_ns) / 1e9, 3)

    return Finding(
        rule=what.rule,
        stream=what.stream,
        before=cause["reference"],
        now=cause["current"],
        value=cause["value"],
        bound=cause["bound"],
        fired_after_s=after_s(alert["time_ns"]),
        onset_after_s=after_s(cause["onset_ns"]),
        resolved_after_s=after_s(end["time_ns"]) if end is not None and end["state"] == "ok" else None,
    )
