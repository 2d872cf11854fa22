"""The state of a model version in words: what is wrong, since when, and what to do next.

Read from the documents of the API alone. Advice names what the documents show and asks the reader to look; it claims
no cause that is not in them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup, escape

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.history import History
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

ORDER: Final = ("firing", "error", "pending", "drift", "no_data", "learning", "weak", "ok")
"""States of model versions, the most urgent first."""
MIN_VERSION_COUNT: Final = 300
MIN_VERSION_SHIFT: Final = 0.1
"""Total variation between the predictions of two versions that is worth a look."""
MIN_ERROR_INCREASE: Final = 0.05
"""By how much more calls of a new version fail, as a share of all, that is worth a look."""
MIN_SLOWDOWN: Final = 2.0
"""The ratio of the latencies of two versions that is worth a look."""
MAX_DEPLOY_S: Final = 2 * 3_600
_UNITS: Final = (
    (1_000.0, "such as kilo- against the base unit"),
    (100.0, "such as metres and centimetres, or a share and per cent"),
    (60.0, "such as minutes and seconds"),
    (3_600.0, "such as hours and seconds"),
    (2.54, "such as inches and centimetres"),
    (1.609, "such as miles and kilometres"),
    (2.205, "such as kilograms and pounds"),
    (255.0, "such as pixels in 0 … 1 and 0 … 255"),
    (12.0, "such as months and years"),
    (10.0, "such as millimetres and centimetres"),
)
_UNIT_TOLERANCE: Final = 0.03
_MEAN: Final = re.compile(r"mean (-?[0-9][0-9 ]*(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition of one model version."""

    state: str
    headline: str
    """Such as `slow, failing` or `OK`."""
    since_ns: int = 0
    """The earliest onset of what is wrong, Unix nanoseconds; 0 if it is unknown."""
    facts: tuple[Markup, ...] = ()
    actions: tuple[Markup, ...] = ()
    severity: str = ""


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
    """Returns the state of a model version, of its rules and its streams the most urgent."""
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


def describe_condition(model_id: str, model: Document, overview: Document, history: History) -> Condition:
    """Describes the condition of one model version."""
    alerts = find_alerts(model, overview["alerts"])
    state = version_state(model)
    firing = [rule["rule"] for rule in model["rules"] if rule["state"] == "firing"]
    onsets = [alert["onset_ns"] or alert["time_ns"] for alert in alerts]
    if not onsets and state in ("firing", "pending", "no_data"):
        onsets = [rule["changed_ns"] for rule in model["rules"] if rule["state"] == state and rule["changed_ns"]]
    if not onsets and state == "drift":
        onsets = [stream["since_ns"] for stream in model["streams"] if stream["state"] == "drift"]
    since_ns = min((time_ns for time_ns in onsets if time_ns), default=0)
    facts = [*_list_facts(model, alerts), *_list_fallbacks(model)]
    deploy = _find_deploy(model_id, model, overview, history, since_ns)
    facts += [deploy[0]] if deploy else []
    actions = [deploy[1]] if deploy else []
    actions += _list_actions(model, firing or (["no_data"] if state == "no_data" else []), alerts)
    headline = ", ".join(words.describe_rule(rule) for rule in firing) or _HEADLINES.get(state, state)
    if deploy and deploy[2]:
        since_ns = min(filter(None, (since_ns, history.first_ns(model_id, model["version"]))))
        if state in ("learning", "weak", "ok"):
            state, headline = "pending", "differs from the version before it"
    severities = [str(alert.get("severity", "")) for alert in alerts]
    return Condition(
        state=state,
        headline=headline,
        since_ns=since_ns,
        facts=tuple(facts),
        actions=tuple(dict.fromkeys(actions)),
        severity="critical" if "critical" in severities else severities[0] if severities else "",
    )


_HEADLINES: Final = {
    "ok": "nothing to do",
    "weak": "nothing to do; small shifts would not be seen in all streams",
    "learning": "learning what is normal",
    "pending": "something moved; it has not lasted long enough for an alert",
    "drift": "a stream drifts, and no rule alerts on it",
    "no_data": "no predictions come in",
    "error": "something cannot be judged",
}


def _list_facts(model: Document, alerts: Sequence[Document]) -> Iterable[Markup]:
    for alert in alerts:
        for cause in alert["causes"][:2]:
            yield Markup("{}: {} → {}").format(
                format_name(cause["stream"], 60),
                words.clean(cause["reference"], 90),
                words.clean(cause["current"], 90),
            )
    if alerts:
        return
    for stream in model["streams"]:
        if stream["state"] == "drift":
            change = words.clean("; ".join(stream["changes"]), 160)
            yield Markup("{}: {}").format(format_name(stream["stream"], 60), change or "moved")


def find_fallbacks(model: Document) -> list[Document]:
    """Finds the fallbacks that last: those without a later report that the provider asked for is in use."""
    used_ns = {use["provider"]: use["last_ns"] for use in model.get("providers", ())}
    return [use for use in model.get("fallbacks", ()) if used_ns.get(use["requested"], 0) <= use["last_ns"]]


def _list_fallbacks(model: Document) -> Iterable[Markup]:
    for use in find_fallbacks(model):
        yield Markup("It runs on {}, although {} was asked for, since {}").format(
            format_name(use["provider"], 60), format_name(use["requested"], 60), format_time(use["first_ns"])
        )


def _list_actions(model: Document, rules: Sequence[str], alerts: Sequence[Document]) -> Iterable[Markup]:
    for use in find_fallbacks(model)[:1]:
        yield Markup(
            "Find out why {} could not be used: driver, libraries and device of the machine. Restart the service then."
        ).format(format_name(use["requested"], 60))
    causes = {alert["rule"]: alert["causes"] for alert in alerts}
    has_inputs = any(cause["stream"].startswith("input.") for listed in causes.values() for cause in listed)
    for rule in rules:
        if rule == "data_drift":
            for cause in causes.get(rule, ())[:2]:
                yield _advise_input(cause)
        elif rule == "prediction_drift":
            yield _advise_predictions(causes.get(rule, ()), has_inputs=has_inputs)
        elif rule in _RULE_ACTIONS:
            yield escape(_RULE_ACTIONS[rule])


_RULE_ACTIONS: Final = {
    "latency": "Open a slow trace; compare load, batch size and machine with the time before.",
    "errors": "Open a trace of a failed call: its exception says what went wrong.",
    "confidence": "Look at inputs of the least confident predictions; labels of a sample would show the accuracy.",
    "execution_provider": "Look at driver, libraries and device of the machine, and restart the service then.",
    "accuracy": "Label a sample of recent predictions: the accuracy is an estimate from confidences, no measurement.",
    "no_data": "Look whether the service runs, and whether its telemetry reaches the Collector (otel-mlmon doctor).",
    "version_drift": "Compare the versions; if what moved was not meant to, go back to the version before.",
    "statistic": "Look at the stream: its distributions stand side by side on its page.",
}


def _advise_predictions(causes: Sequence[Document], *, has_inputs: bool) -> Markup:
    gone = next((label for label in map(_find_gone_class, causes) if label), "")
    if gone:
        return Markup(
            "No prediction is {} any more: look whether its inputs still arrive, and whether the labels of the "
            "model changed."
        ).format(format_name(gone, 60))
    if has_inputs:
        return Markup("The inputs changed too: begin with them, the predictions may only follow.")
    return Markup("Look at what the model is asked, and at what was deployed when it began.")


def _advise_input(cause: Document) -> Markup:
    label = format_name(cause["stream"], 60)
    shares = {name: pair for name, *pair in _iterate_shares(cause)}
    before, now = shares.get("_MISSING", (0.0, 0.0))
    if now - before > 0.05:
        return Markup("{} of {} are missing now ({} before): ask their source.").format(
            format_percent(now), label, format_percent(before)
        )
    factor = _find_unit(cause)
    if factor is not None:
        return Markup("{} changed by a factor of about {}: has its unit changed, {}?").format(
            label, words.format_number(factor[0]), factor[1]
        )
    return Markup("Ask the source of {} what changed: unit, encoding, default, population.").format(label)


def _find_unit(cause: Document) -> tuple[float, str] | None:
    """Finds the usual factor between units that the mean changed by."""
    means = [_MEAN.match(cause[key]) for key in ("reference", "current")]
    before, now = (float(match[1].replace(" ", "")) if match else 0.0 for match in means)
    if not before or not now:
        return None
    ratio = abs(now / before)
    for factor, example in _UNITS:
        if abs(math.log(max(ratio, 1 / ratio) / factor)) < _UNIT_TOLERANCE:
            return factor if ratio > 1 else 1 / factor, example
    return None


def _find_gone_class(cause: Document) -> str:
    losses = [
        (before - now, str(name))
        for name, before, now in _iterate_shares(cause)
        if cause["stream"].startswith("prediction.label") and before > 0.02 and now < before / 20
    ]
    return max(losses)[1] if losses else ""


def _iterate_shares(cause: Document) -> Iterable[tuple[str, float, float]]:
    return zip(cause["bins"], cause["reference_shares"], cause["current_shares"], strict=False)


def _find_deploy(
    model_id: str, model: Document, overview: Document, history: History, since_ns: int
) -> tuple[Markup, Markup, bool] | None:
    """Finds out whether the trouble began with this version: fact, advice, and whether the versions differ.

    None if it did not begin with it.
    """
    versions = overview.get("versions", {}).get(model_id, {})
    first_ns = history.first_ns(model_id, model["version"])
    others = [
        (history.first_ns(model_id, version), version)
        for version in versions
        if version != model["version"] and history.first_ns(model_id, version) < first_ns
    ]
    if not others or not first_ns:
        return None
    before = max(others)[1]
    name, previous = format_name(model["version"], 40), format_name(before, 40)
    advice = Markup("Compare with version {} or go back to it: what is wrong began with the deploy of version {}.")
    moved = compare_versions(versions[before], model)
    if moved is not None:
        subject, old, new = moved
        fact = Markup("Version {}: {} {}; version {}: {}").format(name, new, subject, previous, old)
        return fact, advice.format(previous, name), True
    if since_ns and 0 <= (since_ns - first_ns) / 1e9 + 60 < MAX_DEPLOY_S:
        fact = Markup("Version {} runs since {}; before it there was version {}").format(
            name, format_time(first_ns), previous
        )
        return fact, advice.format(previous, name), False
    return None


def compare_versions(before: Document, now: Document) -> tuple[Markup, str, str] | None:
    """Returns what differs most urgently between two versions, and how much of it each has; None where they are alike.

    Failed calls are compared first, then latency, then the shares of the classes.
    """
    errors = [document["error_ratio"] for document in (before, now)]
    if all(map(words.is_number, errors)) and errors[1] - errors[0] >= MIN_ERROR_INCREASE:
        return Markup("of calls fail"), format_percent(errors[0]), format_percent(errors[1])
    tails = [document["latency"]["p95_s"] for document in (before, now)]
    if all(map(words.is_number, tails)) and tails[1] >= MIN_SLOWDOWN * tails[0] > 0:
        return Markup("latency, p95"), words.format_seconds(tails[0]), words.format_seconds(tails[1])
    shares = [_label_shares(before), _label_shares(now)]
    if not shares[0] or not shares[1]:
        return None
    labels = sorted({*shares[0], *shares[1]})
    moves = {label: shares[1].get(label, 0.0) - shares[0].get(label, 0.0) for label in labels}
    if sum(map(abs, moves.values())) / 2 < MIN_VERSION_SHIFT:
        return None
    label = max(labels, key=lambda label: abs(moves[label]))
    subject = Markup("of predictions say {}").format(format_name(label, 40))
    return subject, format_percent(shares[0].get(label, 0.0)), format_percent(shares[1].get(label, 0.0))


def _label_shares(model: Document) -> dict[str, float]:
    for stream in model["streams"]:
        if stream["stream"] == "prediction.label" and stream["current_count"] >= MIN_VERSION_COUNT:
            return dict(zip(stream["bins"], stream["current_shares"], strict=False))
    return {}
