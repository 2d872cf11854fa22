from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.output_kind import (
    MAX_VALUES,
    TOLERANCE,
    KindDecision,
    OutputFacts,
    are_within_unit_interval,
    compute_vector_norms,
    decide_output_kind,
    is_label_output,
    is_object_detector,
)
from otel_mlmon.instrumentation.decode.outputs import OutputKindEvidence
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.instrumentation.runtime.model_graph import OutputOrigin
from otel_mlmon.types import OutputKind

NAN = float("nan")
LINEAR = OutputOrigin(role="linear", operator="Gemm", rank=2)
SOFTMAX = OutputOrigin(role="probabilities", operator="Softmax", axis=1, rank=2)


def kind_of(rows: Any, name: str = "output", *, row_count: int | None = None, **facts: Any) -> OutputKind | None:
    values = np.asarray(rows)
    values = values.astype(np.float32) if values.dtype.kind == "f" else values
    tensor = Tensor(name=name, layout="rows", dtype=values.dtype.name)
    return decide_output_kind(OutputFacts(tensor=tensor, **facts), values, row_count=row_count or len(values)).kind


@pytest.mark.parametrize(
    ("origin", "rows", "kind"),
    [
        (SOFTMAX, [[0.2, 0.8]], "probabilities"),
        # Quantised, half of the rows miss a sum of 1 by far; a softmax is one whatever they sum to.
        (SOFTMAX, [[0.5, 0.46], [0.52, 0.51]], "probabilities"),
        (SOFTMAX, [[0.0, 0.0]], "probabilities"),
        (OutputOrigin(role="probabilities", operator="Softmax", axis=0, rank=1), [[0.2, 0.8]], "probabilities"),
        (OutputOrigin(role="probabilities", operator="Softmax", axis=2, rank=3), [[0.2, 0.8]], "none"),
        (OutputOrigin(role="probabilities", operator="Softmax", axis=0, rank=2), [[0.2, 0.8]], "none"),
        (OutputOrigin(role="probabilities", operator="Softmax", rank=2), [[0.2, 0.8]], "probabilities"),
        (OutputOrigin(role="probabilities", operator="Softmax", rank=2), [[0.2, 0.9]], "none"),
        (OutputOrigin(role="probabilities", operator="Softmax", rank=1, is_partial=True), [[0.2]], "sigmoid"),
        (OutputOrigin(role="probabilities", axis=1, rank=2, is_partial=True), [[0.2, 0.1]], "none"),
        (OutputOrigin(role="log_probabilities", axis=1, rank=2), [[-0.2, -1.7]], "logits"),
        (OutputOrigin(role="log_probabilities", axis=2, rank=3), [[-0.2, -1.7]], "none"),
        (OutputOrigin(role="sigmoid", operator="Sigmoid"), [[0.2, 0.8]], "multi_label"),
        (OutputOrigin(role="sigmoid", operator="Sigmoid"), [[0.2]], "sigmoid"),
        (OutputOrigin(role="sigmoid", operator="Sigmoid"), [[0.2], [1.2]], "none"),  # rescaled after all
        (OutputOrigin(role="values", operator="LinearRegressor"), [[0.2, 0.8]], "regression"),
        (OutputOrigin(role="values", operator="LinearRegressor"), [[0.2]], "regression"),
        (OutputOrigin(role="unit_vector", operator="LpNormalization"), [[0.6, 0.8]], "embedding"),
        (OutputOrigin(role="state", operator="LSTM"), [[0.2, 0.8]], "none"),
        (OutputOrigin(role="detections", operator="NonMaxSuppression"), [[0.2, 0.8]], "detection"),
        (OutputOrigin(role="top_k_scores", operator="TopK"), [[0.8, 0.2]], "top_k"),
        (OutputOrigin(role="class_scores", operator="SVMClassifier", axis=1, rank=2), [[2.0, -1.0]], "none"),
        (OutputOrigin(role="class_scores", operator="SVMClassifier", axis=1, rank=2), [[0.2, 0.8]], "probabilities"),
        (OutputOrigin(role="linear", operator="Gemm", companion="label"), [[2.0, -1.0]], "logits"),
        (LINEAR, [[2.0, -1.0]], "regression"),
        (OutputOrigin(role="other", operator="Tanh"), [[0.2, -0.8]], "none"),
    ],
)
def test_the_models_file_decides_first(origin: OutputOrigin, rows: list[list[float]], kind: OutputKind) -> None:
    assert kind_of(rows, origin=origin) == kind


@pytest.mark.parametrize(
    ("rows", "name", "kind"),
    [
        (np.array([[100], [-100]], np.int8), "output", "none"),  # numbers of a grid
        (np.array([[100], [-100]], np.int8), "label", "labels"),
        (np.array([[100], [-100]], np.int16), "output", "labels"),
        (np.array([[3], [-1]], np.int8), "output", "labels"),
        (np.zeros((0, 1), np.int8), "output", "labels"),
        (np.zeros((0, 1), np.int64), "value", "regression"),
    ],
)
def test_small_integers_may_be_of_a_grid(rows: Any, name: str, kind: OutputKind) -> None:
    tensor = Tensor(name=name, layout="rows", dtype=rows.dtype.name)
    assert decide_output_kind(OutputFacts(tensor=tensor), rows).kind == kind


@pytest.mark.parametrize(("width", "kind"), [(1, "regression"), (2, "none"), (3, "none")])
def test_a_sigmoid_that_is_called_a_value_is_one_where_it_is_one_number(width: int, kind: OutputKind) -> None:
    origin = OutputOrigin(role="sigmoid", operator="Sigmoid")
    assert kind_of([[0.25] * width], "value", origin=origin) == kind


def test_numbers_by_class_in_a_dictionary_are_of_no_certain_scale() -> None:
    tensor = Tensor(name="output", layout="maps", dtype="float32")
    facts = OutputFacts(tensor=tensor, class_names=["ant", "bee"], origin=LINEAR)
    assert decide_output_kind(facts, np.array([[2.0, -1.0]])) == KindDecision(
        "none", "a dictionary of numbers of no certain scale", is_certain=False
    )


def test_the_unit_interval_has_its_ends_and_a_rounding() -> None:
    assert are_within_unit_interval(np.array([-TOLERANCE, 0.0, 1.0, 1.0 + TOLERANCE]))
    assert not are_within_unit_interval(np.array([math.nextafter(-TOLERANCE, -1.0)]))
    assert not are_within_unit_interval(np.array([math.nextafter(1.0 + TOLERANCE, 2.0)]))


def test_one_row_that_is_sure_among_many_hides_no_probabilities() -> None:
    assert kind_of([[1.0, 0.0]] + [[0.6, 0.4]] * 200) == "probabilities"
    assert kind_of([[1.0, 0.0]] * 200) == "none"


@pytest.mark.parametrize(
    ("known", "kind", "is_certain"),
    [
        ({}, "none", False),
        ({"has_labels": True}, "probabilities", True),
        ({"class_names": ["ant", "bee"]}, "probabilities", True),
    ],
)
def test_shares_of_anything_are_probabilities_beside_labels_or_with_class_names(
    known: dict[str, Any], kind: OutputKind, *, is_certain: bool
) -> None:
    tensor, origin = Tensor(name="output", layout="rows", dtype="float32"), OutputOrigin(role="other", operator="Div")
    decision = decide_output_kind(
        OutputFacts(tensor=tensor, origin=origin, **known), np.array([[0.2, 0.8], [0.6, 0.4]])
    )
    assert (decision.kind, decision.is_certain) == (kind, is_certain)


@pytest.mark.parametrize(
    ("origin", "rows", "kind"),
    [
        (OutputOrigin(role="label", operator="ArgMax"), [[3]], "labels"),
        (OutputOrigin(role="label", operator="ArgMax"), [[3, 4]], "none"),
        (OutputOrigin(role="top_k_labels", operator="TopK"), [[3, 4]], "top_k"),
        (OutputOrigin(role="counts", operator="Shape"), [[3]], "none"),
        (OutputOrigin(role="linear", operator="QLinearMatMul"), [[3]], "none"),
        (OutputOrigin(role="probabilities", axis=1, rank=2, is_quantised=True), [[3, 4]], "none"),
    ],
)
def test_the_models_file_decides_on_integers(origin: OutputOrigin, rows: list[list[int]], kind: OutputKind) -> None:
    assert kind_of(rows, origin=origin) == kind


@pytest.mark.parametrize(
    ("name", "rows", "names", "has_labels", "kind"),
    [
        ("output", [[0.2, 0.8]], (), False, "probabilities"),
        ("output", [[1.5, -2.0, 0.1]], (), False, "none"),
        ("logits", [[0.5, 0.1]], (), True, "logits"),
        ("scores", [[1.5, -2.0]], (), True, "none"),
        ("tags", [[0.9, 0.8, 0.1]], (), False, "multi_label"),
        ("output", [[0.9, 0.8, 0.1]], (), False, "none"),
        ("output", [[0.9, 0.8, 0.1]], ("a", "b", "c"), False, None),
        ("output", [[0.9, 0.8, 0.1]] * 8, ("a", "b", "c"), False, "multi_label"),
        ("embedding", [[1.0, 2.0]], (), False, "embedding"),
        ("output", [[-0.6, 0.8]], (), False, "embedding"),
        ("output", [[-0.6, 0.8]], ("a", "b"), False, "logits"),
        ("output", [[-0.6, 0.8]], ("a", "b", "c"), False, "embedding"),
        ("output", [[float(i) for i in range(768)]], (), False, "embedding"),
        ("output", [[float(i) for i in range(1000)]], (), False, "none"),
        ("angles", [[3.0, 1.0]], (), False, "regression"),
        ("landmarks", [[1.0, 2.0]], (), False, "none"),
        ("hn", [[1.0, 2.0]], (), False, "none"),
        ("probability", [[0.3]], (), False, "sigmoid"),
        ("output", [[0.3]], (), False, "regression"),
        ("output", [[0.3]], ("no", "yes"), False, "sigmoid"),
        ("output", [[0.0, 1.0]], (), False, None),
        ("output", [[0.0, 1.0], [1.0, 0.0]] * 4, (), False, "none"),
        ("output", [[0.0, 1.0]], (), True, "probabilities"),
        ("variable", [[0.3]], (), False, "regression"),
        ("output", [[3.0]], (), False, "regression"),
        ("logit", [[3.0]], (), False, "logits"),
        ("output", [[0.3]], (), True, "none"),
        ("output", [[NAN]], (), False, None),
        ("output", [[0.0]], (), False, None),
        ("output", [[0.0, 0.0]], (), False, None),
        ("score", [[0.0]], (), False, "sigmoid"),
    ],
)
def test_names_and_values_where_the_file_says_nothing(
    name: str, rows: list[list[float]], names: tuple[str, ...], has_labels: bool, kind: OutputKind | None
) -> None:
    assert kind_of(rows, name, class_names=names, has_labels=has_labels) == kind


def test_a_last_layer_of_many_numbers_is_no_regression() -> None:
    widths = [width for width in range(2, 40) if kind_of([[-3.0] * width], origin=LINEAR) == "regression"]
    assert widths == list(range(2, MAX_VALUES + 1))


def test_a_last_layer_without_activation_is_logits_only_if_something_says_so() -> None:
    row = [[3.0, -1.0]]
    assert kind_of(row, "scores", origin=LINEAR) == "logits"
    assert kind_of(row, class_names=("a", "b"), origin=LINEAR) == "logits"
    assert kind_of(row, class_names=("a",), origin=LINEAR) == "regression"
    assert kind_of([[3.0] * 40], origin=LINEAR) == "none"
    assert kind_of([[3.0]], origin=LINEAR) == "regression"
    assert kind_of([[0.3]], origin=LINEAR) == "regression"  # within 0 and 1 by chance


def test_one_of_several_unnamed_numbers_is_no_probability() -> None:
    assert kind_of([[0.3]], "448", is_only=False) == "regression"
    assert kind_of([[0.3]], "score", is_only=False) == "sigmoid"


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
    assert kind_of(rows, name) == kind


def evidence_of(declared: OutputKind | None = None, **facts: Any) -> OutputKindEvidence:
    tensor = Tensor(name="output", layout="rows", dtype="float32")
    return OutputKindEvidence(
        OutputFacts(tensor=tensor, **facts), settled=KindDecision(declared, "declared") if declared else None
    )


def kinds(evidence: OutputKindEvidence, *batches: list[list[float]]) -> list[OutputKind | None]:
    return [evidence.update_kind(np.array(batch, dtype=np.float32)) for batch in batches]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        # nothing that tells, then something
        ([[[0, 0]], [[NAN, 1]], [[0.2, 0.8]]], [None, None, "probabilities"]),
        ([[[0]], [[NAN]], [[3]]], [None, None, "regression"]),
        # the first rows that contradict it make it timed only, for good
        ([[[0.9, 0.1, 0]], [[3, -1, 0]], [[0.2, 0.3, 0.5]]], ["probabilities", "none", "none"]),
        ([[[0.3]], [[7.5]], [[0.3]]], ["regression"] * 3),
        # a sequence: as many columns as there are steps
        ([[[0.9, 0.1, 0]], [[1, 0]], [[1, 0, 0]]], ["probabilities", "none", "none"]),
        # what holds no number contradicts nothing
        ([[[0.2, 0.8]], [[NAN, 5]], [[0, 0]]], ["probabilities"] * 3),
    ],
)
def test_it_waits_for_rows_that_tell_and_is_given_up_where_they_contradict(
    batches: list[list[list[float]]], expected: list[str]
) -> None:
    assert kinds(evidence_of(), *batches) == expected


def test_the_sum_of_a_softmax_contradicts_nothing_but_its_range_does() -> None:
    assert kinds(evidence_of(origin=SOFTMAX), [[0.5, 0.5]], [[0.5, 0.45]], [[0.5, 7]]) == [
        "probabilities", "probabilities", "none",
    ]  # fmt: skip


def test_on_a_grid_rows_may_miss_a_sum_of_one() -> None:
    quantised = OutputOrigin(role="class_scores", operator="Mul", is_quantised=True)
    row = [1 / 20 + 1 / 1024] * 20  # a sum of 1.0195, within 20/512
    assert [kind_of([row], origin=quantised), kind_of([row])] == ["probabilities", "none"]


def test_the_developers_word_is_never_revised() -> None:
    assert kinds(evidence_of("sigmoid"), [[NAN]], [[0.3]], [[8]]) == ["sigmoid"] * 3


def test_what_was_assumed_says_so() -> None:
    certain, assumed = evidence_of(origin=SOFTMAX), evidence_of(origin=LINEAR)
    kinds(certain, [[0.2, 0.8]])
    kinds(assumed, [[3.0, -1.0]])
    assert certain.decision == ("probabilities", "normalised along its classes, by its operator Softmax", True)
    assert assumed.decision == ("regression", "2 numbers without bounds or names", False)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        # a probability may be 0.001 outside [0, 1], and the sum of a row 0.002 away from 1
        ([-0.00099, 1.00099], "probabilities"),
        ([-0.0011, 1.0011], "none"),
        ([0.5019, 0.5], "probabilities"),
        ([0.5021, 0.5], "none"),
        ([0.4981, 0.5], "probabilities"),
        ([0.4979, 0.5], "none"),
        # a vector of length 1, but for 0.001
        ([-0.6, 0.8], "embedding"),
        ([-0.6, 0.80099], "embedding"),
        ([-0.6, 0.802], "none"),
        ([-0.6, 0.798], "none"),
    ],
)
def test_tolerances_from_both_sides(row: list[float], kind: OutputKind) -> None:
    assert kind_of([row]) == kind


def test_one_row_that_sums_to_one_among_many_makes_no_probabilities() -> None:
    assert kind_of([[0.2, 0.8], [0.9, 0.8]]) == "none"
    assert kind_of([[0.2, 0.8], [0.0, 0.0], [math.nan, 5.0], [0.3, 0.7]]) == "probabilities"


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
    assert is_label_output(tensor) is expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["Boxes"], True), (["x", "dets"], True), (["detection_scores"], True), (["details"], False), ([], False)],
)
def test_which_models_detect_objects(names: list[str], expected: bool) -> None:
    assert is_object_detector(names) is expected


def test_one_in_so_many_rows_is_checked_that_1024_are() -> None:
    def contradicting(rows: int, position: int) -> bool:
        evidence = evidence_of(class_names=("no", "yes"))
        assert evidence.update_kind(np.array([[0.3]])) == "sigmoid"
        values = np.full((rows, 1), 0.3)
        values[position] = 7.5
        return evidence.update_kind(values) == "none"

    assert [contradicting(1024, 1023), contradicting(1025, 1024), contradicting(1025, 1023)] == [True, True, False]
    assert [contradicting(3000, 3), contradicting(3000, 2), contradicting(3000, 1)] == [True, False, False]


def test_rows_that_show_nothing_do_not_count_towards_eight() -> None:
    row = [0.9, 0.8, 0.1]
    evidence = evidence_of(class_names=("a", "b", "c"))
    assert kinds(evidence, [row] * 7, [[0, 0, 0]] * 9, [[NAN, 1, 1]], [row]) == [None, None, None, "multi_label"]


def test_probabilities_are_contradicted_by_any_row_that_is_none() -> None:
    assert kinds(evidence_of(), [[0.2, 0.8]], [[0.2, 0.8], [3, -1]]) == ["probabilities", "none"]
    named = evidence_of(class_names=("a", "b"))
    assert kinds(named, [[3, -1]], [[0.2, 0.8]], [[0.2, 0.8]]) == ["logits"] * 3


def test_a_later_width_makes_a_sequence_of_any_kind() -> None:
    integers = evidence_of()
    assert [integers.update_kind(np.array([[1]])), integers.update_kind(np.array([[1, 2]]))] == ["labels", "none"]
    named = evidence_of(class_names=("a", "b"))
    assert kinds(named, [[3, -1]], [[3, -1, 2]], [[3, -1]]) == ["logits", "none", "none"]
    assert kinds(evidence_of("logits"), [[3, -1]], [[3, -1, 2]]) == ["logits", "logits"]


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-141, 1e-139, 1.0, 1e150, 1e200, 1e307])
def test_norms_at_any_scale(scale: float) -> None:
    rows = np.array([[3.0, 4.0], [0.0, -12.0], [0.0, 0.0]]) * scale
    expected = [math.hypot(*row) for row in rows]
    np.testing.assert_allclose(compute_vector_norms(rows), expected, rtol=1e-12)


def test_norms_that_are_no_numbers() -> None:
    rows = np.array([[1.7e308, 1.7e308], [np.inf, 1.0], [np.nan, 1.0], [3.0, 4.0]])
    assert [norm if np.isfinite(norm) else None for norm in compute_vector_norms(rows)] == [None, None, None, 5.0]


def test_widths_of_embeddings() -> None:
    def is_embedding(width: int) -> bool:
        return kind_of([[float(index) for index in range(width)]]) == "embedding"

    widths = [64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]
    assert [width for width in widths if not is_embedding(width)] == []
    assert [width for width in widths if is_embedding(width - 1) or is_embedding(width + 1)] == []
