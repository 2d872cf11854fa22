"""The counts of a backtest's data, window by window; those of parts of the data can be merged in any order.

They are whole numbers, and sums of values are exact, so the result depends, to the last bit, neither on the parts nor
on their order. Beside the counts the bins of the first `FIRST_ROWS` rows are kept one by one, from which the design
effect is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.backtest.times import TimesNs
from otel_mlmon.types import Counts

FIRST_ROWS: Final = 10_000
"""The rows whose bins are kept one by one."""
NEVER_NS: Final = np.iinfo(np.int64).max


@dataclass(slots=True)
class WindowCounts:
    """The counts of the values in one window of a backtest, by stream and bin."""

    counts: Counts
    """Shape (ΣK,): the bins of all streams, one stream after the other."""
    sums: list[int]
    """The sum of the numbers of each stream, in units of 2^-1074; 0 for classes."""
    rows: int = 0
    last_ns: int = -NEVER_NS
    """The time of its last row."""

    def merge(self, other: WindowCounts) -> None:
        """Adds the counts of another part of the data in the same window."""
        self.counts += other.counts
        self.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        self.rows += other.rows
        self.last_ns = max(self.last_ns, other.last_ns)


@dataclass(slots=True)
class FirstRows:
    """The bins of the values in the first rows of a table, kept row by row to estimate design effects from."""

    codes: NDArray[np.int16]
    """Shape (streams, n)."""
    times_ns: TimesNs
    """Shape (n,), not decreasing; zeros without times."""
    next_ns: int = NEVER_NS
    """The smallest time of a row that found no room."""

    def add_rows(self, codes: NDArray[np.int16], times_ns: TimesNs, next_ns: int = NEVER_NS) -> None:
        """Adds further rows, sorted by time and cut to the first `FIRST_ROWS` of the table."""
        times_ns = np.concatenate([self.times_ns, times_ns])
        codes = np.concatenate([self.codes, codes], axis=1)
        if (np.diff(times_ns) < 0).any():
            order = np.argsort(times_ns, kind="stable")
            times_ns, codes = times_ns[order], codes[:, order]
        rest = times_ns[FIRST_ROWS : FIRST_ROWS + 1].tolist()
        self.next_ns = min(self.next_ns, next_ns, *rest)
        self.times_ns, self.codes = times_ns[:FIRST_ROWS], codes[:, :FIRST_ROWS]


@dataclass(slots=True)
class TableCounts:
    """The counts of the values of a table, or of a part of it, window by window."""

    windows: dict[int, WindowCounts]
    first: FirstRows
    rows: int = 0
    first_ns: int = NEVER_NS
    """The earliest time of a row."""
    disorder: int = 0
    """Rows that stand before an earlier one, in the order in which they came."""
    has_times: bool = True
    """Whether every row has a time."""

    @classmethod
    def build_empty(cls, streams: int, *, has_times: bool) -> TableCounts:
        """Returns the counts of a table without rows, for a number of streams."""
        first = FirstRows(np.zeros((streams, 0), dtype=np.int16), np.zeros(0, dtype=np.int64))
        return cls({}, first, has_times=has_times)

    def merge(self, other: TableCounts) -> None:
        """Adds the counts of another part of the same table's rows."""
        for number, counts in other.windows.items():
            if number in self.windows:
                self.windows[number].merge(counts)
            else:
                self.windows[number] = counts
        self.first.add_rows(other.first.codes, other.first.times_ns, other.first.next_ns)
        self.rows += other.rows
        self.first_ns = min(self.first_ns, other.first_ns)
        self.disorder += other.disorder
        self.has_times = self.has_times and other.has_times
