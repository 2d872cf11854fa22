"""Counts the panes of all streams of a model version over their bins, and makes the table and the windows of them.

Exponential buckets, which most numbers come in, are counted for all streams together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.window.binning import CutTable, NumberBins
from otel_mlmon.processor.window.pane_values import PaneValues
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.rolling import RollingSums
from otel_mlmon.processor.window.stream import StreamPane, StreamWindows
from otel_mlmon.processor.window.window import PaneLayout, PaneTable, StreamWindow
from otel_mlmon.sketch.moments import compute_mean
from otel_mlmon.sketch.table import SketchTable
from otel_mlmon.types import Counts

MAX_EXEMPLARS: Final = 4
"""Trace ids of a window: the smallest, which is a random choice, and the same whatever the order."""

_ALONE: Final[tuple[int, Counts | None]] = 0, None
"""A stream that is not counted together with others."""
_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)


class PaneCounter:
    """Takes the values of a model version's streams in each pane, and counts them over their bins.

    It keeps the bins of the streams that were counted together last: they seldom change from pane to pane.
    """

    def __init__(self) -> None:
        self._cuts = CutTable([])

    def count_panes(
        self,
        streams: Collection[StreamWindows],
        values: PaneValues,
        absences: Mapping[str, StreamAbsence],
        start_ns: int,
        end_ns: int,
    ) -> tuple[list[StreamPane], list[Counts | None]]:
        """Takes the values of a pane from each stream, and counts them; what fails costs one stream its pane.

        Args:
            streams: Those of the model.
            values: Of the pane.
            absences: The streams that are no longer sent.
            start_ns: Start of the pane.
            end_ns: End of the pane.

        Returns:
            The panes of the streams that have one, and their counts, shape (K,); None of those that only learn.
        """
        panes: list[StreamPane] = []
        counts: list[Counts | None] = []
        table, totals = values.table, values.totals
        together = self._count_exponential(streams, values)
        for stream in streams:
            name = stream.key.stream
            row, counted = together.get(name, _ALONE)
            if counted is not None and stream.learned.reference is not None:
                stream.fault = ""
                panes.append(StreamPane(stream, totals[name], table.numbers[row], table.sums[row], None))
                counts.append(counted)
                continue
            with guard("window"):
                sketch, is_absent = values.build_sketch(name), name in absences
                pane = stream.take_pane(
                    sketch, totals.get(name, 0), end_ns=end_ns, is_absent=is_absent, block_counts=counted
                )
                if pane is not None:
                    panes.append(pane)
                    counts.append(None)
                    counts[-1] = stream.count_pane(pane)
        for place, (pane, counted) in enumerate(zip(panes, counts, strict=True)):
            if pane.stream.moving is not None and counted is not None:
                with guard("window"):
                    counts[place] = pane.stream.adjust_counts(pane, counted, start_ns, end_ns)
        return panes, counts

    def _count_exponential(
        self, streams: Iterable[StreamWindows], values: PaneValues
    ) -> dict[str, tuple[int, Counts | None]]:
        """Counts those streams together that have nothing but an exponential histogram: by stream its row and counts.

        They are over the bins by which the stream is judged, or while it learns over those of its blocks.
        """
        table, totals, missing = values.table, values.totals, values.missing
        names: list[str] = []
        rows: list[int] = []
        binnings: list[NumberBins] = []
        for stream in streams:
            name = stream.key.stream
            row = values.find_exponential_row(name) if totals.get(name) else None
            binning = None if row is None else stream.find_cuts(table.scales[row])
            if row is not None and binning is not None:
                names.append(name)
                rows.append(row)
                binnings.append(binning)
        if self._cuts.binnings != binnings:
            self._cuts = CutTable(binnings)
        gathered = SketchTable.gather_rows([(table, row) for row in rows])
        counts = self._cuts.count(gathered, [missing.get(name, 0) for name in names] if missing else ())
        return dict(zip(names, zip(rows, counts, strict=True), strict=True))


def build_pane_table(panes: Sequence[StreamPane], counts: Sequence[Counts | None]) -> PaneTable:
    """Builds the table of the counts of those streams that have values in a pane and are judged, in their order.

    Args:
        panes: Of the streams.
        counts: Their counts; None of one that is not judged.
    """
    entries = [(pane, count) for pane, count in zip(panes, counts, strict=True) if count is not None and pane.total]
    return PaneTable(
        layout=PaneLayout(
            tuple([pane.stream.key.stream for pane, _ in entries]),
            tuple([pane.stream.learned.state.generation for pane, _ in entries]),
            tuple([count.size for _, count in entries]),
        ),
        counts=np.concatenate([_NO_COUNTS, *(count for _, count in entries)]),
        number_counts=[pane.number_count for pane, _ in entries],
        sums=[pane.units for pane, _ in entries],
    )


def build_windows(
    panes: Iterable[StreamPane],
    counts: Iterable[Counts | None],
    sums: RollingSums,
    times_ns: tuple[int, int],
    exemplars: Mapping[str, Iterable[str]],
    absences: Mapping[str, StreamAbsence],
) -> list[StreamWindow]:
    """Builds the windows of a closed pane, by stream, after its counts were added to the rolling windows.

    Args:
        panes: Of the streams.
        counts: Their counts; None where counting them failed, and of a stream that learns.
        sums: The rolling windows.
        times_ns: Start and end of the pane.
        exemplars: Trace ids by stream.
        absences: The streams that are no longer sent.
    """
    start_ns, end_ns = times_ns
    windows: list[StreamWindow] = []
    for (stream, _, number_count, units, _, learned, _), counted in zip(panes, counts, strict=True):
        if counted is None and learned is None:
            continue
        key, is_learning = stream.key, learned is not None
        name = key.stream
        windows.append(
            StreamWindow(
                stream=key,
                start_ns=start_ns,
                end_ns=end_ns,
                reference=None if is_learning else stream.reference,
                learned=learned or 0,
                pane=_NO_COUNTS if counted is None else counted,
                pane_mean=compute_mean(units, number_count),
                rolling=_NO_COUNTS if is_learning else sums.counts(name),
                rolling_start_ns=start_ns if is_learning else sums.start_ns(name, start_ns),
                rolling_mean=float("nan") if is_learning else sums.mean(name),
                exemplars=tuple(sorted(exemplars[name])[:MAX_EXEMPLARS]) if name in exemplars else (),
                absence=absences.get(name),
                calibration=stream.learned.settings.calibration if name == semconv.STREAM_CONFIDENCE else None,
            )
        )
    windows.sort(key=lambda window: window.stream.stream)
    return windows
