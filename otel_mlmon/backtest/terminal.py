"""Prints the report of a backtest as a table on the terminal, and shows a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from otel_mlmon.backtest.report import BacktestReport, BacktestState, StreamReport
from otel_mlmon.table.table import ProgressCallback, ignore_progress

STATE_STYLES: Final[dict[BacktestState, str]] = {
    "alarm": "bold red",
    "recovered": "yellow",
    "weak": "magenta",
    "ok": "green",
    "unknown": "cyan",
    "left_out": "dim",
}
NARROW_CELLS: Final = 100
"""On a terminal of fewer cells the kind, PSI, φ and the shift that would be found are not shown."""


def print_report(report: BacktestReport, console: Console) -> None:
    """Prints the report of a backtest to the terminal."""
    console.print(Text(summarize_report(report), "bold red" if report.alarmed else "bold"))
    details = f"{_format_data_size(report)} in {report.windows} windows of {report.window} against {report.reference}"
    console.print(Text(f"{details}; {report.false_alarms} false alarms accepted over all.", "dim"))
    if report.judged:
        console.print(_build_report_table(report, is_narrow=console.width < NARROW_CELLS))
    for stream in report.streams:
        if stream.state in ("unknown", "weak"):
            style = STATE_STYLES[stream.state]
            console.print(Text.assemble((f"{stream.stream}: {stream.state}: ", style), f"{stream.reason}."))
    left_out = [f"{stream.stream} ({stream.reason})" for stream in report.streams if stream.state == "left_out"]
    if left_out:
        console.print(Text(f"Left out: {'; '.join(left_out)}.", "dim"))
    if report.accuracy is not None:
        console.print(Text(report.accuracy.summary, "bold red" if report.is_inaccurate else ""))
    for note in report.notes:
        console.print(Text(note, "dim"))


def summarize_report(report: BacktestReport) -> str:
    """Returns a sentence that says whether a backtest found an alarm, when, and about which streams."""
    if report.is_inaccurate and not report.alarmed and report.accuracy is not None:
        return f"It would have alerted, first in window {report.accuracy.first_alarm_window}: estimated accuracy."
    if not report.alarmed:
        judged, weak = (
            sum(stream.state in states for stream in report.streams) for states in (("ok", "weak"), ("weak",))
        )
        doubt = (
            f"; {weak} of them {'is' if weak == 1 else 'are'} weak: a usual drift could have been missed"
            if weak
            else ""
        )
        return f"No alarm in {judged} of {judged} streams{doubt}." if judged else "Nothing could be judged."
    first = report.alarmed[0]
    names = ", ".join(stream.stream for stream in report.alarmed)
    time = f" ({first.first_alarm})" if first.first_alarm else ""
    return f"It would have alerted, first in window {first.first_alarm_window}{time}: {names}."


@contextmanager
def show_progress(console: Console) -> Iterator[ProgressCallback]:
    """Shows a progress bar for each part of a backtest; nothing if the output is no terminal."""
    if not console.is_terminal:
        yield ignore_progress
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def update_progress(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bar.add_task(part, rate="")
            rate = bar.tasks[bar.task_ids.index(tasks[part])].speed
            bar.update(tasks[part], completed=done, total=total, rate=f"{rate:,.0f}/s" if rate else "")

        yield update_progress


def _format_data_size(report: BacktestReport) -> str:
    return f"{report.data}" if report.rows is None else f"{report.data}: {report.rows:,} rows".replace(",", " ")


def _build_report_table(report: BacktestReport, *, is_narrow: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("stream", overflow="fold")
    if not is_narrow:
        table.add_column("kind")
    table.add_column("alarm", justify="right")
    table.add_column("onset", justify="right")
    table.add_column("before → now", overflow="fold")
    table.add_column("TV", justify="right")
    if not is_narrow:
        table.add_column("PSI", justify="right")
        table.add_column("φ", justify="right")
        table.add_column("finds", justify="right")
    table.add_column("state")
    for stream in report.judged:
        table.add_row(*_format_stream_row(stream, is_narrow=is_narrow))
    return table


def _format_stream_row(stream: StreamReport, *, is_narrow: bool) -> list[str | Text]:
    name = f"{stream.model} {stream.stream}".strip()
    change = f"{stream.before} → {stream.now}" if stream.before else ""
    cells: list[str | Text] = [Text(name), Text(stream.kind)]
    cells += [
        _format_window_number(stream.first_alarm_window),
        _format_window_number(stream.onset_window),
        Text(change),
    ]
    cells += [_format_number(stream.total_variation), _format_number(stream.psi)]
    cells += [_format_number(stream.design_effect, ".1f"), _format_number(stream.detectable_shift)]
    cells.append(Text(stream.state, STATE_STYLES[stream.state]))
    return [cell for position, cell in enumerate(cells) if not is_narrow or position not in (1, 6, 7, 8)]


def _format_window_number(number: int | None) -> str:
    return "–" if number is None else str(number)


def _format_number(number: float | None, spec: str = ".3f") -> str:
    return "" if number is None else format(number, spec)
