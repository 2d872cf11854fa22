"""Parses the cells of a table's column as numbers or labels; a cell may be missing.

Every function depends on one cell and its column only, never on other rows, so that a table that is read in pieces, or
on several machines, means the same. Source: RFC 4180, which counts space around a field as part of it; so a text keeps
it, as a model was trained with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Floats, Indices

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_TEXTS: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nat"})
"""Cells without a value, in lower case and without space around."""

_PADDED: Final = re.compile(r"[+-]?0\d+")
"""A whole number with leading zeros, which is an identifier such as a postcode."""
_BOOLEANS: Final = {"true": "True", "false": "False"}
MAX_DENSE_RANGE: Final = 4096
"""The widest range of whole numbers that are looked up without sorting."""
MAX_WHOLE: Final = 2**53
"""Beyond, whole numbers have gaps, and then no place among 64 bits."""


class ParsedNumbers(NamedTuple):
    """The cells of one column parsed as numbers, and the first cell that is no number."""

    values: Floats
    """Shape (n,), NaN where missing; infinite numbers count as missing too."""
    first_text: int = -1
    """The position of the first cell that is not a number; -1 if all are."""


class CellLabels(NamedTuple):
    """The cells of one column as positions in a list of its distinct labels."""

    table: Sequence[str | None]
    """The distinct labels, None for a missing value."""
    codes: Indices
    """Shape (n,): positions in `table`."""


def parse_cell_numbers(array: pa.Array, decimal: str = ".") -> ParsedNumbers:
    """Parses the cells of an Arrow array as numbers, NaN where missing.

    Args:
        array: Numbers, decimals, booleans, texts, or nothing but missing values.
        decimal: What separates the fraction in texts, a point or a comma.
    """
    import pyarrow as pa
    from pyarrow import compute

    kind = array.type
    if pa.types.is_floating(kind) and kind.bit_width == 64 and not array.null_count:
        return ParsedNumbers(np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64))
    if pa.types.is_null(kind):
        return ParsedNumbers(np.full(len(array), np.nan))
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
    if is_text_type(array.type):
        if decimal == ",":
            return parse_number_texts(array.to_pylist(), decimal)
        try:
            values = compute.cast(array, pa.float64())
        except pa.ArrowInvalid:
            return parse_number_texts(array.to_pylist(), decimal)
        return ParsedNumbers(_convert_to_floats(values))
    return ParsedNumbers(_convert_to_floats(compute.cast(array, pa.float64(), safe=False)))


def parse_number_texts(cells: Sequence[str | None], decimal: str) -> ParsedNumbers:
    """Parses texts as numbers; None and texts that mean a missing value, such as `NA`, become NaN."""
    numbers = {cell: _parse_number_cell(cell, decimal) for cell in set(cells)}
    faults = {cell for cell, number in numbers.items() if number is None}
    first = next((row for row, cell in enumerate(cells) if cell in faults), -1) if faults else -1
    values = {cell: math.nan if number is None else number for cell, number in numbers.items()}
    return ParsedNumbers(np.fromiter(map(values.__getitem__, cells), dtype=np.float64, count=len(cells)), first)


def parse_cell_labels(array: pa.Array) -> CellLabels:
    """Reads the cells of an Arrow array as labels of a category, None where missing."""
    import pyarrow as pa

    if is_text_type(array.type) or pa.types.is_dictionary(array.type) or pa.types.is_boolean(array.type):
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        table = [*map(format_label, encoded.dictionary.to_pylist()), None]
        codes = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        return CellLabels(table, codes.astype(np.intp, copy=False))
    if pa.types.is_temporal(array.type):
        # Times are made texts only where a user declares them a category.
        return parse_cell_labels(array.cast(pa.string()))
    values, codes = _find_distinct_numbers(parse_cell_numbers(array).values)
    return CellLabels([format_label(value) for value in values.tolist()], codes)


def is_text_type(kind: pa.DataType) -> bool:
    """Returns whether an Arrow type is a type of texts."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def has_leading_zeros(text: str) -> bool:
    """Returns whether a text is a whole number with leading zeros, and so an identifier such as a postcode."""
    return _PADDED.fullmatch(text.strip()) is not None


def is_missing_value(text: str) -> bool:
    """Returns whether the text of a cell, such as `NA` or an empty one, stands for a missing value."""
    return text.strip().lower() in MISSING_TEXTS


def format_label(value: object) -> str | None:
    """Formats the value of a cell as a label, `6` for 6.0, as an instrumented application does; None if missing."""
    if isinstance(value, str):
        return None if is_missing_value(value) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else f"{value:g}"
    # NaT and its like are the values that differ from themselves.
    return None if value is None or value != value else str(value)


def normalize_label(text: str) -> str:
    """Returns a label as it is spelled in a column of numbers or booleans: `1` for `1.0`, `True` for `true`."""
    if is_number_text(text):
        return str(format_label(float(text)) or text)
    return _BOOLEANS.get(text.strip().lower(), text)


def is_number_text(cell: str, decimal: str = ".") -> bool:
    """Returns whether the text of a cell is a number; `1_0`, which Python reads as 10, is none."""
    if "_" in cell or (decimal == "," and "." in cell):
        return False
    try:
        float(cell.replace(",", ".", 1) if decimal == "," else cell)
    except ValueError:
        return False
    return True


def _parse_number_cell(cell: str | None, decimal: str) -> float | None:
    """Parses the text of a cell as a number, NaN where missing; None if it is not a number."""
    if cell is None or is_missing_value(cell):
        return math.nan
    if not is_number_text(cell, decimal):
        return None
    return float(cell.replace(",", ".", 1) if decimal == "," else cell)


def _convert_to_floats(array: Any) -> Floats:
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _find_distinct_numbers(numbers: Floats) -> tuple[NDArray[Any], Indices]:
    """Returns the distinct numbers of a column, and the position of each cell's number among them."""
    if numbers.size and np.isfinite(numbers).all():
        low, high = float(numbers.min()), float(numbers.max())
        is_dense = high - low < MAX_DENSE_RANGE and max(-low, high) < MAX_WHOLE
        if is_dense and (numbers % 1 == 0).all():
            return np.arange(low, high + 1, dtype=np.float64), (numbers - low).astype(np.intp)
    values, positions = np.unique(numbers, return_inverse=True)
    return values, positions.ravel()
