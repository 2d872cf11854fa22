"""The classes that the rows of one output say."""

from __future__ import annotations

from typing import Any

import numpy as np

from otel_mlmon.instrumentation.decode.batch import TensorRows
from otel_mlmon.instrumentation.decode.heads import ClassDecoder, Classification
from otel_mlmon.instrumentation.runtime.call import Plan, Tensor
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.types import OutputKind
from otel_mlmon.vocabulary import TextPseudonymizer
from tests.support.calls import session

TENSOR = Tensor(name="out", layout="rows", dtype="float64")


def decoder(*labels: str) -> ClassDecoder:
    plan = Plan(session=session(), operation="run", outputs=(TENSOR,))
    return ClassDecoder(plan, ModelOptions(labels=labels), lambda *_, **__: None, TextPseudonymizer(buckets=None))


def decode(kind: OutputKind, rows: Any, *labels: str, sizes: list[int] | None = None) -> Classification:
    """One row a call."""
    array = np.asarray(rows)
    joined = TensorRows(rows=array, calls=np.arange(len(array)), sizes=np.array(sizes or [1] * len(array)))
    return decoder(*labels).decode_class_rows(TENSOR, kind, joined)


def said(part: Classification) -> tuple[list[str], list[int], list[float], list[int]]:
    """Labels and their calls, confidences, and decoded rows by call."""
    return (
        [part.labels.table[code] for code in part.labels.codes.tolist()],
        part.labels.calls.tolist(),
        part.confidences.values.tolist(),
        part.decoded.tolist(),
    )


def test_rows_without_a_number_have_no_class() -> None:
    part = decode("probabilities", [[0.25, 0.75], [np.nan, 0.5], [0.9, 0.1]], "no", "yes")
    assert said(part) == (["yes", "no"], [0, 2], [0.75, 0.9], [1, 0, 1])
    assert (part.has_scores, part.width) == (True, 2)


def test_labels_that_are_numbers() -> None:
    part = decode("labels", [[1.0], [np.nan], [2.5]], "a", "b")
    assert said(part) == (["b", "2.5"], [0, 2], [], [1, 0, 1])
    assert part.has_scores is False


def test_independent_labels_of_a_row() -> None:
    part = decode("multi_label", [[0.75, 1.0], [0.0, 0.25], [np.nan, 1.0]], "a", "b")
    assert said(part) == (["b", "a"], [0, 0], [0.875, 0.875], [1, 1, 0])


def test_ranked_scores_are_confidences_only_as_long_as_they_may_be_probabilities() -> None:
    classes = decoder()
    joined = [
        TensorRows(rows=np.array([rows]), calls=np.array([0]), sizes=np.array([1]))
        for rows in ([0.75, 0.25], [np.nan, 0.5], [0.5, 0.75], [0.75, 0.25])
    ]
    confidences = [classes.decode_class_rows(TENSOR, "top_k", rows).confidences.values.tolist() for rows in joined]
    assert confidences == [[0.75], [], [], []]  # the third is in no order
    assert said(decode("top_k", np.array([[3, 1], [2, 0]]))) == (["3", "2"], [0, 1], [], [1, 1])


def test_rows_that_were_not_copied_are_not_decoded() -> None:
    joined = TensorRows(rows=np.zeros((0, 3)), calls=np.zeros(0, np.int64), sizes=np.array([5, 0]))
    for kind in ("probabilities", "logits", "labels", "multi_label", "top_k"):
        part = decoder().decode_class_rows(TENSOR, kind, joined, earlier=2)
        assert (said(part), part.sizes.tolist(), part.earlier) == (([], [], [], [0, 0]), [5, 0], 2)


def test_targets_of_a_regression() -> None:
    def values(name: str, rows: Any, *names: str) -> dict[str, list[float]]:
        decoded = decoder(*names).split_regression_targets(name, np.asarray(rows, dtype=np.float64), 32)
        return {target: numbers.tolist() for target, numbers in decoded.items()}

    assert values("one", [[1.0], [np.inf]]) == {"one": [1.0]}
    assert values("two", [[1.0, 2.0], [np.nan, 4.0]], "a", "b") == {"two.a": [1.0], "two.b": [2.0, 4.0]}
    assert values("many", [range(33)]) == {f"many.{index}": [float(index)] for index in range(32)}
