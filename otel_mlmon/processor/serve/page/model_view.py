"""Builds the content of the web page of a model version: charts over time, classes, streams, versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.addresses import build_commands, build_model_url, list_alert_commands
from otel_mlmon.processor.serve.page.alert_view import build_alert_row
from otel_mlmon.processor.serve.page.condition import ModelCondition, describe_condition, find_version_alerts
from otel_mlmon.processor.serve.page.deploy import name_compared_version
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS, TimeRange
from otel_mlmon.processor.serve.page.paging import cut_table_page
from otel_mlmon.processor.serve.page.shares import draw_share_bars, draw_stream_distribution, name_rolling_window
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.steps import find_next_step, list_monitoring_steps
from otel_mlmon.processor.serve.page.stream_view import build_stream_row, rank_stream

Document = Mapping[str, Any]

STREAMS_PER_PAGE: Final = 200
HEAT_ROWS: Final = 30


def build_model_view(
    source: PageSource, model_id: str, document: Document, *, span: TimeRange, page: int
) -> dict[str, Any]:
    """Builds the content of the page of a model version, `/models/{name}`."""
    condition = describe_condition(source, model_id, document)
    steps = list_monitoring_steps(document, source.setup, compared_version=name_compared_version(condition.deploy))
    ranked = sorted(document["streams"], key=rank_stream)
    active = find_version_alerts(document, source.overview["alerts"])
    causes = [cause for alert in active for cause in alert["causes"]]
    window = name_rolling_window(source.rolling_s, is_full=source.is_window_full(model_id, document["version"]))
    paging = cut_table_page(ranked, page, STREAMS_PER_PAGE)
    versions = source.versions(model_id)
    return {
        "id": model_id,
        "document": document,
        "condition": condition,
        "span": span,
        "spans": [(other, build_model_url(model_id, document["version"], span=other.name)) for other in SPANS],
        "pictures": _draw_model_charts(source, model_id, document, span, condition),
        "heat_map": _draw_heat_map(source, model_id, document, ranked, span),
        "paging": paging,
        "rows": [build_stream_row(source, model_id, document["version"], stream, causes) for stream in paging.rows],
        "window": window,
        "labels": [
            draw_stream_distribution(stream, causes, window, source)
            for stream in ranked
            if stream["stream"].startswith("prediction.label")
        ],
        "versions": [_build_version_row(source, model_id, other) for other in versions.values()],
        "alerts": [
            build_alert_row(source, alert)
            for alert in find_version_alerts(document, source.overview["alerts"], is_active=False)[:20]
        ],
        "steps": steps,
        "next": find_next_step(steps),
        "url": build_model_url(model_id, document["version"], span=span.name),
        "commands": [*list_alert_commands(active), *build_commands(model_id, document["version"])],
    }


def _draw_model_charts(
    source: PageSource, model_id: str, document: Document, span: TimeRange, condition: ModelCondition
) -> list[tuple[str, str, Markup]]:
    rows = source.history.model_rows(model_id, document["version"], span)
    if not rows:
        return []
    end_ns = max(document["updated_ns"], rows[-1][0])
    start_ns = max(end_ns - span.length_s * SECOND_NS, rows[0][0] - span.model_slot_s * SECOND_NS)
    if 0 < start_ns - condition.since_ns <= 2 * span.model_slot_s * SECOND_NS:  # wrong from the first call on
        start_ns = condition.since_ns
    gap_ns = 8 * span.model_slot_s * SECOND_NS
    half_slot_ns = span.model_slot_s * SECOND_NS // 2  # a value is drawn in the middle of the slot that it is of

    def draw(
        title: str, key: str, columns: Mapping[str, int], format_value: Callable[[float], str], **more: Any
    ) -> None:
        lines = [
            (css, [(time_ns - half_slot_ns, values[index]) for time_ns, values in rows])
            for css, index in columns.items()
        ]
        picture = charts.draw_line_chart(
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
    source: PageSource, model_id: str, document: Document, ranked: Sequence[Document], span: TimeRange
) -> Markup | None:
    rows: list[tuple[str, list[tuple[int, float]]]] = []
    for stream in ranked:
        points = source.history.stream_rows(model_id, document["version"], stream["stream"], span)
        if points:
            rows.append((words.escape_line(stream["stream"]), points))
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


def _build_version_row(source: PageSource, model_id: str, document: Document) -> dict[str, Any]:
    condition = describe_condition(source, model_id, document)
    label = next((stream for stream in document["streams"] if stream["stream"].startswith("prediction.label")), None)
    active = find_version_alerts(document, source.overview["alerts"])
    causes = [cause for alert in active for cause in alert["causes"]]
    return {
        "document": document,
        "condition": condition,
        "url": build_model_url(model_id, document["version"]),
        "first_ns": source.history.first_ns(model_id, document["version"]),
        "shares": draw_share_bars(label, causes, "now", source) if label is not None and label["bins"] else None,
    }
