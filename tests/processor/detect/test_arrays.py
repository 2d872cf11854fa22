from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.arrays import RowArrays, RowIndex, convert_to_slice, sum_rows


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([3], slice(3, 4)),
        ([2, 3, 4], slice(2, 5)),
        ([2, 4], None),
        ([4, 3, 2], None),
        ([2, 4, 3, 5], None),
        ([], None),
    ],
)
def test_rows_that_follow_each_other_are_a_slice(rows: list[int], place: RowIndex | None) -> None:
    index = np.array(rows, dtype=np.intp)
    selection = convert_to_slice(index)
    assert selection is index if place is None else selection == place


def test_a_row_is_zero_and_keeps_the_others() -> None:
    rows = RowArrays(counts=((2,), np.float64), total=((), np.int64))
    rows["counts"][1] = 7.0
    rows["total"][1] = 14
    rows.clear(9)
    assert rows["counts"][[1, 9]].tolist() == [[7.0, 7.0], [0.0, 0.0]]
    rows.clear(1)
    assert (rows["counts"][1].tolist(), int(rows["total"][1])) == ([0.0, 0.0], 0)


@pytest.mark.parametrize(
    ("rows", "totals"), [([[1, 2], [3, 4]], [3, 7]), ([[1, 2], [], [5]], [3, 0, 5]), ([[], []], [0, 0]), ([], [])]
)
def test_counts_of_any_lengths_are_summed(rows: list[list[int]], totals: list[int]) -> None:
    assert sum_rows([np.array(row, dtype=np.int64) for row in rows]) == totals
