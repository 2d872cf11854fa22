from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from otel_mlmon.backtest.ordering import find_time_unit
from otel_mlmon.backtest.times import ParsedTimes, format_time, parse_times
from tests.support.tables import table

JANUARY_NS = 1_767_225_600 * 10**9


def times_of(values: Sequence[object]) -> ParsedTimes:
    """The times of a column, as a backtest reads them."""
    data = table({"t": values})
    (batch,) = data.scan(["t"])
    return parse_times(batch.column(0), data.columns["t"], find_time_unit(data, data.columns["t"]))


BEYOND = "beyond the years 1678 to 2261, which are those that can be judged in nanoseconds"


@pytest.mark.parametrize(
    "values",
    [
        ["2026-01-01"],
        ["2026-01-01 00:00:00.000"],
        ["2026-01-01T00:00:00Z"],
        ["2026-01-01T01:00:00.0000000+01:00"],
        [1_767_225_600],
        [1_767_225_600.0e3],
        [1_767_225_600.0e6],
        [1_767_225_600.0e9],
        np.array(["2026-01-01"], dtype="datetime64[D]"),
    ],
)
def test_points_in_time_as_they_are_written(values: Sequence[object]) -> None:
    assert times_of(values).values_ns.tolist() == [JANUARY_NS]


@pytest.mark.parametrize(
    ("word", "time_ns"),
    [("1678-01-01", -9_214_560_000 * 10**9), ("2261-12-31T23:59:59.999999", 9_214_646_400 * 10**9 - 1000)],
)
def test_the_first_and_the_last_moment(word: str, time_ns: int) -> None:
    assert times_of([word]).values_ns.tolist() == [time_ns]


def test_text_is_utc() -> None:
    assert format_time(JANUARY_NS) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("values", "row", "fault"),
    [
        (["2026-01-01", "soon"], 1, "'soon' is no point in time"),
        (["2026-01-01", None], 1, "no point in time"),
        ([1_767_225_600.0, np.nan], 1, "no number"),
        ([5.0, 6.0], 0, "5 is not in seconds, ms, us or ns since 1970"),
        (["2026-01-01", "9999-12-31"], 1, f"'9999-12-31' is {BEYOND}"),
        (["0001-01-01 00:00:00"], 0, f"'0001-01-01 00:00:00' is {BEYOND}"),
        ([9.3e9], 0, f"9.3e+09 is {BEYOND}"),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"), 1, "no point in time"),
    ],
)
def test_what_is_no_point_in_time_is_said(values: Sequence[object], row: int, fault: str) -> None:
    times = times_of(values)
    assert (times.fault_row, times.fault) == (row, fault)
