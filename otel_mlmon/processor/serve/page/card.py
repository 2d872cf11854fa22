"""Builds the figures, the picture and the classes on the card of a model version or an alert."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.addresses import build_model_url
from otel_mlmon.processor.serve.page.deploy import Deploy
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS
from otel_mlmon.processor.serve.page.replacement import LATE_PANES, Replacement
from otel_mlmon.processor.serve.page.shares import (
    ShareBars,
    draw_share_bars,
    draw_version_bars,
    name_bin,
    name_cause_window,
    name_recent_window,
    name_rolling_window,
)
from otel_mlmon.processor.serve.page.source import PageSource

Document = Mapping[str, Any]

_P95, _ERRORS = 2, 4
_CALL_RULES: Final = frozenset({"latency", "errors", "execution_provider", "no_data"})
"""Rules on calls, which a line over time shows best; what others found is a distribution."""


def build_model_card(
    source: PageSource,
    model_id: str,
    document: Document,
    alerts: Sequence[Document],
    *,
    since_ns: int,
    deploy: Deploy | None,
    replacement: Replacement | None,
) -> dict[str, Any]:
    """Builds the figures and pictures on the card of a model version.

    Args:
        source: What the page is made of.
        model_id: The model.
        document: Of the version.
        alerts: The alerts that the card is about.
        since_ns: The onset of what is wrong, Unix nanoseconds; 0 without any.
        deploy: What it began with, if that is so.
        replacement: What has its calls now, if it was replaced.
    """
    causes = [cause for alert in alerts for cause in alert["causes"]]
    title, picture = _draw_cause(source, alerts) or _draw_last_hour(
        source, model_id, document, since_ns, alerts, deploy
    )
    return {
        "id": model_id,
        "document": document,
        "url": build_model_url(model_id, document["version"]),
        "picture": picture,
        "picture_title": title,
        "recent": _name_recent_period(source, replacement),
        "shares": _draw_classes(source, model_id, document, causes, deploy),
    }


def _name_recent_period(source: PageSource, replacement: Replacement | None) -> str:
    recent = name_recent_window(source.recent_s)
    if replacement is None:
        return recent
    return f"its {recent}, until about {words.format_clock_time(replacement.last_ns, source.now_ns)}"


def _draw_classes(
    source: PageSource, model_id: str, document: Document, causes: Iterable[Document], deploy: Deploy | None
) -> ShareBars | None:
    labels = next((stream for stream in document["streams"] if stream["stream"].startswith("prediction.label")), None)
    if deploy is not None and (bars := draw_version_bars(deploy.moved, deploy.before, document["version"])):
        return bars
    if labels is None or not labels["bins"]:
        return None
    window = name_rolling_window(source.rolling_s, is_full=source.is_window_full(model_id, document["version"]))
    return draw_share_bars(labels, causes, window, source)


def _draw_cause(source: PageSource, alerts: Sequence[Document]) -> tuple[Markup, Markup] | None:
    """Draws a drifted stream, its reference beside the values since its onset; None for alerts about calls."""
    if not alerts or any(alert["rule"] in _CALL_RULES for alert in alerts):
        return None
    cause = next(
        (cause for alert in alerts for cause in alert["causes"] if cause["bins"] and not cause["is_absent"]), None
    )
    if cause is None:
        return None
    since = name_cause_window(cause, source)
    sides = zip(cause["bins"], cause["reference_shares"], cause["current_shares"], strict=False)
    rows = [(name_bin(bin_), before, share) for bin_, before, share in sides if before or share or bin_[:1] != "_"]
    name = words.escape_line(cause["stream"], 60)
    picture = charts.draw_bin_columns(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        label=f"{name}: reference and {since}",
        format_share=words.format_percent,
    )
    title = Markup('<bdi>{}</bdi> <span class="key reference">reference</span><span class="key now">{}</span>').format(
        name, since
    )
    return title, Markup(picture)  # noqa: S704 - charts escape what they draw


def _draw_last_hour(
    source: PageSource,
    model_id: str,
    document: Document,
    since_ns: int,
    alerts: Sequence[Document],
    deploy: Deploy | None,
) -> tuple[Markup, Markup]:
    """Draws a line chart of the last hour: the ratio of failed calls where too many fail, else the p95 latency.

    What began with a deploy is drawn after the version before.
    """
    rows = source.history.model_rows(model_id, document["version"], SPANS[0])
    errors = next((stream for stream in document["streams"] if stream["stream"] == "errors"), None)
    allowed = errors["reference_shares"][1] if errors is not None and len(errors["reference_shares"]) == 2 else None
    format_value: Callable[[Any], str] = words.format_seconds
    is_notifier_failing = (
        words.is_finite_number(document["error_ratio"]) and allowed is not None and document["error_ratio"] > allowed
    )
    if any(alert["rule"] == "errors" for alert in alerts) or (is_notifier_failing and not alerts):
        subject, bound, column, limit, format_value = "failed calls", "allowed", _ERRORS, allowed, words.format_percent
    else:
        subject, bound, column = "p95 of latency", "threshold", _P95
        limit = document["latency"]["threshold_s"]
    # A value is drawn in the middle of the slot that it is of.
    half_slot_ns = SPANS[0].model_slot_s * SECOND_NS // 2
    points = [(time_ns - half_slot_ns, values[column]) for time_ns, values in rows]
    earlier = _read_previous_points(source, model_id, deploy, column, points[:1])
    finite = [(time_ns, value) for time_ns, value in (*earlier, *points) if math.isfinite(value)]
    if len(finite) < 2:
        return Markup(""), Markup("")
    is_near = limit is not None and limit <= 4 * max(value for _, value in finite)
    limit = limit if is_near else None
    begin_ns, end_ns = finite[0][0], finite[-1][0]
    if 0 < begin_ns - since_ns <= 4 * half_slot_ns:  # a version that was wrong from its first call on
        begin_ns = since_ns
    end_ns = max(begin_ns, min(end_ns, document["updated_ns"]))  # a slot may end after the last call
    length = words.format_duration((end_ns - begin_ns) / SECOND_NS)
    is_past = source.now_ns - end_ns > (LATE_PANES + 1) * source.pane_s * SECOND_NS + 2 * half_slot_ns
    end = words.format_clock_time(end_ns, source.now_ns) if is_past else "now"
    span = f"{length} until {end}" if is_past else f"last {'hour' if length == '60 min' else length}"
    title = Markup("{}, {}").format(subject, span)
    title += f"; dashed: {bound}" if limit is not None else ""
    picture = charts.draw_sparkline(
        points,
        earlier=earlier,
        start_ns=begin_ns,
        label=str(title),
        format_value=format_value,
        ends=(words.format_clock_time(begin_ns, source.now_ns) if is_past else f"{length} ago", end),
        limit=limit,
        moment_ns=since_ns,
        moment=f"since {words.format_clock_time(since_ns, source.now_ns)}" if since_ns else "",
    )
    if earlier and deploy is not None:
        title += Markup(' <span class="key p50">version {}</span><span class="key p95">version {}</span>').format(
            words.format_name(deploy.before, 20), words.format_name(document["version"], 20)
        )
    return title, Markup(picture)  # noqa: S704 - charts escape what they draw


def _read_previous_points(
    source: PageSource, model_id: str, deploy: Deploy | None, column: int, first: Sequence[charts.Point]
) -> list[charts.Point]:
    """Reads the history of the version before a deploy, in the hour before the points `first` of the new version."""
    if deploy is None or not first:
        return []
    half_slot_ns = SPANS[0].model_slot_s * SECOND_NS // 2
    rows = source.history.model_rows(model_id, deploy.before, SPANS[0])
    points = [(time_ns - half_slot_ns, values[column]) for time_ns, values in rows]
    return [point for point in points if deploy.first_ns - SPANS[0].length_s * SECOND_NS < point[0] < first[0][0]]
