"""Makes what the templates show out of the documents of the API: rows, pictures, words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.addresses import build_commands, model_url, stream_url
from otel_mlmon.processor.serve.page.advice import ORDER, Condition, describe_condition, find_alerts
from otel_mlmon.processor.serve.page.alert_view import list_traces
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS, Span
from otel_mlmon.processor.serve.page.source import Source
from otel_mlmon.processor.serve.page.steps import describe_learning, list_steps, next_step

Document = Mapping[str, Any]

MODELS_PER_PAGE: Final = 50
STREAMS_PER_PAGE: Final = 200
HEAT_ROWS: Final = 30
ALERTS_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """One page of many rows."""

    rows: Sequence[Any]
    number: int
    count: int
    total: int


def cut_page(rows: Sequence[Any], number: int, length: int) -> Paging:
    """Cuts page `number` (from 1) of `length` rows; the nearest there is."""
    count = max(1, -(-len(rows) // length))
    number = min(max(number, 1), count)
    return Paging(rows=rows[(number - 1) * length : number * length], number=number, count=count, total=len(rows))


def build_home(source: Source, *, query: str, page: int) -> dict[str, Any]:
    """Builds what `/` shows: one row a model and version, trouble first."""
    conditions = [
        (model_id, document, describe_condition(model_id, document, source.overview, source.history))
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
    latency, span = document["latency"], SPANS[0]
    rows = source.history.model_rows(model_id, document["version"], span)
    steps = list_steps(document, source.setup)
    labels = next((stream for stream in document["streams"] if stream["stream"].startswith("prediction.label")), None)
    return {
        "id": model_id,
        "document": document,
        "condition": condition,
        "url": model_url(model_id, document["version"]),
        "sparkline": Markup(  # noqa: S704 - charts escape what they draw
            charts.draw_sparkline(
                [(time_ns, values[2]) for time_ns, values in rows],
                label="95 % of calls were faster than this, over the last hour",
                limit=latency["threshold_s"],
            )
        ),
        "shares": _draw_share_pair(labels) if labels is not None and labels["bins"] else [],
        "steps": steps,
        "next": next_step(steps),
    }


def _draw_share_pair(stream: Document) -> list[tuple[str, Markup]]:
    """Draws the classes of the reference and of now as stacked bars, in the same order and colours."""
    order = sorted(range(len(stream["bins"])), key=lambda index: -stream["reference_shares"][index])
    names = [words.clean(stream["bins"][index]) for index in order]
    pictures = []
    for title, key in (("reference", "reference_shares"), ("now", "current_shares")):
        shares = [stream[key][index] for index in order]
        if any(shares):
            picture = charts.draw_shares(names, shares, label=f"shares of the classes, {title}")
            pictures.append((title, Markup(picture)))  # noqa: S704
    return pictures


def build_model(source: Source, model_id: str, document: Document, *, span: Span, page: int) -> dict[str, Any]:
    """Builds what `/models/{name}` shows."""
    condition = describe_condition(model_id, document, source.overview, source.history)
    steps = list_steps(document, source.setup)
    ranked = sorted(document["streams"], key=_rank_stream)
    paging = cut_page(ranked, page, STREAMS_PER_PAGE)
    versions = source.versions(model_id)
    return {
        "id": model_id,
        "document": document,
        "condition": condition,
        "span": span,
        "spans": [(other, model_url(model_id, document["version"], span=other.name)) for other in SPANS],
        "pictures": _draw_model(source, model_id, document, span, condition),
        "heat_map": _draw_heat_map(source, model_id, document, ranked, span),
        "paging": paging,
        "rows": [build_stream_row(model_id, document["version"], stream) for stream in paging.rows],
        "labels": [_build_distribution(stream) for stream in ranked if stream["stream"].startswith("prediction.label")],
        "versions": [_build_version(source, model_id, other) for other in versions.values()],
        "alerts": find_alerts(document, source.overview["alerts"], is_active=False)[:20],
        "steps": steps,
        "next": next_step(steps),
        "url": model_url(model_id, document["version"], span=span.name),
        "commands": build_commands(model_id, document["version"]),
    }


def _rank_stream(stream: Document) -> tuple[int, float, str]:
    order = {"drift": 0, "error": 1, "no_data": 2}
    margin = stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9)
    return order.get(stream["state"], 3), -margin if math.isfinite(margin) else 0.0, stream["stream"]


def build_stream_row(model_id: str, version: str, stream: Document) -> dict[str, Any]:
    """Builds a row of the table of streams."""
    distance = stream["statistics"].get("total_variation", {}).get("value")
    reference, now = describe_sides(stream)
    return {
        "name": stream["stream"],
        "url": stream_url(model_id, version, stream["stream"]),
        "state": stream["state"],
        "reference": reference,
        "now": now,
        "move": words.format_percent(distance),
        "evidence": describe_evidence(stream),
        "design_effect": f"{stream['design_effect']:.1f}" if stream["design_effect"] > 1.05 else "1",
        "detectable": _format_detectable(stream["detectable"]),
        "count": words.format_number(stream["current_count"]),
    }


def _format_detectable(detectable: Document | None) -> str:
    """Formats the smallest shift that would be found within a day."""
    if detectable is None:
        return words.UNKNOWN
    return words.format_percent(detectable["shift"]) if words.is_number(detectable["shift"]) else "none"


def describe_sides(stream: Document) -> tuple[str, str]:
    """Describes reference and rolling window in a few words: means, or the largest class."""
    mean = stream["mean"]
    if stream["origin"] == "budget" and len(stream["bins"]) == 2:
        sides = (stream["reference_shares"][1], stream["current_shares"][1] if stream["current_count"] else None)
        name = "slow" if stream["stream"] == "latency" else "failed"
        return f"≤ {words.format_percent(sides[0])} {name}", words.format_percent(sides[1])
    if words.is_number(mean["reference"]) or words.is_number(mean["current"]):
        return words.format_number(mean["reference"]), words.format_number(mean["current"])
    if not stream["bins"]:
        return words.UNKNOWN, words.UNKNOWN
    index = max(range(len(stream["bins"])), key=lambda index: abs(_difference(stream, index)))
    name = words.clean(stream["bins"][index], 20)
    now = words.format_percent(stream["current_shares"][index]) if stream["current_count"] else words.UNKNOWN
    return f"{name}: {words.format_percent(stream['reference_shares'][index])}", now


def _difference(stream: Document, index: int) -> float:
    if not stream["current_count"]:
        return float(stream["reference_shares"][index])
    return float(stream["current_shares"][index] - stream["reference_shares"][index])


def describe_evidence(stream: Document) -> str:
    """Describes evidence as a share of the way to the alarm line."""
    if stream["state"] == "learning":
        return describe_learning(stream)
    ratio = stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9)
    if ratio <= 0:
        return "none"
    times = f"10^{stream['log10_evidence']:.1f} of 10^{stream['log10_alarm_line']:.1f}"
    return f"{times}, over the line" if ratio >= 1 else times


def _draw_model(
    source: Source, model_id: str, document: Document, span: Span, condition: Condition
) -> list[tuple[str, str, Markup]]:
    rows = source.history.model_rows(model_id, document["version"], span)
    if not rows:
        return []
    end_ns = max(document["updated_ns"], rows[-1][0])
    start_ns = max(end_ns - span.length_s * SECOND_NS, rows[0][0] - span.model_slot_s * SECOND_NS)
    gap_ns = 8 * span.model_slot_s * SECOND_NS

    def draw(
        title: str, key: str, columns: Mapping[str, int], format_value: Callable[[float], str], **more: Any
    ) -> None:
        lines = [(css, [(time_ns, values[index]) for time_ns, values in rows]) for css, index in columns.items()]
        picture = charts.draw_lines(
            lines,
            label=f"{title} over time",
            format_value=format_value,
            start_ns=start_ns,
            end_ns=end_ns,
            moment_ns=condition.since_ns,
            gap_ns=gap_ns,
            **more,
        )
        if picture:
            pictures.append((title, key, Markup(picture)))  # noqa: S704

    pictures: list[tuple[str, str, Markup]] = []
    draw("Latency", "p50 p95 p99", {"p50": 1, "p95": 2, "p99": 3}, words.format_seconds,
         limit=document["latency"]["threshold_s"])  # fmt: skip
    draw("Calls a second", "", {"now": 0}, words.format_number)
    draw("Failed calls", "", {"p99": 4}, words.format_percent, least_high=0.01)
    draw("Estimated accuracy", "", {"now": 5}, words.format_percent, least_high=1.0)
    return pictures


def _draw_heat_map(
    source: Source, model_id: str, document: Document, ranked: Sequence[Document], span: Span
) -> Markup | None:
    rows: list[tuple[str, list[tuple[int, float]]]] = []
    for stream in ranked:
        points = source.history.stream_rows(model_id, document["version"], stream["stream"], span)
        if points:
            rows.append((words.clean(stream["stream"]), points))
        if len(rows) == HEAT_ROWS:
            break
    if not rows:
        return None
    end_ns = max(document["updated_ns"], *(points[-1][0] for _, points in rows))
    oldest_ns = source.history.model_rows(model_id, document["version"], span)[:1]
    start_ns = max(
        end_ns - span.length_s * SECOND_NS, oldest_ns[0][0] - span.model_slot_s * SECOND_NS if oldest_ns else 0
    )
    picture = charts.draw_heat_map(
        rows,
        start_ns=start_ns,
        end_ns=end_ns,
        slot_ns=span.stream_slot_s * SECOND_NS,
        label="evidence of every stream over time; the table of streams has the present values",
    )
    return Markup(picture)  # noqa: S704


def _build_version(source: Source, model_id: str, document: Document) -> dict[str, Any]:
    condition = describe_condition(model_id, document, source.overview, source.history)
    label = next((stream for stream in document["streams"] if stream["stream"].startswith("prediction.label")), None)
    return {
        "document": document,
        "condition": condition,
        "url": model_url(model_id, document["version"]),
        "first_ns": source.history.first_ns(model_id, document["version"]),
        "shares": _draw_share_pair(label)[-1:] if label is not None and label["bins"] else [],
    }


def _build_distribution(stream: Document, causes: Iterable[Document] = ()) -> dict[str, Any]:
    """Draws both distributions of a stream: of what an alert counted since the onset, else of the rolling window."""
    cause = next((cause for cause in causes if cause["stream"] == stream["stream"] and cause["bins"]), None)
    side = cause or stream
    title = "since the onset" if cause is not None else "last hour"
    picture = charts.draw_bars(
        [words.clean(name) for name in side["bins"]],
        side["reference_shares"],
        side["current_shares"],
        label=f"{words.clean(stream['stream'])}: reference and {title}",
        format_share=words.format_percent,
        now=title,
    )
    return {
        "stream": stream,
        "title": title,
        "picture": Markup(picture) if side["bins"] else None,  # noqa: S704
        "count": side["current_count"],
        "reference_count": side["reference_count"],
    }


ORIGINS: Final = {
    "learned": "learned from the first values of this version",
    "file": "from a profile file",
    "model": "carried by the model file",
    "budget": "the share that the configuration accepts",
    "rolling": "moves with time: the hours before",
    "hour_of_week": "moves with time: the same hour of the weeks before",
}


def build_stream(source: Source, model_id: str, document: Document, stream: Document, *, span: Span) -> dict[str, Any]:
    """Builds what `/models/{name}/streams/{stream}` shows."""
    active = find_alerts(document, source.overview["alerts"])
    alerts = [alert for alert in active if any(cause["stream"] == stream["stream"] for cause in alert["causes"])]
    causes = [cause for alert in alerts for cause in alert["causes"]]
    points = source.history.stream_rows(model_id, document["version"], stream["stream"], span)
    end_ns = max(document["updated_ns"], points[-1][0] if points else 0)
    evidence = charts.draw_lines(
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
        "row": build_stream_row(model_id, document["version"], stream),
        "distribution": _build_distribution(stream, causes),
        "causes": [cause for cause in causes if cause["stream"] == stream["stream"]],
        "evidence": Markup(evidence),  # noqa: S704
        "contributions": contributions[:12],
        "origin": ORIGINS.get(stream["origin"], stream["origin"] or "being learned"),
        "traces": list_traces(alerts),
        "alerts": alerts,
        "span": span,
        "spans": [
            (other, _with_query(stream_url(model_id, document["version"], stream["stream"]), f"span={other.name}"))
            for other in SPANS
        ],
        "url": stream_url(model_id, document["version"], stream["stream"]),
        "model_url": model_url(model_id, document["version"]),
    }


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"
