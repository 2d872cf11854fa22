"""Summarises the condition of a model version: what is wrong, since when, what is awaited, and what to do next.

Read from the documents of the API alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup, escape

from otel_mlmon.processor.alert.alert import name_provider
from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.advice import find_fallbacks, find_gone_class, list_actions
from otel_mlmon.processor.serve.page.deploy import VERSION_DRIFT, Deploy, find_deploy
from otel_mlmon.processor.serve.page.source import Source
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

ORDER: Final = ("firing", "error", "pending", "drift", "no_data", "learning", "weak", "ok")
"""States of model versions, the most urgent first."""
MAX_TRACES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition of one model version: what is wrong, since when, and what to do."""

    state: str
    headline: str
    """The subjects of the alerts, such as `latency, errors`, or what there is to say instead."""
    meaning: str = ""
    """What the alerts mean, in a sentence."""
    since_ns: int = 0
    """The earliest onset of what is wrong, Unix nanoseconds; 0 if it is unknown."""
    facts: tuple[Markup, ...] = ()
    outlook: str = ""
    """Why there is no alert yet, and when there would be one."""
    actions: tuple[Markup, ...] = ()
    severity: str = ""
    traces: tuple[tuple[str, str], ...] = ()
    """Traces of calls since then, each with its address; that is empty if there is none."""


def find_alerts(model: Document, alerts: Iterable[Document], *, is_active: bool = True) -> list[Document]:
    """Finds the alerts of a model version: those that fire now, or all."""
    return [
        alert
        for alert in alerts
        if (alert["model"], alert["version"], alert["environment"])
        == (model["name"], model["version"], model["environment"])
        and (not is_active or alert["state"] in ("firing", "no_data", "error"))
    ]


def version_state(model: Document) -> str:
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


def describe_condition(source: Source, model_id: str, model: Document) -> Condition:
    """Describes the condition of one model version for people."""
    alerts = find_alerts(model, source.overview["alerts"])
    state = version_state(model)
    rules = [rule["rule"] for rule in model["rules"] if rule["state"] == state and state in ("firing", "pending")]
    since_ns = _find_onset(model, alerts, state)
    deploy = find_deploy(source, model_id, model, since_ns)
    facts = [*_list_facts(model, alerts), *_list_fallbacks(model)]
    actions = list_actions(model, rules or (["no_data"] if state == "no_data" else []), alerts)
    titles = {alert["rule"]: alert["title"] for alert in alerts}
    headline = ", ".join(words.clean(titles.get(rule) or words.name_rule(rule)) for rule in rules)
    if deploy is not None:
        facts += deploy.facts
        actions = [deploy.advice, *actions]
    if deploy is not None and deploy.difference is not None:
        since_ns = min(filter(None, (since_ns, deploy.first_ns)))
        if state in ("learning", "weak", "ok"):
            state, headline = "pending", "differs from the version before it"
            if deploy.difference.rule != VERSION_DRIFT:
                actions += list_actions(model, [deploy.difference.rule], ())
    severities = [str(alert.get("severity", "")) for alert in alerts]
    return Condition(
        state=state,
        headline=headline or _describe_state(model, state),
        meaning="; ".join(filter(None, map(words.explain_rule, rules))),
        since_ns=since_ns,
        facts=tuple(facts),
        outlook=_describe_outlook(source, model, rules, deploy) if state == "pending" else "",
        actions=tuple(dict.fromkeys(actions)),
        severity="critical" if "critical" in severities else severities[0] if severities else "",
        traces=tuple(list_traces(alerts)[:MAX_TRACES]),
    )


def describe_cause(cause: Document) -> Markup:
    """Describes what moved in a stream: `input.age: mean 41.3 → mean 497`, `errors: 29 % failed, 1 % allowed`."""
    before, now = (words.bind_units(words.clean(cause[side], 90)) for side in ("reference", "current"))
    # What is allowed was never so: no arrow leads from it.
    text = Markup("{}: {now}, {before}") if cause["origin"] == "budget" else Markup("{}: {before} → {now}")
    fact = text.format(format_name(cause["stream"], 60), before=before, now=now)
    gone = find_gone_class(cause)
    if gone is None or before.startswith(f"class {words.clean(gone[0])}:"):
        return fact
    name, *shares = gone
    before, now = (words.bind_units(format_percent(share)) for share in shares)
    return fact + Markup("; class {}: {} → {}").format(format_name(name, 40), before, now)


def list_traces(alerts: Iterable[Document]) -> list[tuple[str, str]]:
    """Lists the traces of alerts, each with its web address or an empty one."""
    traces = {
        str(trace["trace_id"]): trace["url"] if is_web_address(trace["url"]) else ""
        for alert in alerts
        for trace in alert["traces"]
    }
    return list(traces.items())[:12]


def is_web_address(url: str) -> bool:
    """Returns whether an address may be a link: http or https, and nothing that runs code."""
    return url.lower().startswith(("https://", "http://"))


def _find_onset(model: Document, alerts: Sequence[Document], state: str) -> int:
    """Finds the earliest onset of what is wrong, Unix nanoseconds; 0 if it is unknown."""
    onsets = [alert["onset_ns"] or alert["time_ns"] for alert in alerts]
    if not any(onsets) and state in ("pending", "drift"):
        onsets = [stream["since_ns"] for stream in model["streams"] if stream["state"] == "drift"]
    if not any(onsets) and state in ("firing", "pending", "no_data"):
        onsets = [rule["changed_ns"] for rule in model["rules"] if rule["state"] == state]
    return min((time_ns for time_ns in onsets if time_ns), default=0)


_STATES: Final = {
    "ok": "nothing to do",
    "learning": "learning what is normal",
    "pending": "something moved",
    "drift": "a stream drifts, and no rule alerts on it",
    "no_data": "no predictions come in",
    "error": "something cannot be judged",
}


def _describe_state(model: Document, state: str) -> str:
    if state == "weak":
        weak = sum(stream["state"] == "weak" for stream in model["streams"])
        return f"nothing to do; in {weak} of {len(model['streams'])} streams only large changes would be seen"
    return _STATES.get(state, state)


def _list_facts(model: Document, alerts: Sequence[Document]) -> Iterable[Markup]:
    for alert in alerts:
        yield from map(describe_cause, alert["causes"][:2])
    if alerts:
        return
    for stream in model["streams"]:
        if stream["state"] == "drift":
            change = words.clean("; ".join(stream["changes"]), 160)
            yield Markup("{}: {}").format(format_name(stream["stream"], 60), change or "moved")


def _list_fallbacks(model: Document) -> Iterable[Markup]:
    for use in find_fallbacks(model):
        yield Markup("It runs on {}, although {} was asked for, since {}").format(
            format_name(name_provider(use["provider"]), 60),
            format_name(name_provider(use["requested"]), 60),
            format_time(use["first_ns"]),
        )


def _describe_outlook(source: Source, model: Document, rules: Sequence[str], deploy: Deploy | None) -> str:
    """Describes why there is no alert of a model version yet, and when there would be one."""
    if rules:
        began_ns = max((rule["changed_ns"] for rule in model["rules"] if rule["rule"] in rules), default=0)
        for_s = float(source.setup.get("alert_for_s", 0.0))
        due = Markup(", about {}").format(format_time(began_ns + round(for_s * 1e9))) if began_ns and for_s else ""
        lasting = f"has lasted {words.format_duration(for_s)}" if for_s else "has lasted for alerts.for"
        return Markup("No alert yet: there is one when it {}{}.").format(lasting, due)
    if deploy is None or deploy.difference is None:
        return ""
    rule = deploy.difference.rule
    if rule not in {entry["rule"] for entry in model["rules"]}:
        return Markup("No alert comes of it, since the rule {} is switched off.").format(rule)
    stream = next((stream for stream in model["streams"] if stream["stream"] == rule), None)
    if stream is None:
        return ""
    age_s = (model["updated_ns"] - deploy.first_ns) / 1e9
    return Markup("No alert yet: {}.").format(_describe_wait(stream, rule, age_s))


def _describe_wait(stream: Document, rule: str, age_s: float) -> Markup:
    """Describes what a rule on slow or failed calls still waits for before it can alert."""
    if stream["state"] == "learning":
        ratio = stream["calibrated_ratio"]
        subject = "failures vary" if rule == "errors" else "slow calls vary"
        text = Markup("the rule {} first measures how much {} by themselves: {} of that is done").format(
            rule, subject, format_percent(ratio)
        )
        left_s = age_s * (1.0 / ratio - 1.0) if ratio > 0.0 else 0.0
        more = f", about {words.format_duration(left_s)} to go at this traffic" if left_s >= 1.0 else ""
        return text + escape(more)
    if stream["log10_evidence"] > 0.0:
        ratio = min(stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9), 1.0)
        return Markup("the evidence has come {} of the way to the alarm line").format(format_percent(ratio))
    allowed = stream["reference_shares"][1] if len(stream["reference_shares"]) == 2 else None
    return Markup("it is within the {} of calls that are allowed").format(format_percent(allowed))
