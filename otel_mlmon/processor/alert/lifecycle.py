"""When a breached rule is told: ok → pending (`for`) → firing → (`keep_firing_for`) → ok, no data, and error.

A rule fires once and is resolved once, however long it lasts and however often the processor restarts.
Silence is no proof of health: a model without predictions is in `no data`, and what fires keeps firing.
Sources: Prometheus alerting rules (`for`, `keep_firing_for`, state restored after a restart); Grafana
alerting (no data and error as states of their own). Choice: no model is silent while the processor is down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.alert.alert import Alert, Cause, RuleName, Severity, State
from otel_mlmon.processor.alert.onset import SinceOnset
from otel_mlmon.processor.alert.rules import RULES, ModelRules, Suspect, Verdict, judge, ranked, severity_of
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.window import StreamKey, Window
from otel_mlmon.types import ModelKey

MAX_EXEMPLARS: Final = 5
MAX_RESOLVED: Final = 100
"""Resolved alerts that `Alerts.alerts` still shows."""

STATE_VERSION: Final = 1
_ACTIVE: Final = frozenset({State.FIRING, State.NO_DATA, State.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """What holds for all models, and where a model's own rules are found."""

    rules_for: Callable[[ModelKey], ModelRules] = lambda _: ModelRules()
    for_s: float = 0.0
    keep_firing_for_s: float = 0.0
    stale_after_s: float = 86400.0
    """A stream that vanished from a live model, or a version that another replaced, is then forgotten."""
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStatus:
    """Where one rule of one model stands."""

    model: ModelKey
    rule: RuleName
    state: State
    since_ns: int
    """When this state began, Unix nanoseconds; 0 if it always was."""
    severity: Severity
    causes: tuple[Cause, ...]


@dataclass(slots=True, kw_only=True)
class _Rule:
    state: State = State.OK
    changed_ns: int = 0
    breached_ns: int = 0
    quiet_ns: int = 0
    """Since when all streams are ok while this is still firing; 0 while they are not."""
    suspects: dict[str, Suspect] = field(default_factory=dict)
    seen_ns: dict[str, int] = field(default_factory=dict)
    """When each suspect was last judged."""
    exemplars: tuple[str, ...] = ()
    alert: Alert | None = None
    """What was last told."""


@dataclass(slots=True, kw_only=True)
class _Model:
    seen_ns: int = 0
    since: SinceOnset = field(default_factory=SinceOnset)
    rules: dict[RuleName, _Rule] = field(default_factory=dict)

    def rule(self, name: RuleName) -> _Rule:
        return self.rules.setdefault(name, _Rule())


class Alerts:
    """The rules of all models, and what each is in.

    Runs on: the thread that owns the state. Time never runs back: an earlier `now_ns` counts as the last one.
    """

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._models: dict[ModelKey, _Model] = {}
        self._resolved: deque[Alert] = deque(maxlen=MAX_RESOLVED)
        self._now_ns = 0

    def evaluate(self, model: ModelKey, scores: Mapping[StreamKey, tuple[Window, Score]], now_ns: int) -> list[Alert]:
        """Judge what one closed pane said about `model`; streams that are not in it stay what they were."""
        self._now_ns = max(self._now_ns, now_ns)
        watched = self._models.setdefault(model, _Model())
        changed: list[Alert] = []
        if any(_has_data(window) for window, _ in scores.values()):
            watched.seen_ns = self._now_ns
            changed += self._data_is_back(model.name)
        for window, score in scores.values():
            watched.since.add(window, score)
        for name, verdict in judge(scores, self._settings.rules_for(model), watched.since).items():
            rule = watched.rule(name)
            _remember(rule, verdict, self._now_ns)
            changed += self._advance(model, name, rule)
        return changed

    def tick(self, now_ns: int) -> list[Alert]:
        """What time alone changes: silence, quiet that lasted long enough, what is no longer watched."""
        self._now_ns = max(self._now_ns, now_ns)
        changed: list[Alert] = []
        newest_ns: dict[str, int] = {}
        for model, watched in self._models.items():
            newest_ns[model.name] = max(newest_ns.get(model.name, 0), watched.seen_ns)
        for model, watched in list(self._models.items()):
            enabled = self._settings.rules_for(model).enabled
            is_replaced = watched.seen_ns < newest_ns[model.name]
            if is_replaced and self._age_s(watched.seen_ns) >= self._settings.stale_after_s:
                changed += self._forget(model, "Another version has replaced it.")
                continue
            off = {name: rule for name, rule in watched.rules.items() if name not in enabled}
            changed += self._end(model, off, "The rule is switched off.")
            for name, rule in watched.rules.items():
                self._forget_stale(watched, rule)
                if rule.state is State.FIRING or (rule.state is State.PENDING and not rule.suspects):
                    changed += self._advance(model, name, rule)
            if "no_data" in enabled and not is_replaced and self._is_silent(model):
                rule = watched.rule("no_data")
                if rule.state is not State.NO_DATA:
                    changed += self._enter(model, "no_data", rule, State.NO_DATA)
        return changed

    def forget(self, model: ModelKey, now_ns: int) -> list[Alert]:
        """Watch a model no longer that has been silent for as long as anything is known of it; what that ends."""
        self._now_ns = max(self._now_ns, now_ns)
        return self._forget(model, "It was silent for so long that it is forgotten.") if model in self._models else []

    def fault(self, model: ModelKey, name: RuleName, reason: str, now_ns: int) -> list[Alert]:
        """Say that `name` cannot be judged, such as without its reference file, until it is judged again."""
        self._now_ns = max(self._now_ns, now_ns)
        rule = self._models.setdefault(model, _Model(seen_ns=self._now_ns)).rule(name)
        if rule.state is State.ERROR:
            return []
        return self._enter(model, name, rule, State.ERROR, reason=reason)

    def current(self) -> list[RuleStatus]:
        """Every rule that is switched on, of every model; a silent model's quiet rules are in `no data`."""
        result = []
        for model, watched in sorted(self._models.items()):
            enabled = self._settings.rules_for(model).enabled
            is_silent = self._is_silent(model)
            for name in RULES:
                if name not in enabled:
                    continue
                rule = watched.rules.get(name, _Rule())
                state, since_ns = rule.state, rule.changed_ns
                if is_silent and state in (State.OK, State.PENDING):
                    state, since_ns = State.NO_DATA, watched.seen_ns
                causes = ranked(rule.suspects.values())
                result.append(
                    RuleStatus(
                        model=model,
                        rule=name,
                        state=state,
                        since_ns=since_ns,
                        severity=severity_of(name, causes),
                        causes=causes,
                    )
                )
        return result

    def alerts(self) -> list[Alert]:
        """What is active, with its causes as they are now, and what was resolved of late; newest first."""
        active = [
            _refreshed(rule.alert, rule)
            for watched in self._models.values()
            for rule in watched.rules.values()
            if rule.alert is not None and rule.state in _ACTIVE
        ]
        return sorted([*active, *self._resolved], key=lambda alert: alert.at_ns, reverse=True)

    def to_state(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "version": STATE_VERSION,
            "now_ns": self._now_ns,
            "models": [
                {
                    "name": model.name,
                    "version": model.version,
                    "seen_ns": watched.seen_ns,
                    "since": watched.since.to_state(),
                    "rules": {name: _rule_to_state(rule) for name, rule in watched.rules.items()},
                }
                for model, watched in self._models.items()
            ],
            "resolved": [alert.to_dict() for alert in self._resolved],
        }

    @classmethod
    def from_state(cls, settings: AlertSettings, state: Mapping[str, Any], *, now_ns: int) -> Alerts:
        """What `to_state` gave, going on at `now_ns`.

        Raises:
            StoreError: The state is of a version that this release does not know.
        """
        if state.get("version") != STATE_VERSION:
            raise StoreError(f"The stored alerts are of version {state.get('version')!r}, not {STATE_VERSION}.")
        result = cls(settings)
        result._now_ns = max(now_ns, state["now_ns"])
        down_ns = result._now_ns - state["now_ns"]
        for entry in state["models"]:
            result._models[ModelKey(entry["name"], entry["version"])] = _Model(
                seen_ns=entry["seen_ns"] + down_ns,
                since=SinceOnset.from_state(entry["since"]),
                rules={name: _rule_from_state(rule, down_ns) for name, rule in entry["rules"].items()},
            )
        result._resolved.extend(Alert.from_dict(alert) for alert in state["resolved"])
        return result

    def _advance(self, model: ModelKey, name: RuleName, rule: _Rule) -> Iterator[Alert]:
        """One step of the state machine, by whether any stream is in drift."""
        if rule.suspects:
            rule.quiet_ns = 0
            if rule.state in (State.OK, State.ERROR):
                rule.breached_ns = self._now_ns
            if rule.state is State.FIRING:
                return
            if self._age_s(rule.breached_ns) >= self._settings.for_s:
                yield from self._enter(model, name, rule, State.FIRING)
            elif rule.state is not State.PENDING:
                yield from self._enter(model, name, rule, State.PENDING)
            return
        if rule.state is State.FIRING:
            rule.quiet_ns = rule.quiet_ns or self._now_ns
            if self._age_s(rule.quiet_ns) < self._settings.keep_firing_for_s:
                return
        if rule.state is not State.OK:
            yield from self._enter(model, name, rule, State.OK)

    def _enter(self, model: ModelKey, name: RuleName, rule: _Rule, state: State, *, reason: str = "") -> list[Alert]:
        """Change the state, and tell it unless it is only about what was or will be pending."""
        previous, rule.state, rule.changed_ns, rule.quiet_ns = rule.state, state, self._now_ns, 0
        is_end = state is State.OK
        was_told = rule.alert is not None and rule.alert.state in _ACTIVE
        if state not in _ACTIVE and not (is_end and was_told):
            return []
        alert = self._alert(model, name, rule, previous)
        if is_end and rule.alert is not None:
            # What it was about: by now every stream is ok, and there is nothing to show of it.
            alert = replace(rule.alert, state=state, previous=previous, at_ns=self._now_ns)
            rule.suspects, rule.seen_ns, rule.exemplars = {}, {}, ()
        if reason:
            alert = replace(alert, attributes={"reason": reason})
        if is_end:
            self._resolved.append(alert)
        rule.alert = alert
        return [alert]

    def _alert(self, model: ModelKey, name: RuleName, rule: _Rule, previous: State) -> Alert:
        causes = ranked(rule.suspects.values())
        onsets_ns = [cause.onset_ns for cause in causes if cause.onset_ns]
        onset_ns = self._models[model].seen_ns if rule.state is State.NO_DATA else min(onsets_ns, default=0)
        return Alert(
            model=model.name,
            version=model.version,
            rule=name,
            state=rule.state,
            previous=previous,
            severity=severity_of(name, causes),
            at_ns=self._now_ns,
            since_ns=onset_ns,
            causes=causes,
            exemplars=rule.exemplars,
            links=self._settings.links,
        )

    def _data_is_back(self, name: str) -> Iterator[Alert]:
        """Data of any version end the silence of the name."""
        for model, watched in self._models.items():
            rule = watched.rules.get("no_data")
            if model.name == name and rule is not None and rule.state is State.NO_DATA:
                yield from self._enter(model, "no_data", rule, State.OK)

    def _forget(self, model: ModelKey, reason: str) -> list[Alert]:
        ended = list(self._end(model, self._models[model].rules, reason))
        del self._models[model]
        return ended

    def _end(self, model: ModelKey, rules: Mapping[RuleName, _Rule], reason: str) -> Iterator[Alert]:
        for name, rule in rules.items():
            if rule.state is not State.OK:
                yield from self._enter(model, name, rule, State.OK, reason=reason)

    def _forget_stale(self, watched: _Model, rule: _Rule) -> None:
        """Drop suspects that the model, itself alive, has not been judged by for long."""
        stale_ns = watched.seen_ns - round(self._settings.stale_after_s * 1e9)
        for stream in [stream for stream, seen_ns in rule.seen_ns.items() if seen_ns <= stale_ns]:
            del rule.suspects[stream], rule.seen_ns[stream]

    def _is_silent(self, model: ModelKey) -> bool:
        seen_ns = self._models[model].seen_ns
        return seen_ns > 0 and self._age_s(seen_ns) >= self._settings.rules_for(model).no_data_after_s

    def _age_s(self, then_ns: int) -> float:
        return (self._now_ns - then_ns) / 1e9


def _has_data(window: Window) -> bool:
    """Whether anything was counted; while there are no bins, a window exists because something was."""
    return window.pane.size == 0 or bool(window.pane.any())


def _remember(rule: _Rule, verdict: Verdict, now_ns: int) -> None:
    for suspect in verdict.drifting:
        rule.suspects[suspect.cause.stream] = suspect
        rule.seen_ns[suspect.cause.stream] = now_ns
    for stream in verdict.quiet:
        rule.suspects.pop(stream, None)
        rule.seen_ns.pop(stream, None)
    # The newest first: an old trace may be gone from where it is looked up.
    rule.exemplars = tuple(dict.fromkeys((*verdict.exemplars, *rule.exemplars)))[:MAX_EXEMPLARS]


def _refreshed(alert: Alert, rule: _Rule) -> Alert:
    causes = ranked(rule.suspects.values()) or alert.causes
    return replace(alert, causes=causes, severity=severity_of(alert.rule, causes), exemplars=rule.exemplars)


def _rule_to_state(rule: _Rule) -> dict[str, Any]:
    return {
        "state": rule.state.name.lower(),
        "changed_ns": rule.changed_ns,
        "breached_ns": rule.breached_ns,
        "quiet_ns": rule.quiet_ns,
        "suspects": [
            {"cause": suspect.cause.to_dict(), "margin": suspect.margin, "seen_ns": rule.seen_ns[stream]}
            for stream, suspect in rule.suspects.items()
        ],
        "exemplars": list(rule.exemplars),
        "alert": None if rule.alert is None else rule.alert.to_dict(),
    }


def _rule_from_state(state: Mapping[str, Any], down_ns: int) -> _Rule:
    rule = _Rule(
        state=State[state["state"].upper()],
        changed_ns=state["changed_ns"],
        breached_ns=state["breached_ns"],
        quiet_ns=state["quiet_ns"],
        exemplars=tuple(state["exemplars"]),
        alert=None if state["alert"] is None else Alert.from_dict(state["alert"]),
    )
    for entry in state["suspects"]:
        cause = Cause.from_dict(entry["cause"])
        rule.suspects[cause.stream] = Suspect(cause=cause, margin=entry["margin"])
        rule.seen_ns[cause.stream] = entry["seen_ns"] + down_ns
    return rule
