"""Describes an alert in one short sentence, such as `20 % of calls fail`, and explains its severity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup, escape

from otel_mlmon.processor.alert.alert import CRITICAL_TOTAL_VARIATION, compute_critical_ratio, name_execution_provider
from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.advice import describe_factor, find_missing_class
from otel_mlmon.processor.serve.page.words import format_name

Document = Mapping[str, Any]

_CLASS: Final = re.compile(r"(class|value) (.*): ([<0-9][^:]*%)")
_MISSING: Final = re.compile(r"missing: ([<0-9].*%)")
_DRIFT_RULES: Final = frozenset({"prediction_drift", "data_drift", "confidence", "version_drift"})


def describe_alert_finding(alert: Document) -> Markup:
    """Describes in one short sentence what an alert found: `no prediction is decline any more`.

    Args:
        alert: The document of an alert that goes on.
    """
    rule, causes = alert["rule"], alert["causes"]
    if alert["state"] == "error":
        return Markup("the rule {} cannot be evaluated").format(words.name_alert_rule(rule))
    if rule == "no_data" or alert["state"] == "no_data":
        return Markup("no predictions come in")
    if not causes:
        return escape(words.explain_alert_rule(rule) or words.escape_line(alert["title"]))
    cause = causes[0]
    if rule in ("latency", "errors") and cause["origin"] == "budget":
        return describe_budget_excess(rule, cause["current"])
    if rule == "execution_provider":
        return Markup("runs on {} instead of {}").format(
            format_name(cause["current"], 60), format_name(cause["reference"], 60)
        )
    if rule == "accuracy":
        return Markup("estimated accuracy too low: {}").format(words.escape_line(cause["current"], 60))
    text = describe_shift(cause, "in the version before" if rule == "version_drift" else "in the reference")
    if rule not in _DRIFT_RULES:
        text = Markup("{}: {}").format(words.escape_line(alert["title"]), text)
    others = len({entry["stream"] for entry in causes}) - 1
    return text + (Markup("; {} more moved").format(_format_count(others, "stream")) if others else Markup(""))


def describe_budget_excess(rule: str, current: str) -> Markup:
    """Describes how many calls are slow or fail: `53 % of calls are slow`; from a text such as `53 % over 200 ms`."""
    share, _, of = words.join_percent_signs(words.escape_line(current, 60)).partition("% ")
    if rule == "errors":
        return Markup("{}% of calls fail").format(share)
    return Markup("{}% of calls take {}").format(share, of)


def describe_shift(cause: Document, basis: str = "in the reference") -> Markup:
    """Describes how a stream moved: `input age is about 12 times larger`, `81 % of predictions are yes, 70 % before`.

    Args:
        cause: The document of the cause.
        basis: Where it was otherwise.
    """
    subject = _name_drift_subject(cause["stream"])
    if cause["is_absent"]:
        return Markup("{} is no longer sent").format(subject)
    gone = find_missing_class(cause)
    if gone is not None:
        amount = "no prediction is" if gone[2] == 0 else "hardly any prediction is"
        return Markup("{} {} any more").format(amount, format_name(gone[0], 60))
    factor = describe_factor(cause)
    if factor:
        kind = "input " if cause["stream"].startswith("input.") else ""
        verb = "are" if subject.startswith("predictions") else "is"
        return Markup("{}{} {} {}").format(kind, subject, verb, factor)
    before, now = words.align_percents(
        words.escape_line(cause["reference"], 90), words.escape_line(cause["current"], 90)
    )
    before, now = words.join_percent_signs(before), words.join_percent_signs(now)
    if match := _CLASS.fullmatch(before):
        return Markup("{} of {} are {}, {} {}").format(now, subject, format_name(match[2], 60), match[3], basis)
    if match := _MISSING.fullmatch(before):
        return Markup("{} of {} are missing, {} {}").format(now, subject, match[1], basis)
    return Markup("{}: {} → {}").format(subject, before, now)


def explain_severity(alert: Document) -> str:
    """Explains by the size of the effect why an alert is critical or a warning; empty where that is not known."""
    severity, causes = str(alert["severity"]).capitalize(), alert["causes"]
    if not causes or alert["state"] != "firing":
        return ""
    cause = max(causes, key=lambda entry: entry["value"])
    if cause["is_absent"]:
        return f"{severity}: nothing of it arrives."
    if alert["rule"] in _DRIFT_RULES:
        size, line, of = cause["value"], CRITICAL_TOTAL_VARIATION, "of the values moved"
    elif cause["origin"] == "budget" and 0 < cause["bound"] < 1:
        size, line = cause["value"], compute_critical_ratio(cause["bound"])
        of = "of the calls"
    elif alert["rule"] == "execution_provider":
        is_critical = severity == "Critical"
        return f"{severity}: {'a CPU usually takes many times as long' if is_critical else 'a lesser accelerator'}."
    else:
        return ""
    lost = find_missing_class(cause)
    if severity == "Critical" and size < line and lost is not None:
        before = words.join_percent_signs(words.format_percent(lost[1]))
        return f"Critical: a class that was {before} of the predictions is gone."
    share, limit = (words.join_percent_signs(words.format_percent(number)) for number in (size, line))
    if severity == "Critical" and size < line:
        spent = words.join_percent_signs(words.format_percent(cause["budget_spent"]))
        return f"Critical: {spent} of the month's budget is spent." if cause["budget_spent"] else ""
    end = f"from {limit} on it is critical" if severity == "Critical" else f"critical only from {limit} on"
    return f"{severity}: {share} {of}; {end}."


def describe_fallback(use: Document) -> Markup:
    """Describes a fallback to another execution provider in a few words: `runs on CPU instead of CUDA (NVIDIA GPU)`."""
    return Markup("runs on {} instead of {}").format(
        format_name(name_execution_provider(use["provider"]), 60),
        format_name(name_execution_provider(use["requested"]), 60),
    )


def _name_drift_subject(stream: str) -> Markup:
    if stream.startswith("prediction.confidence"):
        return Markup("confidence")
    if stream.startswith("prediction."):
        head = stream.partition(".")[2].partition(".")[2]
        return Markup("predictions") if not head else Markup("predictions of {}").format(format_name(head, 60))
    return format_name(stream.removeprefix("input."), 60)


def _format_count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
