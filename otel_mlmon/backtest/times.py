"""Points in time in a column: ISO 8601 texts, or seconds, milliseconds, microseconds or nanoseconds since 1970."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.table.table import Table, TableColumn
from otel_mlmon.types import Floats

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
_SAMPLE: Final = 20
"""Texts that are tried before a column is taken for points in time."""
_FRACTION: Final = re.compile(r"(\.\d+)")
_MISSING: Final = np.iinfo(np.int64).min
_MAX_NS: Final = 9_214_646_400_000_000_000
"""The end of 2261: nanoseconds as far from 1970, forward or back, fit into 64 bits."""
_OUT_OF_RANGE: Final = "beyond the years 1678 to 2261, which are those that can be judged in nanoseconds"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def is_time_column(column: TableColumn) -> bool:
    """Returns whether a column holds points in time, by its type, or by its name and values."""
    if column.times_ns is not None:
        return True
    if column.texts is not None:
        sample = [text for text in column.texts[: 50 * _SAMPLE] if text is not None][:_SAMPLE]
        return bool(sample) and all(_parse_ns(text) is not None for text in sample)
    return bool(_NAME.search(column.name)) and column.numbers is not None and _find_unit_ns(column.numbers) is not None


def parse_times(table: Table, name: str) -> TimesNs:
    """Reads a column as Unix nanoseconds, shape (n,).

    Raises:
        ConfigurationError: The column does not exist, or a cell is no point in time; names the place.
    """
    column = table.columns.get(name)
    if column is None:
        raise ConfigurationError(f"{table.source}: there is no column {name!r} for --timestamp")
    times_ns = column.times_ns
    if times_ns is None:
        times_ns = _parse_texts(table, column) if column.texts is not None else _parse_numbers(table, column)
    if (times_ns == _MISSING).any():
        row = int(np.flatnonzero(times_ns == _MISSING)[0])
        raise ConfigurationError(f"{table.locate(row)}: column {name!r}: no point in time")
    return times_ns


def format_time(time_ns: int) -> str:
    """Formats Unix nanoseconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_texts(table: Table, column: TableColumn) -> TimesNs:
    times_ns = np.full(column.rows, _MISSING, dtype=np.int64)
    for row, text in enumerate(column.texts or ()):
        time_ns = None if text is None else _parse_ns(text)
        if time_ns is None:
            fault = "no point in time" if text is None else f"{text!r} is no point in time"
            raise ConfigurationError(f"{table.locate(row)}: column {column.name!r}: {fault}")
        if not abs(time_ns) <= _MAX_NS:
            raise ConfigurationError(f"{table.locate(row)}: column {column.name!r}: {text!r} is {_OUT_OF_RANGE}")
        times_ns[row] = time_ns
    return times_ns


def _parse_numbers(table: Table, column: TableColumn) -> TimesNs:
    numbers = column.numbers if column.numbers is not None else np.zeros(0)
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise ConfigurationError(f"{table.locate(int(np.flatnonzero(missing)[0]))}: column {column.name!r}: no number")
    unit_ns = _find_unit_ns(numbers)
    if unit_ns is None and numbers.size:
        raise ConfigurationError(
            f"{table.locate(0)}: column {column.name!r}: {numbers[0]:g} is not in seconds, ms, us or ns since 1970"
        )
    times_ns = np.asarray(numbers * (unit_ns or 1))
    if (times_ns > _MAX_NS).any():
        row = int(np.flatnonzero(times_ns > _MAX_NS)[0])
        raise ConfigurationError(f"{table.locate(row)}: column {column.name!r}: {numbers[row]:g} is {_OUT_OF_RANGE}")
    return times_ns.astype(np.int64)


def _find_unit_ns(numbers: Floats) -> int | None:
    """Returns the unit, in nanoseconds, in which all numbers are times between the years 1973 and 2286."""
    present = numbers[np.isfinite(numbers)]
    if not present.size:
        return None
    low, high = float(present.min()), float(present.max())
    return next((unit_ns for unit_ns, first, last in _UNITS if first <= low and high < last), None)


def _parse_ns(cell: str) -> int | None:
    """Parses ISO 8601; None if it is no point in time. A time without a zone is UTC."""
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
