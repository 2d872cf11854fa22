from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from otel_mlmon.table.cells import (
    MISSING_TEXTS,
    format_label,
    has_leading_zeros,
    is_number_text,
    normalize_label,
    parse_cell_labels,
    parse_cell_numbers,
    parse_number_texts,
)


@pytest.mark.parametrize("word", sorted(MISSING_TEXTS))
def test_a_word_for_nothing_is_missing_however_it_is_written(word: str) -> None:
    cells = [word, word.upper(), f" {word.title()}\t"]
    assert [format_label(cell) for cell in cells] == [None, None, None]
    numbers = parse_cell_numbers(pa.array([*cells, "1"]))
    np.testing.assert_array_equal(numbers.values, [np.nan, np.nan, np.nan, 1.0])
    assert numbers.first_text == -1


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


@pytest.mark.parametrize(
    ("array", "numbers"),
    [
        (pa.array([1, None, 3]), [1, np.nan, 3]),
        (pa.array([0.5, None], pa.float32()), [0.5, np.nan]),
        (pa.array([Decimal("1.25"), None]), [1.25, np.nan]),
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array(["1", None, " 2 ", "1e3", "inf"]), [1, np.nan, 2, 1000, np.inf]),
        (pa.array(["5", "6"]).dictionary_encode(), [5, 6]),
        (pa.nulls(2), [np.nan, np.nan]),
        (pa.array([2**53 + 1]), [2.0**53]),
    ],
)
def test_numbers_of_every_type(array: pa.Array, numbers: list[float]) -> None:
    parsed = parse_cell_numbers(array)
    np.testing.assert_array_equal(parsed.values, numbers)
    assert parsed.first_text == -1


@pytest.mark.parametrize(("cells", "row"), [(["1", "x"], 1), (["1_0"], 0), (["", "NA", "0x1"], 2), (["1", "1,5"], 1)])
def test_the_first_cell_that_is_not_a_number(cells: list[str], row: int) -> None:
    assert parse_cell_numbers(pa.array(cells)).first_text == row


def test_a_decimal_comma_goes_with_no_point() -> None:
    parsed = parse_number_texts(["1,5", "-2", None, "2.5"], ",")
    np.testing.assert_array_equal(parsed.values, [1.5, -2.0, np.nan, np.nan])
    assert parsed.first_text == 3


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("1.0", "1"),
        ("01", "1"),
        ("1e-1", "0.1"),
        ("1_0", "1_0"),
        ("a", "a"),
        ("inf", "inf"),
        ("true", "True"),
        ("FALSE", "False"),
    ],
)
def test_a_word_as_the_number_it_is(word: str, label: str) -> None:
    assert normalize_label(word) == label


@pytest.mark.parametrize(
    ("array", "labels"),
    [
        (pa.array(["a", None, "NA", "a", "01"]), ["a", None, None, "a", "01"]),
        (pa.array([1.0, 2.5, None, 1.0]), ["1", "2.5", None, "1"]),
        (pa.array([3, -3, 3]), ["3", "-3", "3"]),
        (pa.array([True, None, False]), ["True", None, "False"]),
        (pa.array(["x", None, "y"]).dictionary_encode(), ["x", None, "y"]),
        (pa.array([dt.date(2026, 1, 2), None]), ["2026-01-02", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_labels_of_every_type(array: pa.Array, labels: list[str | None]) -> None:
    read = parse_cell_labels(array)
    assert [read.table[code] for code in read.codes] == labels


@pytest.mark.parametrize(
    ("text", "padded", "number"),
    [("01", True, True), ("0", False, True), ("0.5", False, True), ("-007", True, True), ("a0", False, False)],
)
def test_leading_zeros_make_an_identifier(text: str, *, padded: bool, number: bool) -> None:
    assert (has_leading_zeros(text), is_number_text(text)) == (padded, number)
