"""Counts the panes of all streams of a model version over their bins, and makes the table and the windows of them.

What is known of the streams' panes is kept in columns: most streams are counted together (`stream_group.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.window.pane_values import PaneValues
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.rolling import RollingSums
from otel_mlmon.processor.window.stream import StreamPane, StreamWindows
from otel_mlmon.processor.window.stream_group import StreamGroup
from otel_mlmon.processor.window.window import NumberSum, PaneLayout, PaneTable, StreamKey, StreamWindow
from otel_mlmon.types import Counts

MAX_EXEMPLARS: Final = 4
"""Trace ids of a window: the smallest, which is a random choice, and the same whatever the order."""

_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class CountedPanes:
    """The panes of those streams of a model version that have one, in columns, in the order of the streams."""

    streams: list[StreamWindows] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    """The number of values of each stream in the pane."""
    numbers: list[NumberSum] = field(default_factory=list)
    counts: list[Counts | None] = field(default_factory=list)
    """The values by bin, shape (K,); None of a stream that learns, and where counting failed."""
    learned: list[int | None] = field(default_factory=list)
    """Values learned towards the reference so far; None where there is one by which the pane is judged."""
    changed: list[StreamKey] = field(default_factory=list)
    """The streams whose reference grew or changed."""

    def add_run(
        self,
        streams: Sequence[StreamWindows],
        totals: Sequence[int],
        numbers: Iterable[NumberSum],
        counts: Sequence[Counts],
    ) -> None:
        """Adds the panes of several streams that have a reference."""
        self.streams += streams
        self.totals += totals
        self.numbers += numbers
        self.counts += counts
        self.learned += [None] * len(streams)

    def add_pane(self, pane: StreamPane) -> None:
        """Adds the pane of one stream, which is not counted yet."""
        self.streams.append(pane.stream)
        self.totals.append(pane.total)
        self.numbers.append(pane.numbers)
        self.counts.append(None)
        self.learned.append(pane.learned)
        if pane.is_changed:
            self.changed.append(pane.stream.key)


class PaneCounter:
    """Takes the values of a model version's streams in each pane, and counts them over their bins.

    It keeps the group of streams that were counted together last: it seldom changes from pane to pane.
    """

    def __init__(self) -> None:
        self._group: StreamGroup | None = None

    def forget_group(self) -> None:
        """Notes that streams came, went or changed, so that others may be counted together."""
        self._group = None

    def count_panes(
        self,
        streams: Iterable[StreamWindows],
        values: PaneValues,
        absences: Mapping[str, StreamAbsence],
        start_ns: int,
        end_ns: int,
    ) -> CountedPanes:
        """Takes the values of a pane from each stream, and counts them; what fails costs one stream its pane.

        Args:
            streams: Those of the model.
            values: Of the pane.
            absences: The streams that are no longer sent.
            start_ns: Start of the pane.
            end_ns: End of the pane.
        """
        group = self._group
        if group is None or not group.is_same_for(values):
            group = self._group = StreamGroup(streams, values)
        panes, first = CountedPanes(), 0
        totals, table, counts = group.count(values)

        def add_members(run: slice) -> None:
            numbers = map(NumberSum, table.sums[run], table.numbers[run])
            panes.add_run(group.members[run], totals[run], numbers, counts[run])

        for end, start, stream in group.lone:
            add_members(slice(first, end))
            first, name = start, stream.key.stream
            with guard("window"):
                sketch, is_absent = values.build_sketch(name), name in absences
                pane = stream.take_pane(
                    sketch,
                    values.totals.get(name, 0),
                    end_ns=end_ns,
                    is_absent=is_absent,
                    block_counts=counts[end] if start > end else None,
                )
                if pane is not None:
                    panes.add_pane(pane)
                    panes.counts[-1] = stream.count_pane(pane)
        add_members(slice(first, None))
        for place in [place for place, stream in enumerate(panes.streams) if stream.moving is not None]:
            stream, counted, total = panes.streams[place], panes.counts[place], panes.totals[place]
            if counted is not None:
                with guard("window"):
                    numbers = panes.numbers[place] if total else None
                    panes.counts[place] = stream.adjust_counts(counted, numbers, start_ns, end_ns)
        return panes


def build_pane_table(panes: CountedPanes) -> PaneTable:
    """Builds the table of the counts of those streams that have values in a pane and are judged, in their order."""
    columns = zip(panes.streams, panes.numbers, panes.counts, panes.totals, strict=True)
    entries = [(stream, numbers, count) for stream, numbers, count, total in columns if count is not None and total]
    return PaneTable(
        layout=PaneLayout(
            tuple([stream.key.stream for stream, _, _ in entries]),
            tuple([stream.learned.state.generation for stream, _, _ in entries]),
            tuple([count.size for _, _, count in entries]),
        ),
        counts=np.concatenate([_NO_COUNTS, *(count for _, _, count in entries)]),
        number_counts=[numbers.number_count for _, numbers, _ in entries],
        sums=[numbers.units for _, numbers, _ in entries],
    )


def build_windows(
    panes: CountedPanes,
    sums: RollingSums,
    times_ns: tuple[int, int],
    exemplars: Mapping[str, Iterable[str]],
    absences: Mapping[str, StreamAbsence],
) -> list[StreamWindow]:
    """Builds the windows of a closed pane, by stream, after its counts were added to the rolling windows.

    A stream whose counting failed has none.

    Args:
        panes: Of the streams.
        sums: The rolling windows.
        times_ns: Start and end of the pane.
        exemplars: Trace ids by stream.
        absences: The streams that are no longer sent.
    """
    start_ns, end_ns = times_ns
    traces = {name: tuple(sorted(found)[:MAX_EXEMPLARS]) for name, found in exemplars.items()}
    names = [stream.key.stream for stream in panes.streams]
    columns = zip(
        names,
        panes.streams,
        panes.numbers,
        panes.counts,
        panes.learned,
        sums.list_windows(names, start_ns),
        strict=True,
    )
    windows = [
        StreamWindow(
            stream=stream.key,
            start_ns=start_ns,
            end_ns=end_ns,
            reference=stream.reference if learned is None else None,
            learned=learned or 0,
            pane=_NO_COUNTS if counted is None else counted,
            pane_numbers=numbers,
            rolling=rolling,
            rolling_start_ns=rolling_start_ns,
            rolling_numbers=rolling_numbers,
            exemplars=traces.get(name, ()),
            absence=absences.get(name),
            calibration=stream.learned.settings.calibration if name == semconv.STREAM_CONFIDENCE else None,
        )
        for name, stream, numbers, counted, learned, (rolling, rolling_start_ns, rolling_numbers) in columns
        if counted is not None or learned is not None
    ]
    windows.sort(key=lambda window: window.stream.stream)
    return windows
