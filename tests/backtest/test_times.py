from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from otel_mlmon.backtest.times import format_time, parse_times
from otel_mlmon.errors import ConfigurationError
from tests.support.tables import table

JANUARY_NS = 1_767_225_600 * 10**9
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
    assert parse_times(table({"t": values}), "t").tolist() == [JANUARY_NS]


@pytest.mark.parametrize(
    ("word", "time_ns"),
    [("1678-01-01", -9_214_560_000 * 10**9), ("2261-12-31T23:59:59.999999", 9_214_646_400 * 10**9 - 1000)],
)
def test_the_first_and_the_last_moment(word: str, time_ns: int) -> None:
    assert parse_times(table({"t": [word]}), "t").tolist() == [time_ns]


def test_text_is_utc() -> None:
    assert format_time(JANUARY_NS) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (["2026-01-01", "soon"], "row 1: column 't': 'soon' is no point in time"),
        (["2026-01-01", None], "row 1: column 't': no point in time"),
        ([1_767_225_600.0, np.nan], "row 1: column 't': no number"),
        ([5.0, 6.0], "row 0: column 't': 5 is not in seconds, ms, us or ns since 1970"),
        (["2026-01-01", "9999-12-31"], f"row 1: column 't': '9999-12-31' is {BEYOND}"),
        (["0001-01-01 00:00:00"], f"row 0: column 't': '0001-01-01 00:00:00' is {BEYOND}"),
        ([9.3e9], f"row 0: column 't': 9.3e+09 is {BEYOND}"),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"), "row 1: column 't': no point in time"),
    ],
)
def test_what_is_no_point_in_time_is_told_with_its_place(values: Sequence[object], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_times(table({"t": values}), "t")
    assert caught.value.faults == (fault,)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="there is no column 'u' for --timestamp"):
        parse_times(table({"t": [1.0]}), "u")
