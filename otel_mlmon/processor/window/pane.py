"""Counts of closed panes, and the rolling window over them: a running sum, from which old panes are subtracted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts, ModelKey


class PaneCounts(NamedTuple):
    """Holds the counts of one stream over its bins in one interval: a pane, or the panes of one hour."""

    start_ns: int
    end_ns: int
    generation: int
    """Generation of the bins; counts of different generations do not add up."""
    counts: Counts
    """Shape (K,), int64."""
    number_count: int
    """The number of values that are numbers."""
    exact_sum: ExactSum
    """The exact sum of the numbers."""

    def merge(self, other: PaneCounts) -> PaneCounts:
        """Adds the counts of another interval over the same bins."""
        return PaneCounts(
            start_ns=min(self.start_ns, other.start_ns),
            end_ns=max(self.end_ns, other.end_ns),
            generation=self.generation,
            counts=self.counts + other.counts,
            number_count=self.number_count + other.number_count,
            exact_sum=self.exact_sum + other.exact_sum,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPane:
    """Holds one closed pane of one model, from which its summary and its rolling windows are made."""

    model: ModelKey
    start_ns: int
    end_ns: int
    duration: StreamSketch
    """Seconds, failed calls included."""
    failed: int
    """Calls that failed."""
    streams: Mapping[str, PaneCounts]
    """Counts by stream, for the streams that have a reference."""


@dataclass(slots=True)
class RollingWindow:
    """The counts of one stream in the last panes.

    Memory: 8 K bytes and about 300 more a pane.
    """

    length_ns: int
    """Length of the window: panes that end this long before the newest, or earlier, are removed."""
    panes: deque[PaneCounts] = field(default_factory=deque)
    counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Shape (K,), or (0,) before the first pane."""
    _number_count: int = 0
    _sum: ExactSum = field(default_factory=ExactSum)

    def clear(self) -> None:
        """Removes all panes: their bins are no longer those of the reference."""
        self.panes.clear()
        self.counts = np.zeros(0, dtype=np.int64)
        self._number_count, self._sum = 0, ExactSum()

    def add(self, pane: PaneCounts) -> None:
        """Adds a pane; panes come in the order of time, and with the same bins until `clear`."""
        self.panes.append(pane)
        self.counts = self.counts + pane.counts if self.counts.size else pane.counts
        self._number_count += pane.number_count
        self._sum += pane.exact_sum

    def evict(self, now_ns: int) -> None:
        """Removes panes whose end is one length before `now_ns`, or earlier."""
        while self.panes and self.panes[0].end_ns <= now_ns - self.length_ns:
            pane = self.panes.popleft()
            self.counts = self.counts - pane.counts
            self._number_count -= pane.number_count
            self._sum -= pane.exact_sum

    @property
    def total(self) -> int:
        """How many values it holds."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean of the numbers; NaN of none."""
        return Moments(count=self._number_count, exact_sum=self._sum).mean

    def start_ns(self, default_ns: int) -> int:
        """Start of the oldest pane, or `default_ns` if there is none."""
        return self.panes[0].start_ns if self.panes else default_ns
