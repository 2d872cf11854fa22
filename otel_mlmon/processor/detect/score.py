"""Defines `DriftScore`, the result of detection for one stream: its evidence of drift, before any rule judges it.

The alarm line is how large the evidence must be, from how many false alarms the operator accepts: an
e-detector that alarms at W >= A has without drift an average run length to a false alarm of A panes or more. With
m streams watched, each at the line A·m, there is over all of them no more than one false alarm in A panes on average,
however the streams depend on each other. Being strict is cheap: ten times the line costs about a quarter of a window
of delay.

Source: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change detection, NEJSDS 2024
(theorem 2.4: the average run length is at least the threshold).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from msgspec import Struct, structs

from otel_mlmon.processor.detect.detectable import DetectableShift
from otel_mlmon.processor.window.window import StreamWindow

State = Literal["learning", "ok", "weak", "drift", "no_data", "error"]
"""The state of a stream. `learning`: no reference yet, or (`DriftScore.is_calibrating`) no design effect yet. `ok`: no
drift. `drift`: from the pane on at which the evidence reached the alarm line, until it has fallen back to 1. `no_data`:
it is no longer sent although its model has predictions. `weak`: no drift was seen, and one of a usual size would not
have been; it is judged all the same. `error`: it could not be evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The drift statistics of one stream's rolling window against its reference, as columns.

    Tuples of numbers and no object a statistic: of many streams the objects would cost more than the statistics do,
    and Python's garbage collector would look at each again and again.
    """

    names: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    p_values: tuple[float | None, ...] = ()
    """In [0, 1]; None if the statistic has none."""
    noises: tuple[float | None, ...] = ()
    """The mean of each value without drift at these sample sizes; None if it is not known."""

    @staticmethod
    def from_rows(rows: dict[str, tuple[float, float | None, float | None]]) -> Statistics:
        """Builds the table of a stream's drift statistics from value, p-value and noise by name."""
        values, p_values, noises = zip(*rows.values(), strict=True) if rows else ((), (), ())
        return Statistics(names=tuple(rows), values=values, p_values=p_values, noises=noises)

    def rows(self) -> Iterator[tuple[str, float, float | None, float | None]]:
        """Yields name, value, p-value and noise of every drift statistic, in their order."""
        yield from zip(self.names, self.values, self.p_values, self.noises, strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdVerdict:
    """The result of comparing one drift statistic of a rolling window with an operator's threshold."""

    statistic: str
    is_p_value: bool
    """Whether `value` is a p-value, breached below `bound`; otherwise it is breached above."""
    value: float
    bound: float
    min_count: int
    """How many values the window must hold before it is judged."""
    verdict: Literal["ok", "breached", "too few values"]


class DriftScore(Struct, frozen=True, kw_only=True):
    """The score of a stream after a pane: its evidence of drift, its state and its statistics.

    One is made for each stream and pane: a `Struct` takes a tenth of the time of a frozen dataclass.
    """

    state: State
    is_calibrating: bool = False
    """Whether it is `learning` although it has a reference: its design effect is not known yet."""
    calibrated_ratio: float = 1.0
    """How much of what its design effect is estimated from is there, [0, 1]."""
    log10_evidence: float
    """log10 of the e-value W; 0 is no evidence."""
    log10_alarm_line: float
    """log10 of the value that W must reach."""
    design_effect: float = 1.0
    """φ: variance of the shares over that of independent items; 1 or above."""
    since_ns: int = 0
    """The onset: the end of the last pane with W at 1, Unix nanoseconds; 0 while there is no evidence."""
    reference_count: int = 0
    """Values in the reference, or learned for it so far."""
    current_count: int = 0
    """Values in the rolling window."""
    statistics: Statistics | None = Statistics()
    """Statistics of the rolling window; None until measured: with the evidence for thresholds, else for publication."""
    thresholds: tuple[ThresholdVerdict, ...] = ()
    detectable: DetectableShift | None = None
    """How small a drift would be found within a day; None until measured, for publication."""
    contributions: tuple[float, ...] = ()
    """Shape (K,): how much each bin added to ln W since the onset, in nats; the largest is the first cause."""

    def replace(self, **changes: Any) -> DriftScore:
        """Returns the score with other values of some fields."""
        return structs.replace(self, **changes)

    def with_absence(self, window: StreamWindow) -> DriftScore:
        """Returns the score of a window: `no_data`, its evidence unchanged, where the stream is no longer sent."""
        return self if window.absence is None else self.replace(state="no_data", since_ns=0)

    def with_detectable(self, detectable: DetectableShift | None) -> DriftScore:
        """Returns the score with the detectable shift, and `weak` instead of `ok` where that is too large."""
        is_weak = self.state == "ok" and detectable is not None and detectable.weakness is not None
        return self.replace(detectable=detectable, state="weak" if is_weak else self.state)

    @property
    def margin(self) -> float:
        """The log10 of the evidence over the alarm line: 0 and above is drift; -inf where drift cannot be found yet."""
        if self.state == "learning":
            return -math.inf
        return self.log10_evidence - self.log10_alarm_line


def build_learning_score(window: StreamWindow, log10_alarm_line: float) -> DriftScore:
    """Builds the score of a stream that has no reference yet."""
    return DriftScore(
        state="learning",
        log10_evidence=0.0,
        log10_alarm_line=log10_alarm_line,
        reference_count=window.learned if window.reference is None else window.reference.total,
        current_count=int(window.rolling.sum()),
    )


MIN_LOG10: Final = 1.0
"""No line is under ten to one, however many false alarms are accepted."""


def compute_log10_alarm_line(*, false_alarms: float, per_s: float, pane_s: float, streams: int) -> float:
    """Computes log10 of the evidence at which drift is declared, from the accepted rate of false alarms.

    One false alarm in 30 days, panes of 10 s and 26 streams make 6.8 (a line of 6.7·10⁶).

    Args:
        false_alarms: How many are accepted, above 0.
        per_s: In what time, seconds, above 0.
        pane_s: Length of a pane, seconds, above 0.
        streams: How many streams are watched; fewer than 1 counts as 1.

    Raises:
        ValueError: A number is not above 0.
    """
    if not (false_alarms > 0.0 and per_s > 0.0 and pane_s > 0.0):
        raise ValueError("false_alarms, per_s and pane_s must be above 0")
    panes = per_s / pane_s / false_alarms
    return max(MIN_LOG10, math.log10(panes * max(1, streams)))
