"""What was counted since the onset of a drift.

An alert fires within seconds or minutes of the onset, when a rolling window of an hour still holds mostly the
time before: its shares would say that next to nothing moved. So the panes since the onset are added up too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_mlmon import semconv
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.window import Bins, Window
from otel_mlmon.types import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Counts over a stretch of time, and the mean of what was counted."""

    counts: tuple[int, ...]
    """Shape (K,)."""
    mean: float
    """NaN where it is not known."""

    @property
    def total(self) -> int:
        """How many values."""
        return sum(self.counts)


class SinceOnset:
    """Adds up the panes of each stream of one model for as long as there is evidence against it."""

    def __init__(self) -> None:
        self._onset_ns: dict[str, int] = {}
        self._counted: dict[str, Counted] = {}

    def add(self, window: Window, score: Score) -> None:
        """Count a pane; begin anew when the onset moves, forget when there is no evidence."""
        stream = window.stream.stream
        if not score.since_ns or window.reference is None:
            self._onset_ns.pop(stream, None)
            self._counted.pop(stream, None)
            return
        pane = Counted(counts=tuple(window.pane.tolist()), mean=window.pane_mean)
        before = self._counted.get(stream)
        goes_on = self._onset_ns.get(stream) == score.since_ns
        if before is not None and goes_on and len(before.counts) == len(pane.counts):
            pane = _sum(before, pane, window.reference.bins)
        self._onset_ns[stream] = score.since_ns
        self._counted[stream] = pane

    def counted(self, window: Window) -> Counted:
        """Since the onset, or in the rolling window where that is shorter or the onset is not known."""
        rolling = Counted(counts=tuple(window.rolling.tolist()), mean=window.rolling_mean)
        since = self._counted.get(window.stream.stream)
        is_shorter = since is not None and 0 < since.total < rolling.total
        return since if since is not None and is_shorter else rolling

    def to_state(self) -> dict[str, Any]:
        """For `from_state`, through JSON."""
        return {
            stream: [self._onset_ns[stream], list(counted.counts), _or_none(counted.mean)]
            for stream, counted in self._counted.items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SinceOnset:
        """What `to_state` gave."""
        result = cls()
        for stream, (onset_ns, counts, mean) in state.items():
            result._onset_ns[stream] = onset_ns
            result._counted[stream] = Counted(counts=tuple(counts), mean=math.nan if mean is None else mean)
        return result


def shares(counts: Counts | tuple[int, ...]) -> tuple[float, ...]:
    """`counts` over their sum; zeros where there are none."""
    numbers = [int(count) for count in counts]
    total = sum(numbers)
    return tuple(number / total if total else 0.0 for number in numbers)


def _sum(first: Counted, second: Counted, bins: Bins) -> Counted:
    first_n, second_n = _values(first, bins), _values(second, bins)
    if second_n == 0:
        mean = first.mean
    elif first_n == 0:
        mean = second.mean
    else:
        mean = (first.mean * first_n + second.mean * second_n) / (first_n + second_n)
    counts = tuple(one + other for one, other in zip(first.counts, second.counts, strict=True))
    return Counted(counts=counts, mean=mean)


def _values(counted: Counted, bins: Bins) -> int:
    """How many values a mean is of: missing ones have none."""
    named = zip(bins.names, counted.counts, strict=False)
    return sum(count for name, count in named if name != semconv.MISSING)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
