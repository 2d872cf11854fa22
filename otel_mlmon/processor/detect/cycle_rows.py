"""Collects the panes that change nothing of the daily cycles of many streams but the counts of a quarter of an hour.

Nearly all panes are such: the same shares are no drift as before, and the evidence is small. Their counts go into one
row a stream of an array, and from there into the cycle before anything of it is asked, or another quarter begins. So
most panes of ten thousand streams cost some array operations, and no step of Python a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_mlmon.processor.detect.accepted_days import MAX_QUIET_EVIDENCE
from otel_mlmon.processor.detect.arrays import RowArrays, convert_to_slice
from otel_mlmon.processor.detect.cycle import DailyCycle
from otel_mlmon.processor.window.window import ReferenceCounts
from otel_mlmon.types import Bools, Floats, Indices, Ints

ALWAYS_NS: Final = -(2**63), 2**63 - 1
"""The calm time of a stream that has no cycle."""

NEVER_NS: Final = 0, 0
"""The calm time of a stream of which each pane is to be told to its cycle."""


class CycleRows:
    """The counts of calm panes of streams with K bins, one stream a row, that their daily cycles do not have yet.

    A stream has a calm time: panes that start in it change nothing of its cycle but counts, unless there is much
    evidence.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._arrays = RowArrays(
            begin_ns=((), np.int64),
            end_ns=((), np.int64),
            has_cycle=((), np.bool_),
            counts=((bins,), np.int64),
            has_counts=((), np.bool_),
            evidence=((), np.float64),
        )
        self._cycles: list[tuple[DailyCycle | None, int]] = []
        """The cycle in each row, and when its calm time begins by its own clock."""
        self._references: list[ReferenceCounts | None] = []
        """The reference that each row's calm time is about; None for no calm time."""

    def start_calm_time(
        self,
        row: int,
        reference: ReferenceCounts | None,
        cycle: DailyCycle | None,
        calm_ns: tuple[int, int],
        local_ns: int = 0,
    ) -> None:
        """Starts the calm time of a stream, whose row is settled.

        Args:
            row: Of the stream.
            reference: What its panes are compared with.
            cycle: Its cycle; None if it can have none.
            calm_ns: When it begins and ends, Unix nanoseconds.
            local_ns: When it begins by the cycle's own clock.
        """
        if (missing := row + 1 - len(self._cycles)) > 0:
            self._cycles.extend([(None, 0)] * missing)
            self._references.extend([None] * missing)
            self._arrays.clear(row)
        self._cycles[row], self._references[row] = (cycle, local_ns), reference
        arrays = self._arrays
        arrays["begin_ns"][row], arrays["end_ns"][row] = calm_ns
        arrays["has_cycle"][row] = cycle is not None

    def find_restless(self, rows: Indices, references: Sequence[ReferenceCounts | None], start_ns: Ints) -> Indices:
        """Returns the positions of the panes that are not in the calm time of their stream.

        Args:
            rows: Of the streams, shape (S,).
            references: What each is compared with: a calm time is of one reference.
            start_ns: When each pane starts, Unix nanoseconds, shape (S,).
        """
        known, numbers = self._references, rows.tolist()
        if len(known) <= max(numbers, default=-1):
            return np.arange(len(rows))
        is_same = [known[row] is reference for row, reference in zip(numbers, references, strict=True)]
        return np.flatnonzero(~(self._is_calm(rows, start_ns) & np.array(is_same, dtype=np.bool_)))

    def add(self, rows: Indices, start_ns: Ints, counts: Ints, evidence: Floats) -> Indices:
        """Adds panes in the calm time of their streams; returns the positions of those that the cycles have to be told.

        Args:
            rows: Of the streams, shape (S,).
            start_ns: When each pane starts, Unix nanoseconds, shape (S,).
            counts: Shape (S, K).
            evidence: After each pane, as a part of the alarm line, shape (S,).
        """
        arrays, has_cycle = self._arrays, self._arrays["has_cycle"][rows]
        is_taken = has_cycle & (evidence < MAX_QUIET_EVIDENCE) & self._is_calm(rows, start_ns)
        if not is_taken.all():
            rows, counts, evidence = rows[is_taken], counts[is_taken], evidence[is_taken]
        index = convert_to_slice(rows)
        arrays["counts"][index] += counts
        arrays["has_counts"][index] = True
        arrays["evidence"][index] = evidence
        return np.flatnonzero(has_cycle & ~is_taken)

    def has_cycle(self, rows: Indices) -> Bools:
        """Returns which streams have a cycle, shape (S,)."""
        result: Bools = self._arrays["has_cycle"][rows]
        return result

    def settle(self, row: int) -> None:
        """Adds the counts in the row of a stream to its daily cycle, which then has all panes so far."""
        arrays = self._arrays
        if row >= len(self._cycles) or not arrays["has_counts"][row]:
            return
        cycle, local_ns = self._cycles[row]
        if cycle is not None:
            cycle.add(local_ns, arrays["counts"][row], evidence=float(arrays["evidence"][row]))
        arrays["counts"][row] = 0
        arrays["has_counts"][row] = False

    def remove(self, row: int) -> None:
        """Ends the calm time of a stream that leaves its row, after its counts are settled."""
        self.settle(row)
        self.start_calm_time(row, None, None, NEVER_NS)

    def _is_calm(self, rows: Indices, start_ns: Ints) -> Bools:
        begin_ns, end_ns = self._arrays["begin_ns"][rows], self._arrays["end_ns"][rows]
        result: Bools = (begin_ns <= start_ns) & (start_ns < end_ns)
        return result
