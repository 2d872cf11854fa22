"""Defines the Protocol of an alert rule, the registry of all alert rules, and the rules of one model.

A rule is a class that is made from its own section of the configuration. To add one from another package, write it and
name it in an entry point; its name is the key of its section, under `models`, and the `ml.alert.rule` of its alerts:

    [project.entry-points."otel_mlmon.rules"]
    slow_start = "my_package.slow_start:SlowStartRule"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field

from otel_mlmon import semconv, streams
from otel_mlmon.processor.alert.alert import (
    CRITICAL_TOTAL_VARIATION,
    FREQUENT_SHARE,
    MIN_LOST_COUNT,
    AlertCause,
    Severity,
    compute_critical_ratio,
    find_lost_class,
)
from otel_mlmon.processor.alert.cause import BUDGET_S, OnsetCounts, build_shift_cause, format_count, format_utc
from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.processor.detect.detectable import MAX_DETECTABLE
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.window import ReferenceCounts, StreamWindow
from otel_mlmon.registry import PluginRegistry

Judgement: TypeAlias = AlertCause | Literal["ok", "unknown"] | None
"""The result of one rule for one stream: the cause of an alert in a breach, `ok` without one, None if it is not known
yet, `unknown` if it cannot become known as long as the model's reference stays as it is."""

SLOW_BURN_RATE: Final = 6.0
"""Slow or failed calls are critical at so many times the ratio that is allowed, once `SLOW_BUDGET` is spent.

That is the part of a month's budget that is gone after six hours.

Source: Google, The Site Reliability Workbook, chapter 5, table 5-8."""
SLOW_BUDGET: Final = 0.05

MIN_BUDGET: Final = 300.0 / BUDGET_S
"""The part of a month's budget that must be spent for an alert: what five minutes of calls may spend.

Failures come together: 50 in a row, by one client's bad requests, are no more than is allowed if they are all of five
minutes. Without it, .3 % of failures in bursts of 50, of 25 calls a second and 1 % allowed, were three alerts an hour.
"""

NO_DATA: Final = "no_data"
"""The rule that time alone breaches, and no stream."""

VERSION_DRIFT: Final = "version_drift"
"""The rule that the comparison of two versions breaches, and no pane."""

_CACHED_STREAMS: Final = 65_536
"""Streams whose rules are remembered: more than a model has, as one that is asked for in turn would find none."""

ABSENCE_MARGIN: Final = 2.0
"""A stream that is no longer sent ranks as evidence at its cap, which is 100 times the alarm line."""


MAX_DETECTABLE_FIELD: Final[Any] = Field(
    default=MAX_DETECTABLE,
    gt=0,
    description="The state is `weak`, not `ok`, where only a larger shift would be found within a day.",
)
"""A key of the sections of drift."""


class RuleSection(ConfigSection):
    """The configuration section of one alert rule; its docstring is the comment above it in the default file."""

    enabled: bool = Field(default=True, description="Whether the rule is evaluated.")

    @property
    def is_active(self) -> bool:
        """Whether the alert rule is evaluated at all."""
        return self.enabled


class AlertRule(Protocol):
    """An alert rule, which decides for one model which of its streams breach it. Made by `rule_type(section)`.

    Runs on: the thread that owns the state.
    """

    section_type: ClassVar[type[RuleSection]]
    title: ClassVar[str]
    """The subject of an alert as people call it: `prediction drift`."""
    section: Any
    """An instance of `section_type`."""

    def __init__(self, section: Any) -> None: ...

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how drift of a stream is detected for this rule; None if the rule does not judge the stream."""

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Judges one stream of a model by this rule, after one pane of its values.

        Args:
            window: The pane, the rolling window and the reference.
            score: The evidence and the statistics.
            counts: The counts since the onset of every stream's drift.

        Raises:
            Exception: Any; the rule is then in state `error` until it can judge the stream again.
        """

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns the severity of a breach of this rule by the size of its effect, never by the amount of evidence."""


@runtime_checkable
class ProviderRule(Protocol):
    """An alert rule that judges the execution providers on which processes run a model version."""

    def judge_providers(self, uses: Iterable[ExecutionProviderUse]) -> Judgement:
        """Judges by this rule all that processes reported of the execution providers of a model version."""


@runtime_checkable
class EvidenceRule(Protocol):
    """An alert rule that is not asked about a stream that is sent and does not drift: it is `ok`, unless it learns."""

    is_by_evidence: ClassVar[Literal[True]]


class ModelRules:
    """The alert rules of one model.

    Args:
        rules: Every rule by name, those that are switched off too.
    """

    def __init__(self, rules: Mapping[str, AlertRule]) -> None:
        self._rules = dict(rules)
        self.active: dict[str, AlertRule] = {name: rule for name, rule in rules.items() if rule.section.is_active}
        """The rules that are evaluated, by name."""
        self.evidence_rules = frozenset(name for name, rule in self.active.items() if isinstance(rule, EvidenceRule))
        """The names of the rules that are asked only about streams that drift or are no longer sent."""
        self.no_data_after_s: float = rules[NO_DATA].section.after_s
        """How long a model is silent before it has no data."""
        self.find_rules = lru_cache(maxsize=_CACHED_STREAMS)(self._find_rules)

    @classmethod
    def from_section(cls, section: object) -> ModelRules:
        """Makes the alert rules of a model, each from its part of the model's configuration section."""
        return cls({name: rule_type(getattr(section, name)) for name, rule_type in RULES.load_all_plugins().items()})

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns how drift of a stream of the model is detected; None if no active rule judges the stream.

        One stream has one policy: that of its first active rule. A rule that only sets thresholds adds them to it; if
        no other is active, the evidence is collected, though no alert comes of it.
        """
        policies = {name: rule.find_detection_policy(stream) for name, rule in self._rules.items()}
        active = [policy for name, policy in policies.items() if policy is not None and name in self.active]
        if not active:
            return None
        others = [policy for name, policy in policies.items() if policy is not None and name not in self.active]
        first = min((*active, *others), key=lambda policy: bool(policy.thresholds))
        return replace(first, thresholds=tuple(threshold for policy in active for threshold in policy.thresholds))

    def _find_rules(self, stream: str) -> tuple[tuple[str, AlertRule], ...]:
        """Returns the active alert rules that judge a stream, with their names."""
        return tuple(
            (name, rule) for name, rule in self.active.items() if rule.find_detection_policy(stream) is not None
        )


def judge_evidence(
    window: StreamWindow, score: DriftScore, describe: Callable[[ReferenceCounts], AlertCause]
) -> Judgement:
    """Judges a stream by its evidence alone: in breach from the alarm line until the evidence is back at 1."""
    if score.state == "drift" and window.reference is not None:
        return describe(window.reference)
    return "ok" if score.state in ("ok", "weak") else None


def judge_budget(
    window: StreamWindow, score: DriftScore, describe: Callable[[ReferenceCounts], AlertCause]
) -> Judgement:
    """Judges slow or failed calls: a breach by the evidence, once an excess has spent five minutes of the budget.

    What was spent before the evidence began counts too, where the rolling window as a whole is above what is allowed:
    calls that are slow from the first one on are so while it is learned how much they vary.
    """
    judgement = judge_evidence(window, score, describe)
    if not isinstance(judgement, AlertCause):
        return judgement
    rate = float(window.rolling[-1]) / max(int(window.rolling.sum()), 1) / judgement.bound
    spent = rate * (window.end_ns - window.rolling_start_ns) / 1e9 / BUDGET_S if rate > 1.0 else 0.0
    return judgement if max(judgement.budget_spent, spent) >= MIN_BUDGET else "ok"


def judge_shift(window: StreamWindow, score: DriftScore, counts: OnsetCounts, *, bound: float) -> Judgement:
    """Judges a stream by the evidence that its distribution moved, or as absent if it is no longer sent.

    Args:
        window: The stream's window.
        score: Its score.
        counts: The counts since the onset of every stream's drift.
        bound: The total variation that is tolerated, [0, 1].
    """
    if window.absence is not None:
        return build_absence_cause(window, window.absence, score, bound=bound)
    since_onset = counts.since_onset
    return judge_evidence(
        window, score, lambda reference: build_shift_cause(window, reference, score, since_onset(window), bound=bound)
    )


def build_absence_cause(window: StreamWindow, absence: StreamAbsence, score: DriftScore, *, bound: float) -> AlertCause:
    """Describes for an alert a stream that is no longer sent although its model has predictions.

    Args:
        window: The stream's window.
        absence: Since when it is not sent, and how many values were to be expected.
        score: Its score.
        bound: The total variation that is tolerated.
    """
    predictions, expected = format_count(absence.predictions), format_count(absence.expected)
    return AlertCause(
        stream=window.stream.stream,
        value=1.0,
        bound=bound,
        reference=f"{expected} values in {predictions} predictions",
        current=f"no longer sent since {format_utc(absence.since_ns)}",
        current_count=0,
        reference_count=score.reference_count,
        onset_ns=absence.since_ns,
        summary=f"no value with the last {predictions} predictions of the model; {expected} were to be expected",
        is_absent=True,
        margin=ABSENCE_MARGIN,
    )


def is_calm(window: StreamWindow, score: DriftScore) -> bool:
    """Returns whether a stream is sent and does not drift, so that no `EvidenceRule` has to be asked about it."""
    return score.state in ("ok", "weak", "learning") and window.absence is None


def has_pane_values(window: StreamWindow) -> bool:
    """Returns whether a pane of a stream holds any values."""
    return window.pane.size == 0 or bool(window.pane.any())


def is_stream_back(cause: AlertCause | None, window: StreamWindow) -> bool:
    """Returns whether a stream that an alert calls absent is sent again."""
    return cause is not None and cause.is_absent and has_pane_values(window)


def grade_drift_severity(causes: Iterable[AlertCause]) -> Severity:
    """Returns the severity of drift: `critical` where a quarter of a distribution moved, or a frequent class is gone.

    A loss of a class, of any size, changes what the users of a model get: some of them never get their answer.
    """
    is_critical = any(cause.value >= CRITICAL_TOTAL_VARIATION or has_lost_class(cause) for cause in causes)
    return "critical" if is_critical else "warning"


def has_lost_class(cause: AlertCause) -> bool:
    """Returns whether a class that was frequent is hardly predicted any more, beyond what may be chance."""
    if streams.find_stream_family(cause.stream) != semconv.STREAM_LABEL:
        return False
    lost = find_lost_class(cause.bins, cause.reference_shares, cause.current_shares, least_share=FREQUENT_SHARE)
    return lost is not None and lost[1] * cause.current_count >= MIN_LOST_COUNT


def grade_burn_rate(causes: Iterable[AlertCause]) -> Severity:
    """Returns the severity of slow or failed calls, by how fast they spend a month's budget.

    Critical is a fast burn over the last hour (or since the onset, if that is shorter), and a slow one that has lasted.
    """
    is_critical = any(
        cause.value >= compute_critical_ratio(cause.bound)
        or (cause.value >= SLOW_BURN_RATE * cause.bound and cause.budget_spent >= SLOW_BUDGET)
        for cause in causes
    )
    return "critical" if is_critical else "warning"


_FOLDER: Final = "otel_mlmon.processor.alert.rules"

RULES: Final[PluginRegistry[type[AlertRule]]] = PluginRegistry(
    "otel_mlmon.rules",
    {
        "latency": f"{_FOLDER}.latency:LatencyRule",
        "errors": f"{_FOLDER}.errors:ErrorsRule",
        "prediction_drift": f"{_FOLDER}.prediction_drift:PredictionDriftRule",
        "confidence": f"{_FOLDER}.confidence:ConfidenceRule",
        "accuracy": f"{_FOLDER}.accuracy:AccuracyRule",
        "data_drift": f"{_FOLDER}.data_drift:DataDriftRule",
        "statistic": f"{_FOLDER}.statistic:StatisticRule",
        VERSION_DRIFT: f"{_FOLDER}.version_drift:VersionDriftRule",
        "execution_provider": f"{_FOLDER}.execution_provider:ExecutionProviderRule",
        NO_DATA: f"{_FOLDER}.no_data:NoDataRule",
    },
)
"""Every rule by name, in the order in which they are evaluated and listed."""
