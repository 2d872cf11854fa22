"""Runs a backtest on a table: counts its rows window by window, and judges the counts against the reference.

The design effect has to be known before a stream can be in drift. It is that of the first rows of the data, or of fewer
than a thousand the larger of that and the one of the reference; then all windows are judged, and no row is spent on
calibration. A stream of which too little is there to know its design effect is unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from otel_mlmon.backtest import request as defaults
from otel_mlmon.backtest.column_streams import ColumnStream, assign_design_effects, build_column_streams
from otel_mlmon.backtest.columns import ColumnChoice, describe_predictions, explain_confidence_fault, explain_text_fault
from otel_mlmon.backtest.counting import (
    CellFaultError,
    RowCounter,
    StreamCountPlan,
    WindowCountPlan,
    sum_window_numbers,
)
from otel_mlmon.backtest.counts import TableCounts, WindowCounts
from otel_mlmon.backtest.describe import Clock, describe_alerts, describe_daily_cycles, describe_stream
from otel_mlmon.backtest.judge import MAX_PANE_S, WindowJudge, build_backtest_settings
from otel_mlmon.backtest.ordering import find_time_column, find_time_unit, sort_rows_by_time
from otel_mlmon.backtest.report import BacktestReport, StreamReport, sort_stream_reports
from otel_mlmon.backtest.request import BacktestRequest, FalseAlarmBudget
from otel_mlmon.backtest.times import format_time
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import format_duration
from otel_mlmon.processor.window.window import StreamWindow
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import ProgressCallback, Table, TableColumn
from otel_mlmon.types import Counts

MAX_WINDOWS: Final = 1_000_000
PROGRESS_WINDOWS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRows:
    """One window of a table: its counts, and its first and last row."""

    index: int
    """The window, from 0; in windows of time, those without rows have numbers too."""
    start: int
    end: int
    counts: WindowCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDescription:
    """The texts about a table that the report of a backtest shows, beside the counts."""

    source: str
    columns: Mapping[str, TableColumn]
    notes: tuple[str, ...] = ()


def replay_table(
    request: BacktestRequest,
    table: Table,
    profile: Profile,
    choices: Mapping[str, ColumnChoice],
    progress: ProgressCallback,
) -> BacktestReport:
    """Judges the rows of a table against a reference profile.

    Args:
        request: The request.
        table: The data.
        profile: The references, by stream.
        choices: The kind of each column of the reference.
        progress: Called after each batch of rows, and after some windows.

    Raises:
        ConfigurationError: The request does not fit this data; names the place.
        DataError: The table cannot be read.
    """
    streams = build_column_streams(table, choices, profile)
    plan = build_count_plan(request, table, streams)
    counts = count_table(plan, table, progress)
    notes = [*table.notes]
    if counts.disorder and not plan.has_optional_times:
        notes.append(f"{counts.disorder} rows stood before an earlier one; rows are judged in the order of time.")
        if plan.window_rows:
            disorder, counts = counts.disorder, count_table(plan, sort_rows_by_time(plan, table), progress)
            counts.disorder = disorder
    elif plan.has_optional_times and plan.time is not None and counts.has_times and counts.rows:
        counts.has_times = not counts.disorder
        if counts.has_times:
            notes.append(f"The column {plan.time.name} is in order, so it is taken for the time of each row.")
    facts = TableDescription(source=table.source, columns=table.columns, notes=tuple(notes))
    return judge_counts(request, counts, facts, streams, choices, progress)


def build_count_plan(request: BacktestRequest, table: Table, streams: Sequence[ColumnStream]) -> WindowCountPlan:
    """Decides on the windows of a backtest, and on the column with the time of each row.

    Raises:
        ConfigurationError: The windows are of time, and no column has it.
    """
    length = request.window or defaults.DEFAULT_WINDOW
    name = request.timestamp
    if name is not None and name not in table.columns:
        raise ConfigurationError(f"{table.source}: there is no column {name!r} for --timestamp")
    time = table.columns[name] if name is not None else find_time_column(table)
    if length.time_s and time is None:
        raise ConfigurationError("--window: a time needs --timestamp, the column with the time of each row")
    return WindowCountPlan(
        streams=tuple(stream.plan for stream in streams),
        window_rows=length.rows,
        window_ns=round(length.time_s * 1e9),
        time=time,
        unit_ns=None if time is None else find_time_unit(table, time),
        has_optional_times=name is None and not length.time_s,
    )


def count_table(plan: WindowCountPlan, table: Table, progress: ProgressCallback) -> TableCounts:
    """Counts the rows of a table window by window.

    Raises:
        ConfigurationError: Cells cannot be counted; names their places.
        DataError: The table cannot be read.
    """
    counter = RowCounter(plan)
    for batch in table.scan(plan.column_names):
        try:
            counter.count_batch(batch)
        except CellFaultError as error:
            start = counter.result.rows
            raise ConfigurationError(
                *(explain_cell_fault(plan, table, start + row, stream, value) for row, stream, value in error.faults)
            ) from error
        progress(f"reading {table.source}", counter.result.rows, max(table.rows, counter.result.rows))
    return counter.result


def explain_cell_fault(
    plan: WindowCountPlan, table: Table, row: int, stream: StreamCountPlan | None, value: object
) -> str:
    """Returns the error message for a cell that cannot be counted: where it stands, and why not."""
    if stream is None:
        name = plan.time.name if plan.time is not None else ""
        return f"{table.locate(row)}: column {name!r}: {value}"
    if isinstance(value, float):
        return explain_confidence_fault(table, stream.column, row, value)
    return explain_text_fault(table, stream.column, row, str(value), ", and its reference is numeric")


def judge_counts(
    request: BacktestRequest,
    counts: TableCounts,
    facts: TableDescription,
    streams: Sequence[ColumnStream],
    choices: Mapping[str, ColumnChoice],
    progress: ProgressCallback,
) -> BacktestReport:
    """Judges the counts of a table window by window against the reference, and returns the report.

    Raises:
        ConfigurationError: There are too many windows, or the false alarms need times that are not there.
    """
    notes = [*facts.notes, *describe_predictions(choices)]
    length = request.window or defaults.DEFAULT_WINDOW
    windows = _list_window_rows(counts, format_duration(length.time_s) if length.time_s else length.display_text)
    budget, window_s = _choose_alarm_budget(request, counts, windows)
    is_timed = counts.has_times and window_s <= MAX_PANE_S
    settings = build_backtest_settings(
        tolerance=request.tolerance, budget=budget, window_s=window_s, accuracy=request.accuracy
    )
    judge = WindowJudge(settings, has_times=is_timed, streams=len(streams), accuracy=request.accuracy)
    _judge_windows(assign_design_effects(streams, counts), windows, judge, progress, is_timed=is_timed)
    columns = {stream.key: stream.column for stream in streams}
    clock = format_time if is_timed else _make_window_end_formatter(windows, counts)
    detectable = judge.measure_detectable_shifts()
    reports = [
        describe_stream(
            trace, judge, detectable.get(key), name=columns[key], kind=choices[columns[key]].kind, clock=clock
        )
        for key, trace in judge.traces.items()
    ]
    notes += describe_daily_cycles(detectable, columns.__getitem__)
    judged = {report.stream for report in reports}
    reports += [
        _describe_unjudged_column(name, facts, counts.rows, choices)
        for name in {**facts.columns, **choices}
        if name not in judged
    ]
    if windows and length.rows and windows[-1].end - windows[-1].start < length.rows:
        rows = windows[-1].end - windows[-1].start
        notes.append(f"The last window, {windows[-1].index}, has only {rows} rows; it is judged too.")
    if not counts.rows:
        notes.append(f"{facts.source} has no rows: nothing was judged.")
    return BacktestReport(
        reference=str(request.reference),
        data=str(request.data),
        window=length.display_text,
        windows=windows[-1].index + 1 if windows else 0,
        rows=counts.rows,
        false_alarms=budget.display_text,
        streams=sort_stream_reports(replace(report, model="") for report in reports),
        alerts=describe_alerts(judge, lambda key: columns.get(key, key.stream), clock),
        notes=tuple(notes),
        accuracy=judge.report_accuracy(clock),
    )


def _list_window_rows(counts: TableCounts, length: str) -> list[WindowRows]:
    numbers = sorted(counts.windows)
    if numbers and numbers[-1] - numbers[0] >= MAX_WINDOWS:
        raise ConfigurationError(f"--window: {length} makes more than {MAX_WINDOWS} windows of this data")
    windows: list[WindowRows] = []
    start = 0
    for number in numbers:
        window = counts.windows[number]
        windows.append(WindowRows(index=number - numbers[0], start=start, end=start + window.rows, counts=window))
        start += window.rows
    return windows


def _choose_alarm_budget(
    request: BacktestRequest, counts: TableCounts, windows: Sequence[WindowRows]
) -> tuple[FalseAlarmBudget, float]:
    """Returns the accepted number of false alarms, and the mean length of a window in seconds, or 1 if unknown."""
    window_s = request.window.time_s if request.window is not None else 0.0
    if not window_s and counts.has_times and windows:
        window_s = (windows[-1].counts.last_ns - counts.first_ns) / 1e9 / len(windows)
    budget = request.budget or (defaults.DEFAULT_TIMED_BUDGET if window_s else defaults.DEFAULT_BUDGET)
    if budget.rate is not None and not window_s:
        raise ConfigurationError(
            f"--false-alarms: `{budget.display_text}` needs --timestamp; without it give a number of windows: 10000"
        )
    return budget, window_s or 1.0


def _make_window_end_formatter(windows: Sequence[WindowRows], counts: TableCounts) -> Clock:
    """Returns the function that formats the end of a window as a time, or as a row number without times."""
    if not counts.has_times or not windows:
        return lambda _: None
    ends = [window.end for window in windows]

    def format_window_end(end_ns: int) -> str:
        if end_ns <= 1:
            return format_time(counts.first_ns)
        index = min(bisect_left(ends, end_ns - 1), len(windows) - 1)
        return format_time(windows[index].counts.last_ns)

    return format_window_end


def _judge_windows(
    streams: Sequence[ColumnStream],
    windows: Sequence[WindowRows],
    judge: WindowJudge,
    progress: ProgressCallback,
    *,
    is_timed: bool,
) -> None:
    """Judges every window of every stream of a backtest, in the order of time."""
    offsets = np.cumsum([0, *(stream.plan.bin_count for stream in streams)]).tolist()
    for done, window in enumerate(windows):
        panes: list[StreamWindow] = []
        start_ns, end_ns = window.start + 1, window.end + 1
        if is_timed:
            end_ns = window.counts.last_ns
            start_ns = end_ns - 1
        for index, stream in enumerate(streams):
            rolling: Counts = window.counts.counts[offsets[index] : offsets[index + 1]]
            numbers = sum_window_numbers(rolling, window.counts.sums[index], stream.plan.binning)
            panes.append(
                StreamWindow(
                    stream=stream.key,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    reference=stream.reference,
                    pane=rolling,
                    pane_numbers=numbers,
                    rolling=rolling,
                    rolling_start_ns=start_ns,
                    rolling_numbers=numbers,
                    calibration=stream.calibration,
                )
            )
        judge.judge_window(window.index, panes)
        if done % PROGRESS_WINDOWS == 0 or done + 1 == len(windows):
            progress("judging", done + 1, len(windows))


def _describe_unjudged_column(
    name: str, facts: TableDescription, rows: int, choices: Mapping[str, ColumnChoice]
) -> StreamReport:
    choice = choices.get(name)
    if choice is None:
        return StreamReport(stream=name, kind="", state="left_out", reason="not in the reference")
    if choice.kind == "ignore":
        return StreamReport(stream=name, kind="", state="left_out", reason=choice.reason)
    if name not in facts.columns:
        return StreamReport(stream=name, kind=choice.kind, state="left_out", reason="not in the data", is_absent=True)
    reason = "the data has no rows" if not rows else "the reference has no values of it"
    return StreamReport(stream=name, kind=choice.kind, state="unknown", reason=reason)
