from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from otel_mlmon.backtest.times import text_of, times_of
from otel_mlmon.errors import ConfigurationError
from tests.support.tables import table

JANUARY_NS = 1_767_225_600 * 10**9


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
    assert times_of(table({"t": values}), "t").tolist() == [JANUARY_NS]


def test_text_is_utc() -> None:
    assert text_of(JANUARY_NS) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (["2026-01-01", "soon"], "row 1: column 't': 'soon' is no point in time"),
        (["2026-01-01", None], "row 1: column 't': no point in time"),
        ([1_767_225_600.0, np.nan], "row 1: column 't': no number"),
        ([5.0, 6.0], "row 0: column 't': 5 is not in seconds, ms, us or ns since 1970"),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"), "row 1: column 't': no point in time"),
    ],
)
def test_what_is_no_point_in_time_is_told_with_its_place(values: Sequence[object], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        times_of(table({"t": values}), "t")
    assert caught.value.faults == (fault,)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="there is no column 'u' for --timestamp"):
        times_of(table({"t": [1.0]}), "u")
