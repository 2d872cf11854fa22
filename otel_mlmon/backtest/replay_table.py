"""The replay of a table: its rows are counted over the bins of the reference, window by window, and judged.

The design effect has to be known before a stream can be in drift, and it is estimated from the differences between
small blocks. Windows of 1,000 rows would give eight differences, and so a first judgement, only after nine windows.
With the rows at hand the first of them are handed on in panes of `CALIBRATION_ROWS` instead: the panes of one
window, of any size, are the same evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.backtest import request as defaults
from otel_mlmon.backtest.columns import ColumnChoice, find_confidence_faults
from otel_mlmon.backtest.counting import RowCounter, build_counter
from otel_mlmon.backtest.describe import Clock, describe_alerts, describe_stream
from otel_mlmon.backtest.judge import Judge, settings_of
from otel_mlmon.backtest.report import BacktestReport, StreamReport, sort_streams
from otel_mlmon.backtest.request import BacktestRequest, FalseAlarmBudget
from otel_mlmon.backtest.times import TimesNs, format_time, is_time_column, parse_times
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.units import format_duration
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.window import Reference, StreamKey, Window
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import ProgressCallback, Table, TableColumn
from otel_mlmon.types import ModelKey

MAX_WINDOWS: Final = 1_000_000
CALIBRATION_ROWS: Final = 50
"""Rows of a pane while the design effect is estimated: the smallest block that it is estimated from."""
MAX_CALIBRATION_ROWS: Final = 10_000
"""The largest number of rows used to estimate the design effect; then a stream goes on in whole windows."""
PROGRESS_WINDOWS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRange:
    """The rows of one window, from `start` to before `end`."""

    index: int
    """The window, from 0; in windows of time, those without rows have numbers too."""
    start: int
    end: int


@dataclass(slots=True, kw_only=True)
class ColumnStream:
    """One column, its counter, and the reference it is judged against."""

    key: StreamKey
    column: str
    reference: Reference
    counter: RowCounter
    is_calibrating: bool = True
    calibration_rows: int = 0
    """Rows used so far to estimate the design effect."""

    def build_window(self, pane_start: int, pane_end: int, rows: RowRange) -> Window:
        """Builds the pane of these rows within the window `rows`; one row is one nanosecond, and row 0 the first."""
        pane, pane_mean = self.counter.count(pane_start, pane_end), self.counter.mean(pane_start, pane_end)
        is_window = (pane_start, pane_end) == (rows.start, rows.end)
        return Window(
            stream=self.key,
            start_ns=pane_start + 1,
            end_ns=pane_end + 1,
            reference=self.reference,
            pane=pane,
            pane_mean=pane_mean,
            rolling=pane if is_window else self.counter.count(rows.start, rows.end),
            rolling_start_ns=rows.start + 1,
            rolling_mean=pane_mean if is_window else self.counter.mean(rows.start, rows.end),
        )


def replay_table(
    request: BacktestRequest,
    table: Table,
    profile: Profile,
    choices: Mapping[str, ColumnChoice],
    progress: ProgressCallback,
) -> BacktestReport:
    """Judges the rows of `table` against `profile`.

    Args:
        request: The request.
        table: The data.
        profile: The references, by stream.
        choices: The kind of each column of the reference.
        progress: Called after some windows.

    Raises:
        ConfigurationError: The request does not fit this data; names the place.
    """
    notes: list[str] = []
    times_ns: TimesNs | None
    if request.timestamp is not None:
        table, times_ns = _sort_rows(table, parse_times(table, request.timestamp), notes)
    else:
        times_ns = _find_times(table, notes)
    windows = _cut_windows(request, table, times_ns)
    budget, window_s = _choose_budget(request, times_ns, windows)
    streams = build_streams(table, choices, profile)
    judge = Judge(settings_of(tolerance=request.tolerance, budget=budget, window_s=window_s), streams=len(streams))
    _judge_windows(streams, windows, judge, progress)
    columns = {stream.key: stream.column for stream in streams}
    clock = _build_clock(times_ns)
    reports = [
        describe_stream(trace, judge, name=columns[key], kind=choices[columns[key]].kind, clock=clock)
        for key, trace in judge.traces.items()
    ]
    judged = {report.stream for report in reports}
    reports += [_describe_unjudged(name, table, choices) for name in {**table.columns, **choices} if name not in judged]
    length = request.window or defaults.DEFAULT_WINDOW
    if windows and length.rows and windows[-1].end - windows[-1].start < length.rows:
        rows = windows[-1].end - windows[-1].start
        notes.append(f"The last window, {windows[-1].index}, has only {rows} rows; it is judged too.")
    if not table.rows:
        notes.append(f"{table.source} has no rows: nothing was judged.")
    return BacktestReport(
        reference=str(request.reference),
        data=str(request.data),
        window=length.text,
        windows=windows[-1].index + 1 if windows else 0,
        rows=table.rows,
        false_alarms=budget.text,
        streams=sort_streams(replace(report, model="") for report in reports),
        alerts=describe_alerts(judge, lambda key: columns.get(key, key.stream), clock),
        notes=tuple(notes),
    )


def build_streams(table: Table, choices: Mapping[str, ColumnChoice], profile: Profile) -> list[ColumnStream]:
    """Pairs the columns of `table` with their references.

    Raises:
        ConfigurationError: A column is text where its reference is numeric, or a confidence is not within 0 and 1;
            names all faults.
    """
    streams: list[ColumnStream] = []
    faults: list[str] = []
    settings = ModelWindowSettings(profile=profile)
    for name, choice in choices.items():
        column = table.columns.get(name)
        reference = StreamReference(stream=choice.stream, settings=settings)
        if choice.kind == "ignore" or column is None or reference.reference is None or reference.binning is None:
            continue
        if choice.kind == "confidence":
            faults += find_confidence_faults(table, column)
        try:
            counter = build_counter(column, reference.binning, table.locate)
        except ConfigurationError as error:
            faults += error.faults
            continue
        key = StreamKey(ModelKey(profile.model, profile.version), choice.stream)
        streams.append(ColumnStream(key=key, column=name, reference=reference.reference, counter=counter))
    if faults:
        raise ConfigurationError(*faults)
    return streams


def cut_rows(rows: int, length: int) -> list[RowRange]:
    """Cuts `rows` rows into windows of `length` rows; the last window may be shorter."""
    return [
        RowRange(index=index, start=start, end=min(start + length, rows))
        for index, start in enumerate(range(0, rows, length))
    ]


def cut_time(times_ns: TimesNs, length_s: float) -> list[RowRange]:
    """Cuts rows with sorted times, shape (n,), into windows of `length_s` that begin at multiples of it since 1970.

    Raises:
        ConfigurationError: There would be more than `MAX_WINDOWS`.
    """
    if not times_ns.size:
        return []
    numbers = times_ns // round(length_s * 1e9)
    numbers -= numbers[0]
    if int(numbers[-1]) >= MAX_WINDOWS:
        raise ConfigurationError(
            f"--window: {format_duration(length_s)} makes more than {MAX_WINDOWS} windows of this data"
        )
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.append(starts[1:], times_ns.size)
    return [
        RowRange(index=int(numbers[start]), start=int(start), end=int(end))
        for start, end in zip(starts, ends, strict=True)
    ]


def _cut_windows(request: BacktestRequest, table: Table, times_ns: TimesNs | None) -> list[RowRange]:
    length = request.window or defaults.DEFAULT_WINDOW
    if length.rows:
        return cut_rows(table.rows, length.rows)
    if times_ns is None:
        raise ConfigurationError("--window: a time needs --timestamp, the column with the time of each row")
    return cut_time(times_ns, length.time_s)


def _choose_budget(
    request: BacktestRequest, times_ns: TimesNs | None, windows: Sequence[RowRange]
) -> tuple[FalseAlarmBudget, float]:
    """Returns the accepted false alarms, and the mean length of a window in seconds, or 1 if unknown."""
    window_s = request.window.time_s if request.window is not None else 0.0
    if not window_s and times_ns is not None and times_ns.size:
        window_s = float(times_ns[-1] - times_ns[0]) / 1e9 / max(len(windows), 1)
    budget = request.budget or (defaults.DEFAULT_TIMED_BUDGET if window_s else defaults.DEFAULT_BUDGET)
    if budget.rate is not None and not window_s:
        raise ConfigurationError(
            f"--false-alarms: `{budget.text}` needs --timestamp; without it give a number of windows, such as 10000"
        )
    return budget, window_s or 1.0


def _find_times(table: Table, notes: list[str]) -> TimesNs | None:
    """Reads the only column of points in time if it never runs back: a date of birth does not date the rows."""
    names = [name for name, column in table.columns.items() if is_time_column(column)]
    if len(names) != 1:
        return None
    try:
        times_ns = parse_times(table, names[0])
    except ConfigurationError:
        return None
    if not times_ns.size or (np.diff(times_ns) < 0).any():
        return None
    notes.append(f"The column {names[0]} is in order, so it is taken for the time of each row.")
    return times_ns


def _sort_rows(table: Table, times_ns: TimesNs, notes: list[str]) -> tuple[Table, TimesNs]:
    """Sorts the rows by time; rows of the same time keep their order."""
    steps = np.diff(times_ns)
    if not (steps < 0).any():
        return table, times_ns
    notes.append(f"{int((steps < 0).sum())} rows stood before an earlier one; rows are judged in the order of time.")
    order = np.argsort(times_ns, kind="stable")
    columns = {name: _reorder(column, order) for name, column in table.columns.items()}
    return replace(table, columns=columns), times_ns[order]


def _reorder(column: TableColumn, order: NDArray[np.intp]) -> TableColumn:
    if column.numbers is not None:
        return replace(column, numbers=column.numbers[order])
    texts = column.texts or ()
    return replace(column, texts=tuple(texts[row] for row in order.tolist()))


def _build_clock(times_ns: TimesNs | None) -> Clock:
    """Returns the clock of the judge, whose time n is the end of row n - 1."""
    if times_ns is None or not times_ns.size:
        return lambda _: None
    return lambda end_ns: format_time(int(times_ns[min(max(end_ns - 2, 0), times_ns.size - 1)]))


def _judge_windows(
    streams: Sequence[ColumnStream], windows: Sequence[RowRange], judge: Judge, progress: ProgressCallback
) -> None:
    """Judges every window of every stream, in the order of time."""
    for done, rows in enumerate(windows):
        _calibrate(streams, rows, judge)
        panes = [stream.build_window(max(stream.calibration_rows, rows.start), rows.end, rows) for stream in streams]
        judge.take(rows.index, panes)
        if done % PROGRESS_WINDOWS == 0 or done + 1 == len(windows):
            progress("judging", done + 1, len(windows))


def _calibrate(streams: Sequence[ColumnStream], rows: RowRange, judge: Judge) -> None:
    """Calibrates streams whose design effect is not known yet on the first rows of a window, all but the last."""
    stop = min(rows.end, MAX_CALIBRATION_ROWS) - CALIBRATION_ROWS
    for start in range(rows.start, stop, CALIBRATION_ROWS):
        pending = [stream for stream in streams if stream.is_calibrating]
        if not pending:
            return
        pane = RowRange(index=rows.index, start=start, end=start + CALIBRATION_ROWS)
        uncalibrated = judge.calibrate([stream.build_window(pane.start, pane.end, pane) for stream in pending])
        for stream in pending:
            stream.calibration_rows, stream.is_calibrating = pane.end, stream.key in uncalibrated


def _describe_unjudged(name: str, table: Table, choices: Mapping[str, ColumnChoice]) -> StreamReport:
    choice = choices.get(name)
    if choice is None:
        return StreamReport(stream=name, kind="", state="left_out", reason="not in the reference")
    if choice.kind == "ignore":
        return StreamReport(stream=name, kind="", state="left_out", reason=choice.reason)
    if name not in table.columns:
        return StreamReport(stream=name, kind=choice.kind, state="left_out", reason="not in the data")
    reason = "the data has no rows" if not table.rows else "the reference has no values of it"
    return StreamReport(stream=name, kind=choice.kind, state="unknown", reason=reason)
