"""What the Collector's file exporter wrote: a line of OTLP JSON a request. Through the processor's panes.

The whole file is there, so nothing is late: points are taken in the order of their time. They are counts already,
so a window is a length of time and not a number of rows.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Final

from otel_mlmon.backtest.judge import Judge
from otel_mlmon.errors import ConfigurationError, MalformedError
from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.receive.json import decode_points_json
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.settings import ModelWindowSettings, WindowSettings
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import Progress

PROGRESS_LINES: Final = 100


def read_otlp(path: Path, progress: Progress) -> list[DataPoint]:
    """Every point of prediction telemetry, in the order of time.

    Raises:
        ConfigurationError: A line is not OTLP JSON, or none holds anything of ours; says the line.
    """
    size_bytes, done_bytes = path.stat().st_size, 0
    observations: list[DataPoint] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            done_bytes += len(line)
            if number % PROGRESS_LINES == 0 or done_bytes == size_bytes:
                progress(f"reading {path.name}", done_bytes, size_bytes)
            if not line.strip():
                continue
            try:
                observations += decode_points_json(line)
            except MalformedError as error:
                raise ConfigurationError(f"{path}:{number}: {error}") from error
    if not observations:
        raise ConfigurationError(f"{path}: no prediction telemetry (`ml.*` metrics) in it")
    return sorted(observations, key=lambda observation: (observation.time_ns, observation.start_ns))


def replay_otlp(
    observations: list[DataPoint], *, profile: Profile, window_s: float, judge: Judge, progress: Progress
) -> int:
    """Through panes of `window_s`, against `profile`; the number of windows.

    A stream that the profile has not learns its reference, as in the processor.
    """
    now_ns = 0
    panes = WindowAggregator(
        settings_for=lambda _: ModelWindowSettings(profile=profile),
        windows=WindowSettings(pane_s=window_s, rolling_s=window_s, lateness_s=0.0),
        clock_ns=lambda: now_ns,
    )
    pane_ns = round(window_s * 1e9)
    first = -(-observations[0].time_ns // pane_ns)
    last = first
    for end, group in groupby(observations, key=lambda observation: -(-observation.time_ns // pane_ns)):
        now_ns = end * pane_ns
        for observation in group:
            panes.add(observation)
        last = _close(panes, judge, until_ns=now_ns, first=first, pane_ns=pane_ns) or last
        progress("judging", end, -(-observations[-1].time_ns // pane_ns))
    now_ns += 3 * pane_ns  # nothing comes any more: every pane is due
    last = _close(panes, judge, until_ns=now_ns, first=first, pane_ns=pane_ns) or last
    return last - first + 1


def _close(panes: WindowAggregator, judge: Judge, *, until_ns: int, first: int, pane_ns: int) -> int:
    """Judge what is due; the number of its last pane, 0 if there was none."""
    last = 0
    for end_ns, of_pane in groupby(panes.close_panes(until_ns), key=lambda window: window.end_ns):
        last = end_ns // pane_ns
        judge.take(last - first, list(of_pane))
    return last
