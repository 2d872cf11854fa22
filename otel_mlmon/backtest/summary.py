"""Summarizes the columns of a reference table: numbers or texts, their range, and how many values differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otel_mlmon.backtest.times import SAMPLE_TEXTS, are_times, find_time_unit_ns, is_time_name
from otel_mlmon.table.cells import is_missing_value, is_text_type, parse_cell_labels, parse_cell_numbers
from otel_mlmon.table.table import ProgressCallback, Table, TableColumn
from otel_mlmon.types import Floats

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DISTINCT: Final = 1 << 20
"""The number of different values beyond which they are not counted any more."""
SAMPLE_CELLS: Final = 50 * SAMPLE_TEXTS


@dataclass(slots=True, kw_only=True)
class ColumnSummary:
    """Summarizes the values of one column over all rows of a table."""

    column: TableColumn
    rows: int = 0
    present: int = 0
    """Cells that are not missing."""
    first_text_row: int = -1
    """The row, from 0, of the first cell that is not a number; -1 if all are."""
    first_text: str = ""
    is_padded: bool = False
    """Whether a whole number has leading zeros."""
    low: float = math.inf
    high: float = -math.inf
    is_whole: bool = True
    """Whether all numbers are whole."""
    outside_row: int = -1
    """The row of the first number that cannot be a confidence; -1 if none."""
    outside: float = 0.0
    sample: list[str] = field(default_factory=list)
    """The first texts."""
    texts: set[str] = field(default_factory=set)
    """Different texts, `MAX_DISTINCT` at most."""
    numbers: Floats = field(default_factory=lambda: np.zeros(0))
    """Different whole numbers, sorted, `MAX_DISTINCT` at most."""
    has_skipped_texts: bool = False
    """Whether numbers came before the first text, whose spelling was not counted."""

    @property
    def is_number(self) -> bool:
        """Whether all values of the table's column are numbers."""
        return self.first_text_row < 0 and not self.is_padded and self.column.kind in ("number", "text")

    @property
    def distinct_count(self) -> int:
        """The number of different values in the column; of numbers, only whole ones count."""
        return int(self.numbers.size) if self.is_number else len(self.texts)

    @property
    def is_time(self) -> bool:
        """Whether the column holds points in time, by its type, or by its name and values."""
        if self.column.kind == "time":
            return True
        if not self.is_number:
            return are_times(self.sample)
        return (
            is_time_name(self.column.name) and self.present > 0 and find_time_unit_ns(self.low, self.high) is not None
        )

    def add_cells(self, array: pa.Array) -> None:
        """Adds the cells of a batch of rows to the summary of the column."""
        start, self.rows = self.rows, self.rows + len(array)
        if self.column.kind in ("time", "unreadable"):
            self.present += len(array) - array.null_count
            return
        if is_text_type(array.type):
            self._sample_cells(array, start)
        if self.column.kind != "boolean" and self.first_text_row < 0 and not self.is_padded:
            numbers = parse_cell_numbers(array, self.column.decimal)
            if numbers.first_text < 0:
                self._add_numbers(numbers.values, start)
                if not self._has_padded_numbers(array):
                    self.has_skipped_texts |= len(array) > 0 and not self.is_padded
                    return
                self.is_padded = True
                self.has_skipped_texts = start > 0
                self.present -= int(np.isfinite(numbers.values).sum())
            else:
                self.first_text_row = start + numbers.first_text
                self.first_text = str(array[numbers.first_text].as_py())
        self._add_texts(array)

    def _has_padded_numbers(self, array: pa.Array) -> bool:
        if not is_text_type(array.type):
            return False
        from pyarrow import compute

        return bool(compute.any(compute.match_substring_regex(array, r"^\s*[+-]?0\d+\s*$")).as_py())

    def _sample_cells(self, array: pa.Array, start: int) -> None:
        if start < SAMPLE_CELLS and len(self.sample) < SAMPLE_TEXTS:
            cells = array.slice(0, SAMPLE_CELLS - start).to_pylist()
            present = [cell for cell in cells if cell is not None and not is_missing_value(cell)]
            self.sample += present[: SAMPLE_TEXTS - len(self.sample)]

    def _add_numbers(self, values: Floats, start: int) -> None:
        is_present = np.isfinite(values)
        present = values if is_present.all() else values[is_present]
        self.present += present.size
        if not present.size:
            return
        self.low, self.high = min(self.low, float(present.min())), max(self.high, float(present.max()))
        self.is_whole = self.is_whole and bool((present == np.floor(present)).all())
        if not self.is_whole:
            self.numbers = self.numbers[:0]
        elif self.numbers.size < MAX_DISTINCT:
            self.numbers = np.union1d(self.numbers, present)
        if self.outside_row < 0 and not -1e-3 <= self.low <= self.high <= 1.0 + 1e-3:
            outside = np.flatnonzero(is_present & (np.abs(values - 0.5) > 0.5 + 1e-3))
            if outside.size:
                self.outside_row, self.outside = start + int(outside[0]), float(values[outside[0]])

    def _add_texts(self, array: pa.Array) -> None:
        labels = parse_cell_labels(array)
        counts = np.bincount(labels.codes, minlength=len(labels.table))
        texts = {label: int(count) for label, count in zip(labels.table, counts, strict=True) if label is not None}
        self.present += sum(texts.values())
        if len(self.texts) < MAX_DISTINCT:
            self.texts.update(label for label, count in texts.items() if count)

    def add_cell_texts(self, array: pa.Array) -> None:
        """Adds the cells of a batch as texts, in a second pass over a column that looked like numbers at first."""
        self._add_texts(array)


def summarize_columns(table: Table, progress: ProgressCallback) -> dict[str, ColumnSummary]:
    """Summarizes all columns of a table in one pass; reads columns again that turn out to be text late."""
    summaries = {name: ColumnSummary(column=column) for name, column in table.columns.items()}
    _scan_columns(table, list(summaries), progress, lambda name, array: summaries[name].add_cells(array))
    respelled = [name for name, summary in summaries.items() if summary.has_skipped_texts and not summary.is_number]
    if respelled:
        for name in respelled:
            summaries[name].texts.clear()
            summaries[name].present = 0
        _scan_columns(table, respelled, progress, lambda name, array: summaries[name].add_cell_texts(array))
    return summaries


def _scan_columns(table: Table, names: Sequence[str], progress: ProgressCallback, add: Any) -> None:
    done = 0
    for batch in table.scan(names):
        for name, array in zip(names, batch.columns, strict=True):
            add(name, array)
        done += batch.num_rows
        progress(f"reading {table.source}", done, max(table.rows, done))


def count_summarized_rows(summaries: Mapping[str, ColumnSummary]) -> int:
    """Returns the number of rows of a table from the summaries of its columns."""
    return max((summary.rows for summary in summaries.values()), default=0)
