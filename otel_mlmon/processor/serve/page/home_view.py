"""Builds the content of the first web page: one card a model and version, trouble first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.addresses import model_url
from otel_mlmon.processor.serve.page.condition import ORDER, Condition, describe_condition, find_alerts
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS
from otel_mlmon.processor.serve.page.paging import cut_page
from otel_mlmon.processor.serve.page.shares import draw_share_bars, name_window
from otel_mlmon.processor.serve.page.source import Source
from otel_mlmon.processor.serve.page.steps import list_steps, next_step

Document = Mapping[str, Any]

MODELS_PER_PAGE: Final = 50
_P95, _ERRORS = 2, 4


def build_home(source: Source, *, query: str, page: int) -> dict[str, Any]:
    """Builds the content of the first web page, `/`."""
    conditions = [
        (model_id, document, describe_condition(source, model_id, document))
        for model_id in source.overview.get("versions", {})
        for document in source.versions(model_id).values()
    ]
    wanted = [row for row in conditions if query.casefold() in f"{row[0]} {row[1]['version']}".casefold()]
    wanted.sort(key=lambda row: (ORDER.index(row[2].state), row[0], -row[1]["updated_ns"]))
    paging = cut_page(wanted, page, MODELS_PER_PAGE)
    troubled = [row for row in conditions if row[2].state in ("firing", "error", "no_data")]
    return {
        "paging": paging,
        "query": query,
        "rows": [_build_row(source, *row) for row in paging.rows],
        "counts": {
            state: sum(row[2].state == state for row in conditions)
            for state in ORDER
            if any(row[2].state == state for row in conditions)
        },
        "troubled": len(troubled),
        "total": len(conditions),
    }


def _build_row(source: Source, model_id: str, document: Document, condition: Condition) -> dict[str, Any]:
    steps = list_steps(document, source.setup)
    labels = next((stream for stream in document["streams"] if stream["stream"].startswith("prediction.label")), None)
    causes = [cause for alert in find_alerts(document, source.overview["alerts"]) for cause in alert["causes"]]
    window = name_window(source.rolling_s, is_full=source.is_window_full(model_id, document["version"]))
    title, sparkline = _draw_sparkline(source, model_id, document, condition)
    return {
        "id": model_id,
        "document": document,
        "condition": condition,
        "url": model_url(model_id, document["version"]),
        "sparkline": sparkline,
        "sparkline_title": title,
        "shares": draw_share_bars(labels, causes, window) if labels is not None and labels["bins"] else None,
        "steps": steps,
        "next": next_step(steps),
    }


def _draw_sparkline(source: Source, model_id: str, document: Document, condition: Condition) -> tuple[str, Markup]:
    """Draws the last hour of a model: the ratio of failed calls where these are the trouble, else p95 latency."""
    rows = source.history.model_rows(model_id, document["version"], SPANS[0])
    errors = next((stream for stream in document["streams"] if stream["stream"] == "errors"), None)
    allowed = errors["reference_shares"][1] if errors is not None and len(errors["reference_shares"]) == 2 else None
    format_value: Callable[[Any], str] = words.format_seconds
    if words.is_number(document["error_ratio"]) and allowed is not None and document["error_ratio"] > allowed:
        subject, bound, column, limit, format_value = "failed", "allowed", _ERRORS, allowed, words.format_percent
    else:
        subject, bound, column = "p95", "threshold", _P95
        limit = document["latency"]["threshold_s"]
    points = [(time_ns, values[column]) for time_ns, values in rows]
    finite = [(time_ns, value) for time_ns, value in points if math.isfinite(value)]
    if len(finite) < 2:
        return "", Markup("")
    is_near = limit is not None and limit <= 4 * max(value for _, value in finite)
    limit = limit if is_near else None
    length = words.format_duration((finite[-1][0] - finite[0][0]) / SECOND_NS)
    title = f"{subject}, last {'hour' if length == '60 min' else length}"
    title += f"; dashed: {bound}" if limit is not None else ""
    picture = charts.draw_sparkline(
        points,
        label=title,
        format_value=format_value,
        begin=f"{length} before",
        limit=limit,
        moment_ns=condition.since_ns,
    )
    return title, Markup(picture)  # noqa: S704 - charts escape what they draw
