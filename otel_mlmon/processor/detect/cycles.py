"""The daily cycles of all streams: which have one, what is no drift in their next pane, and what has to be stored.

A cycle follows the clock of its stream's users where their time zone is known, with its changes in spring and autumn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from otel_mlmon.processor.detect.bets import DayNull, SlotNull
from otel_mlmon.processor.detect.cycle import DAY_NS, DailyCycle, start_cycle
from otel_mlmon.processor.detect.cycle_statistics import HOURS
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.inheritance import inherit_days
from otel_mlmon.processor.detect.state import CycleState
from otel_mlmon.processor.window.window import Bins, Reference, ReferenceOrigin, StreamKey, Window
from otel_mlmon.types import Bools, Floats, Indices

ORIGINS: Final[frozenset[ReferenceOrigin]] = frozenset({"learned", "file", "model"})
"""References that have no time: an allowance has no cycle, and those that move with time have their own."""


_QUARTER_S: Final = 900


class StreamCycles:
    """Keeps the daily cycles of streams, each against the reference that the stream has.

    Args:
        time_zone_for: Returns the IANA name of the time zone of a stream's users, empty if it is not known; asked when
            a cycle begins.
    """

    def __init__(self, time_zone_for: Callable[[StreamKey], str] = lambda _: "") -> None:
        self._time_zone_for = time_zone_for
        self._cycles: dict[StreamKey, tuple[Reference, DailyCycle]] = {}
        self._states: dict[StreamKey, CycleState] = {}
        """Those that were restored, until the stream's next pane."""
        self._inherited: dict[StreamKey, tuple[Bins, CycleState]] = {}
        """Of new versions, until their first pane: the bins and the cycle of the version before."""
        self._changed: set[StreamKey] = set()

    def advance(
        self, windows: Sequence[Window], bank: EvidenceBank, rows: Sequence[int], positions: Indices
    ) -> list[SlotNull | None]:
        """Returns what is no drift in the pane of each window at `positions`, None for what its reference alone has.

        Where a cycle is known for the first time, or other kinds of day, φ is estimated anew from what it leaves.

        Args:
            windows: Of streams of one bank.
            bank: The bank.
            rows: The row of each window.
            positions: Those that are judged.
        """
        nulls: list[SlotNull | None] = []
        new: list[tuple[int, DailyCycle]] = []
        for position in positions.tolist():
            window, row = windows[position], rows[position]
            cycle = self._find(window.stream, window.reference, window.start_ns)
            if cycle is None:
                nulls.append(None)
                continue
            local_ns = _localize(window.start_ns, cycle)
            if cycle.advance(local_ns, float(bank.effects.estimate[row])):
                new.append((row, cycle))
            nulls.append(cycle.null(local_ns))
        if new:
            bank.relearn_effects([row for row, _ in new], [cycle.residuals() for _, cycle in new])
        return nulls

    def add(self, windows: Sequence[Window], positions: Indices, panes: Floats, is_quiet: Bools) -> None:
        """Counts the panes of the windows at `positions`, shape (S, K), into their cycles."""
        for place, position in enumerate(positions.tolist()):
            window = windows[position]
            entry = self._cycles.get(window.stream)
            if entry is None:
                continue
            local_ns = _localize(window.start_ns, entry[1])
            entry[1].add(local_ns, panes[place].astype(np.int64), is_quiet=bool(is_quiet[position]))
            if _hour_of(window.start_ns) != _hour_of(window.end_ns):
                self._changed.add(window.stream)

    def day_null(self, stream: StreamKey, reference: Reference | None, time_ns: int) -> DayNull | None:
        """Returns what is no drift on the day of a time, Unix nanoseconds; None for what the reference has."""
        cycle = self._find(stream, reference, time_ns)
        return None if cycle is None else cycle.day_null(_localize(time_ns, cycle))

    def inherit(self, stream: StreamKey, before: StreamKey) -> None:
        """Lets a new version begin with the cycle of the version before, if that is known."""
        entry = self._cycles.get(before)
        if entry is not None and entry[1].is_known:
            self._inherited[stream] = entry[0].bins, entry[1].state

    def remove(self, stream: StreamKey) -> None:
        """Forgets the cycle of a stream, if it has one."""
        self._inherited.pop(stream, None)
        self._cycles.pop(stream, None)
        self._states.pop(stream, None)
        self._changed.discard(stream)

    def restore(self, stream: StreamKey, state: CycleState) -> None:
        """Puts back the stored cycle of a stream."""
        self._states[stream] = state

    def changed(self) -> list[tuple[StreamKey, CycleState]]:
        """Returns the cycles that are to be stored: those that went on to another hour since `clear_changed`."""
        return [(stream, self._cycles[stream][1].state) for stream in sorted(self._changed) if stream in self._cycles]

    def clear_changed(self) -> None:
        """Notes that all cycles are stored."""
        self._changed.clear()

    def _find(self, stream: StreamKey, reference: Reference | None, start_ns: int) -> DailyCycle | None:
        """Returns the cycle of a stream, begun if it has none over these bins; None if it can have none."""
        if reference is None or reference.origin not in ORIGINS:
            return None
        entry = self._cycles.get(stream)
        if entry is not None and entry[0] is reference:
            return entry[1]
        state = self._states.pop(stream, None) if entry is None else entry[1].state
        time_zone = self._time_zone_for(stream)
        if state is None or state.bins != reference.bins.names or state.time_zone != time_zone:
            state = start_cycle(start_ns + offset_ns(time_zone, start_ns), reference.bins.names, time_zone)
            self._changed.add(stream)
            if stream in self._inherited and reference.total:
                inherit_days(state, *self._inherited.pop(stream), reference)
        counts = reference.counts.astype(np.float64)
        cycle = DailyCycle(
            state,
            reference=(counts + 0.5) / (counts.sum() + counts.size / 2.0),
            reference_count=reference.total,
            is_learned=reference.origin == "learned",
            reference_ns=reference.first_ns and reference.first_ns + offset_ns(time_zone, reference.first_ns),
        )
        self._cycles[stream] = reference, cycle
        return cycle


def _localize(time_ns: int, cycle: DailyCycle) -> int:
    return time_ns + offset_ns(cycle.state.time_zone, time_ns)


def offset_ns(time_zone: str, time_ns: int) -> int:
    """Returns by how much the clocks of a time zone are ahead of UTC at a time, Unix nanoseconds; 0 of an empty one."""
    return _find_offset_ns(time_zone, time_ns // (_QUARTER_S * 10**9)) if time_zone else 0


@lru_cache(maxsize=4096)
def _find_offset_ns(time_zone: str, quarter: int) -> int:
    moment = datetime.fromtimestamp(quarter * _QUARTER_S, ZoneInfo(time_zone))
    return round(moment.replace(tzinfo=UTC).timestamp() - moment.timestamp()) * 10**9


def _hour_of(time_ns: int) -> int:
    return time_ns * HOURS // DAY_NS
