"""OUT Score: what one stream's counts say about drift, before anybody decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from otel_mlmon.types import Floats

Status = Literal["learning", "calibrating", "ok", "drift"]
"""`learning`: no reference yet. `calibrating`: the design effect is not known yet. Then `ok`, or `drift` when
the evidence is over the alarm line, until it has fallen back to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticValue:
    """A familiar statistic of the rolling window against the reference: reported, not what decides."""

    value: float
    p_value: float | None = None
    """In [0, 1]; None where the statistic has none."""
    noise: float | None = None
    """What the value would be on average without drift at these sizes; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The familiar statistics of one stream, by name.

    Tuples of numbers, and a `StatisticValue` only for who asks: of many streams the objects would cost more than the
    statistics do, and Python's garbage collector would look at each again and again.
    """

    names: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    p_values: tuple[float | None, ...] = ()
    noises: tuple[float | None, ...] = ()

    @staticmethod
    def of(values: Mapping[str, StatisticValue]) -> Statistics:
        """From one value a name."""
        return Statistics(
            names=tuple(values),
            values=tuple(value.value for value in values.values()),
            p_values=tuple(value.p_value for value in values.values()),
            noises=tuple(value.noise for value in values.values()),
        )

    def get(self, name: str) -> StatisticValue | None:
        """The one of this name, if it is there."""
        return next((value for other, value in self.items() if other == name), None)

    def items(self) -> Iterator[tuple[str, StatisticValue]]:
        """Every name and its value, in their order."""
        for name, value, p_value, noise in zip(self.names, self.values, self.p_values, self.noises, strict=True):
            yield name, StatisticValue(value=value, p_value=p_value, noise=noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticValues:
    """The same of many streams at once, shape (S,) each; of one stream, numbers."""

    value: Floats
    p_value: Floats | None = None
    noise: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdVerdict:
    """What a threshold that the owner set on a statistic says of the rolling window."""

    statistic: str
    is_p_value: bool
    """Whether `value` is a p-value and must not be below `bound`; else it must not be above."""
    value: float
    bound: float
    needs: int
    """Values that the window must hold before it is judged."""
    verdict: Literal["ok", "breached", "too few values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One stream after one pane."""

    status: Status
    log10_evidence: float
    """log10 of the e-value W; 0 is no evidence."""
    log10_alarm_line: float
    """log10 of the value that W must reach."""
    design_effect: float = 1.0
    """φ: variance of the shares over what independent items would have; 1 or above."""
    since_ns: int = 0
    """The onset: the end of the last pane with W at 1, Unix nanoseconds; 0 while there is no evidence."""
    reference_count: int = 0
    current_count: int = 0
    """Values in the rolling window."""
    statistics: Statistics = Statistics()
    thresholds: tuple[ThresholdVerdict, ...] = ()
    contributions: tuple[float, ...] = ()
    """Shape (K,): what each bin added to ln W since the onset, in nats; the largest is the first cause."""

    @property
    def margin(self) -> float:
        """log10 of the evidence over the alarm line: 0 and above is an alarm; -inf while none can be."""
        if self.status in ("learning", "calibrating"):
            return -math.inf
        return self.log10_evidence - self.log10_alarm_line
