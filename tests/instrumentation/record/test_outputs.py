from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.call.call import Tensor
from otel_mlmon.instrumentation.record.outputs import classify, contradicts, decide

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.floats(-50, 50))


@pytest.mark.parametrize(
    ("name", "rows", "names", "has_labels", "kind"),
    [
        ("output", [[0.2, 0.8]], (), False, "probabilities"),
        ("output", [[1.5, -2.0, 0.1]], (), False, "logits"),
        ("logits", [[0.5, 0.1]], (), True, "logits"),
        ("scores", [[1.5, -2.0]], (), True, "none"),
        ("tags", [[0.9, 0.8, 0.1]], (), False, "none"),
        ("embedding", [[1.0, 2.0]], (), False, "none"),
        ("output", [[0.6, 0.8]], (), False, "none"),
        ("output", [[0.6, 0.8]], ("a", "b"), False, "logits"),
        ("output", [[float(i) for i in range(768)]], (), False, "none"),
        ("probability", [[0.3]], (), False, "score"),
        ("output", [[0.3]], (), False, "score"),
        ("variable", [[0.3]], (), False, "regression"),
        ("output", [[3.0]], (), False, "regression"),
        ("output", [[0.3]], (), True, "none"),
        ("output", [[np.nan]], (), False, "none"),
    ],
)
def test_decides(name: str, rows: list[list[float]], names: tuple[str, ...], has_labels: bool, kind: str) -> None:
    tensor = Tensor(name=name, layout="rows", dtype="float32")
    values = np.array(rows, dtype=np.float32)
    assert decide(tensor, values, said=None, names=names, has_labels=has_labels) == kind
    assert decide(tensor, values, said="regression", names=names, has_labels=has_labels) == "regression"


def test_integers_are_labels_if_there_is_one_a_row() -> None:
    tensor = Tensor(name="label", layout="rows", dtype="int64")
    for rows, kind in (([[3]], "labels"), ([[3, 4]], "none")):
        assert decide(tensor, np.array(rows), said=None, names=(), has_labels=False) == kind


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
    found = classify("score", np.array([[0.5], [0.2]]))
    assert (found.codes.tolist(), found.confidences.tolist()) == ([1, 0], [0.5, 0.8])
    assert not contradicts("score", np.array([[1.0], [0.0], [np.nan]]))
    assert contradicts("score", np.array([[1.5]]))
