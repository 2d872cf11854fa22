from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pytest

from otel_mlmon.table.cells import MISSING_TEXTS, format_label, normalize_label, parse_numbers, parse_texts


@pytest.mark.parametrize("word", sorted(MISSING_TEXTS))
def test_a_word_for_nothing_is_missing_however_it_is_written(word: str) -> None:
    cells = [word, word.upper(), f" {word.title()}\t"]
    assert parse_texts(cells) == [None, None, None]
    assert [format_label(cell) for cell in cells] == [None, None, None]
    numbers = parse_numbers([*cells, "1"])
    assert not isinstance(numbers, int)
    np.testing.assert_array_equal(numbers, [np.nan, np.nan, np.nan, 1.0])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (6, "6"),
        (6.0, "6"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (True, "True"),
        (Decimal("1.50"), "1.50"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (" Private", " Private"),
        (None, None),
        (math.nan, None),
        (-math.inf, None),
        (Decimal("NaN"), None),
    ],
)
def test_the_label_of_a_value(value: object, word: str | None) -> None:
    assert format_label(value) == word


def test_a_word_that_is_there_often_is_one_object() -> None:
    first, second = parse_texts(["".join("ab"), "".join("ab")])
    assert first is second


@pytest.mark.parametrize(("cells", "row"), [(["1", "x"], 1), (["1_0"], 0), (["", "NA", "0x1"], 2)])
def test_the_first_cell_that_is_not_a_number(cells: list[str], row: int) -> None:
    assert parse_numbers(cells) == row


@pytest.mark.parametrize(
    ("word", "label"), [("1.0", "1"), ("01", "1"), ("1e-1", "0.1"), ("1_0", "1_0"), ("a", "a"), ("inf", "inf")]
)
def test_a_word_as_the_number_it_is(word: str, label: str) -> None:
    assert normalize_label(word) == label
