"""The rolling window of one stream: a running sum over its panes; old ones are subtracted, exactly."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.types import Counts


class Slot(NamedTuple):
    """One pane in the window."""

    start_ns: int
    end_ns: int
    counts: Counts
    """Shape (K,)."""
    number_count: int
    exact_sum: int
    """Of the numbers, as `Moments` has it."""


class Rolling:
    """Counts and moments of the last panes.

    Memory: 8 K bytes and about 300 more a pane.

    Args:
        length_ns: Panes that end this long before the newest, or earlier, leave.
    """

    __slots__ = ("_counts", "_length_ns", "_number_count", "_slots", "_sum")

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self.clear()

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self) -> None:
        """Forget all panes: their bins are no longer those of the reference."""
        self._slots: deque[Slot] = deque()
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self._number_count = 0
        self._sum = 0

    def add(self, slot: Slot) -> None:
        """Add a pane; panes come in the order of time, and with the same bins until `clear`."""
        self._slots.append(slot)
        self._counts = self._counts + slot.counts if self._counts.size else slot.counts
        self._number_count += slot.number_count
        self._sum += slot.exact_sum

    def evict(self, now_ns: int) -> None:
        """Let panes leave whose end is one length before `now_ns`, or earlier."""
        while self._slots and self._slots[0].end_ns <= now_ns - self._length_ns:
            old = self._slots.popleft()
            self._counts = self._counts - old.counts
            self._number_count -= old.number_count
            self._sum -= old.exact_sum

    @property
    def counts(self) -> Counts:
        """Shape (K,), or (0,) before the first pane."""
        return self._counts

    @property
    def total(self) -> int:
        """How many values."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        """Of the numbers; NaN of none."""
        return Moments(count=self._number_count, exact_sum=ExactSum(self._sum)).mean

    def start_ns(self, otherwise_ns: int) -> int:
        """Start of the oldest pane, or `otherwise_ns`."""
        return self._slots[0].start_ns if self._slots else otherwise_ns

    @property
    def newest(self) -> Slot | None:
        """The pane added last."""
        return self._slots[-1] if self._slots else None
