"""Advises what to do about an alert, judging by the API's documents, and claims no cause that is not in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup, escape

from otel_mlmon.processor.alert.alert import find_lost_class, name_execution_provider
from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.words import format_name, format_percent

Document = Mapping[str, Any]

_UNITS: Final = (
    (1_000.0, "kilograms", "grams"),
    (100.0, "metres", "centimetres"),
    (60.0, "minutes", "seconds"),
    (3_600.0, "hours", "seconds"),
    (2.54, "inches", "centimetres"),
    (1.609, "miles", "kilometres"),
    (2.205, "kilograms", "pounds"),
    (255.0, "pixels in 0 … 1", "pixels in 0 … 255"),
    (12.0, "years", "months"),
    (10.0, "centimetres", "millimetres"),
)
"""By what factor numbers grow from one usual unit to another."""
NAMED_SHARE: Final = 0.02
"""The share of predictions from which on the loss of a class is mentioned."""
_UNIT_TOLERANCE: Final = 0.03
_LEAST_FACTOR: Final = 1.5
"""The ratio of two means that is told as a factor."""
_MEAN: Final = re.compile(r"mean (-?[0-9][0-9 ]*(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")


def find_provider_fallbacks(model: Document) -> list[Document]:
    """Finds the execution providers on which a model still runs though its process asked for others."""
    used_ns = {use["provider"]: use["last_ns"] for use in model.get("providers", ())}
    return [use for use in model.get("fallbacks", ()) if used_ns.get(use["requested"], 0) <= use["last_ns"]]


def list_actions(model: Document, rules: Sequence[str], alerts: Sequence[Document]) -> list[Markup]:
    """Lists what a person should do about the alert rules that fire for a model version, the first thing first.

    Args:
        model: The document of the version.
        rules: The rules by name.
        alerts: The documents of their alerts.
    """
    return list(dict.fromkeys(_iterate_actions(model, rules, alerts)))


def _iterate_actions(model: Document, rules: Sequence[str], alerts: Sequence[Document]) -> Iterable[Markup]:
    fallbacks = find_provider_fallbacks(model)[:1]
    for use in fallbacks:
        yield Markup("Find out why {} could not be used: look at driver, libraries and device of the machine.").format(
            format_name(name_execution_provider(use["requested"]), 60)
        )
    causes = {alert["rule"]: alert["causes"] for alert in alerts}
    has_inputs = any(cause["stream"].startswith("input.") for listed in causes.values() for cause in listed)
    for rule in rules:
        if rule == "data_drift":
            for cause in causes.get(rule, ())[:2]:
                yield _advise_input(cause)
        elif rule == "prediction_drift":
            yield _advise_predictions(causes.get(rule, ()), has_inputs=has_inputs)
        elif rule in _RULE_ACTIONS and not (fallbacks and rule == "execution_provider"):
            yield escape(_RULE_ACTIONS[rule])
    for use in fallbacks:
        yield Markup("When {} can be used again, restart the service: a model stays where it was loaded.").format(
            format_name(name_execution_provider(use["requested"]), 60)
        )


_RULE_ACTIONS: Final = {
    "latency": "Open a trace of a slow call; compare batch size and machine with the time before.",
    "errors": "Open a trace of a failed call, or the application's log: the exception says what went wrong.",
    "confidence": "Look at inputs of the least confident predictions; labels of a sample would show the accuracy.",
    "execution_provider": "Look at driver, libraries and device of the machine; when they work, restart the service.",
    "accuracy": "Label a sample of recent predictions: the accuracy is an estimate from confidences, no measurement.",
    "no_data": "Look whether the service runs, and whether its telemetry reaches the Collector (otel-mlmon doctor).",
    "version_drift": "Compare the versions; if what moved was not meant to, go back to the version before.",
    "statistic": "Look at the stream: its distributions stand side by side on its page.",
}


def _advise_predictions(causes: Sequence[Document], *, has_inputs: bool) -> Markup:
    gone = next((lost[0] for lost in map(find_missing_class, causes) if lost is not None), None)
    if gone is not None:
        return Markup(
            "Look whether inputs that should give {} still arrive, and whether the labels of the model changed."
        ).format(format_name(gone, 60))
    if has_inputs:
        return Markup("The inputs changed too: begin with them, the predictions may only follow.")
    return Markup("Look at what the model is asked, and at what was deployed when it began.")


def _advise_input(cause: Document) -> Markup:
    label = format_name(cause["stream"].removeprefix("input."), 60)
    if cause["is_absent"]:
        return Markup("{} is no longer sent: look at what was deployed in the application when it ended.").format(label)
    shares = {name: pair for name, *pair in _iterate_bin_shares(cause)}
    before, now = shares.get("_MISSING", (0.0, 0.0))
    if now - before > 0.05:
        return Markup("Ask who sends {} why {} are missing now, {} before.").format(
            label, format_percent(now), format_percent(before)
        )
    units = _find_confused_units(cause)
    change = f"its unit changed, such as from {units}" if units else "its unit, default, encoding or source changed"
    return Markup("Ask who sends {} whether {}; compare a request from before with one of now.").format(label, change)


def describe_factor(cause: Document) -> str:
    """Describes by what factor a mean grew or fell: `about 12 times larger`; empty where a factor says nothing."""
    ratio = _find_mean_ratio(cause)
    size = max(ratio, 1 / ratio) if ratio > 0 else 0.0
    if size < _LEAST_FACTOR or not math.isfinite(size):
        return ""
    number = words.format_number(float(f"{size:.2g}"))
    return f"about {number} times {'larger' if ratio > 1 else 'smaller'}"


def _find_confused_units(cause: Document) -> str:
    """Finds two usual units whose ratio is that of the means, `years to months`; empty without any."""
    ratio = _find_mean_ratio(cause)
    for factor, large, small in _UNITS if ratio > 0 else ():
        if abs(abs(math.log(ratio)) - math.log(factor)) < _UNIT_TOLERANCE:
            return f"{large} to {small}" if ratio > 1 else f"{small} to {large}"
    return ""


def _find_mean_ratio(cause: Document) -> float:
    """Finds the ratio of a stream's mean now to that of its reference; 0 if one is unknown or their signs differ."""
    means = [_MEAN.match(cause[key]) for key in ("reference", "current")]
    before, now = (float(match[1].replace(" ", "")) if match else 0.0 for match in means)
    return now / before if before * now > 0 else 0.0


def find_missing_class(cause: Document) -> tuple[str, float, float] | None:
    """Finds the largest class that is hardly predicted any more: its name, and its share before and now."""
    if not cause["stream"].startswith("prediction.label"):
        return None
    shares = (cause[key] for key in ("bins", "reference_shares", "current_shares"))
    return find_lost_class(*shares, least_share=NAMED_SHARE)


def _iterate_bin_shares(cause: Document) -> Iterable[tuple[str, float, float]]:
    return zip(cause["bins"], cause["reference_shares"], cause["current_shares"], strict=False)
