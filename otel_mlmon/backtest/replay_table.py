"""Rows against a reference, as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from otel_mlmon.backtest import cutting, describe
from otel_mlmon.backtest.cutting import Budget, Cut
from otel_mlmon.backtest.judge import Judge, settings_of
from otel_mlmon.backtest.kinds import Choice
from otel_mlmon.backtest.report import Report, StreamReport, in_order
from otel_mlmon.backtest.request import Request
from otel_mlmon.backtest.rows import replay_rows, row_streams
from otel_mlmon.backtest.times import Times, is_time, text_of, times_of
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import Column, Progress, Table


def report_of_rows(
    request: Request, table: Table, profile: Profile, choices: Mapping[str, Choice], progress: Progress
) -> Report:
    """The report of `table`.

    Args:
        request: What is asked.
        table: The data.
        profile: The references.
        choices: By column of the reference, what it is.
        progress: Told of each window.

    Raises:
        ConfigurationError: What is asked is not possible of this data; says where.
    """
    notes: list[str] = []
    times: Times | None
    if request.timestamp is not None:
        table, times = _in_order(table, times_of(table, request.timestamp), notes)
    else:
        times = _found_times(table, notes)
    cuts = _cuts(request, table, times)
    budget, window_s = _budget(request, times, cuts)
    streams = row_streams(table, choices, profile)
    judge = Judge(settings_of(tolerance=request.tolerance, budget=budget, window_s=window_s), streams=len(streams))
    replay_rows(streams, cuts, judge, progress)
    columns = {stream.key: stream.column for stream in streams}
    when = _clock(times)
    reports = [
        describe.stream_report(trace, judge, name=columns[key], kind=choices[columns[key]].kind, when=when)
        for key, trace in judge.traces.items()
    ]
    judged = {report.stream for report in reports}
    reports += [_not_judged(name, table, choices) for name in {**table.columns, **choices} if name not in judged]
    length = request.window.rows if request.window is not None else cutting.DEFAULT_ROWS
    if cuts and length and cuts[-1].end - cuts[-1].start < length:
        notes.append(
            f"The last window, {cuts[-1].index}, has only {cuts[-1].end - cuts[-1].start} rows; it is judged too."
        )
    if not table.rows:
        notes.append(f"{table.source} has no rows: nothing was judged.")
    return Report(
        reference=str(request.reference),
        data=str(request.data),
        window=(request.window or cutting.DEFAULT_WINDOW).text,
        windows=cuts[-1].index + 1 if cuts else 0,
        rows=table.rows,
        false_alarms=budget.text,
        streams=in_order(replace(report, model="") for report in reports),
        alerts=describe.alert_reports(judge, lambda key: columns.get(key, key.stream), when),
        notes=tuple(notes),
    )


def _cuts(request: Request, table: Table, times: Times | None) -> list[Cut]:
    length = request.window or cutting.DEFAULT_WINDOW
    if length.rows:
        return cutting.cut_rows(table.rows, length.rows)
    if times is None:
        raise ConfigurationError("--window: a time needs --timestamp, the column that says when")
    return cutting.cut_time(times, length.time_s)


def _budget(request: Request, times: Times | None, cuts: list[Cut]) -> tuple[Budget, float]:
    """The false alarms that are accepted, and the length of a window in seconds: on average, or 1 if unknown."""
    window_s = request.window.time_s if request.window is not None else 0.0
    if not window_s and times is not None and times.size:
        window_s = float(times[-1] - times[0]) / 1e9 / max(len(cuts), 1)
    budget = request.budget or (cutting.DEFAULT_TIMED_BUDGET if window_s else cutting.DEFAULT_BUDGET)
    if budget.rate is not None and not window_s:
        raise ConfigurationError(
            f"--false-alarms: `{budget.text}` needs --timestamp; without it say one in how many windows, such as 10000"
        )
    return budget, window_s or 1.0


def _found_times(table: Table, notes: list[str]) -> Times | None:
    """Of the only column of points in time, if it never runs back; a date of birth says nothing about the rows."""
    names = [name for name, column in table.columns.items() if is_time(column)]
    if len(names) != 1:
        return None
    try:
        times = times_of(table, names[0])
    except ConfigurationError:
        return None
    if not times.size or (np.diff(times) < 0).any():
        return None
    notes.append(f"The column {names[0]} is in order, so it is taken to say when each row was.")
    return times


def _in_order(table: Table, times: Times, notes: list[str]) -> tuple[Table, Times]:
    """The rows by time; those of one time stay as they were."""
    steps = np.diff(times)
    if not (steps < 0).any():
        return table, times
    notes.append(f"{int((steps < 0).sum())} rows stood before an earlier one; rows are judged in the order of time.")
    order = np.argsort(times, kind="stable")
    columns = {name: _reordered(column, order) for name, column in table.columns.items()}
    return replace(table, columns=columns), times[order]


def _reordered(column: Column, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Column:
    if column.numbers is not None:
        return replace(column, numbers=column.numbers[order])
    words = column.words or ()
    return replace(column, words=tuple(words[row] for row in order.tolist()))


def _clock(times: Times | None) -> describe.When:
    """The judge's time n is the end of row n - 1; it was at the time of that row."""
    if times is None or not times.size:
        return lambda _: None
    known = times
    return lambda end_ns: text_of(int(known[min(max(end_ns - 2, 0), known.size - 1)]))


def _not_judged(name: str, table: Table, choices: Mapping[str, Choice]) -> StreamReport:
    choice = choices.get(name)
    if choice is None:
        return StreamReport(stream=name, kind="", status="left out", why="not in the reference")
    if choice.kind == "ignore":
        return StreamReport(stream=name, kind="", status="left out", why=choice.why)
    if name not in table.columns:
        return StreamReport(stream=name, kind=choice.kind, status="left out", why="not in the data")
    why = "the data has no rows" if not table.rows else "the reference has no values of it"
    return StreamReport(stream=name, kind=choice.kind, status="unknown", why=why)
