"""Builds the content of the web page of a stream, and its row in the table of streams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.addresses import build_model_url, build_stream_url
from otel_mlmon.processor.serve.page.condition import find_version_alerts
from otel_mlmon.processor.serve.page.facts import list_traces
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS, TimeRange
from otel_mlmon.processor.serve.page.shares import (
    draw_stream_distribution,
    find_stream_cause,
    name_bin,
    name_cause_window,
    name_rolling_window,
)
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.steps import describe_learning

Document = Mapping[str, Any]


ORIGINS: Final = {
    "learned": "learned from the first values of this version",
    "file": "from a profile file",
    "model": "carried by the model file",
    "budget": "the share that the configuration accepts",
    "rolling": "moves with time: the hours before",
    "hour_of_week": "moves with time: the same hour of the weeks before",
}


def build_stream_view(
    source: PageSource, model_id: str, document: Document, stream: Document, *, span: TimeRange
) -> dict[str, Any]:
    """Builds the content of the page of a stream, `/models/{name}/streams/{stream}`."""
    active = find_version_alerts(document, source.overview["alerts"])
    alerts = [alert for alert in active if any(cause["stream"] == stream["stream"] for cause in alert["causes"])]
    causes = [cause for alert in alerts for cause in alert["causes"]]
    window = name_rolling_window(source.rolling_s, is_full=source.is_window_full(model_id, document["version"]))
    cause = find_stream_cause(stream, causes)
    points = source.history.stream_rows(model_id, document["version"], stream["stream"], span)
    end_ns = max(document["updated_ns"], points[-1][0] if points else 0)
    evidence = charts.draw_line_chart(
        [("now", [(time_ns, ratio * stream["log10_alarm_line"]) for time_ns, ratio in points])],
        label="evidence over time, log10",
        format_value=words.format_number,
        start_ns=max(
            end_ns - span.length_s * SECOND_NS, points[0][0] - span.stream_slot_s * SECOND_NS if points else 0
        ),
        end_ns=end_ns,
        limit=stream["log10_alarm_line"],
        moment_ns=stream["since_ns"],
        gap_ns=2 * span.stream_slot_s * SECOND_NS,
        least_high=stream["log10_alarm_line"],
    )
    shares = list(zip(stream["bins"], stream["contributions"], strict=False))
    contributions = [(name, value) for name, value in sorted(shares, key=lambda pair: -pair[1]) if value > 0.05]
    return {
        "id": model_id,
        "document": document,
        "stream": stream,
        "row": build_stream_row(source, model_id, document["version"], stream, causes),
        "window": window,
        "distribution": draw_stream_distribution(stream, causes, window, source),
        "changes": cause["details"] if cause is not None else stream["changes"],
        "evidence": Markup(evidence),  # noqa: S704
        "contributions": contributions[:12],
        "origin": ORIGINS.get(stream["origin"], stream["origin"] or "being learned"),
        "traces": list_traces(alerts),
        "alerts": alerts,
        "span": span,
        "spans": [
            (
                other,
                _append_query(build_stream_url(model_id, document["version"], stream["stream"]), f"span={other.name}"),
            )
            for other in SPANS
        ],
        "url": build_stream_url(model_id, document["version"], stream["stream"]),
        "model_url": build_model_url(model_id, document["version"]),
    }


def _append_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"


def rank_stream(stream: Document) -> tuple[int, float, str]:
    """Returns the sort key of a stream in tables: trouble first, then the most evidence."""
    order = {"drift": 0, "error": 1, "no_data": 2}
    margin = stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9)
    return order.get(stream["state"], 3), -margin if math.isfinite(margin) else 0.0, stream["stream"]


def build_stream_row(
    source: PageSource, model_id: str, version: str, stream: Document, causes: Iterable[Document]
) -> dict[str, Any]:
    """Builds the row of a stream in a table: the counts since an alert's onset, else those of the rolling window."""
    distance = stream["statistics"].get("total_variation", {}).get("value")
    cause = find_stream_cause(stream, causes)
    reference, now = describe_compared_counts(stream) if cause is None else (cause["reference"], cause["current"])
    is_allowance = stream["origin"] == "budget"
    return {
        "name": stream["stream"],
        "url": build_stream_url(model_id, version, stream["stream"]),
        "state": stream["state"],
        "reference": words.escape_line(reference),
        "now": words.escape_line(now),
        "change": words.escape_line(f"{now}, {reference}" if is_allowance else f"{reference} → {now}", 200),
        "since": name_cause_window(cause, source) if cause is not None else "",
        "move": words.format_percent(distance),
        "evidence": describe_evidence(stream),
        "design_effect": f"{stream['design_effect']:.1f}" if stream["design_effect"] > 1.05 else "1",
        "detectable": _format_detectable_shift(stream["detectable"]),
        "count": words.format_number(stream["current_count"]),
    }


def _format_detectable_shift(detectable: Document | None) -> str:
    """Formats the smallest shift of a stream that would be found within a day."""
    if detectable is None:
        return words.UNKNOWN
    return words.format_percent(detectable["shift"]) if words.is_finite_number(detectable["shift"]) else "none"


def describe_compared_counts(stream: Document) -> tuple[str, str]:
    """Describes reference and rolling window of a stream in a few words: means, or the largest class."""
    mean = stream["mean"]
    if stream["origin"] == "budget" and len(stream["bins"]) == 2:
        sides = (stream["reference_shares"][1], stream["current_shares"][1] if stream["current_count"] else None)
        name = "slow" if stream["stream"] == "latency" else "failed"
        return f"{words.format_percent(sides[0])} allowed", f"{words.format_percent(sides[1])} {name}"
    if words.is_finite_number(mean["reference"]) or words.is_finite_number(mean["current"]):
        return words.format_number(mean["reference"]), words.format_number(mean["current"])
    if not stream["bins"]:
        return words.UNKNOWN, words.UNKNOWN
    index = max(range(len(stream["bins"])), key=lambda index: abs(_compute_share_difference(stream, index)))
    name = name_bin(stream["bins"][index])
    now = words.format_percent(stream["current_shares"][index]) if stream["current_count"] else words.UNKNOWN
    return f"{name}: {words.format_percent(stream['reference_shares'][index])}", now


def _compute_share_difference(stream: Document, index: int) -> float:
    if not stream["current_count"]:
        return float(stream["reference_shares"][index])
    return float(stream["current_shares"][index] - stream["reference_shares"][index])


def describe_evidence(stream: Document) -> str:
    """Describes evidence of drift as the share of the way to the alarm line that it has gone."""
    if stream["state"] == "learning":
        return describe_learning(stream)
    ratio = stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9)
    if ratio <= 0:
        return "none"
    times = f"10^{stream['log10_evidence']:.1f} of 10^{stream['log10_alarm_line']:.1f}"
    return f"{times}, over the line" if ratio >= 1 else times
