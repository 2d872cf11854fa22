"""CSV: a line of names, then a line a row. Source: RFC 4180; the delimiter is a comma, a semicolon or a tab.

Read in pieces, each turned into numbers at once, so that memory holds 8 bytes a number and not its text. A column that
turns out to be of words only after a piece of numbers is read once more: `1.0` is spelled `1.0` wherever it stands.
A blank line is no row, but in a file of one column it is a missing value.
Choice: Python's own `csv`, whose quoting rules are the ones people test with.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import numbers_in, words_in
from otel_mlmon.table.table import Column, Progress, Table, demand_different, no_progress
from otel_mlmon.types import Floats

ROWS_A_PIECE: Final = 20_000
DELIMITERS: Final = ",;\t"
FIELD_BYTES: Final = 1 << 20

_TRUTH: Final = frozenset({"true", "false"})


def read_csv(path: Path, progress: Progress = no_progress, *, keeps_text: bool = False) -> Table:
    """The file as columns.

    Args:
        path: The file.
        progress: Told of each piece.
        keeps_text: Whether every column is of words: a number may be a name, such as the postcode `01`.

    Raises:
        DataError: It is not a CSV file; says the line.
        OSError: It cannot be read.
    """
    csv.field_size_limit(FIELD_BYTES)
    try:
        columns = _columns(path, progress, {}, keeps_text=keeps_text)
        late = {one.name: one.first_word for one in columns if one.has_lost_text}
        if late:
            columns = _columns(path, progress, late, keeps_text=False)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{_first_odd_line(path)}: not UTF-8 text") from error
    built = {one.name: one.column(is_text_kept=keeps_text) for one in columns}
    rows = next(iter(built.values())).rows
    return Table(source=str(path), columns=built, rows=rows, place=lambda row: f"{path}:{line_of(path, row)}")


def line_of(path: Path, row: int) -> int:
    """The line, from 1, on which row `row`, from 0, ends; quoted cells may hold several lines."""
    with _opened(path) as (_, reader):
        width = len(next(reader))
        found = -1
        for cells in reader:
            found += bool(cells) or width == 1
            if found == row:
                break
        return int(reader.line_num)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TextIO, Any]]:
    """The file, and a reader of its rows, the names first."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = max(DELIMITERS, key=file.readline().count)
        file.seek(0)
        yield file, csv.reader(file, delimiter=delimiter, strict=True)


def _columns(path: Path, progress: Progress, first_words: Mapping[str, int], *, keeps_text: bool) -> list[_Building]:
    """The columns of the file; those of `first_words`, or all, as words from the first row on."""
    size_bytes, rows = path.stat().st_size, 0
    with _opened(path) as (file, reader):
        names = _taken(path, reader, 1)
        if not names or not names[0]:
            raise DataError(f"{path}:1: no column names: the file holds no rows")
        demand_different(names[0], f"{path}:1")
        building = [
            _Building(name=name, is_text=keeps_text or name in first_words, first_word=first_words.get(name, -1))
            for name in names[0]
        ]
        for piece in _pieces(path, reader, len(building)):
            for one, cells in zip(building, zip(*piece, strict=True), strict=True):
                one.add(cells, rows)
            rows += len(piece)
            progress(f"reading {path.name}", min(file.buffer.tell(), size_bytes), size_bytes)
    return building


def _pieces(path: Path, reader: Any, width: int) -> Iterator[list[list[str]]]:
    """Rows by the piece, each of `width` cells."""
    before = 0
    while taken := _taken(path, reader, ROWS_A_PIECE):
        piece = [row or [""] for row in taken] if width == 1 else [row for row in taken if row]
        if set(map(len, piece)) - {width}:
            row = next(index for index, cells in enumerate(piece) if len(cells) != width)
            line = line_of(path, before + row)
            raise DataError(f"{path}:{line}: {len(piece[row])} cells, but the first line names {width}")
        if piece:
            yield piece
            before += len(piece)


def _taken(path: Path, reader: Any, rows: int) -> list[list[str]]:
    """The next rows, as many as there are."""
    try:
        return list(islice(reader, rows))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error


def _first_odd_line(path: Path) -> int:
    """Which line is not text: the reader's own error counts from wherever its buffer began."""
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, start=1) if not _is_text(line)), 1)


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class _Building:
    """One column as its pieces come."""

    name: str
    is_text: bool
    """Whether it is of words, as far as is known."""
    first_word: int
    numbers: list[Floats] = field(default_factory=list)
    """While every cell is a number."""
    words: list[str | None] = field(default_factory=list)

    @property
    def has_lost_text(self) -> bool:
        """Whether it is of words, and the first of them are gone."""
        return self.is_text and bool(self.numbers)

    def add(self, cells: tuple[str, ...], row: int) -> None:
        """Take a piece, of which the first row is `row`."""
        if not self.is_text:
            found = numbers_in(cells)
            if not isinstance(found, int):
                self.numbers.append(found)
                return
            self.is_text, self.first_word = True, row + found
        if not self.numbers:
            self.words += words_in(cells)

    def column(self, *, is_text_kept: bool) -> Column:
        """What it has become."""
        if not self.is_text:
            return Column(name=self.name, numbers=np.concatenate(self.numbers) if self.numbers else np.zeros(0))
        is_truth = not is_text_kept and all(word is None or word.strip().lower() in _TRUTH for word in self.words)
        return Column(name=self.name, words=tuple(self.words), first_word=self.first_word, is_truth=is_truth)
