"""Runs a backtest on stored telemetry: OTLP JSON as the Collector's file exporter writes it, a request a line.

The points run through the processor's own panes. The whole file is there, so nothing is late: points are taken in the
order of their time. They are counts already, so a window is a length of time and not a number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.backtest.columns import infer_stream_kind
from otel_mlmon.backtest.describe import describe_alerts, describe_daily_cycles, describe_stream
from otel_mlmon.backtest.judge import MAX_PANE_S, WindowJudge, build_backtest_settings
from otel_mlmon.backtest.report import BacktestReport, StreamReport, sort_stream_reports
from otel_mlmon.backtest.request import DEFAULT_OTLP_WINDOW, DEFAULT_TIMED_BUDGET, BacktestRequest
from otel_mlmon.backtest.times import format_time
from otel_mlmon.errors import ConfigurationError, MalformedError
from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.receive.json import decode_points_json
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import ProgressCallback

PROGRESS_LINES: Final = 100

_BUDGET_STREAMS: Final = (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS)
"""Streams that are judged against a budget, and so need no reference."""


def replay_otlp(request: BacktestRequest, profile: Profile, progress: ProgressCallback) -> BacktestReport:
    """Judges the stored telemetry that the request names against a reference profile.

    Raises:
        ConfigurationError: The request does not fit telemetry, or the file holds none; names the place.
    """
    length = request.window or DEFAULT_OTLP_WINDOW
    if length.rows:
        raise ConfigurationError("--window: OTLP holds counts and not rows, so a window is a time, such as 10s or 1h")
    if request.timestamp is not None:
        raise ConfigurationError("--timestamp: OTLP has the time of every point already")
    budget = request.budget or DEFAULT_TIMED_BUDGET
    points = _read_prediction_points(Path(request.data), progress)
    settings = build_backtest_settings(
        tolerance=request.tolerance, budget=budget, window_s=length.time_s, accuracy=request.accuracy
    )
    judge = WindowJudge(settings, has_times=length.time_s <= MAX_PANE_S, accuracy=request.accuracy)
    windows = _judge_windows(points, profile=profile, window_s=length.time_s, judge=judge, progress=progress)
    detectable = judge.measure_detectable_shifts()
    reports = [
        describe_stream(
            trace,
            judge,
            detectable.get(key),
            name=key.stream,
            kind=infer_stream_kind(profile.streams.get(key.stream), key.stream),
            clock=format_time,
        )
        for key, trace in judge.traces.items()
    ]
    judged = {report.stream for report in reports}
    reports += [
        StreamReport(
            stream=stream,
            kind=infer_stream_kind(sketch, stream),
            state="left_out",
            reason="not in the data",
            is_absent=True,
        )
        for stream, sketch in profile.streams.items()
        if stream not in judged
    ]
    learned = sorted(judged - set(profile.streams) - set(_BUDGET_STREAMS))
    return BacktestReport(
        reference=str(request.reference),
        data=str(request.data),
        window=length.display_text,
        windows=windows,
        rows=None,
        false_alarms=budget.display_text,
        streams=sort_stream_reports(reports),
        alerts=describe_alerts(judge, lambda key: key.stream, format_time),
        notes=(
            *((f"Not in the reference, so learned from the data itself: {', '.join(learned)}.",) if learned else ()),
            *describe_daily_cycles(detectable, lambda key: key.stream),
        ),
        accuracy=judge.report_accuracy(format_time),
    )


def _read_prediction_points(path: Path, progress: ProgressCallback) -> list[DataPoint]:
    """Reads all data points of predictions from files of OTLP JSON, in the order of time.

    Raises:
        ConfigurationError: A line is not OTLP JSON, or none holds prediction telemetry; names the line.
    """
    size_bytes, done_bytes = path.stat().st_size, 0
    points: list[DataPoint] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            done_bytes += len(line)
            if number % PROGRESS_LINES == 0 or done_bytes == size_bytes:
                progress(f"reading {path.name}", done_bytes, size_bytes)
            if not line.strip():
                continue
            try:
                points += decode_points_json(line)
            except MalformedError as error:
                raise ConfigurationError(f"{path}:{number}: {error}") from error
    if not points:
        raise ConfigurationError(f"{path}: no prediction telemetry (`ml.*` metrics) in it")
    return sorted(points, key=lambda point: (point.time_ns, point.start_ns))


def _judge_windows(
    points: Sequence[DataPoint], *, profile: Profile, window_s: float, judge: WindowJudge, progress: ProgressCallback
) -> int:
    """Judges data points of predictions window by window, and returns the number of windows.

    A stream without a reference in the profile learns one, as in the processor.
    """
    now_ns = 0
    panes = WindowAggregator(
        settings_for=lambda _: ModelWindowSettings(profile=profile),
        windows=WindowSettings(pane_s=window_s, rolling_s=window_s, lateness_s=0.0, max_pending_points=len(points)),
        clock_ns=lambda: now_ns,
    )
    pane_ns = round(window_s * 1e9)
    first = -(-points[0].time_ns // pane_ns)
    last = first
    for end, group in groupby(points, key=lambda point: -(-point.time_ns // pane_ns)):
        now_ns = end * pane_ns
        for point in group:
            panes.add(point)
        last = _judge_due_windows(panes, judge, until_ns=now_ns, first=first, pane_ns=pane_ns) or last
        progress("judging", end, -(-points[-1].time_ns // pane_ns))
    now_ns += 3 * pane_ns  # nothing comes any more: every pane is due
    last = _judge_due_windows(panes, judge, until_ns=now_ns, first=first, pane_ns=pane_ns) or last
    return last - first + 1


def _judge_due_windows(panes: WindowAggregator, judge: WindowJudge, *, until_ns: int, first: int, pane_ns: int) -> int:
    """Judges the windows that have ended by a time, and returns the number of the last one, 0 if there was none."""
    last = 0
    for end_ns, windows in groupby(panes.close_panes(until_ns), key=lambda window: window.end_ns):
        last = end_ns // pane_ns
        judge.judge_window(last - first, list(windows))
    return last
