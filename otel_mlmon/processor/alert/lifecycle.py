"""Moves the alert rules of all models through their states: ok, pending, firing, no data, error, and back to ok.

A rule fires once and is resolved once, however long the breach lasts and however often the processor restarts. What
grows meanwhile is an update (`announcer.py`). What was long in breach must be long ok to end, and longer each time that
it fires again soon, so that what swings around a bound does not flap. Silence is no proof of health: a model without
predictions is in `no_data`, and what fires keeps firing. A rule is in `error` while it fails to judge a stream and no
other stream breaches it.
How long a breach or quiet lasts is event time, so that a replay of what a Collector kept ends as it would have live.
Sources: Prometheus alerting rules (`for`, `keep_firing_for`, state restored after a restart); Grafana alerting (no data
and error as states of their own). Choice: no model counts as silent while the processor is down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Final

from otel_mlmon.processor.alert import records
from otel_mlmon.processor.alert.alert import NO_ADDRESSES, Alert, AlertAddresses, RelatedRule, RuleState
from otel_mlmon.processor.alert.announcer import AlertAnnouncer
from otel_mlmon.processor.alert.cause import rank_causes
from otel_mlmon.processor.alert.config import AlertSection
from otel_mlmon.processor.alert.records import RETIRED, AlertsRecord, ModelAlerts, RuleRecord, RuleStatus
from otel_mlmon.processor.alert.rules.rule import (
    NO_DATA,
    VERSION_DRIFT,
    AlertRule,
    ModelRules,
    ProviderRule,
    has_pane_values,
)
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.config.units import format_duration
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.window import StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

MAX_RESOLVED: Final = 100
"""Resolved alerts that `AlertStateMachine.list_alerts` still shows."""
RELATED_WITHIN_S: Final = 600.0
"""Rules whose onsets are no further apart name each other."""

_ACTIVE: Final = frozenset({RuleState.FIRING, RuleState.NO_DATA, RuleState.ERROR})


class AlertStateMachine:
    """The alert rules of all models with the state of each, from which alerts begin and end.

    Runs on: the thread that owns the state. Time never runs back: an earlier `now_ns` counts as the last one.

    Args:
        section: When an alert fires and ends, the same for all models.
        rules_of: Returns the rules of a model.
        stale_after_s: When a stream that vanished from a live model, or a version that another one replaced, is
            forgotten.
        addresses: What alerts point to.
        record: What `build_record` returned before a restart, which goes on at `now_ns`.
        now_ns: The time of the restart, Unix nanoseconds.
    """

    def __init__(
        self,
        section: AlertSection,
        *,
        rules_of: Callable[[ModelKey], ModelRules],
        stale_after_s: float,
        addresses: AlertAddresses = NO_ADDRESSES,
        record: AlertsRecord | None = None,
        now_ns: int = 0,
    ) -> None:
        self._section = section
        self._rules_of = rules_of
        self._stale_after_s = stale_after_s
        self._addresses = addresses
        record = record or AlertsRecord()
        self._models: dict[ModelKey, ModelAlerts] = {entry.model: entry for entry in record.models}
        self._resolved: deque[Alert] = deque(record.resolved, maxlen=MAX_RESOLVED)
        self.announcer = AlertAnnouncer(section.maintenance, silences=record.silences, sequence=record.sequence)
        self._now_ns = max(now_ns, record.time_ns)
        self._unjudged: Set[tuple[str, str]] = frozenset()
        """Names and environments of models with data that is not judged yet."""
        down_ns = self._now_ns - record.time_ns
        for entry in record.models:
            entry.data_ns += down_ns
            for rule in entry.rules.values():
                rule.judged_ns = {stream: judged_ns + down_ns for stream, judged_ns in rule.judged_ns.items()}

    def build_record(self) -> AlertsRecord:
        """Returns the state of all alert rules and silences to be stored; the next call of a method may change it."""
        return AlertsRecord(
            time_ns=self._now_ns,
            models=list(self._models.values()),
            resolved=list(self._resolved),
            sequence=self.announcer.sequence,
            silences=list(self.announcer.silences),
        )

    def evaluate_windows(
        self,
        model: ModelKey,
        scores: Collection[tuple[StreamWindow, DriftScore]],
        now_ns: int,
        *,
        event_ns: int | None = None,
    ) -> list[Alert]:
        """Judges one pane of a model's streams by its alert rules, and returns the alerts that begin, change or end.

        Args:
            model: The model version.
            scores: Window and score of each stream.
            now_ns: The time, Unix nanoseconds.
            event_ns: When the pane ended; None if that is now.
        """
        self._now_ns = max(self._now_ns, now_ns)
        record = self._models.setdefault(model, ModelAlerts(model=model))
        record.event_ns = max(record.event_ns, now_ns if event_ns is None else event_ns)
        rules = self._rules_of(model)
        changes: list[Alert] = []
        if any(has_pane_values(window) for window, _ in scores):
            record.data_ns = self._now_ns
            changes += self._end_no_data(model)
        judged = record.judge_streams(rules, scores, self._now_ns)
        for name in rules.active:
            if name in judged:
                changes += self._advance_state(record, name, rules.active[name])
        # Rules that fire in the same pane name each other, whichever was judged first.
        return [self._add_related_rules(record, alert) if alert.is_beginning else alert for alert in changes]

    def advance_clock(self, now_ns: int, *, unjudged: Set[ModelKey] = frozenset()) -> list[Alert]:
        """Returns the alerts that time alone causes: no data, due news, ends of silences, models without traffic.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
            unjudged: Models with data that is not judged yet: time says nothing about them, nor about other versions.
        """
        self._now_ns = max(self._now_ns, now_ns)
        self.announcer.forget_silences(self._now_ns)
        changes: list[Alert] = []
        newest_ns: dict[tuple[str, str], int] = {}
        for model, record in self._models.items():
            key = model.name, model.environment
            newest_ns[key] = max(newest_ns.get(key, 0), record.data_ns)
        self._unjudged = {(model.name, model.environment) for model in unjudged}
        for model, record in self._list_judged():
            rules = self._rules_of(model)
            is_replaced = record.data_ns < newest_ns[model.name, model.environment]
            if is_replaced and self._compute_age_s(record.data_ns) >= self._stale_after_s:
                changes += self._forget_model(model, "Another version replaced it.")
                continue
            retire_s, last_ns = self._section.retire_after_s, newest_ns[model.name, model.environment]
            if is_replaced and records.is_version_retired(record.data_ns, last_ns, self._now_ns, after_s=retire_s):
                # What comes back again and again, such as a canary with few calls, is not told each time.
                ended = record.list_ended_rules(self._now_ns, keep_s=self._section.keep_firing_for_s or 0.0)
                changes += self._resolve_rules(record, ended, RETIRED.format(format_duration(retire_s)))
                continue
            inactive = {name: entry for name, entry in record.rules.items() if name not in rules.active}
            changes += self._resolve_rules(record, inactive, "The rule is switched off.")
            for name, entry in record.rules.items():
                record.forget_stale_streams(entry, after_s=self._stale_after_s)
                is_over = entry.state in (RuleState.PENDING, RuleState.ERROR) and not entry.causes
                is_due = is_over or entry.state is RuleState.FIRING
                if is_due and name in rules.active:
                    changes += self._advance_state(record, name, rules.active[name])
                if entry.is_withheld and entry.alert is not None and entry.state is entry.alert.state:
                    alert = self._refresh_alert(record, name, entry.alert)
                    changes += self.announcer.announce(entry, alert, self._now_ns)
            if NO_DATA in rules.active and not is_replaced and self._is_silent(record):
                entry = record.find_rule_record(NO_DATA)
                if entry.state is not RuleState.NO_DATA:
                    changes += self._enter_state(record, NO_DATA, rules.active[NO_DATA], RuleState.NO_DATA)
        return changes

    def add_version_change(self, change: VersionChange, now_ns: int) -> list[Alert]:
        """Returns the alert that a new model version differs from the one before, if the rule is on."""
        self._now_ns = max(self._now_ns, now_ns)
        rule = self._rules_of(change.model).active.get(VERSION_DRIFT)
        if rule is None or not change.causes:
            return []
        record = self._models.setdefault(change.model, ModelAlerts(model=change.model))
        entry = record.find_rule_record(VERSION_DRIFT)
        entry.causes = {cause.stream: cause for cause in change.causes}
        entry.judged_ns = dict.fromkeys(entry.causes, self._now_ns)
        return self._enter_state(record, VERSION_DRIFT, rule, RuleState.FIRING)

    def judge_providers(self, model: ModelKey, uses: tuple[ExecutionProviderUse, ...], now_ns: int) -> list[Alert]:
        """Judges the execution providers that a model version runs on, and returns the alerts that begin or end."""
        self._now_ns = max(self._now_ns, now_ns)
        record = self._models.get(model)
        if record is None:  # without predictions there is nothing to warn of
            return []
        changes: list[Alert] = []
        for name, rule in self._rules_of(model).active.items():
            if isinstance(rule, ProviderRule) and record.find_rule_record(name).judge_providers(rule, uses):
                state = RuleState.FIRING if record.find_rule_record(name).causes else RuleState.OK
                if record.find_rule_record(name).state is not state:
                    changes += self._enter_state(record, name, rule, state)
        return changes

    def remove_model(self, model: ModelKey, now_ns: int) -> list[Alert]:
        """Removes a model whose stored data has expired, and returns the alerts that end with it."""
        self._now_ns = max(self._now_ns, now_ns)
        reason = "It was silent for so long that it is forgotten."
        return self._forget_model(model, reason) if model in self._models else []

    def list_notified_alerts(self) -> list[Alert]:
        """Returns the alerts that recipients were notified of and that have not ended."""
        entries = (entry for record in self._models.values() for entry in record.rules.values())
        return [entry.alert for entry in entries if entry.is_notified and entry.alert is not None]

    def remove_streams(self, streams: Iterable[StreamKey], now_ns: int, reason: str) -> list[Alert]:
        """Forgets the breaches of streams that were replaced or relearned; returns the alerts that end as a result."""
        self._now_ns = max(self._now_ns, now_ns)
        changes: list[Alert] = []
        for model, stream in streams:
            record = self._models.get(model, ModelAlerts(model=model))
            record.onset_counts.pop(stream, None)
            for name, entry in record.rules.items():
                is_affected = stream in entry.causes or stream in entry.failed
                entry.remove_stream(stream)
                if is_affected and not entry.causes and not entry.failed:
                    changes += self._resolve_rules(record, {name: entry}, reason)
        return changes

    def list_current_alerts(self, models: Iterable[ModelKey] | None = None) -> list[RuleStatus]:
        """Returns the state of every active alert rule of some models, or of all models."""
        statuses = []
        for model in sorted(self._models if models is None else self._models.keys() & set(models)):
            is_silent = self._is_silent(record := self._models[model])
            for name, rule in self._rules_of(model).active.items():
                entry = record.rules.get(name, RuleRecord())
                state, changed_ns = entry.state, entry.changed_ns
                if is_silent and state in (RuleState.OK, RuleState.PENDING):
                    state, changed_ns = RuleState.NO_DATA, record.data_ns
                elif state is RuleState.OK and entry.is_unknown:
                    state = RuleState.UNKNOWN
                causes = rank_causes(entry.causes.values())
                statuses.append(
                    RuleStatus(
                        model=model,
                        rule=name,
                        state=state,
                        changed_ns=changed_ns,
                        severity=rule.grade_severity(causes),
                        causes=causes,
                    )
                )
        return statuses

    def list_alerts(self) -> list[Alert]:
        """Returns the active alerts with their present causes, and the recently resolved ones, the newest first."""
        active = [
            self._refresh_alert(record, name, entry.alert)
            for record in self._models.values()
            for name, entry in record.rules.items()
            if entry.alert is not None and entry.state in _ACTIVE
        ]
        return sorted([*active, *self._resolved], key=lambda alert: alert.time_ns, reverse=True)

    def _advance_state(self, record: ModelAlerts, name: str, rule: AlertRule) -> Iterator[Alert]:
        """Moves an alert rule to its next state, by whether any stream is in breach of it."""
        entry = record.find_rule_record(name)
        if entry.causes:
            entry.quiet_ns = 0
            if entry.state in (RuleState.OK, RuleState.ERROR):
                entry.breached_ns = record.event_ns
            if entry.state is RuleState.FIRING:
                if self.announcer.has_due_news(entry, rule, self._now_ns):
                    alert = self._add_related_rules(record, self._new_alert(record, name, rule, RuleState.FIRING, ""))
                    yield from self.announcer.announce_news(entry, alert, self._now_ns)
                return
            if (record.event_ns - entry.breached_ns) / 1e9 >= self._section.for_s:
                yield from self._enter_state(record, name, rule, RuleState.FIRING)
            elif entry.state is not RuleState.PENDING:
                yield from self._enter_state(record, name, rule, RuleState.PENDING)
            return
        if entry.state is RuleState.FIRING:
            entry.quiet_ns = entry.quiet_ns or record.event_ns
            if (record.event_ns - entry.quiet_ns) / 1e9 < entry.compute_hold_s(self._section.keep_firing_for_s):
                return
        state = RuleState.ERROR if entry.failed else RuleState.OK
        if entry.state is not state:
            reason = f"It failed to judge {', '.join(entry.failed)}; see the processor's log." if entry.failed else ""
            yield from self._enter_state(record, name, rule, state, reason=reason)

    def _enter_state(
        self, record: ModelAlerts, name: str, rule: AlertRule | None, state: RuleState, *, reason: str = ""
    ) -> list[Alert]:
        """Sets the state of a rule and returns the alert on it; none if only `pending` was left or entered."""
        entry = record.find_rule_record(name)
        previous, entry.state, entry.changed_ns, entry.quiet_ns = entry.state, state, self._now_ns, 0
        last = entry.alert
        if previous is RuleState.FIRING and state is RuleState.OK:
            entry.ended_ns = record.event_ns
        if state is RuleState.FIRING and previous is not RuleState.ERROR:
            is_repeat = entry.ended_ns > 0 and (record.event_ns - entry.ended_ns) / 1e9 < records.REPEAT_WITHIN_S
            entry.repeats = entry.repeats + 1 if is_repeat else 0
            onsets = [cause.onset_ns for cause in entry.causes.values() if cause.onset_ns]
            entry.breached_ns = min(onsets, default=entry.breached_ns or record.event_ns)
        if state is RuleState.OK:
            entry.causes, entry.failed, entry.judged_ns, entry.exemplars = {}, [], {}, ()
            if last is None or last.state not in _ACTIVE:
                return []
            # What it was about: by now every stream is ok, and there is nothing to show of it.
            alert = replace(last, state=state, previous=previous, time_ns=self._now_ns, reason=reason, news=())
        elif state in _ACTIVE and rule is not None:
            alert = self._new_alert(record, name, rule, previous, reason)
        else:
            return []
        announced = self.announcer.announce(entry, alert, self._now_ns)
        if state is RuleState.OK and entry.alert is not None:
            self._resolved.append(entry.alert)
        return announced

    def _new_alert(self, record: ModelAlerts, name: str, rule: AlertRule, previous: RuleState, reason: str) -> Alert:
        entry, model = record.find_rule_record(name), record.model
        causes = rank_causes(entry.causes.values())
        onset_ns = min((cause.onset_ns for cause in causes if cause.onset_ns), default=0)
        last = entry.alert if entry.is_notified else None
        return Alert(
            model=model.name,
            version=model.version,
            environment=model.environment,
            rule=name,
            title=rule.title,
            state=entry.state,
            previous=previous,
            severity=rule.grade_severity(causes),
            time_ns=self._now_ns,
            onset_ns=record.data_ns if entry.state is RuleState.NO_DATA else onset_ns,
            causes=causes,
            exemplars=entry.exemplars,
            addresses=self._addresses,
            reason=reason,
            incident_ns=last.incident_ns if last is not None else 0,
            first_severity=last.first_severity if last is not None else "",
            joined=last.joined if last is not None else (),
        )

    def _refresh_alert(self, record: ModelAlerts, name: str, alert: Alert) -> Alert:
        """Returns an alert with its present causes, severity, traces, silence and related rules."""
        entry, rule = record.find_rule_record(name), self._rules_of(record.model).active.get(name)
        causes = rank_causes(entry.causes.values()) or alert.causes
        severity = alert.severity if rule is None else rule.grade_severity(causes)
        silence = self.announcer.find_silence(record.model, name, self._now_ns)
        current = replace(alert, causes=causes, severity=severity, exemplars=entry.exemplars, silence=silence)
        return replace(current, related=self._find_related_rules(record, current))

    def _add_related_rules(self, record: ModelAlerts, alert: Alert) -> Alert:
        """Adds to an alert the rules that fire since about the same time, stores it, and returns it."""
        alert = replace(alert, related=self._find_related_rules(record, alert))
        record.find_rule_record(alert.rule).alert = alert
        return alert

    def _find_related_rules(self, record: ModelAlerts, alert: Alert) -> tuple[RelatedRule, ...]:
        related = []
        for name, rule in self._rules_of(record.model).active.items():
            entry = record.rules.get(name)
            if entry is None or name == alert.rule or entry.state is not RuleState.FIRING or not entry.causes:
                continue
            causes = rank_causes(entry.causes.values())
            onset_ns = min((cause.onset_ns for cause in causes if cause.onset_ns), default=0)
            if abs((onset_ns or entry.changed_ns) - (alert.onset_ns or alert.time_ns)) <= RELATED_WITHIN_S * 1e9:
                related.append(RelatedRule(rule=name, title=rule.title, stream=causes[0].stream, onset_ns=onset_ns))
        return tuple(related)

    def _end_no_data(self, model: ModelKey) -> Iterator[Alert]:
        """Ends the `no_data` alerts of a model, of which any version has sent data again."""
        for other, record in self._models.items():
            if (other.name, other.environment) == (model.name, model.environment) and NO_DATA in record.rules:
                yield from self._resolve_rules(record, {NO_DATA: record.rules[NO_DATA]}, "")

    def _forget_model(self, model: ModelKey, reason: str) -> list[Alert]:
        record = self._models.pop(model)
        return list(self._resolve_rules(record, record.rules, reason))

    def _resolve_rules(self, record: ModelAlerts, entries: Mapping[str, RuleRecord], reason: str) -> Iterator[Alert]:
        for name, entry in entries.items():
            if entry.state is not RuleState.OK:
                yield from self._enter_state(record, name, None, RuleState.OK, reason=reason)

    def _list_judged(self) -> list[tuple[ModelKey, ModelAlerts]]:
        """Returns those model versions of which all data is judged, as is all data of their other versions."""
        return [entry for entry in self._models.items() if (entry[0].name, entry[0].environment) not in self._unjudged]

    def _is_silent(self, record: ModelAlerts) -> bool:
        after_s, model = self._rules_of(record.model).no_data_after_s, record.model
        is_judged = (model.name, model.environment) not in self._unjudged
        return is_judged and record.data_ns > 0 and self._compute_age_s(record.data_ns) >= after_s

    def _compute_age_s(self, time_ns: int) -> float:
        return (self._now_ns - time_ns) / 1e9
