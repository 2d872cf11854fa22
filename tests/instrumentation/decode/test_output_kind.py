from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.output_kind import (
    KindEvidence,
    holds_labels,
    infer_kind,
    is_detection,
    vector_norms,
)
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import OutputKind


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
def test_kinds_of_numbers(
    name: str, rows: list[list[float]], names: tuple[str, ...], has_labels: bool, kind: OutputKind | None
) -> None:
    tensor = Tensor(name=name, layout="rows", dtype="float32")
    values = np.array(rows, dtype=np.float32)
    assert infer_kind(tensor, values, class_names=names, has_labels=has_labels, row_count=1) == kind


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
    assert infer_kind(tensor, rows, class_names=(), has_labels=False) == kind


def evidence_of(name: str = "output", declared: OutputKind | None = None, names: tuple[str, ...] = ()) -> KindEvidence:
    tensor = Tensor(name=name, layout="rows", dtype="float32")
    return KindEvidence(tensor, declared_kind=declared, class_names=names, has_labels=False)


def kinds(evidence: KindEvidence, *batches: list[list[float]]) -> list[OutputKind | None]:
    return [evidence.update(np.array(batch, dtype=np.float32)) for batch in batches]


NAN = float("nan")


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        # nothing that tells, then something
        ([[[0, 0]], [[NAN, 1]], [[0.2, 0.8]]], [None, None, "probabilities"]),
        ([[[0]], [[NAN]], [[3]]], [None, None, "regression"]),
        # one row that could be many things, then one that shows which
        ([[[1, 0, 0]], [[3, -1, 0]], [[0.2, 0.3, 0.5]]], ["probabilities", "logits", "logits"]),
        ([[[0.3]], [[7.5]], [[0.3]]], ["sigmoid", "regression", "regression"]),
        # within [0, 1] but not summing to 1: eight rows make it sure, and one beyond shows the contrary
        ([[[0.9, 0.8, 0.1]] * 7, [[0.9, 0.8, 0.1]]], [None, "multi_label"]),
        ([[[0.9, 0.8, 0.1]], [[4, -2, 0.1]]], [None, "logits"]),
        ([[[0.9, 0.8, 0.1]] * 8, [[4, -2, 0.1]], [[0.9, 0.8, 0.1]]], ["multi_label", "logits", "logits"]),
        # contradicted twice: given up, for good
        (
            [[[1, 0, 0]], [[0.9, 0.8, 0.1]] * 8, [[4, -2, 0]], [[1, 0, 0]]],
            ["probabilities", "multi_label", "none", "none"],
        ),
        # a sequence: as many columns as there are steps
        ([[[1, 0, 0]], [[1, 0]], [[1, 0, 0]]], ["probabilities", "none", "none"]),
        # what holds no number contradicts nothing
        ([[[0.2, 0.8]], [[NAN, 5]], [[0, 0]]], ["probabilities"] * 3),
    ],
)
def test_it_waits_for_rows_that_tell_and_is_revised_once(batches: list[list[list[float]]], expected: list[str]) -> None:
    assert kinds(evidence_of(), *batches) == expected


def test_the_developers_word_is_never_revised() -> None:
    assert kinds(evidence_of(declared="sigmoid"), [[NAN]], [[0.3]], [[8]]) == ["sigmoid"] * 3


def test_whether_it_was_revised() -> None:
    evidence = evidence_of()
    assert [(kind, evidence.is_revised) for kind in kinds(evidence, [[0.3]])] == [("sigmoid", False)]
    assert [(kind, evidence.is_revised) for kind in kinds(evidence, [[3]])] == [("regression", True)]


def kind_of(rows: list[list[float]], name: str = "output", **arguments: Any) -> OutputKind | None:
    tensor = Tensor(name=name, layout="rows", dtype="float64")
    options: dict[str, Any] = {"class_names": (), "has_labels": False, "row_count": len(rows), **arguments}
    return infer_kind(tensor, np.array(rows, dtype=np.float64), **options)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        # a probability may be 0.001 outside [0, 1], and the sum of a row 0.002 away from 1
        ([-0.00099, 1.00099], "probabilities"),
        ([-0.0011, 1.0011], "logits"),
        ([0.5019, 0.5], "probabilities"),
        ([0.5021, 0.5], None),
        ([0.4981, 0.5], "probabilities"),
        ([0.4979, 0.5], None),
        ([1.00099, 0.5], None),
        ([1.0011, 0.5], "logits"),
        ([-0.00099, 0.5], None),
        ([-0.0011, 0.5], "logits"),
        # a vector of length 1, but for 0.001
        ([-0.6, 0.8], "embedding"),
        ([-0.6, 0.80099], "embedding"),
        ([-0.6, 0.802], "logits"),
        ([-0.6, 0.798], "logits"),
    ],
)
def test_tolerances_from_both_sides(row: list[float], kind: OutputKind | None) -> None:
    assert kind_of([row]) == kind


def test_one_row_that_sums_to_one_among_many_makes_no_probabilities() -> None:
    assert kind_of([[0.2, 0.8], [0.9, 0.8]]) is None
    assert kind_of([[0.9, 0.8], [0.2, 0.8]]) is None
    assert kind_of([[0.2, 0.8], [0.9, -0.8]]) == "logits"
    assert kind_of([[0.2, 0.8], [0.0, 0.0], [math.nan, 5.0], [0.3, 0.7]]) == "probabilities"


def test_eight_rows_within_the_unit_are_independent_probabilities_and_seven_may_be_logits() -> None:
    rows = [[0.9, 0.8, 0.1]] * 8
    assert [kind_of(rows[:7]), kind_of(rows)] == [None, "multi_label"]
    assert kind_of([[0.6, 0.8]] * 8) == "multi_label"  # of length 1, but within the unit


def test_names_and_widths() -> None:
    wide = [float(index) for index in range(64)]
    assert [kind_of([wide]), kind_of([[*wide, 1.0]])] == ["embedding", "logits"]
    assert kind_of([wide], class_names=["name"] * 64) == "logits"
    assert kind_of([wide], class_names=["name"] * 63) == "embedding"
    assert kind_of([[3.0, 2.0]], name="embedding", class_names=["a", "b"]) == "logits"
    assert kind_of([[0.2, 0.8]], name="embedding") == "probabilities"
    assert kind_of([[0.2, 0.8]], has_labels=True) == "probabilities"
    assert kind_of([[3.0, 2.0]], name="embedding", has_labels=True) == "none"
    assert kind_of([[0.2, 0.8]], name="mask") == "none"
    assert kind_of([[math.nan, 1.0]], name="logits") is None
    assert [kind_of([[1.001]]), kind_of([[1.0011]])] == ["sigmoid", "regression"]
    assert [kind_of([[-0.001]]), kind_of([[-0.0011]])] == ["sigmoid", "regression"]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor(name="word", layout="text"), True),
        (Tensor(name="label", layout="rows", dtype="int64", row_shape=()), True),
        (Tensor(name="label", layout="rows", dtype="int64", row_shape=(1,)), True),
        (Tensor(name="label", layout="rows", dtype="int64", row_shape=(1, 1)), True),
        (Tensor(name="label", layout="rows", dtype="int64"), True),
        (Tensor(name="label", layout="rows", dtype="int64", row_shape=(2,)), False),
        (Tensor(name="label", layout="rows", dtype="float32", row_shape=(1,)), False),
        (Tensor(name="label", layout="shape", dtype="int64", row_shape=(1,)), False),
        (Tensor(name="num_labels", layout="rows", dtype="int64", row_shape=(1,)), False),
    ],
)
def test_what_holds_labels(tensor: Tensor, expected: bool) -> None:
    assert holds_labels(tensor) is expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["Boxes"], True), (["x", "dets"], True), (["detection_scores"], True), (["details"], False), ([], False)],
)
def test_which_models_detect_objects(names: list[str], expected: bool) -> None:
    assert is_detection(names) is expected


def test_one_in_so_many_rows_is_checked_that_1024_are() -> None:
    def contradicting(rows: int, position: int) -> bool:
        evidence = evidence_of()
        assert evidence.update(np.array([[0.3]])) == "sigmoid"
        values = np.full((rows, 1), 0.3)
        values[position] = 7.5
        return evidence.update(values) == "regression"

    assert [contradicting(1024, 1023), contradicting(1025, 1024), contradicting(1025, 1023)] == [True, True, False]
    assert [contradicting(3000, 3), contradicting(3000, 2), contradicting(3000, 1)] == [True, False, False]


def test_rows_that_show_nothing_do_not_count_towards_eight() -> None:
    row = [0.9, 0.8, 0.1]
    assert kinds(evidence_of(), [row] * 7, [[0, 0, 0]] * 9, [[NAN, 1, 1]], [row]) == [None, None, None, "multi_label"]
    # from the contradiction on, rows are counted anew
    revised = kinds(evidence_of(), [[1, 0, 0]], [row] * 7, [row])
    assert revised == ["probabilities", None, "multi_label"]


def test_probabilities_are_contradicted_by_any_row_that_is_none() -> None:
    assert kinds(evidence_of(), [[0.2, 0.8]], [[0.2, 0.8], [3, -1]]) == ["probabilities", "logits"]
    assert kinds(evidence_of(), [[3, -1]], [[0.2, 0.8]], [[0.2, 0.8]]) == ["logits"] * 3


def test_a_later_width_makes_a_sequence_of_any_kind() -> None:
    integers = evidence_of("tokens")
    assert [integers.update(np.array([[1]])), integers.update(np.array([[1, 2]]))] == ["labels", "none"]
    assert kinds(evidence_of(), [[3, -1]], [[3, -1, 2]], [[3, -1]]) == ["logits", "none", "none"]
    assert kinds(evidence_of(declared="logits"), [[3, -1]], [[3, -1, 2]]) == ["logits", "logits"]


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-141, 1e-139, 1.0, 1e150, 1e200, 1e307])
def test_norms_at_any_scale(scale: float) -> None:
    rows = np.array([[3.0, 4.0], [0.0, -12.0], [0.0, 0.0]]) * scale
    expected = [math.hypot(*row) for row in rows]
    np.testing.assert_allclose(vector_norms(rows), expected, rtol=1e-12)


def test_norms_that_are_no_numbers() -> None:
    rows = np.array([[1.7e308, 1.7e308], [np.inf, 1.0], [np.nan, 1.0], [3.0, 4.0]])
    assert [norm if np.isfinite(norm) else None for norm in vector_norms(rows)] == [None, None, None, 5.0]


def test_widths_of_embeddings() -> None:
    def is_embedding(width: int) -> bool:
        return kind_of([[float(index) for index in range(width)]]) == "embedding"

    widths = [64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]
    assert [width for width in widths if not is_embedding(width)] == []
    assert [width for width in widths if is_embedding(width - 1) or is_embedding(width + 1)] == []
