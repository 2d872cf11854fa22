from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.backtest.replay_table import RowRange, cut_rows, cut_time
from otel_mlmon.errors import ConfigurationError

SECOND_NS = 10**9


def test_rows_with_what_is_left() -> None:
    assert cut_rows(5, 2) == [
        RowRange(index=0, start=0, end=2),
        RowRange(index=1, start=2, end=4),
        RowRange(index=2, start=4, end=5),
    ]
    assert cut_rows(0, 2) == []


def test_time_with_gaps() -> None:
    times = np.array([100, 109, 110, 150], dtype=np.int64) * SECOND_NS
    assert cut_time(times, 10.0) == [
        RowRange(index=0, start=0, end=2),
        RowRange(index=1, start=2, end=3),
        RowRange(index=5, start=3, end=4),
    ]


def test_windows_without_end_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="makes more than 1000000 windows"):
        cut_time(np.array([0, 10**18], dtype=np.int64), 0.001)
