"""From what the judge saw of each stream to its entry in the report."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.backtest.judge import Judge, Trace
from otel_mlmon.backtest.report import AlertReport, StreamReport, Verdict, WindowPoint
from otel_mlmon.processor.alert.cause import shares
from otel_mlmon.processor.detect.counts import samples_of
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.window.window import Reference, StreamKey
from otel_mlmon.types import Counts, ModelKey

When = Callable[[int], str | None]
"""From the end of a pane, as the judge had it, to RFC 3339; None where it is not known."""

_POWER: Final = re.compile(r"\d(?:\.\d+)?e\+0[3-9]")


def stream_report(trace: Trace, judge: Judge, *, name: str, kind: str, when: When) -> StreamReport:
    """One judged stream."""
    window, score, reference = trace.window, trace.score, trace.reference
    verdict, why = _verdict(trace)
    if window is None or score is None or reference is None:
        return StreamReport(stream=name, model=trace.key.model.name, kind=kind, status="unknown", why=why)
    cause = trace.cause(judge.settings)
    alarm = None if trace.alarm is None else trace.points[trace.alarm]
    since_ns = score.since_ns if alarm is not None else 0
    shown = alarm or trace.points[-1]
    return StreamReport(
        stream=name,
        model=trace.key.model.name,
        kind=kind,
        status=verdict,
        why=why,
        first_alarm_window=None if alarm is None else alarm.window,
        first_alarm=None if alarm is None else when(alarm.end_ns),
        onset_window=None if alarm is None else _window_after(trace, since_ns),
        onset=when(since_ns) if since_ns else None,
        before=plain_numbers(cause.reference) if cause is not None else "",
        now=plain_numbers(cause.current) if cause is not None else "",
        tolerance=trace.tolerance,
        total_variation=_distance("total_variation", reference, window.rolling),
        psi=_distance("psi", reference, window.rolling),
        design_effect=score.design_effect,
        reference_count=reference.total,
        count=int(window.rolling.sum()),
        compared_window=shown.window,
        is_ordered=reference.bins.is_ordered,
        bins=tuple(map(_bin_name, reference.bins.names)),
        reference_shares=shares(reference.counts),
        shares=shares(window.rolling),
        points=_points(trace, reference),
    )


def alert_reports(judge: Judge, names: Callable[[StreamKey], str], when: When) -> tuple[AlertReport, ...]:
    """What people would have been told."""
    return tuple(
        AlertReport(
            window=window,
            at=when(alert.time_ns),
            model=alert.model,
            rule=alert.rule,
            state="resolved" if alert.is_resolved else alert.state.value,
            severity=alert.severity,
            causes=tuple(
                names(StreamKey(ModelKey(alert.model, alert.version), cause.stream)) for cause in alert.causes
            ),
        )
        for window, alert in judge.alerts
    )


def plain_numbers(text: str) -> str:
    """`text` with 4.75e+04 as 47500, where that is no longer than ten digits."""
    return _POWER.sub(lambda found: f"{float(found[0]):.0f}", text)


def _bin_name(name: str) -> str:
    return {semconv.OTHER: "all others", semconv.MISSING: "missing"}.get(name) or plain_numbers(name)


def _verdict(trace: Trace) -> tuple[Verdict, str]:
    last = trace.points[-1]
    values = sum(point.count for point in trace.points)
    if trace.alarm is not None:
        return ("alarm" if last.status == "drift" else "recovered"), ""
    if trace.reference is None or (last.status == "learning" and not last.is_calibrating):
        return "unknown", "its reference was still being learned"
    if last.is_calibrating:
        return "unknown", f"too few values to know how they vary: {values}, and 1 000 or more are needed"
    effect = trace.score.design_effect if trace.score is not None else 1.0
    if _radius(trace.reference, trace.tolerance, effect) >= _reach(trace.reference):
        return (
            "unknown",
            f"the reference of {trace.reference.total} values is too small: no move could be told from chance",
        )
    return "ok", ""


def _radius(reference: Reference, tolerance: float, effect: float) -> float:
    """What is forgiven and what the finite reference does not know, as the evidence has it: tolerance + sqrt(Kφ/4N)."""
    total = reference.total
    return tolerance + math.sqrt(reference.bins.count * effect / (4.0 * total)) if total else math.inf


def _reach(reference: Reference) -> float:
    """How far any counts can be from the shares of the reference, smoothed as the evidence has them."""
    bins = reference.bins.count
    return 1.0 - (float(reference.counts.min()) + 0.5) / (reference.total + bins / 2.0)


def _window_after(trace: Trace, since_ns: int) -> int:
    """The first window that ends after the onset."""
    ends: Sequence[int] = [point.end_ns for point in trace.points]
    return trace.points[min(bisect_right(ends, since_ns), len(ends) - 1)].window


def _distance(statistic: str, reference: Reference, counts: Counts) -> float:
    return float(STATISTICS.load(statistic).measure(samples_of(reference.counts, counts)).value)


def _points(trace: Trace, reference: Reference) -> tuple[WindowPoint, ...]:
    return tuple(
        WindowPoint(
            window=point.window,
            count=point.count,
            log10_evidence=point.log10_evidence,
            log10_alarm_line=point.log10_alarm_line,
            # Before its reference was learned, or over other bins, a window has no distance from it.
            total_variation=_distance("total_variation", reference, counts)
            if counts.size == reference.bins.count
            else 0.0,
            is_calibrating=point.status == "learning",
            is_drift=point.status == "drift",
        )
        for point, counts in zip(trace.points, trace.windows, strict=True)
    )
