"""From the scores of a model to one verdict a rule: what is breached, and what moved, in words people use.

The evidence decides whether (`Score.status`); the size of the effect decides how severe. A rule is breached
while any of its streams is in drift, so forty drifted features are one verdict with forty causes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Cause, RuleName, Severity
from otel_mlmon.processor.alert.explain import bin_words, describe, percent
from otel_mlmon.processor.alert.onset import Counted, SinceOnset, shares
from otel_mlmon.processor.detect.score import Score, ThresholdVerdict
from otel_mlmon.processor.window.window import Reference, StreamKey, Window

RULES: Final[tuple[RuleName, ...]] = (
    "latency",
    "errors",
    "prediction_drift",
    "confidence",
    "data_drift",
    "statistic",
    "no_data",
)

CRITICAL_TOTAL_VARIATION: Final = 0.25
"""A quarter of the traffic is elsewhere: critical."""

CRITICAL_BUDGETS: Final = 5.0
"""Five times the share that latency or errors may have: critical."""

_RULE_OF_STREAM: Final[Mapping[str, RuleName]] = {
    semconv.STREAM_LABEL: "prediction_drift",
    semconv.STREAM_VALUE: "prediction_drift",
    semconv.STREAM_CONFIDENCE: "confidence",
    semconv.STREAM_LATENCY: "latency",
    semconv.STREAM_ERRORS: "errors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRules:
    """Which rules of a model are judged, and their bounds."""

    enabled: frozenset[RuleName] = frozenset(RULES) - {"statistic"}
    latency_threshold_s: float = 0.2
    latency_max_ratio: float = 0.01
    error_max_ratio: float = 0.01
    prediction_tolerance: float = 0.02
    confidence_tolerance: float = 0.02
    data_tolerance: float = 0.05
    no_data_after_s: float = 600.0

    def bound(self, rule: RuleName) -> float:
        """What `rule` tolerates: a total variation or a share, [0, 1]; 0 for `no_data` and `statistic`."""
        bounds: dict[RuleName, float] = {
            "latency": self.latency_max_ratio,
            "errors": self.error_max_ratio,
            "prediction_drift": self.prediction_tolerance,
            "confidence": self.confidence_tolerance,
            "data_drift": self.data_tolerance,
            "statistic": 0.0,
            "no_data": 0.0,
        }
        return bounds[rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A stream in drift."""

    cause: Cause
    margin: float
    """log10 of the evidence over the alarm line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one pane says about one rule. Streams that still learn or calibrate say nothing."""

    drifting: tuple[Suspect, ...] = ()
    quiet: tuple[str, ...] = ()
    """Streams that are `ok`."""
    exemplars: tuple[str, ...] = ()
    """Trace ids seen in the streams that drift."""


def rule_of(stream: str) -> RuleName:
    """The rule that judges `stream`."""
    return _RULE_OF_STREAM.get(stream, "data_drift")


def judge(
    scores: Mapping[StreamKey, tuple[Window, Score]], rules: ModelRules, since: SinceOnset
) -> dict[RuleName, Verdict]:
    """One verdict for each rule that any of `scores` is about; rules that are switched off have none.

    A stream that cannot be described is left out, counted by the guard `alert`; the others are judged.
    """
    drifting: dict[RuleName, list[Suspect]] = {}
    quiet: dict[RuleName, list[str]] = {}
    exemplars: dict[RuleName, dict[str, None]] = {}
    for key, (window, score) in scores.items():
        if "statistic" in rules.enabled and score.thresholds:
            with guard("alert"):
                _judge_thresholds(window, score, rules, drifting, quiet, exemplars)
        rule = rule_of(key.stream)
        if rule not in rules.enabled:
            continue
        with guard("alert"):
            if score.status == "ok":
                quiet.setdefault(rule, []).append(key.stream)
            elif score.status == "drift" and window.reference is not None:
                cause = _cause(window, window.reference, score, since.counted(window), rules)
                drifting.setdefault(rule, []).append(Suspect(cause=cause, margin=score.margin))
                exemplars.setdefault(rule, {}).update(dict.fromkeys(window.exemplars))
    return {
        rule: Verdict(
            drifting=tuple(drifting.get(rule, ())),
            quiet=tuple(quiet.get(rule, ())),
            exemplars=tuple(exemplars.get(rule, ())),
        )
        for rule in RULES
        if rule in drifting or rule in quiet
    }


def ranked(suspects: Iterable[Suspect]) -> tuple[Cause, ...]:
    """Their causes, the strongest evidence first; evidence is capped, so among equals the largest move.

    Margins are compared to a hundredth of a decade: below that the order would be noise.
    """

    def strength(suspect: Suspect) -> tuple[float, float, str]:
        return -round(suspect.margin, 2), -suspect.cause.value, suspect.cause.stream

    return tuple(suspect.cause for suspect in sorted(suspects, key=strength))


def severity_of(rule: RuleName, causes: Iterable[Cause]) -> Severity:
    """From the size of the effect, never from the evidence: more data makes nothing worse."""
    if rule == "statistic":
        # What a value of a statistic means is known to who chose the threshold.
        return "warning"
    if rule in ("latency", "errors"):
        is_critical = any(cause.value >= CRITICAL_BUDGETS * cause.bound for cause in causes)
    else:
        is_critical = any(cause.value >= CRITICAL_TOTAL_VARIATION for cause in causes)
    return "critical" if is_critical else "warning"


def _judge_thresholds(
    window: Window,
    score: Score,
    rules: ModelRules,
    drifting: dict[RuleName, list[Suspect]],
    quiet: dict[RuleName, list[str]],
    exemplars: dict[RuleName, dict[str, None]],
) -> None:
    """The worst breach of a stream's thresholds; quiet if all were judged and none is breached."""
    breaches = [verdict for verdict in score.thresholds if verdict.verdict == "breached"]
    if breaches and window.reference is not None:
        worst = max(breaches, key=_excess)
        rolling = Counted(counts=tuple(window.rolling.tolist()), mean=window.rolling_mean)
        cause = replace(
            _cause(window, window.reference, score, rolling, rules),
            value=worst.value,
            bound=worst.bound,
            onset_ns=0,
            statistic=f"p of {worst.statistic}" if worst.is_p_value else worst.statistic,
        )
        drifting.setdefault("statistic", []).append(Suspect(cause=cause, margin=_excess(worst)))
        exemplars.setdefault("statistic", {}).update(dict.fromkeys(window.exemplars))
    elif all(verdict.verdict == "ok" for verdict in score.thresholds):
        quiet.setdefault("statistic", []).append(window.stream.stream)


def _excess(verdict: ThresholdVerdict) -> float:
    """By how many decades a threshold is passed."""
    larger, smaller = (verdict.bound, verdict.value) if verdict.is_p_value else (verdict.value, verdict.bound)
    return math.log10(larger / max(smaller, 1e-300))


def _cause(window: Window, reference: Reference, score: Score, counted: Counted, rules: ModelRules) -> Cause:
    stream = window.stream.stream
    rule = rule_of(stream)
    was, now = shares(reference.counts), shares(counted.counts)
    details: tuple[str, ...] = ()
    pairs = list(zip(was, now, strict=True))
    if rule in ("latency", "errors"):
        value = now[-1]
        words = f"over {_duration(rules.latency_threshold_s)}" if rule == "latency" else "failed"
        before, after = f"{percent(was[-1])} {words}", percent(value)
    else:
        value = math.fsum(abs(one - other) for one, other in pairs) / 2
        before, after = _moved(stream, reference, counted, was, now)
        details = describe(stream, reference.bins, was, now, means=(reference.mean, counted.mean))
    return Cause(
        stream=stream,
        value=value,
        bound=rules.bound(rule),
        before=before,
        now=after,
        n=counted.total,
        reference_count=reference.total,
        onset_ns=score.since_ns,
        bins=reference.bins.names,
        reference_shares=was,
        current_shares=now,
        details=details,
    )


def _moved(
    stream: str, reference: Reference, counted: Counted, was: tuple[float, ...], now: tuple[float, ...]
) -> tuple[str, str]:
    """The mean before and after where it tells; else the bin that moved most."""
    bins = reference.bins
    # What one bin lost another gained: of equal moves, up to rounding, the growth is told.
    most = max(range(bins.count), key=lambda index: (round(abs(now[index] - was[index]), 9), now[index] - was[index]))
    name = bins.names[most]
    before, after = f"mean {reference.mean:.3g}", f"mean {counted.mean:.3g}"
    is_mean = bins.is_ordered and math.isfinite(reference.mean) and math.isfinite(counted.mean)
    if is_mean and name != semconv.MISSING and before != after:
        return before, after
    return f"{bin_words(stream, name, bins)}: {percent(was[most])}", percent(now[most])


def _duration(seconds: float) -> str:
    for unit, length_s in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length_s:
            return f"{seconds / length_s:g} {unit}"
    return f"{seconds / 1e-6:g} µs"
