"""Parses points in time in a column: ISO 8601 texts, or seconds, milliseconds, micro- or nanoseconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.table.cells import is_missing_value, is_text_type, parse_cell_numbers
from otel_mlmon.table.table import TableColumn
from otel_mlmon.types import Floats

if TYPE_CHECKING:
    import pyarrow as pa

TimesNs = NDArray[np.int64]
"""Unix nanoseconds."""

_NAME: Final = re.compile(
    r"(^|[_\W])(time|timestamp|ts|date|datetime|created_at|updated_at)$|(_at|_time|_ts)$", re.IGNORECASE
)
_UNITS: Final = (
    (10**9, 1e8, 1e10),
    (10**6, 1e11, 1e13),
    (10**3, 1e14, 1e16),
    (1, 1e17, 1e19),
)
"""The nanoseconds in one s, ms, µs and ns, and the range of numbers that are the years 1973 to 2286 in it."""
SAMPLE_TEXTS: Final = 20
"""Texts that are tried before a column is taken for points in time."""
_FRACTION: Final = re.compile(r"(\.\d+)")
_MAX_NS: Final = 9_214_646_400_000_000_000
"""The end of 2261: nanoseconds as far from 1970, forward or back, fit into 64 bits."""
_OUT_OF_RANGE: Final = "beyond the years 1678 to 2261, which are those that can be judged in nanoseconds"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ParsedTimes(NamedTuple):
    """The cells of one column parsed as points in time, and the first cell that is no time."""

    values_ns: TimesNs
    """Shape (n,); of no meaning from the first fault on."""
    fault_row: int = -1
    """The position of the first cell that is no point in time; -1 if all are."""
    fault: str = ""
    """Why that cell is no point in time; empty if all are."""


def is_time_name(name: str) -> bool:
    """Returns whether a column name such as `timestamp` is one that columns of times often have."""
    return bool(_NAME.search(name))


def are_times(texts: Iterable[str]) -> bool:
    """Returns whether all of the given texts are points in time."""
    sample = list(texts)
    return bool(sample) and all(_parse_iso_time(text) is not None for text in sample)


def find_time_unit_ns(low: float, high: float) -> int | None:
    """Returns the unit in which all numbers of a range are times between 1973 and 2286; None if there is none."""
    return next((unit_ns for unit_ns, first, last in _UNITS if first <= low and high < last), None)


def parse_times(array: pa.Array, column: TableColumn, unit_ns: int | None) -> ParsedTimes:
    """Parses the cells of a column as points in time.

    Args:
        array: The cells.
        column: Their column.
        unit_ns: Nanoseconds in one of the column's numbers; None if they are not known to be times.
    """
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_temporal(array.type):
        try:
            values = compute.cast(array, pa.timestamp("ns", getattr(array.type, "tz", None)))
        except pa.ArrowInvalid:
            return _parse_time_texts([None if cell is None else str(cell) for cell in array.to_pylist()])
        if values.null_count:
            return _build_faulty_times(
                array, int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))), "no point in time"
            )
        return ParsedTimes(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
    if is_text_type(array.type):
        numbers = parse_cell_numbers(array, column.decimal)
        if numbers.first_text >= 0:
            return _parse_arrow_texts(array)
        return _convert_numbers_to_times(numbers.values, unit_ns)
    if pa.types.is_integer(array.type) and not array.null_count and unit_ns is not None:
        whole = array.to_numpy(zero_copy_only=False).astype(np.int64)
        if not whole.size or int(np.abs(whole).max()) <= _MAX_NS // unit_ns:
            return ParsedTimes(whole * np.int64(unit_ns))
    return _convert_numbers_to_times(parse_cell_numbers(array).values, unit_ns)


def format_time(time_ns: int) -> str:
    """Formats a time in Unix nanoseconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_arrow_texts(array: pa.Array) -> ParsedTimes:
    import pyarrow as pa
    from pyarrow import compute

    if not array.null_count:
        try:
            values = compute.cast(compute.cast(array, pa.timestamp("us")), pa.timestamp("ns"))
            return ParsedTimes(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            pass
    return _parse_time_texts(array.to_pylist())


def _parse_time_texts(cells: Sequence[str | None]) -> ParsedTimes:
    values_ns = np.zeros(len(cells), dtype=np.int64)
    for row, text in enumerate(cells):
        is_absent = text is None or is_missing_value(text)
        time_ns = None if text is None or is_absent else _parse_iso_time(text)
        if time_ns is None:
            return ParsedTimes(values_ns, row, "no point in time" if is_absent else f"{text!r} is no point in time")
        if not abs(time_ns) <= _MAX_NS:
            return ParsedTimes(values_ns, row, f"{text!r} is {_OUT_OF_RANGE}")
        values_ns[row] = time_ns
    return ParsedTimes(values_ns)


def _convert_numbers_to_times(numbers: Floats, unit_ns: int | None) -> ParsedTimes:
    values_ns = np.zeros(numbers.size, dtype=np.int64)
    missing = ~np.isfinite(numbers)
    if missing.any():
        return ParsedTimes(values_ns, int(np.argmax(missing)), "no number")
    if unit_ns is None and numbers.size:
        return ParsedTimes(values_ns, 0, f"{numbers[0]:g} is not in seconds, ms, us or ns since 1970")
    scaled = np.asarray(numbers * (unit_ns or 1))
    outside = np.abs(scaled) > _MAX_NS
    if outside.any():
        row = int(np.argmax(outside))
        return ParsedTimes(values_ns, row, f"{numbers[row]:g} is {_OUT_OF_RANGE}")
    return ParsedTimes(scaled.astype(np.int64))


def _build_faulty_times(array: pa.Array, row: int, fault: str) -> ParsedTimes:
    return ParsedTimes(np.zeros(len(array), dtype=np.int64), row, fault)


def _parse_iso_time(cell: str) -> int | None:
    """Parses an ISO 8601 text to Unix nanoseconds; None if it is no point in time. Without a zone it is UTC."""
    text = cell.strip()
    text = f"{text[:-1]}+00:00" if text[-1:] in "zZ" else text
    # Python 3.10 reads three or six digits of a second, and nothing between.
    text = _FRACTION.sub(lambda match: f"{match[0]:0<7}"[:7], text, count=1)
    if len(text) < len("2000-01-01"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return (zoned - _EPOCH) // timedelta(microseconds=1) * 1000
