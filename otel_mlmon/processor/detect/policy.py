"""Defines how one stream is judged: the tolerated drift, and thresholds on drift statistics such as `psi > 0.2`.

Thresholds judge the rolling window pane by pane and carry no promise about false alarms: that is what the evidence is
for. What they do promise is not to judge noise. A fixed threshold is passed by chance alone where the window is small,
so each statistic states a smallest n: where, without drift, the value is on average half of the threshold at most (of
PSI, which is a square, a quarter) and over it in no more than one window of twenty; of p-values, five values a bin.
Below it the answer is `too few values`. The reference is taken to be much larger than the window.

Source: Yurdakul, 2018 (PSI); Cochran, 1954 (five a bin); the others by the same second-order expansion.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.counts import MIN_EXPECTED
from otel_mlmon.processor.detect.detectable import MAX_DETECTABLE
from otel_mlmon.processor.detect.score import Statistics, ThresholdVerdict
from otel_mlmon.processor.detect.statistics.registry import STATISTICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold on one drift statistic, with exactly one of `above` and `p_below`."""

    statistic: str
    """Its name in the registry."""
    stream: str = "*"
    """Which streams, a pattern as in `input.*`."""
    above: float | None = None
    """The value must not be above this; above 0."""
    p_below: float | None = None
    """The p-value must not be below this; in (0, 1)."""

    def is_about_stream(self, stream: str) -> bool:
        """Returns whether the threshold applies to a stream."""
        return fnmatchcase(stream, self.stream)

    def min_count(self, bins: int) -> int:
        """Returns the number of values that a window of K bins must hold before the threshold judges it."""
        if self.above is None:
            return MIN_EXPECTED * bins
        return STATISTICS.load_plugin(self.statistic).min_count(bins=bins, threshold=self.above)

    def judge(self, statistics: Statistics, *, count: int, bins: int) -> ThresholdVerdict | None:
        """Compares a drift statistic of a window with the threshold; None if the stream has no such statistic."""
        if self.statistic not in statistics.names:
            return None
        column = statistics.p_values if self.above is None else statistics.values
        value = column[statistics.names.index(self.statistic)]
        bound = self.p_below if self.above is None else self.above
        if value is None or bound is None:
            return None
        min_count = self.min_count(bins)
        is_breached = value < bound if self.above is None else value > bound
        return ThresholdVerdict(
            statistic=self.statistic,
            is_p_value=self.above is None,
            value=value,
            bound=bound,
            min_count=min_count,
            verdict="too few values" if count < min_count else "breached" if is_breached else "ok",
        )


def judge_thresholds(
    thresholds: tuple[Threshold, ...], statistics: Statistics, *, count: int, bins: int
) -> tuple[ThresholdVerdict, ...]:
    """Compares the drift statistics of a window with all thresholds on them."""
    verdicts = (threshold.judge(statistics, count=count, bins=bins) for threshold in thresholds)
    return tuple(verdict for verdict in verdicts if verdict is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPolicy:
    """The policy by which drift of one stream is detected: tolerance, direction, and thresholds on statistics."""

    tolerance: float
    """The total variation that is tolerated, [0, 1]."""
    direction: Direction
    max_detectable: float = MAX_DETECTABLE
    """The largest detectable shift at which the stream is not weak, (0, 1]."""
    first_divisor: float | None = None
    """The divisor of counts until the stream's design effect is known; None if nothing is judged before."""
    thresholds: tuple[Threshold, ...] = ()
    """On drift statistics; usually none."""
    time_zone: str = ""
    """The IANA name of the time zone of the model's users; empty if it is not known."""
