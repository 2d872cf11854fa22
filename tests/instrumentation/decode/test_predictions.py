from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.decode.predictions import decode_classes, decode_multi_labels

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
