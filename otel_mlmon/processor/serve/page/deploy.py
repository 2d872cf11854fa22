"""Decides whether trouble began with the deploy of a model version, and how that differs from the version before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.replacement import find_replacement
from otel_mlmon.processor.serve.page.shares import name_recent_window
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.words import format_name, format_percent, format_time

Document = Mapping[str, Any]

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
class DeployDifference:
    """The most urgent difference between a newly deployed model version and the version before."""

    rule: str
    """The rule that may alert on it."""
    subject: Markup
    """The compared quantity, after a number: `of calls fail`."""
    measure: Markup
    """The compared quantity, before numbers: `failed calls`."""
    before: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """The deploy of a model version with which trouble began."""

    facts: tuple[Markup, ...]
    advice: Markup
    first_ns: int
    """When the version was first seen, Unix nanoseconds."""
    before: str
    """The version before."""
    difference: DeployDifference | None = None
    """None where it is only a matter of time."""
    moved: tuple[Document, ...] = ()
    """The streams that moved between the first predictions of both versions, the most first."""


def find_trouble_deploy(source: PageSource, model_id: str, model: Document, since_ns: int) -> Deploy | None:
    """Finds the deploy of a version with which trouble began, or that differs from the version before.

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
    moved = _find_moved_streams(source, model_id, model)
    is_new = (model["updated_ns"] - first_ns) / 1e9 < MAX_DEPLOY_S
    difference = compare_versions(versions[before], model, moved if is_new else ())
    if difference is not None:
        facts = [_describe_moved_stream(cause, previous, name) for cause in moved[:1]]
        advice = Markup("Compare with version {}; go back to it unless the change of version {} was meant.")
        if difference.rule != VERSION_DRIFT:
            fact = Markup("{}, {} of each: {} in version {}, {} in version {}").format(
                difference.measure,
                name_recent_window(source.recent_s),
                difference.now,
                name,
                difference.before,
                previous,
            )
            facts.insert(0, fact)
            advice = Markup("Go back to version {}: what is wrong began with the deploy of version {}.")
        facts.append(_describe_previous_traffic(source, model_id, versions[before], previous))
        return Deploy(
            facts=tuple(facts),
            advice=advice.format(previous, name),
            first_ns=first_ns,
            before=before,
            difference=difference,
            moved=tuple(moved),
        )
    if since_ns and 0 <= (since_ns - first_ns) / 1e9 + 60 < MAX_DEPLOY_S:
        fact = Markup("Version {} runs since {}; before it there was version {}").format(
            name, format_time(first_ns), previous
        )
        advice = Markup("Compare with version {} or go back to it: what is wrong began with the deploy of version {}.")
        return Deploy(facts=(fact,), advice=advice.format(previous, name), first_ns=first_ns, before=before)
    return None


def name_compared_version(deploy: Deploy | None) -> str:
    """Names the version with whose predictions the first ones of a version were compared; empty without any."""
    return deploy.before if deploy is not None and deploy.moved else ""


def _find_moved_streams(source: PageSource, model_id: str, model: Document) -> list[Document]:
    """Finds the streams whose first values differ from those of the version before, the largest move first."""
    listed = source.overview.get("models", {}).get(model_id, {}).get("versions", ())
    change = next((entry["change"] for entry in listed if entry["version"] == model["version"]), None)
    return [cause for cause in change["moved"] if cause["value"] >= MIN_VERSION_SHIFT] if change else []


def _describe_previous_traffic(source: PageSource, model_id: str, before: Document, previous: Markup) -> Markup:
    """Describes whether the model version before a deploy still has calls."""
    replacement = find_replacement(source, model_id, before)
    if replacement is None:
        return Markup("Version {} still serves: {} calls a second").format(
            previous, words.format_rate(before["throughput_per_s"])
        )
    return Markup("Version {} had its last calls about {}").format(previous, format_time(replacement.last_ns))


def _describe_moved_stream(cause: Document, previous: Markup, name: Markup) -> Markup:
    before, now = words.align_percents(
        words.escape_line(cause["reference"], 60), words.escape_line(cause["current"], 60)
    )
    return Markup("{}: {} in version {}, {} in the first {} of version {}").format(
        format_name(cause["stream"], 60),
        words.join_percent_signs(before),
        previous,
        words.join_percent_signs(now),
        words.format_number(cause["current_count"]),
        name,
    )


def compare_versions(before: Document, now: Document, moved: Sequence[Document]) -> DeployDifference | None:
    """Returns the most urgent difference between two model versions; None where they are alike.

    Failed calls are compared first, then latency, then the predictions.

    Args:
        before: The document of the version before.
        now: The document of the version.
        moved: What moved between their first predictions, of a version that is new.
    """
    errors = [document["error_ratio"] for document in (before, now)]
    if all(map(words.is_finite_number, errors)) and errors[1] - errors[0] >= MIN_ERROR_INCREASE:
        shares = [words.join_percent_signs(format_percent(ratio)) for ratio in errors]
        return DeployDifference(
            rule="errors",
            subject=Markup("of calls fail"),
            measure=Markup("failed calls"),
            before=shares[0],
            now=shares[1],
        )
    tails = [document["latency"]["p95_s"] for document in (before, now)]
    if all(map(words.is_finite_number, tails)) and tails[1] >= MIN_SLOWDOWN * tails[0] > 0:
        times = [words.format_seconds(tail) for tail in tails]
        return DeployDifference(
            rule="latency",
            subject=Markup("latency, p95"),
            measure=Markup("latency, p95"),
            before=times[0],
            now=times[1],
        )
    if not moved:
        return None
    cause = moved[0]
    return DeployDifference(
        rule=VERSION_DRIFT,
        subject=format_name(cause["stream"], 60),
        measure=format_name(cause["stream"], 60),
        before=words.join_percent_signs(words.escape_line(cause["reference"], 60)),
        now=words.join_percent_signs(words.escape_line(cause["current"], 60)),
    )
