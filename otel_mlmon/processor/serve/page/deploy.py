"""Says whether trouble began with the deploy of a model version, and how that differs from the version before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.source import Source
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

MIN_VERSION_COUNT: Final = 300
MIN_VERSION_SHIFT: Final = 0.1
"""Total variation between the predictions of two versions that is worth a look."""
MIN_ERROR_INCREASE: Final = 0.05
"""By how much more calls of a new version fail, as a share of all, that is worth a look."""
MIN_SLOWDOWN: Final = 2.0
"""The ratio of the latencies of two versions that is worth a look."""
MAX_DEPLOY_S: Final = 2 * 3_600
VERSION_DRIFT: Final = "version_drift"
"""The rule on differences of the predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDifference:
    """How a version differs most urgently from the one before."""

    rule: str
    """The rule that may alert on it."""
    subject: Markup
    before: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """The deploy that trouble began with."""

    fact: Markup
    advice: Markup
    first_ns: int
    """When the version was first seen, Unix nanoseconds."""
    difference: VersionDifference | None = None
    """None where it is only a matter of time."""


def find_deploy(source: Source, model_id: str, model: Document, since_ns: int) -> Deploy | None:
    """Finds the deploy that trouble began with, or that differs from the version before.

    Args:
        source: What the page is made of.
        model_id: The model.
        model: The document of the version.
        since_ns: The onset of the trouble, Unix nanoseconds; 0 without any.
    """
    history = source.history
    versions = source.overview.get("versions", {}).get(model_id, {})
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
    difference = compare_versions(versions[before], model)
    if difference is not None:
        subject, old, new = difference.subject, difference.before, difference.now
        fact = Markup("Version {}: {} {}; version {}: {}").format(name, new, subject, previous, old)
        return Deploy(fact=fact, advice=advice.format(previous, name), first_ns=first_ns, difference=difference)
    if since_ns and 0 <= (since_ns - first_ns) / 1e9 + 60 < MAX_DEPLOY_S:
        fact = Markup("Version {} runs since {}; before it there was version {}").format(
            name, format_time(first_ns), previous
        )
        return Deploy(fact=fact, advice=advice.format(previous, name), first_ns=first_ns)
    return None


def compare_versions(before: Document, now: Document) -> VersionDifference | None:
    """Returns what differs most urgently between two versions; None where they are alike.

    Failed calls are compared first, then latency, then the shares of the classes.
    """
    errors = [document["error_ratio"] for document in (before, now)]
    if all(map(words.is_number, errors)) and errors[1] - errors[0] >= MIN_ERROR_INCREASE:
        shares = [format_percent(ratio) for ratio in errors]
        return VersionDifference(rule="errors", subject=Markup("of calls fail"), before=shares[0], now=shares[1])
    tails = [document["latency"]["p95_s"] for document in (before, now)]
    if all(map(words.is_number, tails)) and tails[1] >= MIN_SLOWDOWN * tails[0] > 0:
        times = [words.format_seconds(tail) for tail in tails]
        return VersionDifference(rule="latency", subject=Markup("latency, p95"), before=times[0], now=times[1])
    return _compare_labels(_label_shares(before), _label_shares(now))


def _compare_labels(before: Mapping[str, float], now: Mapping[str, float]) -> VersionDifference | None:
    if not before or not now:
        return None
    labels = sorted({*before, *now})
    moves = {label: now.get(label, 0.0) - before.get(label, 0.0) for label in labels}
    if sum(map(abs, moves.values())) / 2 < MIN_VERSION_SHIFT:
        return None
    label = max(labels, key=lambda label: abs(moves[label]))
    return VersionDifference(
        rule=VERSION_DRIFT,
        subject=Markup("of predictions say {}").format(format_name(label, 40)),
        before=format_percent(before.get(label, 0.0)),
        now=format_percent(now.get(label, 0.0)),
    )


def _label_shares(model: Document) -> dict[str, float]:
    for stream in model["streams"]:
        if stream["stream"] == "prediction.label" and stream["current_count"] >= MIN_VERSION_COUNT:
            return dict(zip(stream["bins"], stream["current_shares"], strict=False))
    return {}
