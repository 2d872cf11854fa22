"""Runs the processor's drift detection and alert rules over the windows of a backtest, and keeps the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from otel_mlmon.backtest.accuracy import NO_BOUNDS, RULE, AccuracyBounds, AccuracyReport, AccuracyTrace
from otel_mlmon.backtest.request import FalseAlarmBudget
from otel_mlmon.processor.alert.alert import Alert, AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.config.units import FalseAlarms
from otel_mlmon.processor.detect.detectable import DetectableShift
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.score import DriftScore, State
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import Counts, ModelKey

MIN_PANE_S: Final = 1e-9
MAX_PANE_S: Final = 3_600.0
"""In longer windows the hours of a day cannot be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWindowResult:
    """The result of drift detection for one stream after one window of a backtest."""

    window: int
    end_ns: int
    count: int
    """Values in the window."""
    log10_evidence: float
    log10_alarm_line: float
    state: State
    is_calibrating: bool


@dataclass(slots=True, kw_only=True)
class StreamBacktest:
    """The results of drift detection for one stream over all windows of a backtest."""

    key: StreamKey
    tolerance: float
    points: list[StreamWindowResult] = field(default_factory=list)
    windows: list[Counts] = field(default_factory=list)
    """The counts of the window of each point, shape (K,) each."""
    reference: ReferenceCounts | None = None
    """None while it was learned; the bins stay the same in a backtest of rows."""
    alarm: int | None = None
    """The index in `points` of the first alarm."""
    window: StreamWindow | None = None
    """The window of the first alarm, or without one the last."""
    score: DriftScore | None = None
    """The score of `window`."""

    def describe_cause(self, settings: ProcessorSettings) -> AlertCause | None:
        """Describes the window of the first alarm, or the last one, as an alert would name it as its cause."""
        if self.window is None or self.score is None or self.window.reference is None:
            return None
        score = self.score.replace(state="drift")
        rules = settings.find_model_rules(self.key.model).find_rules(self.key.stream)
        outcomes = (rule.judge_stream(self.window, score, OnsetCounts()) for _, rule in rules)
        return next((outcome for outcome in outcomes if isinstance(outcome, AlertCause)), None)


def build_backtest_settings(
    *,
    tolerance: float | None,
    budget: FalseAlarmBudget,
    window_s: float,
    accuracy: AccuracyBounds = NO_BOUNDS,
) -> ProcessorSettings:
    """Builds the processor's settings for a backtest: the defaults, with the user's tolerance and false alarms.

    Args:
        tolerance: Of every drift rule; None for the defaults.
        budget: How many false alarms are accepted.
        window_s: Length of a window in seconds; any number if it is not known.
        accuracy: The accuracy that is demanded.
    """
    window_s = max(window_s, MIN_PANE_S)
    rate = budget.rate or FalseAlarms(count=1.0, per_s=budget.windows * window_s)
    rules = ("prediction_drift", "confidence", "data_drift")
    model: dict[str, Any] = {} if tolerance is None else {rule: {"tolerance": tolerance} for rule in rules}
    model["accuracy"] = accuracy.rule_section
    defaults = Config()
    return ProcessorSettings(
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


class WindowJudge:
    """Runs drift detection and alert rules over the windows of a backtest, in the order of time.

    Args:
        settings: Of the detection and alert steps.
        has_times: Whether the ends of windows are times, no further apart than the hours of a daily cycle.
        streams: How many streams share the false-alarm budget; None to count them as they come, as the processor does.
        accuracy: The accuracy that is demanded.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        *,
        has_times: bool,
        streams: int | None = None,
        accuracy: AccuracyBounds = NO_BOUNDS,
    ) -> None:
        self.settings = settings
        self.accuracy = AccuracyTrace(accuracy)
        self.traces: dict[StreamKey, StreamBacktest] = {}
        self.alerts: list[tuple[int, Alert]] = []
        """Window and alert, for each notification that would have been sent."""
        self._evaluator = DriftEvaluator(
            policy_for=settings.find_detection_policy,
            alarm_line_for=lambda watched: settings.find_alarm_line(streams or watched),
            has_cycles=has_times,
            is_offline=True,
        )
        self._alerts = settings.create_state_machine()

    def measure_detectable_shifts(self) -> dict[StreamKey, DetectableShift]:
        """Measures how small a drift of each stream would have been found within a day of data.

        Data without times, or with windows longer than an hour, is one day.
        """
        detectable = self._evaluator.measure_detectable({key.model for key in self.traces}, is_over=True)
        return {StreamKey(model, name): shift for model, shifts in detectable.items() for name, shift in shifts.items()}

    def judge_window(self, index: int, windows: Iterable[StreamWindow]) -> None:
        """Runs drift detection and alert rules on one window of all streams."""
        models: dict[ModelKey, list[tuple[StreamWindow, DriftScore]]] = {}
        for window, score in self._evaluator.evaluate(windows):
            models.setdefault(window.stream.model, []).append((window, score))
            self._add_to_accuracy_trace(index, window, score)
        for model, scores in models.items():
            end_ns = max(window.end_ns for window, _ in scores)
            self.alerts += [(index, alert) for alert in self._alerts.evaluate_windows(model, scores, end_ns)]

    def report_accuracy(self, clock: Callable[[int], str | None]) -> AccuracyReport | None:
        """Returns the estimated accuracy of each window; None if no limit was set and nothing could be estimated."""
        alarms = (window for window, alert in self.alerts if alert.rule == RULE and not alert.is_resolved)
        return self.accuracy.build_report(next(alarms, None), clock)

    def _add_to_accuracy_trace(self, index: int, window: StreamWindow, score: DriftScore) -> None:
        trace = self.traces.get(window.stream)
        if trace is None:
            policy = self._evaluator.find_detection_policy(window.stream)
            tolerance = policy.tolerance if policy is not None else 0.0
            trace = self.traces[window.stream] = StreamBacktest(key=window.stream, tolerance=tolerance)
        trace.points.append(
            StreamWindowResult(
                window=index,
                end_ns=window.end_ns,
                count=int(window.rolling.sum()),
                log10_evidence=score.log10_evidence,
                log10_alarm_line=score.log10_alarm_line,
                state=score.state,
                is_calibrating=score.is_calibrating,
            )
        )
        trace.windows.append(window.rolling)
        if window.calibration is not None:
            self.accuracy.add_window(index, window.end_ns, window.rolling, window.calibration, score)
        trace.reference = window.reference
        if trace.alarm is None:
            trace.window, trace.score = window, score
            if score.state == "drift":
                trace.alarm = len(trace.points) - 1
