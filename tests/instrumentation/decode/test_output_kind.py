from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.decode.output_kind import classify, contradicts, decide, norms, tag
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import OutputKind

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.floats(-50, 50))


@pytest.mark.parametrize(
    ("name", "rows", "names", "has_labels", "kind"),
    [
        ("output", [[0.2, 0.8]], (), False, "probabilities"),
        ("output", [[1.5, -2.0, 0.1]], (), False, "logits"),
        ("logits", [[0.5, 0.1]], (), True, "logits"),
        ("scores", [[1.5, -2.0]], (), True, "none"),
        ("tags", [[0.9, 0.8, 0.1]], (), False, "multi_label"),
        ("output", [[0.9, 0.8, 0.1]], (), False, None),
        ("embedding", [[1.0, 2.0]], (), False, "embedding"),
        ("output", [[-0.6, 0.8]], (), False, "embedding"),
        ("output", [[-0.6, 0.8]], ("a", "b"), False, "logits"),
        ("output", [[float(i) for i in range(768)]], (), False, "embedding"),
        ("output", [[float(i) for i in range(1000)]], (), False, "logits"),
        ("landmarks", [[1.0, 2.0]], (), False, "none"),
        ("hn", [[1.0, 2.0]], (), False, "none"),
        ("probability", [[0.3]], (), False, "sigmoid"),
        ("output", [[0.3]], (), False, "sigmoid"),
        ("variable", [[0.3]], (), False, "regression"),
        ("output", [[3.0]], (), False, "regression"),
        ("logit", [[3.0]], (), False, "logits"),
        ("output", [[0.3]], (), True, "none"),
        ("output", [[np.nan]], (), False, None),
        ("output", [[0.0]], (), False, None),
        ("output", [[0.0, 0.0]], (), False, None),
        ("score", [[0.0]], (), False, "sigmoid"),
    ],
)
def test_decides(
    name: str, rows: list[list[float]], names: tuple[str, ...], has_labels: bool, kind: OutputKind | None
) -> None:
    tensor = Tensor(name=name, layout="rows", dtype="float32")
    values = np.array(rows, dtype=np.float32)
    assert decide(tensor, values, names=names, has_labels=has_labels, seen=1) == kind


@pytest.mark.parametrize(
    ("name", "rows", "kind"),
    [
        ("label", np.array([[3]]), "labels"),
        ("label", np.array([[3, 4]]), "none"),
        ("num_found", np.array([[3]]), "none"),
        ("count", np.array([[3]]), "regression"),
        ("tags", np.array([[True, False]]), "multi_label"),
        ("is_spam", np.array([[True]]), "labels"),
    ],
)
def test_whole_numbers_are_labels_if_there_is_one_a_row(name: str, rows: np.ndarray, kind: OutputKind) -> None:
    tensor = Tensor(name=name, layout="rows", dtype=rows.dtype.name)
    assert decide(tensor, rows, names=(), has_labels=False) == kind


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_softmax_of_logits_is_that_of_an_oracle(rows: np.ndarray) -> None:
    found = classify("logits", rows)
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    oracle = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert found.codes.tolist() == rows.argmax(axis=1).tolist()
    np.testing.assert_allclose(found.confidences, oracle.max(axis=1), rtol=1e-12)


def test_rows_that_hold_no_number_have_no_label() -> None:
    found = classify("probabilities", np.array([[0.1, 0.9], [np.nan, 0.5], [np.inf, 0.0]]))
    assert found.codes.tolist() == [1, -1, -1]
    np.testing.assert_array_equal(found.confidences, [0.9, np.nan, np.nan])


def test_a_score_is_of_two_classes_until_it_leaves_the_unit() -> None:
    found = classify("sigmoid", np.array([[0.5], [0.2]]))
    assert (found.codes.tolist(), found.confidences.tolist()) == ([1, 0], [0.5, 0.8])
    assert not contradicts("sigmoid", np.array([[1.0], [0.0], [np.nan]]))
    assert contradicts("sigmoid", np.array([[1.5]]))


def test_a_single_logit_is_the_logarithm_of_its_odds() -> None:
    found = classify("logits", np.array([[0.0], [2.0], [-2.0], [1e4]]))
    assert found.codes.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(found.confidences, [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2)), 1.0])


def test_tags_are_none_one_or_several_the_most_probable_first() -> None:
    found = tag(np.array([[0.6, 0.1, 0.9], [0.2, 0.5, 0.0], [np.nan, 1.0, 1.0]]))
    assert (found.codes.tolist(), found.rows.tolist()) == ([2, 0], [0, 0])
    np.testing.assert_allclose(found.confidences, [0.8, (0.8 + 0.5 + 1.0) / 3, np.nan])


def test_lengths_that_overflow_are_left_out() -> None:
    assert norms(np.array([[3.0, 4.0], [1e200, 1e200], [np.nan, 1.0]])).tolist() == [5.0]
