from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.output_kind import KindEvidence, infer_kind
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
