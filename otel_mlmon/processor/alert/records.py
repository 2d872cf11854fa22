"""Stores the alerts of all models: the state of every rule, what recipients were notified of, and silences.

A model is stored when it was judged, and all that ended when an alert began or ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from typing import Final

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert, AlertCause, RuleState, Severity
from otel_mlmon.processor.alert.cause import BinCounts, OnsetCounts
from otel_mlmon.processor.alert.rules.rule import (
    AlertRule,
    Judgement,
    ModelRules,
    ProviderRule,
    is_calm,
    is_stream_back,
)
from otel_mlmon.processor.alert.silence import AlertSilence
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.window import StreamWindow
from otel_mlmon.types import ModelKey

MAX_EXEMPLARS: Final = 5

REPEAT_WITHIN_S: Final = 3600.0
"""An alert that fires again within this time after its end repeats itself."""
REPEAT_HOLD_S: Final = 300.0
"""How long every stream must be ok after the first repetition; twice as long after each further one."""
MAX_HOLD_S: Final = 3600.0

HOLD_RATIO: Final = 1.5
"""How long every stream must be ok before an alert ends, as a multiple of how long they were not.

What swings around a bound is as long out of breach as in it, and evidence is late by as much as it takes to be sure:
with a period of 40 min it fell back 1,190 s before the next alarm, after 1,290 s in breach.
"""

RETIRED: Final = "This version is retired: it had no traffic for {} while another version had some."
"""Why the alerts of a version end that another one replaced."""


def find_repeat_hold_s(repeats: int) -> float:
    """Returns how many seconds an alert that fired again `repeats` times must be ok before it ends."""
    return min(REPEAT_HOLD_S * 2.0 ** (repeats - 1), MAX_HOLD_S) if repeats else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStatus:
    """The state of one alert rule of one model at a moment."""

    model: ModelKey
    rule: str
    state: RuleState
    changed_ns: int
    """When this state began, Unix nanoseconds; 0 if it never changed."""
    severity: Severity
    causes: tuple[AlertCause, ...]


@dataclass(slots=True, kw_only=True)
class RuleRecord:
    """The stored state of one alert rule of one model, and what led to it."""

    state: RuleState = RuleState.OK
    changed_ns: int = 0
    breached_ns: int = 0
    """When the breach began, in event time, Unix nanoseconds; of what fires the onset of its first cause."""
    quiet_ns: int = 0
    """Since when all streams are ok while this is still firing; 0 while they are not."""
    causes: dict[str, AlertCause] = field(default_factory=dict)
    """The causes by stream, of the streams in breach."""
    failed: list[str] = field(default_factory=list)
    """The streams that the rule failed to judge."""
    judged_ns: dict[str, int] = field(default_factory=dict)
    """When each stream in breach or failed was last judged."""
    exemplars: tuple[str, ...] = ()
    alert: Alert | None = None
    """The last alert, which was notified unless a silence withheld it."""
    notified_state: RuleState = RuleState.OK
    """The state that recipients were told of last; `ok` if they know of nothing that is not over."""
    is_withheld: bool = False
    """Whether a silence withholds the last alert."""
    notified_streams: list[str] = field(default_factory=list)
    """The streams in breach that recipients were told of, since the alert began."""
    news: list[str] = field(default_factory=list)
    """The news that no notification had yet: streams that joined, and `severity`."""
    news_since_ns: int = 0
    news_changed_ns: int = 0
    ended_ns: int = 0
    """When it last stopped firing, in event time, Unix nanoseconds; 0 if it never did."""
    repeats: int = 0
    """How many times in a row it fired again soon after it had stopped."""
    is_unknown: bool = False
    """Whether the last stream that was judged cannot be judged with this reference."""

    @property
    def is_notified(self) -> bool:
        """Whether recipients were notified of an alert of this rule that has not ended."""
        return self.notified_state is not RuleState.OK

    def compute_hold_s(self, keep_firing_for_s: float | None) -> float:
        """Returns how many seconds all streams must be within the rule's bounds before its alert ends.

        Args:
            keep_firing_for_s: The configured time; None for one in proportion to the breach.
        """
        breach_s = max(0.0, (self.quiet_ns - self.breached_ns) / 1e9)
        hold_s = min(HOLD_RATIO * breach_s, MAX_HOLD_S) if keep_firing_for_s is None else keep_firing_for_s
        return max(hold_s, find_repeat_hold_s(self.repeats))

    def has_outcome(self, stream: str) -> bool:
        """Returns whether a stream breached the rule when it was last judged, or could not be judged."""
        return stream in self.causes or stream in self.failed

    def add_failure(self, stream: str, now_ns: int) -> None:
        """Records that the rule failed with an error when it judged a stream."""
        if stream not in self.failed:
            self.failed.append(stream)
        self.judged_ns[stream] = now_ns

    def add_cause(self, stream: str, cause: AlertCause, exemplars: Iterable[str], now_ns: int) -> None:
        """Records that a stream breaches the rule, with ids of example traces."""
        self.causes[stream] = cause
        self.judged_ns[stream] = now_ns
        self.exemplars = tuple(dict.fromkeys((*exemplars, *self.exemplars)))[:MAX_EXEMPLARS]

    def judge_stream(
        self, rule: AlertRule, window: StreamWindow, score: DriftScore, counts: OnsetCounts, now_ns: int
    ) -> bool:
        """Judges one stream by the rule and stores the outcome; returns whether the rule gave one or failed."""
        stream = window.stream.stream
        outcome: Judgement = None
        has_failed = True
        with guard("alert"):
            outcome = rule.judge_stream(window, score, counts)
            has_failed = False
        if has_failed:
            self.add_failure(stream, now_ns)
            return True
        self.is_unknown = outcome == "unknown"
        is_sent_again = is_stream_back(self.causes.get(stream), window)
        if outcome is None and not is_sent_again:
            return False
        self.remove_stream(stream)
        if is_sent_again and not self.causes:
            self.breached_ns = window.end_ns  # that it is back is sure, and no swing: nothing is held
        if isinstance(outcome, AlertCause):
            self.add_cause(stream, outcome, window.exemplars, now_ns)
        return True

    def judge_providers(self, rule: ProviderRule, uses: tuple[ExecutionProviderUse, ...]) -> bool:
        """Judges a model version's execution providers and stores the outcome; returns whether there was one."""
        outcome: Judgement = None
        with guard("alert"):
            outcome = rule.judge_providers(uses)
        if outcome is not None:
            self.causes = {outcome.stream: outcome} if isinstance(outcome, AlertCause) else {}
        return outcome is not None

    def remove_stream(self, stream: str) -> None:
        """Forgets that a stream breached the rule, or that the rule failed to judge it."""
        self.causes.pop(stream, None)
        self.judged_ns.pop(stream, None)
        if stream in self.failed:
            self.failed.remove(stream)


@dataclass(slots=True, kw_only=True)
class ModelAlerts:
    """The stored alert state of one model version: its rules, and its streams' counts since the onset of drift."""

    model: ModelKey
    data_ns: int = 0
    """When data last came, Unix nanoseconds; 0 if none ever did."""
    event_ns: int = 0
    """The end of the newest pane that was judged, Unix nanoseconds: how long a breach or quiet lasts is event time."""
    onset_counts: dict[str, BinCounts] = field(default_factory=dict)
    rules: dict[str, RuleRecord] = field(default_factory=dict)

    def list_ended_rules(self, now_ns: int, *, keep_s: float) -> dict[str, RuleRecord]:
        """Returns the rules of a retired version whose alerts may end, by how often they have fired again before.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
            keep_s: How long the version must have been without traffic at least.
        """
        age_s = (now_ns - self.data_ns) / 1e9
        rules = self.rules.items()
        return {name: entry for name, entry in rules if age_s >= max(keep_s, find_repeat_hold_s(entry.repeats))}

    def forget_stale_streams(self, entry: RuleRecord, *, after_s: float) -> None:
        """Drops the breaches of streams that have not been judged for so long although their model sends data."""
        stale_ns = self.data_ns - round(after_s * 1e9)
        for stream in [stream for stream, judged_ns in entry.judged_ns.items() if judged_ns <= stale_ns]:
            entry.remove_stream(stream)
            entry.breached_ns = self.event_ns  # what is not judged any more is not held

    def find_rule_record(self, name: str) -> RuleRecord:
        """Returns the stored state of an alert rule of the model, a new one if there is none."""
        entry = self.rules.get(name)
        if entry is None:
            entry = self.rules[name] = RuleRecord()
        return entry

    def judge_streams(
        self, rules: ModelRules, scores: Iterable[tuple[StreamWindow, DriftScore]], now_ns: int
    ) -> set[str]:
        """Judges one pane of each stream by the model's rules and stores the outcomes; returns the rules that gave any.

        Nearly all streams are calm, and were before: by their evidence they are `ok`, or learn, and nothing is stored.

        Args:
            rules: Of the model.
            scores: Windows and scores of its streams.
            now_ns: The time by our clock, Unix nanoseconds.
        """
        counts, judged, evidence_rules = OnsetCounts(self.onset_counts), set[str](), rules.evidence_rules
        for window, score in scores:
            stream, is_quiet = window.stream.stream, is_calm(window, score)
            if score.since_ns or stream in counts.by_stream:
                counts.add(window, score)
            for name, rule in rules.find_rules(stream):
                entry = self.find_rule_record(name)
                if is_quiet and name in evidence_rules and not entry.has_outcome(stream):
                    has_result = score.state != "learning"
                else:
                    has_result = entry.judge_stream(rule, window, score, counts, now_ns)
                if has_result:
                    judged.add(name)
        return judged


@dataclass(slots=True, kw_only=True)
class AlertsRecord:
    """The stored state of the alerts of all models."""

    time_ns: int = 0
    """The latest time that was seen, Unix nanoseconds."""
    models: list[ModelAlerts] = field(default_factory=list)
    resolved: list[Alert] = field(default_factory=list)
    sequence: int = 0
    """The last `Alert.sequence`."""
    silences: list[AlertSilence] = field(default_factory=list)


ALL_INTERVAL_NS: Final = 60_000_000_000
"""Interval at which all models are stored, for what time alone changed without an alert."""

ALERTS: Final = RecordKind("alerts", AlertsRecord)
ALERT_MODELS: Final = RecordKind("alert_model", ModelAlerts)

_COMMON, _RESOLVED = "", "resolved"


class AlertStore:
    """Loads and saves the state of all alerts in the state store.

    Args:
        repository: Where it is stored.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._stored: set[str] = set()
        """Keys of the models that are stored."""
        self._saved: set[str] = set()
        """Keys of the models that the last save stores."""
        self._all_due_ns = 0

    def load_record(self, now_ns: int) -> AlertsRecord | None:
        """Loads the state of all alerts from the state store; None if it has none.

        Raises:
            StoreError: It cannot be read.
        """
        records = load_records(self._repository, ALERTS)
        models = load_records(self._repository, ALERT_MODELS)
        self._stored = self._saved = set(models)
        if not records and not models:
            return None
        common = records.get(_COMMON, AlertsRecord(time_ns=now_ns))
        resolved = records[_RESOLVED].resolved if _RESOLVED in records else []
        return replace(common, models=list(models.values()), resolved=resolved)

    def save_record(self, record: AlertsRecord, changed: Set[ModelKey], now_ns: int, *, has_news: bool) -> None:
        """Writes the changed state of the alerts to the state store.

        Args:
            record: The state of all alerts.
            changed: The models that were judged since the last save.
            now_ns: The time by our clock, Unix nanoseconds.
            has_news: Whether any alert began or ended, or a model was removed: any model may have changed.

        Raises:
            StoreError: The repository refused it.
        """
        repository = self._repository
        put_records(repository, ALERTS, [(_COMMON, replace(record, models=[], resolved=[]))])
        is_all = has_news or now_ns >= self._all_due_ns
        models = [entry for entry in record.models if is_all or entry.model in changed]
        put_records(repository, ALERT_MODELS, [(json.dumps(entry.model), entry) for entry in models])
        self._saved = self._stored | {json.dumps(entry.model) for entry in models}
        if is_all:
            self._all_due_ns = now_ns + ALL_INTERVAL_NS
            resolved = AlertsRecord(time_ns=record.time_ns, resolved=record.resolved)
            put_records(repository, ALERTS, [(_RESOLVED, resolved)])
            present = {json.dumps(entry.model) for entry in record.models}
            gone = sorted(self._stored - present)
            if gone:
                repository.delete(ALERT_MODELS.name, gone)
            self._saved &= present

    def mark_saved(self) -> None:
        """Notes that what was last saved of the alerts is committed to the state store."""
        self._stored = self._saved


def is_version_retired(data_ns: int, newest_ns: int, now_ns: int, *, after_s: float) -> bool:
    """Returns whether a model version has had no traffic for long while another version has some.

    Args:
        data_ns: When it last had data, Unix nanoseconds.
        newest_ns: When any version of the model last had data.
        now_ns: The time.
        after_s: How long it has no traffic while another one has some.
    """
    return (now_ns - data_ns) / 1e9 >= after_s > (now_ns - newest_ns) / 1e9
