"""Counts the values of each stream in the last day: the more there are, the smaller a shift would be found."""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_mlmon.processor.detect.arrays import RowArrays, as_slice
from otel_mlmon.processor.detect.state import TrafficState
from otel_mlmon.types import Floats, Indices, Ints

HOURS: Final = 24
HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = HOURS * HOUR_NS


class DailyTraffic:
    """The values of many streams in the last 24 hours, one stream a row."""

    def __init__(self) -> None:
        self._arrays = RowArrays(hours=((HOURS,), np.float64), first_ns=((), np.int64), last_ns=((), np.int64))

    def start(self, row: int) -> None:
        """Begins anew in `row`."""
        self._arrays.clear(row)

    def add(self, rows: Indices, items: Floats, end_ns: Ints) -> None:
        """Adds one pane to each of `rows`, in the order of time.

        Args:
            rows: Shape (S,).
            items: Values in the pane, shape (S,).
            end_ns: End of the pane, Unix nanoseconds, shape (S,).
        """
        arrays, index, hour = self._arrays, as_slice(rows), end_ns // HOUR_NS
        passed = np.minimum(hour - arrays["last_ns"][index] // HOUR_NS, HOURS)
        for step in range(int(passed.max(initial=0))):
            is_behind = passed > step
            arrays["hours"][rows[is_behind], (hour[is_behind] - step) % HOURS] = 0.0
        arrays["hours"][rows, hour % HOURS] += items
        first_ns = arrays["first_ns"][index]
        arrays["first_ns"][index] = np.where(first_ns == 0, end_ns, first_ns)
        arrays["last_ns"][index] = end_ns

    def items_per_day(self, rows: Indices, *, is_over: bool) -> Floats:
        """Returns the values of the last 24 hours, shape (S,); what is younger is taken to go on as in its first hours.

        Args:
            rows: Shape (S,).
            is_over: Whether no more comes, so that a part of a day stays one.
        """
        arrays = self._arrays
        items: Floats = arrays["hours"][rows].sum(-1)
        if is_over:
            return items
        age_ns = np.clip(arrays["last_ns"][rows] - arrays["first_ns"][rows], HOUR_NS, DAY_NS)
        scaled: Floats = items * (DAY_NS / age_ns)
        return scaled

    def state(self, row: int) -> TrafficState:
        """Returns everything of a row; `restore` puts it back."""
        arrays = self._arrays
        return TrafficState(
            first_ns=int(arrays["first_ns"][row]),
            last_ns=int(arrays["last_ns"][row]),
            hours=arrays["hours"][row].copy(),
        )

    def restore(self, row: int, state: TrafficState) -> None:
        """Puts a state into `row`."""
        arrays = self._arrays
        arrays["first_ns"][row], arrays["last_ns"][row] = state.first_ns, state.last_ns
        arrays["hours"][row] = state.hours
