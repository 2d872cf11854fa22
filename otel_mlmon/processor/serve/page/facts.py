"""Describes in short texts what is known of the trouble of a model version: figures, their time, device, traces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.alert.alert import name_execution_provider
from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.advice import find_missing_class, find_provider_fallbacks
from otel_mlmon.processor.serve.page.deploy import VERSION_DRIFT, Deploy
from otel_mlmon.processor.serve.page.history import SPANS
from otel_mlmon.processor.serve.page.shares import name_cause_window
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

STEADY_RATIO: Final = 1.25
"""Traffic that changed by less is as before."""
_PREDICTIONS: Final = ("prediction.label", "prediction.value")


def list_trouble_facts(
    source: PageSource, model_id: str, model: Document, alerts: Sequence[Document], deploy: Deploy | None
) -> list[Markup]:
    """Lists in short texts the known facts about the trouble of a model version, or about some of its alerts."""
    facts = [
        describe_cause(cause, name_cause_period(alert, cause, source))
        for alert in alerts
        for cause in alert["causes"][:2]
    ]
    if not alerts:
        for stream in model["streams"]:
            if stream["state"] == "drift":
                change = words.escape_line("; ".join(stream["changes"]), 160)
                facts.append(Markup("{}: {}").format(format_name(stream["stream"], 60), change or "moved"))
    facts += [
        Markup("It runs on {}, although {} was asked for, since {}").format(
            format_name(name_execution_provider(use["provider"]), 60),
            format_name(name_execution_provider(use["requested"]), 60),
            format_time(use["first_ns"]),
        )
        for use in find_provider_fallbacks(model)
    ]
    facts += deploy.facts if deploy is not None else ()
    slow = next((alert for alert in alerts if alert["rule"] == "latency"), None)
    if slow is not None:
        facts += _describe_traffic_change(source, model_id, model, slow["onset_ns"] or slow["time_ns"])
    rules = {alert["rule"] for alert in alerts}
    if "data_drift" in rules and not rules & {"prediction_drift", VERSION_DRIFT}:
        facts += _describe_predictions(model)
    return facts


def name_cause_period(alert: Document, cause: Document, source: PageSource) -> str:
    """Names the period that the figures of an alert's cause cover; empty where its text says so or it is unknown."""
    if cause["is_absent"] or not cause["origin"] or not cause["onset_ns"] or alert["rule"] == VERSION_DRIFT:
        return ""
    window = name_cause_window(cause, source)
    return window if window.startswith("since ") else f"in the {window}"


def describe_cause(cause: Document, period: str = "") -> Markup:
    """Describes an alert's cause: `input.age: mean 41.3 → mean 497 since 15:13:10`, `errors: 29 % failed, 1 % allowed`.

    Args:
        cause: The document of the cause.
        period: The time that its figures are of; empty to leave that out.
    """
    is_allowance = cause["origin"] == "budget"  # what is allowed was never so: no arrow leads from it
    before, now = words.escape_line(cause["reference"], 90), words.escape_line(cause["current"], 90)
    before, now = map(words.join_percent_signs, (before, now) if is_allowance else words.align_percents(before, now))
    text = Markup("{}: {now}{period}, {before}") if is_allowance else Markup("{}: {before} → {now}{period}")
    period = period and f" {period}"
    fact = text.format(format_name(cause["stream"], 60), before=before, now=now, period=period)
    gone = find_missing_class(cause)
    if gone is None or before.startswith(f"class {words.escape_line(gone[0])}:"):
        return fact
    name, *shares = gone
    before, now = map(words.join_percent_signs, words.align_percents(*map(format_percent, shares)))
    return fact + Markup("; class {}: {} → {}").format(format_name(name, 40), before, now)


def _describe_traffic_change(source: PageSource, model_id: str, model: Document, since_ns: int) -> Iterable[Markup]:
    """Yields texts on whether a version's traffic and device are as before its trouble, as far as that is known."""
    rows = source.history.model_rows(model_id, model["version"], SPANS[0])
    rates = [(time_ns, values[0]) for time_ns, values in rows if words.is_finite_number(values[0])]
    before = [rate for time_ns, rate in rates if time_ns <= since_ns]
    if len(before) >= 3 and rates[-1][0] > since_ns and words.is_finite_number(model["throughput_per_s"]):
        usual, now = sum(before) / len(before), model["throughput_per_s"]
        is_steady = usual / STEADY_RATIO <= now <= usual * STEADY_RATIO
        if is_steady:
            yield Markup("Calls as before: {} a second").format(words.format_rate(now))
        else:
            yield Markup("Calls: {} a second now, {} before").format(*map(words.format_rate, (now, usual)))
    uses = model.get("providers", ())
    if len(uses) == 1 and not find_provider_fallbacks(model) and uses[0]["first_ns"] <= since_ns:
        yield Markup("Device as before: {}").format(format_name(name_execution_provider(uses[0]["provider"]), 60))


def _describe_predictions(model: Document) -> Iterable[Markup]:
    """Yields what is known of the predictions of a model version whose inputs moved, as far as they are judged."""
    streams = [stream for stream in model["streams"] if stream["stream"].startswith(_PREDICTIONS)]
    states = {stream["state"] for stream in streams}
    if states == {"ok"}:
        yield Markup("The predictions are as before")
    elif states and states <= {"ok", "weak"}:
        yield Markup("No drift of the predictions was seen; a small one would not be yet")


def name_traced_calls(alerts: Sequence[Document]) -> str:
    """Names the calls that the traces of alerts are of: `failed calls`, where all of them failed."""
    rules = {alert["rule"] for alert in alerts if alert["traces"]}
    return {("errors",): "failed calls", ("latency",): "slow calls"}.get(tuple(rules), "calls")


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
