"""CSV: a line of names, then a line a row. Source: RFC 4180; the delimiter is a comma, a semicolon or a tab.

Read in pieces, each turned into numbers at once, so that memory holds 8 bytes a number and not its text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from otel_mlmon.backtest.table import Column, Numbers, Progress, Table, numbers_in, word_of, words_in
from otel_mlmon.errors import ConfigurationError

ROWS_A_PIECE: Final = 20_000
DELIMITERS: Final = ",;\t"
FIELD_BYTES: Final = 1 << 20

_TRUTH: Final = frozenset({"true", "false"})


def read_csv(path: Path, progress: Progress) -> Table:
    """The file as columns.

    Raises:
        ConfigurationError: It is not a CSV file; says the line.
    """
    csv.field_size_limit(FIELD_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, progress)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _read(path: Path, file: TextIO, progress: Progress) -> Table:
    head = file.readline()
    delimiter = max(DELIMITERS, key=head.count)
    names = next(csv.reader([head], delimiter=delimiter), [])
    if not names:
        raise ConfigurationError(f"{path}:1: no column names: the file is empty")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigurationError(f"{path}:1: column {repeated!r} is there twice")
    size_bytes, rows = path.stat().st_size, 0
    building = [_Building(name) for name in names]
    for piece in _pieces(path, csv.reader(file, delimiter=delimiter, strict=True), len(names)):
        for one, cells in zip(building, zip(*piece, strict=True), strict=True):
            one.add(cells, rows)
        rows += len(piece)
        progress(f"reading {path.name}", min(file.buffer.tell(), size_bytes), size_bytes)
    columns = {one.name: one.column() for one in building}
    return Table(source=str(path), columns=columns, rows=rows, place=lambda row: f"{path}:{line_of(path, row)}")


def _pieces(path: Path, reader: Iterator[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Rows by the piece, blank lines left out, each of `width` cells."""
    before = 0
    while True:
        try:
            taken = list(islice(reader, ROWS_A_PIECE))
        except csv.Error as error:
            # `line_num` counts from the reader's own first line, which is the second of the file.
            line = reader.line_num + 1  # type: ignore[attr-defined]
            raise ConfigurationError(f"{path}:{line}: {error}") from error
        piece = [row for row in taken if row]
        if set(map(len, piece)) - {width}:
            row = next(index for index, cells in enumerate(piece) if len(cells) != width)
            line = line_of(path, before + row)
            raise ConfigurationError(f"{path}:{line}: {len(piece[row])} cells, but the first line names {width}")
        if piece:
            yield piece
            before += len(piece)
        if len(taken) < ROWS_A_PIECE:
            return


def line_of(path: Path, row: int) -> int:
    """The line, from 1, on which row `row`, from 0, begins or ends; quoted cells may hold several lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = max(DELIMITERS, key=file.readline().count)
        reader = csv.reader(file, delimiter=delimiter)
        found = -1
        for cells in reader:
            found += bool(cells)
            if found == row:
                break
        return reader.line_num + 1


@dataclass(slots=True)
class _Building:
    """One column as its pieces come."""

    name: str
    numbers: list[Numbers] = field(default_factory=list)
    """While every cell is a number."""
    words: list[str | None] = field(default_factory=list)
    seen: dict[str | None, str | None] = field(default_factory=dict)
    """One object a word."""
    first_word: int = -1

    def add(self, cells: tuple[str, ...], row: int) -> None:
        if self.first_word < 0:
            found = numbers_in(cells)
            if not isinstance(found, int):
                self.numbers.append(found)
                return
            self.first_word = row + found
            self.words = [word_of(number) for piece in self.numbers for number in piece.tolist()]
        known = self.seen
        self.words += [known.setdefault(word, word) for word in words_in(cells)]

    def column(self) -> Column:
        if self.first_word < 0:
            numbers = np.concatenate(self.numbers) if self.numbers else np.zeros(0)
            return Column(name=self.name, numbers=numbers)
        is_truth = {word.lower() for word in self.seen if word is not None} <= _TRUTH
        return Column(name=self.name, words=tuple(self.words), first_word=self.first_word, is_truth=is_truth)
