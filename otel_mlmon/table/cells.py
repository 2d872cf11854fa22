"""The value of a cell: a number, a text, or a missing value.

Source: RFC 4180, which counts space around a field as part of it; so a text keeps it, as a model was trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_mlmon.types import Floats

MISSING_TEXTS: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nat"})
"""Cells without a value, in lower case and without space around."""


def parse_numbers(cells: Sequence[str]) -> Floats | int:
    """Parses cells as numbers, NaN where missing, shape (n,); or returns the first that is not a number, from 0."""
    try:
        return _parse_floats(cells)
    except ValueError:
        pass
    filled = ["nan" if cell.strip().lower() in MISSING_TEXTS else cell for cell in cells]
    try:
        return _parse_floats(filled)
    except ValueError:
        return next(index for index, cell in enumerate(filled) if not _is_number(cell))


def parse_texts(cells: Sequence[str]) -> list[str | None]:
    """Returns cells as texts, None where missing; equal texts are one object."""
    texts = {cell: None if cell.strip().lower() in MISSING_TEXTS else cell for cell in set(cells)}
    return list(map(texts.__getitem__, cells))


def format_label(value: object) -> str | None:
    """Formats a value as the label of a category, as the application does: `6` for 6.0; None where it is missing."""
    if isinstance(value, str):
        return None if value.strip().lower() in MISSING_TEXTS else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else f"{value:g}"
    # NaT and its like are the values that differ from themselves.
    return None if value is None or value != value else str(value)


def normalize_label(text: str) -> str:
    """Returns the label that `text` has in a column of numbers: `1` for `1.0`; `text` itself if it is no number."""
    return str(format_label(float(text)) or text) if _is_number(text) else text


def _parse_floats(cells: Sequence[str]) -> Floats:
    # Python reads `1_0` as 10, which in data is a text.
    if "_" in "".join(cells):
        raise ValueError
    return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
