"""Adds up the increments of all series of a model version in one pane, in columns by stream.

Numbers stay rows of one table. A sketch of a stream, which costs an object for each part, is built for those who ask.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.window.consumption import Increments
from otel_mlmon.processor.window.series import FAILED, OK, TimeSeries
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.sketch.table import SketchTable, TableRun, list_runs
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

MAX_PANE_VALUES: Final = 2**43
"""The most values of a stream in a pane, nearly 10^13: those of 2^20 panes together fit into 64 bits."""


@dataclass(slots=True)
class PaneValues:
    """The values of all streams of a model version in one pane."""

    table: SketchTable
    rows: Mapping[str, list[int]]
    """By stream, the rows of its numbers: one for each set of bounds, and an exponential one."""
    classes: Mapping[str, Mapping[str, int]]
    """By stream, for each of them, how often each class was there."""
    missing: Mapping[str, int]
    """By stream, how many values are missing."""
    totals: dict[str, int] = field(init=False)
    """The number of values by stream."""

    def __post_init__(self) -> None:
        numbers, totals = self.table.numbers, dict[str, int]()
        for name, classes in self.classes.items():
            rows = self.rows.get(name, ())
            total = numbers[rows[0]] if len(rows) == 1 else sum([numbers[row] for row in rows])
            totals[name] = total + sum(classes.values()) if classes else total
        for name, count in self.missing.items():
            totals[name] += count
        self.totals = totals

    def find_exponential_row(self, name: str) -> int | None:
        """Returns the row of a stream that has but one exponential histogram, and missing values; None of others."""
        rows = self.rows.get(name)
        if rows is None or len(rows) > 1 or self.table.bounds[rows[0]] is not None or self.classes[name]:
            return None
        return rows[0]

    def count_class(self, name: str, label: str) -> int:
        """Counts the values of a class in a stream; 0 where the pane has none of the stream."""
        return self.classes[name].get(label, 0) if name in self.totals else 0

    def build_sketch(self, name: str) -> StreamSketch | None:
        """Builds the sketch of a stream's values; None where the pane has none of it."""
        if name not in self.totals:
            return None
        histograms = [self.table.build_sketch(row) for row in self.rows.get(name, ())]
        return StreamSketch.from_parts(histograms, self.classes[name], self.missing.get(name, 0))

    def build_all_sketches(self) -> dict[str, StreamSketch]:
        """Builds the sketches of all streams by name."""
        sketches = {name: self.build_sketch(name) for name in self.totals}
        return {name: sketch for name, sketch in sketches.items() if sketch is not None}


@dataclass(slots=True)
class _PaneSum:
    """Gathers the increments of many series by the streams that they feed."""

    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    runs: list[TableRun] = field(default_factory=list)
    """The rows of all numbers."""
    names: list[str] = field(default_factory=list)
    """The stream of each of these rows."""

    def add(self, series: Sequence[TimeSeries], table: SketchTable | None, numbers: Sequence[int]) -> None:
        """Adds increments, in columns as `Increments` has them."""
        if table is None:
            for member, count in zip(series, numbers, strict=True):
                self._add_counter(member, count)
            return
        names, totals = [member.number_stream for member in series], table.numbers
        if all(names) and all(map(totals.__getitem__, numbers)):
            self.runs += list_runs(table, numbers)
            self.names += names
            return
        for member, row in zip(series, numbers, strict=True):
            self._add_histogram(member, table, row)

    def _add_counter(self, series: TimeSeries, count: int) -> None:
        state = series.state
        for name in series.streams if count else ():
            classes = self.classes.setdefault(name, {})
            if state.metric == semconv.MISSING_VALUES.name:
                self.missing[name] = self.missing.get(name, 0) + count
            else:
                label = state.category if state.metric == semconv.CATEGORY.name else state.name
                classes[label] = classes.get(label, 0) + count

    def _add_histogram(self, series: TimeSeries, table: SketchTable, row: int) -> None:
        count = table.numbers[row]
        for name in series.streams if count else ():
            if name == semconv.STREAM_ERRORS:
                # The metric of a failed call carries its error type, and nothing else splits it.
                label, classes = FAILED if series.state.name else OK, self.classes.setdefault(name, {})
                classes[label] = classes.get(label, 0) + count
            else:
                self.runs.append((table, row, row + 1))
                self.names.append(name)


def add_increments(model: ModelKey, increments: Iterable[Increments]) -> PaneValues:
    """Adds the increments of many series up by the streams that they feed, in one pass.

    A stream of more than `MAX_PANE_VALUES` values is left out, and that is logged.

    Args:
        model: The model version that all series are of.
        increments: The increments; those of 0 values add nothing.
    """
    gathered = _PaneSum()
    for part in increments:
        gathered.add(part.series, part.table, part.numbers)
    classes, missing = gathered.classes, gathered.missing
    for name in dict.fromkeys(gathered.names):
        classes.setdefault(name, {})
    values = PaneValues(*SketchTable.gather_runs(gathered.runs).merge_rows(gathered.names), classes, missing)
    for name in [name for name, total in values.totals.items() if total > MAX_PANE_VALUES]:
        del values.totals[name]
        text = "Model %s %s: more than %d values of %s in one pane are left out: one of its senders counts wrongly."
        _LOG.error(text, model.name, model.version, MAX_PANE_VALUES, name)
    return values
