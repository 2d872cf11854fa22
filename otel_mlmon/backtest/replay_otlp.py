"""Telemetry that was kept against a reference, as a report."""

from __future__ import annotations

from otel_mlmon import semconv
from otel_mlmon.backtest import cutting, describe
from otel_mlmon.backtest.judge import Judge, settings_of
from otel_mlmon.backtest.otlp_file import read_otlp, replay_otlp
from otel_mlmon.backtest.profiles import kind_of
from otel_mlmon.backtest.report import Report, StreamReport, in_order
from otel_mlmon.backtest.request import Request
from otel_mlmon.backtest.times import text_of
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import Progress

_BUDGETED = (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS)


def report_of_otlp(request: Request, profile: Profile, progress: Progress) -> Report:
    """The report of the telemetry in `request.data`.

    Raises:
        ConfigurationError: What is asked is not possible of telemetry, or the file is none; says where.
    """
    length = request.window or cutting.DEFAULT_OTLP_WINDOW
    if length.rows:
        raise ConfigurationError("--window: OTLP holds counts and not rows, so a window is a time, such as 10s or 1h")
    if request.timestamp is not None:
        raise ConfigurationError("--timestamp: OTLP has the time of every point already")
    budget = request.budget or cutting.DEFAULT_TIMED_BUDGET
    observations = read_otlp(request.data, progress)
    judge = Judge(settings_of(tolerance=request.tolerance, budget=budget, window_s=length.time_s))
    windows = replay_otlp(observations, profile=profile, window_s=length.time_s, judge=judge, progress=progress)
    reports = [
        describe.stream_report(
            trace,
            judge,
            name=key.stream,
            kind=kind_of(profile.streams.get(key.stream), key.stream),
            when=text_of,
        )
        for key, trace in judge.traces.items()
    ]
    there = {report.stream for report in reports}
    reports += [
        StreamReport(stream=name, kind=kind_of(sketch, name), status="left out", why="not in the data")
        for name, sketch in profile.streams.items()
        if name not in there
    ]
    learned = sorted(there - set(profile.streams) - set(_BUDGETED))
    return Report(
        reference=str(request.reference),
        data=str(request.data),
        window=length.text,
        windows=windows,
        rows=None,
        false_alarms=budget.text,
        streams=in_order(reports),
        alerts=describe.alert_reports(judge, lambda key: key.stream, text_of),
        notes=(f"Not in the reference, so learned from the data itself: {', '.join(learned)}.",) if learned else (),
    )
