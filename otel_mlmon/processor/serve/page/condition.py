"""Summarises the condition of a model version: what is wrong, since when, what is awaited, and what to do next.

Read from the documents of the API alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from markupsafe import Markup, escape

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.advice import find_provider_fallbacks, list_actions
from otel_mlmon.processor.serve.page.deploy import VERSION_DRIFT, Deploy, DeployDifference, find_trouble_deploy
from otel_mlmon.processor.serve.page.excess import find_budget_excess
from otel_mlmon.processor.serve.page.facts import list_traces, list_trouble_facts, name_traced_calls
from otel_mlmon.processor.serve.page.headline import (
    describe_alert_finding,
    describe_fallback,
    describe_shift,
    explain_severity,
)
from otel_mlmon.processor.serve.page.replacement import Replacement, find_replacement
from otel_mlmon.processor.serve.page.shares import name_rolling_window
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

ORDER: Final = ("firing", "trouble", "error", "pending", "drift", "no_data", "learning", "weak", "ok", "replaced")
"""States of model versions, the most urgent first."""
CALM: Final = frozenset({"ok", "replaced"})
"""States of model versions of which nobody has to know more."""
URGENT: Final = frozenset({"firing", "trouble", "error", "no_data"})
"""States of model versions that somebody has to look at now."""
ACTIVE: Final = frozenset({"firing", "no_data", "error"})
"""States of alerts that go on."""
MAX_TRACES: Final = 3
FALLBACK_NS: Final = 600 * 10**9
"""A fallback that is no further from the onset of an alert belongs to the same incident."""
MAX_FINDINGS: Final = 2
"""A headline names the findings of so many alerts at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCondition:
    """The condition of one model version: what is wrong, since when, and what to do."""

    state: str
    headline: Markup
    """A short sentence on what is wrong, such as `20 % of calls fail`, or on the state."""
    since_ns: int = 0
    """The earliest onset of what is wrong, Unix nanoseconds; 0 if it is unknown."""
    facts: tuple[Markup, ...] = ()
    outlook: str = ""
    """Why there is no alert yet, and when there would be one."""
    actions: tuple[Markup, ...] = ()
    severity: str = ""
    severity_reasons: tuple[str, ...] = ()
    """Sentences that say by the size of the effect why it is critical, or no more than a warning."""
    traces: tuple[tuple[str, str], ...] = ()
    """Traces of calls since the onset, each with its address; that is empty if there is none."""
    trace_subject: str = ""
    """The kind of calls that the traces are of: `failed calls`."""
    note: str = ""
    """Small print on a model version that is fine: what would not be noticed yet."""
    deploy: Deploy | None = None
    replacement: Replacement | None = None
    """The version that has the calls now, of one that has none any more."""
    alerts: tuple[Document, ...] = ()
    """The documents of the alerts that go on."""


def find_version_alerts(model: Document, alerts: Iterable[Document], *, is_active: bool = True) -> list[Document]:
    """Finds the alerts of a model version: those that fire now, or all."""
    return [
        alert
        for alert in alerts
        if (alert["model"], alert["version"], alert["environment"])
        == (model["name"], model["version"], model["environment"])
        and (not is_active or alert["state"] in ACTIVE)
    ]


def find_version_state(model: Document) -> str:
    """Returns the state of a model version, the most urgent of its alert rules and its streams."""
    rules = {rule["state"] for rule in model["rules"]}
    silent = [rule["state"] for rule in model["rules"] if rule["rule"] == "no_data"]
    if "firing" in rules:
        return "firing"
    if silent == ["no_data"] or rules == {"no_data"}:
        return "no_data"
    stream_states = {stream["state"] for stream in model["streams"]}
    for state in ("error", "pending"):
        if state in rules or (state == "error" and state in stream_states):
            return state
    state = str(model["state"])
    if state == "drift":
        return "drift"
    if "learning" in stream_states or not model["streams"]:
        return "learning"
    return "weak" if "weak" in stream_states else "ok"


def describe_condition(source: PageSource, model_id: str, model: Document) -> ModelCondition:
    """Describes the condition of one model version for people.

    Of a version that was replaced and has no alert nothing is wrong any more, whatever its last values were.
    """
    replacement = find_replacement(source, model_id, model)
    alerts = find_version_alerts(model, source.overview["alerts"])
    if replacement is not None and not alerts and find_version_state(model) != "error":
        headline = Markup("version {} has its calls since about {}").format(
            format_name(replacement.version, 40), format_time(replacement.last_ns)
        )
        return ModelCondition(state="replaced", headline=headline, replacement=replacement)
    return replace(_describe_trouble(source, model_id, model), replacement=replacement)


def _describe_trouble(source: PageSource, model_id: str, model: Document) -> ModelCondition:
    """Describes the condition of a model version that has calls, or an alert."""
    alerts = find_version_alerts(model, source.overview["alerts"])
    state = find_version_state(model)
    excess = find_budget_excess(model) if state not in URGENT else None
    rules = [rule["rule"] for rule in model["rules"] if rule["state"] == state and state in ("firing", "pending")]
    since_ns = _find_trouble_onset(model, alerts, state)
    deploy = find_trouble_deploy(source, model_id, model, since_ns)
    headline = describe_alerts(model, alerts, since_ns, deploy) or _explain_rules(rules) or _describe_state(state)
    actions = list_actions(model, rules or (["no_data"] if state == "no_data" else []), alerts)
    if deploy is not None:
        actions = [deploy.advice, *actions]
    difference = deploy.difference if deploy is not None else None
    if deploy is not None and difference is not None:
        since_ns = min(filter(None, (since_ns, deploy.first_ns)))
        if state in ("learning", "weak", "ok"):
            state, headline = "pending", _describe_deploy_difference(deploy, difference)
            actions += list_actions(model, [difference.rule], ()) if difference.rule != VERSION_DRIFT else []
    if excess is not None:
        state, headline = "trouble", excess.headline
        since_ns = since_ns or source.history.first_ns(model_id, model["version"])
        if deploy is not None and difference is not None and difference.rule == excess.rule:
            headline = _add_deploy_advice(headline, deploy)
        actions += list_actions(model, [excess.rule], ())
    facts = list_trouble_facts(source, model_id, model, alerts, deploy)
    if excess is not None and (difference is None or difference.rule != excess.rule):
        is_full = source.is_window_full(model_id, model["version"])
        facts.insert(
            0, excess.describe(f"in the {name_rolling_window(source.rolling_s, is_full=True)}" if is_full else "")
        )
    severities = [str(alert.get("severity", "")) for alert in alerts]
    is_waiting = state in ("pending", "trouble")
    waiting_rule = excess.rule if excess is not None else difference.rule if difference is not None else ""
    return ModelCondition(
        state="ok" if state == "weak" else state,
        headline=headline,
        since_ns=find_incident_begin(model, since_ns) if alerts else since_ns,
        facts=tuple(facts),
        outlook=_explain_missing_alert(source, model_id, model, rules, waiting_rule) if is_waiting else "",
        actions=tuple(dict.fromkeys(actions)),
        severity="critical" if "critical" in severities else severities[0] if severities else "",
        severity_reasons=tuple(filter(None, map(explain_severity, alerts[:MAX_FINDINGS]))),
        traces=tuple(list_traces(alerts)[:MAX_TRACES]),
        trace_subject=name_traced_calls(alerts),
        note=_describe_weak_streams(model) if state == "weak" else "",
        deploy=deploy,
        alerts=tuple(alerts),
    )


def count_urgent_problems(source: PageSource) -> int:
    """Counts the alerts that go on, and the model versions in trouble that no rule judges yet."""
    return sum(alert["state"] in ACTIVE for alert in source.overview["alerts"]) + sum(
        find_budget_excess(document) is not None
        and find_version_state(document) not in URGENT
        and find_replacement(source, model_id, document) is None
        for model_id, versions in source.overview.get("versions", {}).items()
        for document in versions.values()
    )


def find_incident_begin(model: Document, since_ns: int) -> int:
    """Finds when an incident began: its onset, or the fallback to another device shortly before."""
    begins = [
        use["first_ns"] for use in find_provider_fallbacks(model) if abs(use["first_ns"] - since_ns) <= FALLBACK_NS
    ]
    return min([*begins, since_ns]) if since_ns else 0


def describe_alerts(model: Document, alerts: Sequence[Document], since_ns: int, deploy: Deploy | None) -> Markup:
    """Describes in a short sentence what alerts of a model version found; empty without any.

    The fallback that they began with comes first, then the severest; the deploy that they began with last.
    """
    ranked = sorted(alerts, key=lambda alert: (alert["severity"] != "critical", alert["onset_ns"] or alert["time_ns"]))
    findings = [
        describe_fallback(use)
        for use in find_provider_fallbacks(model)
        if alerts and abs(use["first_ns"] - since_ns) <= FALLBACK_NS
    ]
    findings = list(dict.fromkeys([*findings, *map(describe_alert_finding, ranked)]))
    more = f"; {len(findings) - MAX_FINDINGS} more" if len(findings) > MAX_FINDINGS else ""
    headline = Markup("; ").join(findings[:MAX_FINDINGS]) + more
    difference = deploy.difference if deploy is not None else None
    if deploy is not None and difference is not None and any(alert["rule"] == difference.rule for alert in alerts):
        return _add_deploy_advice(headline, deploy)
    return headline


def _explain_rules(rules: Sequence[str]) -> Markup:
    return Markup("; ").join(words.explain_alert_rule(rule) or words.name_alert_rule(rule) for rule in rules)


def _add_deploy_advice(headline: Markup, deploy: Deploy) -> Markup:
    return headline + Markup(" since its deploy; go back to version {}").format(format_name(deploy.before, 40))


def _describe_deploy_difference(deploy: Deploy, difference: DeployDifference) -> Markup:
    if difference.rule == VERSION_DRIFT:
        before = f"in version {words.escape_line(deploy.before, 40)}"
        return Markup("since its deploy {}").format(describe_shift(deploy.moved[0], before))
    return Markup("{} {}; in version {} {}").format(
        difference.now, difference.subject, format_name(deploy.before, 40), difference.before
    )


def _find_trouble_onset(model: Document, alerts: Sequence[Document], state: str) -> int:
    """Finds the earliest onset of the trouble of a model version, Unix nanoseconds; 0 if it is unknown."""
    onsets = [alert["onset_ns"] or alert["time_ns"] for alert in alerts]
    if not any(onsets) and state in ("pending", "drift"):
        onsets = [stream["since_ns"] for stream in model["streams"] if stream["state"] == "drift"]
    if not any(onsets) and state in ("firing", "pending", "no_data"):
        onsets = [rule["changed_ns"] for rule in model["rules"] if rule["state"] == state]
    return min((time_ns for time_ns in onsets if time_ns), default=0)


_STATES: Final = {
    "ok": "nothing to do",
    "weak": "nothing to do",
    "learning": "learning what is normal",
    "pending": "something moved",
    "drift": "a stream drifts, and no rule alerts on it",
    "no_data": "no predictions come in",
    "error": "something cannot be judged",
}


def _describe_state(state: str) -> Markup:
    return escape(_STATES.get(state, state))


def _describe_weak_streams(model: Document) -> str:
    """Describes in which inputs and outputs a small change would go unnoticed, and whether that changes by itself."""
    weak = [stream for stream in model["streams"] if stream["state"] == "weak"]
    documents = [stream["detectable"] for stream in weak if stream["detectable"]]
    shifts = [document["shift"] for document in documents if words.is_finite_number(document["shift"])]
    has_size = len(shifts) == len(weak)
    size = f"of {words.format_percent(min(shifts))} of the values or more" if has_size else "of large size"
    is_new = {document["weakness"] for document in documents} <= {"unknown_hours", "unknown_day", "holiday"}
    subjects = dict.fromkeys(_name_stream_subject(stream["stream"]) for stream in weak)
    inputs = [stream["stream"] for stream in weak if stream["stream"].startswith("input.")]
    names = [subject for subject in subjects if subject]
    if inputs:
        names.insert(0, f"{len(inputs)} input{'s' if len(inputs) > 1 else ''}")
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    if documents and is_new:
        note = f"The daily variation of {listed} is still being learned: for some days only changes {size} are noticed."
    else:
        note = f"Of {listed}, only changes {size} are noticed. The page of each says what helps."
    return words.join_percent_signs(note)


def _name_stream_subject(stream: str) -> str:
    """Names the subject of a stream of outputs or calls, such as `the predicted classes`; empty for an input."""
    families = {
        "prediction.label": "the predicted classes",
        "prediction.value": "the predicted values",
        "prediction.confidence": "the confidence",
        "latency": "the share of slow calls",
        "errors": "the share of failed calls",
    }
    return next((name for family, name in families.items() if stream.startswith(family)), "")


def _explain_missing_alert(source: PageSource, model_id: str, model: Document, rules: Sequence[str], rule: str) -> str:
    """Explains why a model version in trouble has no alert yet, and when it would have one.

    Args:
        source: What the page is made of.
        model_id: The model.
        model: The document of the version.
        rules: Those that wait until a breach has lasted.
        rule: The one that would alert on what is wrong; empty if it is not known.
    """
    if rules:
        began_ns = max((entry["changed_ns"] for entry in model["rules"] if entry["rule"] in rules), default=0)
        for_s = float(source.setup.get("alert_for_s", 0.0))
        due = Markup(", about {}").format(format_time(began_ns + round(for_s * 1e9))) if began_ns and for_s else ""
        lasting = f"has lasted {words.format_duration(for_s)}" if for_s else "has lasted for alerts.for"
        return Markup("No alert yet: there is one when it {}{}.").format(lasting, due)
    if not rule:
        return ""
    if rule not in {entry["rule"] for entry in model["rules"]}:
        return Markup("No alert comes of it, since the rule {} is switched off.").format(rule)
    stream = next((stream for stream in model["streams"] if stream["stream"] == rule), None)
    if stream is None:
        return ""
    first_ns = source.history.first_ns(model_id, model["version"])
    age_s = (model["updated_ns"] - first_ns) / 1e9 if first_ns else 0.0
    return Markup("No alert yet: {}.").format(_describe_rule_wait(stream, rule, age_s))


def _describe_rule_wait(stream: Document, rule: str, age_s: float) -> Markup:
    """Describes what a rule on an allowed ratio of calls waits for, by the version's age; an age of 0 is unknown."""
    if stream["state"] == "learning":
        ratio = stream["calibrated_ratio"]
        subject = "failures vary" if rule == "errors" else "slow calls vary"
        text = Markup("the rule {} still measures how much {} by themselves").format(rule, subject)
        left_s = age_s * (1.0 / ratio - 1.0) if ratio > 0.0 else 0.0
        more = f"; at this traffic for about {words.format_duration(left_s)} more" if left_s >= 1.0 else ""
        return text + escape(more)
    if stream["log10_evidence"] >= stream["log10_alarm_line"] > 0.0:
        return Markup("it is beyond chance, and has not spent five minutes of the month's budget yet")
    if stream["log10_evidence"] > 0.0:
        ratio = stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9)
        return Markup("the evidence has come {} of the way to the alarm line").format(format_percent(ratio))
    allowed, share = (
        shares[1] if len(shares) == 2 else None for shares in (stream["reference_shares"], stream["current_shares"])
    )
    if allowed is not None and share is not None and share > allowed:
        return Markup("there are too few calls to be sure yet")
    return Markup("it is within the {} of calls that are allowed").format(format_percent(allowed))
