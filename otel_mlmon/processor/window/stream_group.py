"""Counts those streams of a model version together that send nothing but exponential histograms: nearly all numbers.

Which these are follows from the form of a pane's values and from the streams' bins. Both are the same for pane after
pane, so the group is found once, and a pane of it is counted in a few array operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import ge
from typing import Final, NamedTuple

from otel_mlmon.processor.window.binning import CutTable, NumberBins
from otel_mlmon.processor.window.pane_values import PaneValues
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.sketch.table import Bounds, SketchTable, list_runs
from otel_mlmon.types import Counts

_NO_SCALE: Final = -(2**31)
"""Less than any scale."""


class _PaneForm(NamedTuple):
    """The form of the values of a pane: which streams have them, and of what kind they are."""

    names: list[str]
    """The stream of each row of numbers."""
    bounds: list[Bounds | None]
    classes: list[str]
    """The streams that have classes."""


class LoneStream(NamedTuple):
    """A stream that is not counted with the group, or has no reference yet."""

    end: int
    """How many members of the group go before it."""
    start: int
    """The next member; `end` + 1 where the stream is a member itself, that learns."""
    stream: StreamWindows


class StreamGroup:
    """The streams of a model version whose panes are counted together, in the order of all streams.

    Args:
        streams: All streams of the model version.
        values: Of a pane.
    """

    def __init__(self, streams: Iterable[StreamWindows], values: PaneValues) -> None:
        self._form = _find_form(values)
        self.members: list[StreamWindows] = []
        self.lone: list[LoneStream] = []
        """The other streams, and those members that have no reference yet."""
        self._rows: list[int] = []
        binnings: list[NumberBins] = []
        for stream in streams:
            name, size = stream.key.stream, len(self.members)
            row = values.find_exponential_row(name) if values.totals.get(name) else None
            binning = None if row is None else stream.find_cuts(values.table.scales[row])
            if row is not None and binning is not None:
                self.members.append(stream)
                self._rows.append(row)
                binnings.append(binning)
            if binning is not None and stream.learned.reference is not None:
                stream.fault = ""
            else:
                self.lone.append(LoneStream(size, len(self.members), stream))
        self._least_scales = [_NO_SCALE] * len(values.table.scales)
        """The scale of each row from which on buckets fit the bins."""
        for row, binning in zip(self._rows, binnings, strict=True):
            self._least_scales[row] = binning.scale or 0
        self._cuts = CutTable(binnings)
        self._names = [stream.key.stream for stream in self.members]

    def is_same_for(self, values: PaneValues) -> bool:
        """Returns whether the group is the same for the values of another pane, as long as no stream changed."""
        if self._form is None or self._form != _find_form(values):
            return False
        return all(map(ge, values.table.scales, self._least_scales))

    def count(self, values: PaneValues) -> tuple[list[int], SketchTable, list[Counts]]:
        """Counts the values of a pane over the bins of the members, or while a member learns over those of its blocks.

        Returns:
            Of each member how many values it has, its row, and its counts, shape (K,).
        """
        table = SketchTable.gather_runs(list_runs(values.table, self._rows))
        missing = [values.missing.get(name, 0) for name in self._names] if values.missing else ()
        return [values.totals[name] for name in self._names], table, self._cuts.count(table, missing)


def _find_form(values: PaneValues) -> _PaneForm | None:
    """Returns the form of the values of a pane; None where a stream has several rows, or more values than it may."""
    if len(values.table.numbers) != len(values.rows) or len(values.totals) != len(values.classes):
        return None
    classes = [name for name, counts in values.classes.items() if counts]
    return _PaneForm(list(values.rows), values.table.bounds, classes)
