"""The processor's drift and alert steps over windows that are already there, and what they said, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from otel_mlmon.backtest.cutting import Budget
from otel_mlmon.processor.alert.alert import Alert, Cause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.config.units import FalseAlarms
from otel_mlmon.processor.detect.evaluator import Evaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import Score, Status
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.window.window import Reference, StreamKey, Window
from otel_mlmon.types import Counts

LEAST_PANE_S: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One stream after one window."""

    window: int
    end_ns: int
    count: int
    """Values in the window."""
    log10_evidence: float
    log10_alarm_line: float
    status: Status


@dataclass(slots=True, kw_only=True)
class Trace:
    """One stream, window by window."""

    key: StreamKey
    tolerance: float
    points: list[Point] = field(default_factory=list)
    windows: list[Counts] = field(default_factory=list)
    """Shape (K,) each: what was counted in the window of each point."""
    reference: Reference | None = None
    """None while it was learned; bins do not change where the rows are at hand."""
    alarm: int | None = None
    """The point of the first alarm."""
    shown: Window | None = None
    """The window of the first alarm, or the last one."""
    score: Score | None = None
    """Of that window."""

    def cause(self, settings: Settings) -> Cause | None:
        """The shown window in words, as an alert has it."""
        if self.shown is None or self.score is None or self.shown.reference is None:
            return None
        score = replace(self.score, status="drift")
        rules = settings.rules(self.key.model).of_stream(self.key.stream)
        outcomes = (rule.judge(self.shown, score, OnsetCounts()) for _, rule in rules)
        return next((outcome for outcome in outcomes if isinstance(outcome, Cause)), None)


def settings_of(*, tolerance: float | None, budget: Budget, window_s: float) -> Settings:
    """What the steps are told: the processor's defaults, but for these.

    Args:
        tolerance: Of every drift rule; None for the defaults.
        budget: False alarms.
        window_s: Length of a window; where it is not known, any.
    """
    window_s = max(window_s, LEAST_PANE_S)
    rate = budget.rate or FalseAlarms(count=1.0, per_s=budget.windows * window_s)
    rules = ("prediction_drift", "confidence", "data_drift")
    model: dict[str, Any] = {} if tolerance is None else {rule: {"tolerance": tolerance} for rule in rules}
    defaults = Config()
    return Settings(
        defaults.model_copy(
            update={
                "alerts": defaults.alerts.model_copy(update={"false_alarms": rate}),
                "windows": defaults.windows.model_copy(
                    update={"pane_s": window_s, "rolling_s": window_s, "lateness_s": 0.0}
                ),
                "models": Config.model_validate({"models": {"*": model}}).models,
            }
        )
    )


class Judge:
    """Takes windows in the order of time.

    Args:
        settings: What the steps are told.
        streams: How many streams are watched; None to count them as they come, as the processor does.
    """

    def __init__(self, settings: Settings, *, streams: int | None = None) -> None:
        self.settings = settings
        self.traces: dict[StreamKey, Trace] = {}
        self.alerts: list[tuple[int, Alert]] = []
        """Window and alert, each change of state that people would have been told."""
        self._streams = streams
        self._watches: dict[StreamKey, DetectionPolicy | None] = {}
        self._monitor = Evaluator(statistics={})
        self._alerts = settings.alerts()

    def calibrate(self, windows: list[Window]) -> set[StreamKey]:
        """Take in a part of a window of streams whose design effect is not known yet; of which it still is not."""
        scores = self._observe(windows)
        return {stream for stream, score in scores.items() if score.status == "calibrating"}

    def take(self, index: int, windows: Iterable[Window]) -> None:
        """Take in window `index` of all streams that have one."""
        judged = [window for window in windows if self._watch(window.stream) is not None]
        scores = self._observe(judged)
        by_model: dict[Any, dict[StreamKey, tuple[Window, Score]]] = {}
        for window in judged:
            score = scores[window.stream]
            by_model.setdefault(window.stream.model, {})[window.stream] = (window, score)
            self._remember(index, window, score)
        for model, of_model in by_model.items():
            end_ns = max(window.end_ns for window, _ in of_model.values())
            self.alerts += [(index, alert) for alert in self._alerts.evaluate(model, of_model, end_ns)]

    def _observe(self, windows: list[Window]) -> Mapping[StreamKey, Score]:
        known = set(self._monitor.streams())
        watched = len(known | {window.stream for window in windows if window.reference is not None})
        line = self.settings.alarm_line(self._streams or watched)
        judged = [(window, watch) for window in windows if (watch := self._watch(window.stream)) is not None]
        scores = self._monitor.observe_all(judged, log10_alarm_line=line)
        return {window.stream: score for (window, _), score in zip(judged, scores, strict=True)}

    def _watch(self, stream: StreamKey) -> DetectionPolicy | None:
        if stream not in self._watches:
            self._watches[stream] = self.settings.policy(stream)
        return self._watches[stream]

    def _remember(self, index: int, window: Window, score: Score) -> None:
        trace = self.traces.get(window.stream)
        if trace is None:
            watch = self._watch(window.stream)
            tolerance = watch.tolerance if watch is not None else 0.0
            trace = self.traces[window.stream] = Trace(key=window.stream, tolerance=tolerance)
        trace.points.append(
            Point(
                window=index,
                end_ns=window.end_ns,
                count=int(window.rolling.sum()),
                log10_evidence=score.log10_evidence,
                log10_alarm_line=score.log10_alarm_line,
                status=score.status,
            )
        )
        trace.windows.append(window.rolling)
        trace.reference = window.reference
        if trace.alarm is None:
            trace.shown, trace.score = window, score
            if score.status == "drift":
                trace.alarm = len(trace.points) - 1
