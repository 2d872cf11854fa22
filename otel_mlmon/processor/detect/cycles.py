"""Keeps the daily cycles of all streams: which have one, which shares are no drift next, and what is to be stored.

A cycle follows the clock of its stream's users where their time zone is known, with its changes in spring and autumn.

A deploy does not change when people get up. So a new version takes over the whole days that the version before
accepted, until it knows enough days itself. Bins of classes are the same by name, and a class that the version before
had not has its share of the reference at all times. Ordered bins of other edges get what lies between their edges,
values being taken as spread evenly within a bin.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.arrays import HOUR_NS
from otel_mlmon.processor.detect.bets import DayHypothesis, SlotHypothesis
from otel_mlmon.processor.detect.cycle import DailyCycle, start_daily_cycle
from otel_mlmon.processor.detect.cycle_rows import ALWAYS_NS, NEVER_NS, CycleRows
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.state import CycleDay, CycleState
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, ReferenceOrigin, StreamKey, StreamWindow
from otel_mlmon.types import Floats, Indices, Ints

_ORIGINS: Final[frozenset[ReferenceOrigin]] = frozenset({"learned", "file", "model"})
"""References that have no time: an allowance has no cycle, and those that move with time have their own."""


_QUARTER_S: Final = 900
_QUARTER_NS: Final = _QUARTER_S * 10**9


class StreamCycles:
    """Keeps the daily cycles of streams, each against the reference that the stream has.

    Args:
        time_zone_for: Returns the IANA name of the time zone of a stream's users, empty if it is not known; asked when
            a cycle begins.
        has_times: Whether windows have times of their own; else no stream has a cycle.
    """

    def __init__(self, time_zone_for: Callable[[StreamKey], str] = lambda _: "", *, has_times: bool = True) -> None:
        self._time_zone_for, self._has_times = time_zone_for, has_times
        self._cycles: dict[StreamKey, tuple[ReferenceCounts, DailyCycle]] = {}
        self._states: dict[StreamKey, CycleState] = {}
        """The restored states of streams whose next pane has not come yet."""
        self._inherited: dict[StreamKey, tuple[HistogramBins, CycleState]] = {}
        """The bins and the cycle of the version before, for new versions until their first pane."""
        self._tables: dict[tuple[int, Direction], CycleRows] = {}
        """The tables by number of bins and direction, as banks of evidence are."""
        self._places: dict[StreamKey, tuple[CycleRows, int]] = {}
        """The row of each stream whose evidence is in a bank."""
        self._changed: set[StreamKey] = set()
        self._holidays: dict[StreamKey, None] = {}
        """Streams whose present day was found to be like another day of the week, and may still be."""

    def advance(self, windows: Sequence[StreamWindow], bank: EvidenceBank, rows: Indices, start_ns: Ints) -> None:
        """Writes into a bank the shares that are no drift at the time of some windows, as far as they are others now.

        Where a cycle is known for the first time, or other kinds of day, φ is estimated anew from what it leaves.

        Args:
            windows: Of streams of the bank.
            bank: The bank.
            rows: The row of each window, shape (S,).
            start_ns: When each begins, Unix nanoseconds, shape (S,).
        """
        table = self._tables.setdefault((bank.bins, bank.direction), CycleRows(bank.bins))
        restless = table.find_restless(rows, [window.reference for window in windows], start_ns)
        effects = bank.effects.estimate[rows[restless]].tolist()
        places, nulls = rows[restless].tolist(), list[SlotHypothesis | None]()
        new: list[tuple[int, DailyCycle]] = []
        for position, row, effect in zip(restless.tolist(), places, effects, strict=True):
            window = windows[position]
            table.settle(row)
            self._places[window.stream] = table, row
            cycle = self._find_cycle(window.stream, window.reference, window.start_ns)
            if cycle is None:
                present = self._find_waiting_cycle(window.stream, window.reference)
                table.start_calm_time(row, window.reference, present, ALWAYS_NS if present is None else NEVER_NS)
                nulls.append(None)
                continue
            local_ns = _localize_time(window.start_ns, cycle)
            if cycle.advance(local_ns, effect):
                new.append((row, cycle))
            cycle.compare_with_week(local_ns, window.pane, effect)
            if cycle.state.other_weekday >= 0:
                self._holidays[window.stream] = None
            nulls.append(cycle.find_slot_hypothesis(local_ns))
            calm_ns = _find_calm_time(cycle, window.start_ns, local_ns)
            table.start_calm_time(row, window.reference, cycle, calm_ns, calm_ns[0] + local_ns - window.start_ns)
        bank.slots.write(places, nulls)
        if new:
            bank.relearn_design_effects([row for row, _ in new], [cycle.list_residuals() for _, cycle in new])

    def add(
        self,
        windows: Sequence[StreamWindow],
        bank: EvidenceBank,
        rows: Indices,
        times_ns: tuple[Ints, Ints],
        panes: Floats,
        evidence: Floats,
    ) -> None:
        """Counts the panes of windows, shape (S, K), into the daily cycles of their streams, after `advance`.

        Args:
            windows: Of streams of the bank.
            bank: The bank.
            rows: The row of each window, shape (S,).
            times_ns: When each begins, and when it ends, Unix nanoseconds, shape (S,) each.
            panes: Their counts.
            evidence: The evidence of each window as a part of the alarm line, shape (S,).
        """
        table, counts = self._tables[bank.bins, bank.direction], panes.astype(np.int64)
        start_ns, end_ns = times_ns
        for position in table.add(rows, start_ns, counts, evidence).tolist():
            table.settle(int(rows[position]))
            window = windows[position]
            cycle = self._cycles[window.stream][1]
            cycle.add(_localize_time(window.start_ns, cycle), counts[position], evidence=float(evidence[position]))
        is_at_hour = start_ns // HOUR_NS != end_ns // HOUR_NS
        for position in np.flatnonzero(is_at_hour & table.has_cycle(rows)).tolist() if is_at_hour.any() else ():
            self._changed.add(windows[position].stream)

    def can_have_cycle(self, reference: ReferenceCounts) -> bool:
        """Returns whether a stream that is compared with a reference has a daily cycle beside it."""
        return self._has_times and reference.origin in _ORIGINS

    def leave_row(self, stream: StreamKey) -> None:
        """Notes that the evidence of a stream leaves its row of a bank; its daily cycle stays."""
        place = self._places.pop(stream, None)
        if place is not None:
            place[0].remove(place[1])

    def build_day_hypothesis(
        self, stream: StreamKey, reference: ReferenceCounts | None, time_ns: int
    ) -> DayHypothesis | None:
        """Returns the shares that are no drift on the day of a time, Unix nanoseconds; None if the reference tells."""
        cycle = self._find_cycle(stream, reference, time_ns)
        return None if cycle is None else cycle.build_day_hypothesis(_localize_time(time_ns, cycle))

    def list_holidays(self) -> Collection[StreamKey]:
        """Returns the streams whose present day is like another day of the week."""
        for stream in [stream for stream in self._holidays if not self._is_holiday(stream)]:
            del self._holidays[stream]
        return self._holidays

    def _is_holiday(self, stream: StreamKey) -> bool:
        entry = self._cycles.get(stream)
        return entry is not None and entry[1].state.other_weekday >= 0

    def inherit(self, stream: StreamKey, before: StreamKey) -> None:
        """Lets a stream of a new model version begin with the daily cycle of the version before, if that is known."""
        entry = self._cycles.get(before)
        if entry is not None and entry[1].is_known:
            self._inherited[stream] = entry[0].bins, entry[1].state

    def remove(self, stream: StreamKey) -> None:
        """Forgets the daily cycle of a stream, if it has one."""
        self.leave_row(stream)
        self._inherited.pop(stream, None)
        self._cycles.pop(stream, None)
        self._states.pop(stream, None)
        self._changed.discard(stream)

    def restore(self, stream: StreamKey, state: CycleState) -> None:
        """Restores the stored daily cycle of a stream."""
        self._states[stream] = state

    def changed(self) -> list[StreamKey]:
        """Returns the streams whose daily cycle is to be stored: it went on to another hour since `clear_changed`."""
        return [stream for stream in sorted(self._changed) if stream in self._cycles]

    def list_streams(self) -> list[StreamKey]:
        """Lists the streams that had panes with a daily cycle since the start of this process."""
        return sorted(self._cycles)

    def state(self, stream: StreamKey) -> CycleState:
        """Returns the daily cycle of a stream to be stored, with all panes so far.

        Raises:
            KeyError: The stream has none.
        """
        place = self._places.get(stream)
        if place is not None:
            place[0].settle(place[1])
        return self._cycles[stream][1].state

    def clear_changed(self) -> None:
        """Notes that the daily cycles of all streams are stored."""
        self._changed.clear()

    def _find_cycle(self, stream: StreamKey, reference: ReferenceCounts | None, start_ns: int) -> DailyCycle | None:
        """Returns the daily cycle of a stream, begun if it has none over these bins; None if it can have none."""
        if reference is None or not self.can_have_cycle(reference):
            return None
        entry = self._cycles.get(stream)
        if entry is not None and entry[0] is reference:
            return entry[1]
        state = self._states.pop(stream, None) if entry is None else entry[1].state
        time_zone = self._time_zone_for(stream)
        if state is None or state.bins != reference.bins.names or state.time_zone != time_zone:
            state = start_daily_cycle(
                start_ns + compute_utc_offset_ns(time_zone, start_ns), reference.bins.names, time_zone
            )
            self._changed.add(stream)
            if stream in self._inherited and reference.total:
                inherit_days(state, *self._inherited.pop(stream), reference)
        counts = reference.counts.astype(np.float64)
        cycle = DailyCycle(
            state,
            reference=(counts + 0.5) / (counts.sum() + counts.size / 2.0),
            reference_count=reference.total,
            is_learned=reference.origin == "learned",
            reference_ns=reference.first_ns
            and reference.first_ns + compute_utc_offset_ns(time_zone, reference.first_ns),
        )
        self._cycles[stream] = reference, cycle
        return cycle

    def _find_waiting_cycle(self, stream: StreamKey, reference: ReferenceCounts | None) -> DailyCycle | None:
        """Returns the cycle whose present day goes on though a stream is compared with a reference that has none.

        It is needed again when the reference from before comes back, as after hours of the week that are known.
        """
        entry = self._cycles.get(stream)
        is_waiting = entry is not None and reference is not None and entry[1].state.bins == reference.bins.names
        return entry[1] if entry is not None and is_waiting else None


def _localize_time(time_ns: int, cycle: DailyCycle) -> int:
    time_zone = cycle.state.time_zone
    return time_ns + compute_utc_offset_ns(time_zone, time_ns) if time_zone else time_ns


def _find_calm_time(cycle: DailyCycle, start_ns: int, local_ns: int) -> tuple[int, int]:
    """Returns the calm time of a cycle around the start of a pane, Unix nanoseconds; its clock changes by quarters."""
    begin_ns, end_ns = cycle.find_calm_time(local_ns)
    ahead_ns, quarter_ns = local_ns - start_ns, start_ns - start_ns % _QUARTER_NS
    return max(begin_ns - ahead_ns, quarter_ns), min(end_ns - ahead_ns, quarter_ns + _QUARTER_NS)


def compute_utc_offset_ns(time_zone: str, time_ns: int) -> int:
    """Returns how far a time zone is ahead of UTC at a time, Unix nanoseconds; 0 for an empty name."""
    return _find_offset_ns(time_zone, time_ns // _QUARTER_NS) if time_zone else 0


@lru_cache(maxsize=4096)
def _find_offset_ns(time_zone: str, quarter: int) -> int:
    moment = datetime.fromtimestamp(quarter * _QUARTER_S, ZoneInfo(time_zone))
    return round(moment.replace(tzinfo=UTC).timestamp() - moment.timestamp()) * 10**9


def inherit_days(state: CycleState, bins: HistogramBins, before: CycleState, reference: ReferenceCounts) -> None:
    """Adds the days of the version before to the state of a new version's daily cycle.

    Args:
        state: Of the new version; changed.
        bins: Of the version before.
        before: Its cycle.
        reference: Of the new version.
    """
    days = before.days or before.inherited
    if bins.is_ordered != reference.bins.is_ordered or before.time_zone != state.time_zone:
        return
    state.slots, state.is_smoothed = before.slots, before.is_smoothed
    state.inherited = [replace(day, counts=_rebin_day(day, bins, reference)) for day in days]


def _rebin_day(day: CycleDay, bins: HistogramBins, reference: ReferenceCounts) -> NDArray[np.int32]:
    """Counts a day, shape (slots, K), over the bins of another reference."""
    if bins.names == reference.bins.names:
        return day.counts
    items = day.counts.sum(-1)
    shares = reference.counts / reference.total
    position = {name: index for index, name in enumerate(bins.names)}
    rebinned = items[:, None] * shares
    for index, name in enumerate(reference.bins.names):
        if name in position:
            rebinned[:, index] = day.counts[:, position[name]]
    if reference.bins.edges and bins.edges:
        rebinned[:, : len(reference.bins.edges) + 1] = _spread_counts(day.counts, bins.edges, reference.bins.edges)
    counts: NDArray[np.int32] = np.rint(rebinned).astype(np.int32)
    return counts


def _spread_counts(counts: NDArray[np.int32], edges: tuple[float, ...], others: tuple[float, ...]) -> Floats:
    """Spreads counts over bins between other edges, row by row; outer bins are taken as wide as their neighbours."""
    width = max((edges[-1] - edges[0]) / max(len(edges) - 1, 1), np.finfo(np.float64).tiny)
    places = np.array([edges[0] - width, *edges, edges[-1] + width])
    sums = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts[:, : len(edges) + 1], axis=-1)], axis=-1)
    inner = np.array([np.interp(others, places, row) for row in sums])
    spread: Floats = np.diff(inner, prepend=0.0, append=sums[:, -1:], axis=-1)
    return spread


class VersionLineage:
    """The versions of every stream of every model, so that a new one finds the version before."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str, str], dict[StreamKey, None]] = {}

    def add(self, stream: StreamKey) -> None:
        """Adds a stream of a model version to those among which the version before is found."""
        self._versions.setdefault(_build_lineage_key(stream), {})[stream] = None

    def remove(self, stream: StreamKey) -> None:
        """Removes a stream of a model version from those among which the version before is found."""
        versions = self._versions.get(_build_lineage_key(stream), {})
        versions.pop(stream, None)
        if not versions:
            self._versions.pop(_build_lineage_key(stream), None)

    def find_previous_version(
        self, stream: StreamKey, measure_traffic: Callable[[StreamKey], float]
    ) -> StreamKey | None:
        """Finds the same stream of the version before: of several, the one with most traffic; None without any.

        Args:
            stream: Of a version that is new.
            measure_traffic: Returns how many values a stream had lately.
        """
        others = [other for other in self._versions.get(_build_lineage_key(stream), ()) if other != stream]
        return max(others, key=lambda other: (measure_traffic(other), other), default=None)


def _build_lineage_key(stream: StreamKey) -> tuple[str, str, str]:
    return stream.model.name, stream.model.environment, stream.stream
