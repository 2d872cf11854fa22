"""Points in time, as people and programs write them: ISO 8601, or seconds and their fractions since 1970."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.table.table import Column, Table
from otel_mlmon.types import Floats

Times = NDArray[np.int64]

_NAME: Final = re.compile(
    r"(^|[_\W])(time|timestamp|ts|date|datetime|created_at|updated_at)$|(_at|_time|_ts)$", re.IGNORECASE
)
_UNITS_NS: Final = (
    ("s", 10**9, 1e8, 1e10),
    ("ms", 10**6, 1e11, 1e13),
    ("us", 10**3, 1e14, 1e16),
    ("ns", 1, 1e17, 1e19),
)
"""Unit, nanoseconds, and between which numbers the years 1973 to 2286 lie."""
_SAMPLE: Final = 20
_FRACTION: Final = re.compile(r"(\.\d+)")
_BEFORE_ALL: Final = np.iinfo(np.int64).min
_MOST_NS: Final = 9_214_646_400_000_000_000
"""To the end of 2261, and as far back, nanoseconds fit into 64 bits."""
_BEYOND: Final = "beyond the years 1678 to 2261, which are those that can be judged in nanoseconds"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def is_time(column: Column) -> bool:
    """Whether a column holds points in time, by its type, or its name and looks."""
    if column.times_ns is not None:
        return True
    if column.words is not None:
        sample = [word for word in column.words[: 50 * _SAMPLE] if word is not None][:_SAMPLE]
        return bool(sample) and all(_moment_ns(word) is not None for word in sample)
    return bool(_NAME.search(column.name)) and column.numbers is not None and _unit_ns(column.numbers) is not None


def times_of(table: Table, name: str) -> Times:
    """The column as Unix nanoseconds, shape (n,).

    Raises:
        ConfigurationError: There is no such column, or a cell is no point in time; says where.
    """
    column = table.columns.get(name)
    if column is None:
        raise ConfigurationError(f"{table.source}: there is no column {name!r} for --timestamp")
    times = column.times_ns
    if times is None:
        times = _of_words(table, column) if column.words is not None else _of_numbers(table, column)
    if (times == _BEFORE_ALL).any():
        row = int(np.flatnonzero(times == _BEFORE_ALL)[0])
        raise ConfigurationError(f"{table.place(row)}: column {name!r}: no point in time")
    return times


def text_of(time_ns: int) -> str:
    """RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_words(table: Table, column: Column) -> Times:
    times = np.full(column.rows, _BEFORE_ALL, dtype=np.int64)
    for row, word in enumerate(column.words or ()):
        moment_ns = None if word is None else _moment_ns(word)
        if moment_ns is None:
            said = "no point in time" if word is None else f"{word!r} is no point in time"
            raise ConfigurationError(f"{table.place(row)}: column {column.name!r}: {said}")
        if not abs(moment_ns) <= _MOST_NS:
            raise ConfigurationError(f"{table.place(row)}: column {column.name!r}: {word!r} is {_BEYOND}")
        times[row] = moment_ns
    return times


def _of_numbers(table: Table, column: Column) -> Times:
    numbers = column.numbers if column.numbers is not None else np.zeros(0)
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise ConfigurationError(f"{table.place(int(np.flatnonzero(missing)[0]))}: column {column.name!r}: no number")
    unit_ns = _unit_ns(numbers)
    if unit_ns is None and numbers.size:
        raise ConfigurationError(
            f"{table.place(0)}: column {column.name!r}: {numbers[0]:g} is not in seconds, ms, us or ns since 1970"
        )
    times_ns = np.asarray(numbers * (unit_ns or 1))
    if (times_ns > _MOST_NS).any():
        row = int(np.flatnonzero(times_ns > _MOST_NS)[0])
        raise ConfigurationError(f"{table.place(row)}: column {column.name!r}: {numbers[row]:g} is {_BEYOND}")
    return times_ns.astype(np.int64)


def _unit_ns(numbers: Floats) -> int | None:
    """The unit in which all of the numbers are points in time of this age."""
    present = numbers[np.isfinite(numbers)]
    if not present.size:
        return None
    low, high = float(present.min()), float(present.max())
    return next((unit for _, unit, first, last in _UNITS_NS if first <= low and high < last), None)


def _moment_ns(word: str) -> int | None:
    """None if it is no point in time. A zone that is not given is UTC."""
    text = word.strip()
    text = f"{text[:-1]}+00:00" if text[-1:] in "zZ" else text
    # Python 3.10 reads three or six digits of a second, and nothing between.
    text = _FRACTION.sub(lambda found: f"{found[0]:0<7}"[:7], text, count=1)
    if len(text) < len("2000-01-01"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    whole = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return (whole - _EPOCH) // timedelta(microseconds=1) * 1000
