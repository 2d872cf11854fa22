"""Never a wrong confidence: integers on a grid, the greatest of what are no probabilities, margins of classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from otel_mlmon.testing import capture

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(8, 5)).astype(np.float32)
ROWS = RNG.normal(size=(60, 8)).astype(np.float32)
INTS = {np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8}
LINEAR = helper.make_node("MatMul", ["x", "w"], ["z"])


def session_of(
    nodes: list[Any], outputs: Mapping[str, tuple[int, list[Any]]], **constants: Any
) -> ort.InferenceSession:
    graph = helper.make_graph(
        [LINEAR, *nodes],
        "tail",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {"w": WEIGHTS, **constants}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString())


def report(session: ort.InferenceSession, rows: np.ndarray = ROWS) -> tuple[int, list[float], Any]:
    """How many labels were counted, the confidences' count and mean, and what the model itself gave."""
    name = session.get_inputs()[0].name
    with capture() as captured:
        answers = [session.run(None, {name: rows[at : at + 3]}) for at in range(0, len(rows), 3)]
        captured.flush()
        metrics = captured.metrics()
    labels = metrics.get("ml.predictions")
    confidence = metrics.get("ml.prediction.confidence")
    points: list[Any] = list(confidence.data.data_points) if confidence else []
    counts: list[Any] = list(labels.data.data_points) if labels else []
    return (
        sum(point.value for point in counts),
        [number for point in points for number in (point.count, point.sum / point.count)],
        answers,
    )


def quantised(activation: str, kind: Any, scale: float, zero_point: int) -> ort.InferenceSession:
    axis: dict[str, Any] = {"axis": 1} if activation == "Softmax" else {}
    nodes = [
        helper.make_node(activation, ["z"], ["a"], **axis),
        helper.make_node("QuantizeLinear", ["a", "s", "o"], ["y"]),
    ]
    return session_of(nodes, {"y": (INTS[kind], ["n", 5])}, s=np.float32(scale), o=kind(zero_point))


@pytest.mark.parametrize(("kind", "scale", "zero_point"), [(np.int8, 1 / 256, -128), (np.uint8, 1 / 255, 0)])
@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_integers_stand_for_the_probabilities_of_their_grid(
    activation: str, kind: Any, scale: float, zero_point: int
) -> None:
    labels, confidence, answers = report(quantised(activation, kind, scale, zero_point))
    shares = (np.concatenate([answer[0] for answer in answers]).astype(float) - zero_point) * scale
    if activation == "Softmax":
        assert labels == 60
        assert confidence == pytest.approx([60, shares.max(axis=1).mean()], rel=1e-5)
    else:
        assert labels == (shares > 0.5).sum()
        assert confidence == pytest.approx([60, np.maximum(shares, 1 - shares).mean()], rel=1e-5)


def test_a_grid_whose_scale_is_computed_is_unknown() -> None:
    nodes = [
        helper.make_node("Softmax", ["z"], ["a"], axis=1),
        helper.make_node("ReduceMax", ["a"], ["m"], keepdims=0),
        helper.make_node("QuantizeLinear", ["a", "m"], ["y"]),
    ]
    assert report(session_of(nodes, {"y": (TensorProto.UINT8, ["n", 5])}))[:2] == (0, [])


def test_integers_of_an_unknown_grid_that_were_cast_are_no_probabilities() -> None:
    nodes = [
        helper.make_node("Softmax", ["z"], ["a"], axis=1),
        helper.make_node("ReduceMax", ["a"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "s"], ["t"]),
        helper.make_node("QuantizeLinear", ["a", "t"], ["q"]),
        helper.make_node("Cast", ["q"], ["y"], to=1),
    ]
    session = session_of(nodes, {"y": (TensorProto.FLOAT, ["n", 5])}, s=np.float32(1 / 255))
    assert report(session)[:2] == (0, [])


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("source", ["z", "d"])
def test_the_greatest_or_least_of_scores_and_distances_is_no_confidence(source: str, largest: int) -> None:
    nodes = [
        helper.make_node("Abs", ["z"], ["d"]),
        helper.make_node("TopK", [source, "k"], ["values", "classes"], axis=1, largest=largest),
    ]
    outputs = {"values": (TensorProto.FLOAT, ["n", 1]), "classes": (TensorProto.INT64, ["n", 1])}
    session = session_of(nodes, outputs, w=WEIGHTS / 50, k=np.array([1], np.int64))
    labels, confidence, answers = report(session)
    assert max(abs(float(answer[0].max())) for answer in answers) < 1  # as a probability
    assert (labels, confidence) == (60, [])


@pytest.mark.parametrize("operator", ["ArgMin", "TopK"])
def test_the_least_likely_class_is_no_prediction(operator: str) -> None:
    choice = (
        helper.make_node("ArgMin", ["a"], ["classes"], axis=1)
        if operator == "ArgMin"
        else helper.make_node("TopK", ["a", "k"], ["least", "classes"], axis=1, largest=0)
    )
    nodes = [helper.make_node("Softmax", ["z"], ["a"], axis=1), choice]
    session = session_of(nodes, {"classes": (TensorProto.INT64, ["n", 1])}, k=np.array([1], np.int64))
    assert report(session)[:2] == (0, [])


def test_the_best_classes_of_a_softmax_have_its_probability() -> None:
    nodes = [
        helper.make_node("Softmax", ["z"], ["a"], axis=1),
        helper.make_node("TopK", ["a", "k"], ["values", "classes"], axis=1),
    ]
    outputs = {"values": (TensorProto.FLOAT, ["n", 2]), "classes": (TensorProto.INT64, ["n", 2])}
    labels, confidence, answers = report(session_of(nodes, outputs, k=np.array([2], np.int64)))
    best = np.concatenate([answer[0][:, 0] for answer in answers])
    assert labels == 60
    assert confidence == pytest.approx([60, best.mean()], rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["SGDClassifier", "Perceptron", "RidgeClassifier"])
def test_margins_of_scikit_learn_are_no_logits(name: str) -> None:
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    from sklearn import linear_model
    from sklearn.datasets import load_iris

    data = load_iris()
    rows = data.data.astype(np.float32)
    model = getattr(linear_model, name)(random_state=0).fit(rows, data.target)
    session = ort.InferenceSession(to_onnx(model, rows[:1]).SerializeToString())
    assert report(session, rows)[:2] == (150, [])
