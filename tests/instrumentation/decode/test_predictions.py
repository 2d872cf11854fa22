from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.decode.predictions import (
    build_label_table,
    decode_classes,
    decode_multi_labels,
    encode_distinct_texts,
    format_class_label,
    read_output_texts,
)
from otel_mlmon.types import OutputKind

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.floats(-50, 50))


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_softmax_of_logits_is_that_of_an_oracle(rows: np.ndarray) -> None:
    codes, confidences = decode_classes("logits", rows)
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    oracle = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert codes.tolist() == rows.argmax(axis=1).tolist()
    np.testing.assert_allclose(confidences, oracle.max(axis=1), rtol=1e-12)


def test_rows_that_hold_no_number_have_no_label() -> None:
    codes, confidences = decode_classes("probabilities", np.array([[0.1, 0.9], [np.nan, 0.5], [np.inf, 0.0]]))
    assert codes.tolist() == [1, -1, -1]
    np.testing.assert_array_equal(confidences, [0.9, np.nan, np.nan])


def test_a_score_is_of_two_classes() -> None:
    codes, confidences = decode_classes("sigmoid", np.array([[0.5], [0.2]]))
    assert (codes.tolist(), confidences.tolist()) == ([1, 0], [0.5, 0.8])


def test_a_single_logit_is_the_logarithm_of_its_odds() -> None:
    codes, confidences = decode_classes("logits", np.array([[0.0], [2.0], [-2.0], [1e4]]))
    assert codes.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(confidences, [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2)), 1.0])


def test_independent_labels_are_none_one_or_several_the_most_probable_first() -> None:
    codes, rows, confidences = decode_multi_labels(np.array([[0.6, 0.1, 0.9], [0.2, 0.5, 0.0], [np.nan, 1.0, 1.0]]))
    assert (codes.tolist(), rows.tolist()) == ([2, 0], [0, 0])
    np.testing.assert_allclose(confidences, [0.8, (0.8 + 0.5 + 1.0) / 3, np.nan])


def oracle(rows: np.ndarray, kind: OutputKind) -> tuple[list[int], list[float]]:
    """Class and confidence by plain Python, row by row."""
    codes, confidences = [], []
    for row in rows.astype(np.float64):
        code = int(row.argmax())
        codes.append(code)
        confidences.append(row[code] if kind == "probabilities" else 1 / sum(np.exp(row - row[code])))
    return codes, [min(max(float(value), 0.0), 1.0) for value in confidences]


KINDS: list[OutputKind] = ["probabilities", "logits"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 31, 32, 33, 1000])
def test_labels_of_few_and_of_many_classes(kind: OutputKind, classes: int) -> None:
    rows = np.random.default_rng(classes).normal(size=(50, classes)).astype(np.float32)
    rows[7] = rows[7, 0]  # of equal scores the first
    codes, confidences = decode_classes(kind, rows)
    expected_codes, expected_confidences = oracle(rows, kind)
    assert codes.tolist() == expected_codes
    np.testing.assert_allclose(confidences, expected_confidences, rtol=1e-12)
    rows[3, 1], rows[5, classes - 1] = np.nan, np.inf
    codes, confidences = decode_classes(kind, rows)
    assert [int(code) for code in codes] == [-1 if row in {3, 5} else expected_codes[row] for row in range(50)]
    assert np.flatnonzero(np.isnan(confidences)).tolist() == [3, 5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "classes"), [(1 << 15, 2), ((1 << 15) + 1, 2), (3 * (1 << 15), 2), (201, 1000)])
def test_more_rows_than_are_decoded_at_a_time(kind: OutputKind, rows: int, classes: int) -> None:
    values = np.random.default_rng(rows).normal(size=(rows, classes))
    codes, confidences = decode_classes(kind, values)
    assert codes.tolist() == values.argmax(axis=1).tolist()
    assert (codes.shape, confidences.shape) == ((rows,), (rows,))
    tail = slice(rows - 3, rows)
    np.testing.assert_allclose(confidences[tail], oracle(values[tail], kind)[1], rtol=1e-12)


def test_no_rows_wider_than_a_block_and_differences_that_overflow() -> None:
    wide = np.zeros((2, (1 << 16) + 1))
    wide[1, -1] = 50.0
    assert decode_classes("logits", wide)[0].tolist() == [0, 1 << 16]
    codes, confidences = decode_classes("logits", np.array([[-1.7e308, 1.7e308], [0.0, 0.0]]))
    assert (codes.tolist(), confidences.tolist()) == ([1, 0], [1.0, 0.5])


def test_single_scores_around_the_half() -> None:
    below = np.nextafter(0.5, 0.0)
    codes, confidences = decode_classes("sigmoid", np.array([[below], [0.5], [1.2], [-0.2], [np.nan]]))
    assert codes.tolist() == [0, 1, 1, 0, -1]
    np.testing.assert_allclose(confidences, [1 - below, 0.5, 1.0, 1.0, np.nan])
    assert decode_classes("logits", np.array([[-1e-9], [0.0]]))[0].tolist() == [0, 1]


def test_independent_labels_above_the_half() -> None:
    codes, rows, confidences = decode_multi_labels(np.array([[0.5, 0.51], [1.7, -0.2], [0.9, 0.8]]))
    assert (codes.tolist(), rows.tolist()) == ([1, 0, 0, 1], [0, 1, 2, 2])
    np.testing.assert_allclose(confidences, [(0.5 + 0.51) / 2, 1.0, 0.85])


TABLE = ["a", "b"]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0, "a"),
        (1, "b"),
        (2, "2"),
        (-1, "-1"),
        (True, "b"),
        (1.0, "b"),
        (2.0, "2"),
        (0.5, "0.5"),
        ("x" * 200, "x" * 128),
    ],
)
def test_the_label_of_a_number(value: object, label: str) -> None:
    assert format_class_label(value, TABLE) == label


def test_label_tables() -> None:
    assert build_label_table(TABLE, ("k", "l"), 2) is TABLE
    assert build_label_table(TABLE, ("k", "l", "m"), 3) == ("k", "l", "m")
    assert build_label_table(TABLE, ("k", "l"), 3) == ["0", "1", "2"]


def test_texts_and_their_calls() -> None:
    texts, calls = read_output_texts([((2,), ("a", "b" * 200)), None, b"raw", ((1,), ("a",))])
    assert (texts, calls.tolist()) == (["a", "b" * 128, "a"], [0, 0, 3])
    codes, table = encode_distinct_texts(texts)
    assert (codes.tolist(), table) == ([0, 1, 0], ["a", "b" * 128])


def test_a_row_of_several_texts_has_a_label_only_where_they_are_ranked() -> None:
    items = [((2, 2), ("a", "b", "c", "d")), ((1, 2), ("e", "f", "g")), ((0, 2), ()), ((3, 1), ("h", "i", "j"))]
    texts, calls = read_output_texts(items)
    assert (texts, calls.tolist()) == (["h", "i", "j"], [3, 3, 3])
    texts, calls = read_output_texts(items, is_ranked=True)
    assert (texts, calls.tolist()) == (["a", "c", "h", "i", "j"], [0, 0, 3, 3, 3])
