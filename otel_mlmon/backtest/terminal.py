"""The report as a table for a terminal, and a progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from otel_mlmon.backtest.report import Report, StreamReport, Verdict
from otel_mlmon.table.table import Progress as Tell

STYLES: Final[dict[Verdict, str]] = {
    "alarm": "bold red",
    "recovered": "yellow",
    "ok": "green",
    "unknown": "cyan",
    "left out": "dim",
}
NARROW_CELLS: Final = 100
"""Below it statistics of less use are left out."""


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(Text(summary(report), "bold red" if report.alarmed else "bold"))
    details = f"{_count(report)} in {report.windows} windows of {report.window} against {report.reference}"
    console.print(Text(f"{details}; {report.false_alarms} false alarms accepted over all.", "dim"))
    if report.judged:
        console.print(_table(report, is_narrow=console.width < NARROW_CELLS))
    for stream in report.streams:
        if stream.status == "unknown":
            console.print(
                Text.assemble((f"{stream.stream}: ", STYLES["unknown"]), f"nothing can be said: {stream.why}.")
            )
    left_out = [f"{stream.stream} ({stream.why})" for stream in report.streams if stream.status == "left out"]
    if left_out:
        console.print(Text(f"Left out: {'; '.join(left_out)}.", "dim"))
    for note in report.notes:
        console.print(Text(note, "dim"))


def summary(report: Report) -> str:
    """One sentence: whether it would have alerted, when, and about what."""
    if not report.alarmed:
        judged = sum(stream.status == "ok" for stream in report.streams)
        return f"No alarm in {judged} of {judged} streams." if judged else "Nothing could be judged."
    first = report.alarmed[0]
    names = ", ".join(stream.stream for stream in report.alarmed)
    when = f" ({first.first_alarm})" if first.first_alarm else ""
    return f"It would have alerted, first in window {first.first_alarm_window}{when}: {names}."


@contextmanager
def progress_bar(console: Console) -> Iterator[Tell]:
    """A bar for each part of the work, while it goes on; nothing where nobody looks."""
    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield tell


def _count(report: Report) -> str:
    return f"{report.data}" if report.rows is None else f"{report.data}: {report.rows:,} rows".replace(",", " ")


def _table(report: Report, *, is_narrow: bool) -> Table:
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
    table.add_column("status")
    for stream in report.judged:
        table.add_row(*_cells(stream, is_narrow=is_narrow))
    return table


def _cells(stream: StreamReport, *, is_narrow: bool) -> list[str | Text]:
    name = f"{stream.model} {stream.stream}".strip()
    moved = f"{stream.before} → {stream.now}" if stream.before else ""
    cells: list[str | Text] = [Text(name), Text(stream.kind)]
    cells += [_window(stream.first_alarm_window), _window(stream.onset_window), Text(moved)]
    cells += [_digits(stream.total_variation), _digits(stream.psi), _digits(stream.design_effect, ".1f")]
    cells.append(Text(stream.status, STYLES[stream.status]))
    return [cell for position, cell in enumerate(cells) if not is_narrow or position not in (1, 6, 7)]


def _window(number: int | None) -> str:
    return "–" if number is None else str(number)


def _digits(number: float | None, form: str = ".3f") -> str:
    return "" if number is None else format(number, form)
