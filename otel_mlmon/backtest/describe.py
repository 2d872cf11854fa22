"""Describes in a backtest's report what was found about each stream, and the alerts that would have been sent."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.backtest.judge import StreamBacktest, WindowJudge
from otel_mlmon.backtest.report import AlertReport, BacktestState, StreamReport, WindowPoint
from otel_mlmon.processor.alert.cause import compute_bin_shares
from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.design_effect import CALIBRATION_ITEMS
from otel_mlmon.processor.detect.detectable import DetectableShift, describe_weakness
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey
from otel_mlmon.types import Counts, ModelKey

Clock = Callable[[int], str | None]
"""Formats the end of a pane, in the judge's time, as RFC 3339; None if the data has no times."""

SPAN: Final = "in a day of this data"
"""Where a shift would be found: in all of it if that is less, or has no times."""

_LARGE_POWER: Final = re.compile(r"\d(?:\.\d+)?e\+0[3-9]")


def describe_stream(
    trace: StreamBacktest, judge: WindowJudge, detectable: DetectableShift | None, *, name: str, kind: str, clock: Clock
) -> StreamReport:
    """Builds the entry of a backtest's report about one stream that was judged.

    Args:
        trace: The stream, window by window.
        judge: The judge that made the trace.
        detectable: How small a drift of it would have been found.
        name: The column or stream, as the report calls it.
        kind: Its `ColumnKind`.
        clock: Formats times.
    """
    window, score, reference = trace.window, trace.score, trace.reference
    state, reason = _decide_verdict(trace)
    if state == "ok" and detectable is not None and detectable.weakness is not None and score is not None:
        state = "unknown" if math.isnan(detectable.shift) else "weak"
        reason = describe_weakness(
            detectable,
            design_effect=score.design_effect,
            reference_count=score.reference_count,
            span=SPAN,
            supply="are judged",
        )[0]
    if window is None or score is None or reference is None:
        return StreamReport(stream=name, model=trace.key.model.name, kind=kind, state="unknown", reason=reason)
    cause = trace.describe_cause(judge.settings)
    alarm = None if trace.alarm is None else trace.points[trace.alarm]
    since_ns = score.since_ns if alarm is not None else 0
    shown = alarm or trace.points[-1]
    return StreamReport(
        stream=name,
        model=trace.key.model.name,
        kind=kind,
        state=state,
        reason=reason,
        first_alarm_window=None if alarm is None else alarm.window,
        first_alarm=None if alarm is None else clock(alarm.end_ns),
        onset_window=None if alarm is None else _find_onset_window(trace, since_ns),
        onset=clock(since_ns) if since_ns else None,
        before=expand_powers_of_ten(cause.reference) if cause is not None else "",
        now=expand_powers_of_ten(cause.current) if cause is not None else "",
        tolerance=trace.tolerance,
        total_variation=_measure_statistic("total_variation", reference, window.rolling),
        psi=_measure_statistic("psi", reference, window.rolling),
        design_effect=score.design_effect,
        detectable_shift=None if detectable is None or math.isnan(detectable.shift) else detectable.shift,
        reference_count=reference.total,
        count=int(window.rolling.sum()),
        compared_window=shown.window,
        is_ordered=reference.bins.is_ordered,
        bins=tuple(map(_format_bin_name, reference.bins.names)),
        reference_shares=compute_bin_shares(reference.counts),
        shares=compute_bin_shares(window.rolling),
        points=_describe_windows(trace, reference, clock),
    )


def describe_daily_cycles(
    detectable: Mapping[StreamKey, DetectableShift], name: Callable[[StreamKey], str]
) -> tuple[str, ...]:
    """Returns a sentence that names the streams with a daily cycle, which is no drift; nothing if none has one.

    Args:
        detectable: What was measured of each stream.
        name: The name of a stream in the report.
    """
    names = [name(key) for key, measured in detectable.items() if not math.isnan(measured.daily_amplitude)]
    if not names:
        return ()
    return (f"Your traffic has a daily cycle ({', '.join(sorted(names))}): each time of the day is judged by itself.",)


def describe_alerts(judge: WindowJudge, name: Callable[[StreamKey], str], clock: Clock) -> tuple[AlertReport, ...]:
    """Builds the entries of a backtest's report about the alerts that the processor would have sent.

    Args:
        judge: The judge, after the last window.
        name: The name of a stream in the report.
        clock: Formats times.
    """
    return tuple(
        AlertReport(
            window=window,
            at=clock(alert.time_ns),
            model=alert.model,
            rule=alert.rule,
            state="resolved" if alert.is_resolved else alert.state.value,
            severity=alert.severity,
            causes=tuple(name(StreamKey(ModelKey(alert.model, alert.version), cause.stream)) for cause in alert.causes),
        )
        for window, alert in judge.alerts
    )


def expand_powers_of_ten(text: str) -> str:
    """Rewrites numbers in a text such as 4.75e+04 in full, as 47500, if they have at most ten digits."""
    return _LARGE_POWER.sub(lambda match: f"{float(match[0]):.0f}", text)


def _format_bin_name(name: str) -> str:
    return {semconv.OTHER: "all others", semconv.MISSING: "missing"}.get(name) or expand_powers_of_ten(name)


def _decide_verdict(trace: StreamBacktest) -> tuple[BacktestState, str]:
    """Returns the verdict on a stream in a backtest, such as `alarm` or `ok`, and the reason for it."""
    last = trace.points[-1]
    values = sum(point.count for point in trace.points)
    if trace.alarm is not None:
        return ("alarm" if last.state == "drift" else "recovered"), ""
    if trace.reference is None or (last.state == "learning" and not last.is_calibrating):
        return "unknown", "its reference was still being learned"
    if last.is_calibrating:
        if values < CALIBRATION_ITEMS:
            return "unknown", f"too few values to know how they vary: {values}, and 1 000 or more are needed"
        return "unknown", f"its {values} values come in bursts, and are too few to know how they vary"
    effect = trace.score.design_effect if trace.score is not None else 1.0
    if _compute_undetectable_distance(trace.reference, trace.tolerance, effect) >= _compute_largest_distance(
        trace.reference
    ):
        return (
            "unknown",
            f"the reference of {trace.reference.total} values is too small: no drift could be told from chance",
        )
    return "ok", ""


def _compute_undetectable_distance(reference: ReferenceCounts, tolerance: float, effect: float) -> float:
    """Returns the distance from the reference below which no window of a stream can be evidence of drift."""
    total = reference.total
    return tolerance + math.sqrt(reference.bins.count * effect / (4.0 * total)) if total else math.inf


def _compute_largest_distance(reference: ReferenceCounts) -> float:
    """Returns the largest distance (total variation) that any counts can have from a reference."""
    bins = reference.bins.count
    return 1.0 - (float(reference.counts.min()) + 0.5) / (reference.total + bins / 2.0)


def _find_onset_window(trace: StreamBacktest, onset_ns: int) -> int:
    """Returns the position of the first window that ends after the onset of a drift."""
    ends = [point.end_ns for point in trace.points]
    return trace.points[min(bisect_right(ends, onset_ns), len(ends) - 1)].window


def _measure_statistic(statistic: str, reference: ReferenceCounts, counts: Counts) -> float:
    return float(STATISTICS.load_plugin(statistic).measure(build_samples(reference.counts, counts)).value)


def _describe_windows(trace: StreamBacktest, reference: ReferenceCounts, clock: Clock) -> tuple[WindowPoint, ...]:
    return tuple(
        WindowPoint(
            window=point.window,
            count=point.count,
            log10_evidence=point.log10_evidence,
            log10_alarm_line=point.log10_alarm_line,
            total_variation=distance,
            is_learning=point.state == "learning",
            is_drift=point.state == "drift",
            end=clock(point.end_ns),
        )
        for point, distance in zip(trace.points, _measure_distances(trace.windows, reference), strict=True)
    )


def _measure_distances(windows: Sequence[Counts], reference: ReferenceCounts) -> list[float]:
    """Measures the distance (total variation) of each window from the reference."""
    distances = [0.0] * len(windows)
    places = [place for place, counts in enumerate(windows) if counts.size == reference.bins.count]
    if places:
        current = np.array([windows[place] for place in places])
        samples = build_samples(np.broadcast_to(reference.counts, current.shape), current)
        for place, distance in zip(
            places, STATISTICS.load_plugin("total_variation").measure(samples).value.tolist(), strict=True
        ):
            distances[place] = distance
    return distances
