"""Renders the report of a backtest as one self-contained HTML page, without network and scripts."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from otel_mlmon.backtest import pictures
from otel_mlmon.backtest.report import BacktestReport, StreamReport
from otel_mlmon.processor.alert.cause import format_percent


def render_page(report: BacktestReport) -> str:
    """Renders the report of a backtest as an HTML page, in which all text from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("otel_mlmon.backtest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = format_percent
    return environment.get_template("report.html.j2").render(
        report=report,
        title=_summarize_verdict(report),
        summary=_list_report_summary(report),
        charted=[stream for stream in report.judged if stream.points],
        unjudged=[stream for stream in report.streams if stream.state in ("unknown", "weak", "left_out")],
        list_stream_facts=_list_stream_facts,
        draw_timeline=pictures.draw_timeline,
        draw_bin_bars=pictures.draw_share_bars,
        draw_evidence=pictures.draw_evidence,
        draw_distances=pictures.draw_distances,
        draw_accuracy=pictures.draw_accuracy,
    )


def _summarize_verdict(report: BacktestReport) -> str:
    if report.is_inaccurate and not report.alarmed and report.accuracy is not None:
        return f"An alarm in window {report.accuracy.first_alarm_window}, estimated accuracy"
    if report.alarmed:
        first = report.alarmed[0].first_alarm_window
        return f"An alarm in window {first}, {len(report.alarmed)} of {len(report.judged)} streams"
    weak = sum(stream.state == "weak" for stream in report.streams)
    if weak:
        return f"No alarm, but {weak} streams in which a usual drift could have been missed"
    return "No alarm" if any(stream.state == "ok" for stream in report.streams) else "Nothing could be judged"


def _list_report_summary(report: BacktestReport) -> dict[str, str | None]:
    return {
        "Data": Path(report.data).name,
        "Reference": Path(report.reference).name,
        "Windows": f"{report.windows} of {report.window}",
        "Rows": None if report.rows is None else f"{report.rows:,}".replace(",", " "),
        "First alarm": report.alarmed[0].first_alarm if report.alarmed else None,
        "False alarms accepted": report.false_alarms,
    }


def _list_stream_facts(stream: StreamReport) -> list[str]:
    facts = [stream.kind, f"n = {stream.count}", f"reference n = {stream.reference_count}"]
    if stream.reason:
        facts.insert(0, stream.reason)
    if stream.onset_window is not None:
        facts.append(f"onset in window {stream.onset_window}" + (f" ({stream.onset})" if stream.onset else ""))
    if stream.total_variation is not None:
        facts.append(
            f"total variation {format_percent(stream.total_variation)}, tolerated {format_percent(stream.tolerance)}"
        )
    if stream.psi is not None:
        facts.append(f"PSI {stream.psi:.3f}")
    if stream.design_effect is not None:
        facts.append(f"design effect {stream.design_effect:.1f}")
    if stream.detectable_shift is not None:
        facts.append(f"a shift of {format_percent(stream.detectable_shift)} would have been found")
    return facts
