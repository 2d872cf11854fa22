"""What a cell says: a number, a word, or nothing.

Source: RFC 4180, which counts space around a field as part of it; so a word keeps it, as a model was trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_mlmon.types import Floats

MISSING_WORDS: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nat"})
"""Cells that hold no value, in lower case and without space around."""


def numbers_in(cells: Sequence[str]) -> Floats | int:
    """`cells` as numbers, NaN where missing, shape (n,); or the first cell that is not a number, from 0."""
    try:
        return _floats(cells)
    except ValueError:
        pass
    filled = ["nan" if cell.strip().lower() in MISSING_WORDS else cell for cell in cells]
    try:
        return _floats(filled)
    except ValueError:
        return next(index for index, cell in enumerate(filled) if not _is_number(cell))


def words_in(cells: Sequence[str]) -> list[str | None]:
    """`cells` as words, None where missing; a word is one object however often it is there."""
    known = {cell: None if cell.strip().lower() in MISSING_WORDS else cell for cell in set(cells)}
    return list(map(known.__getitem__, cells))


def word_of(value: object) -> str | None:
    """A value as the label of a category, as the application names it: `6` for 6.0; None where it is missing."""
    if isinstance(value, str):
        return None if value.strip().lower() in MISSING_WORDS else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else f"{value:g}"
    # NaT and its like are the values that differ from themselves.
    return None if value is None or value != value else str(value)


def as_number(word: str) -> str:
    """The label that `word` would have in a column of numbers: `1` for `1.0`; `word` if it is none."""
    return str(word_of(float(word)) or word) if _is_number(word) else word


def _floats(cells: Sequence[str]) -> Floats:
    """Raises ValueError if one is not a number; Python reads `1_0` as 10, which in data is a word."""
    if "_" in "".join(cells):
        raise ValueError
    return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
