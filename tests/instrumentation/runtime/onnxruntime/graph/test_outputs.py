from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from otel_mlmon.instrumentation.runtime.model_graph import OutputOrigin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.read import read_model_bytes

node = helper.make_node
SHAPE: dict[int, list[Any]] = {rank: ["N", "a", "b", "c"][:rank] for rank in range(5)}
CONSTANTS = {
    "w": np.zeros((4, 3), "f4"), "one": np.array([1], "f4"), "half": np.array([0.5], "f4"), "k": np.array([2]),
    "first": np.array(0), "firsts": np.array([0, 1]), "axis0": np.array([0]), "axis1": np.array([1]),
    "axis2": np.array([2]), "last": np.array([-1]), "flat": np.array([-1]), "rows": np.array([-1, 3]),
    "zero": np.array([0]), "two": np.array([2]), "far": np.array([2**62]), "s": np.float32(1 / 256),
    "z": np.uint8(0), "words": np.array(["ant", "bee", "cow"], object), "numbers": np.array([3, 5, 9]),
}  # fmt: skip


def origins(
    nodes: Sequence[Any],
    *,
    opset: int = 17,
    constants: dict[str, Any] | None = None,
    functions: Sequence[Any] = (),
    **ranks: int,
) -> dict[str, OutputOrigin]:
    """What is read of a graph of these nodes, whose outputs have so many axes."""
    used = {name for entry in nodes for name in entry.input}
    tensors = {name: array for name, array in {**CONSTANTS, **(constants or {})}.items() if name in used}
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE[2]) for name in ("x", "y") if name in used],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE[rank]) for name, rank in ranks.items()],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("our", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    graph_read = read_model_bytes(model.SerializeToString(), names=tuple(ranks))
    assert graph_read.state == "read"
    return dict(graph_read.outputs)


def origin(nodes: Sequence[Any], rank: int = 2, **options: Any) -> OutputOrigin:
    return origins(nodes, out=rank, **options)["out"]


def softmax(name: str = "out", axis: int = -1, source: str = "x") -> Any:
    return node("Softmax", [source], [name], axis=axis)


@pytest.mark.parametrize(
    ("nodes", "rank", "axis"),
    [
        ([softmax()], 2, 1),
        ([softmax(axis=1)], 4, 1),
        ([softmax()], 1, 0),
        ([softmax(axis=2)], 3, 2),
        ([softmax("p"), node("Cast", ["p"], ["out"], to=10)], 2, 1),
        ([softmax("p"), node("Identity", ["p"], ["q"]), node("Dropout", ["q"], ["out"])], 2, 1),
        ([softmax("p", 1), node("Transpose", ["p"], ["out"], perm=[0, 2, 1])], 3, 2),
        ([softmax("p", 1), node("Transpose", ["p"], ["out"], perm=[0, 2, 3, 1])], 4, 3),
        ([softmax("p"), node("Transpose", ["p"], ["out"])], 2, None),
        ([softmax("p", 1), node("Flatten", ["p"], ["out"])], 2, 1),
        ([softmax("p"), node("Reshape", ["p", "rows"], ["out"])], 2, 1),
        ([softmax("p"), node("Reshape", ["p", "x"], ["out"])], 2, None),
        ([softmax("p"), node("Squeeze", ["p", "axis0"], ["out"])], 2, None),
        ([softmax("p", 2), node("Squeeze", ["p", "axis1"], ["out"])], 2, 1),
        ([softmax("p", 1), node("Squeeze", ["p", "axis2"], ["out"])], 2, 1),
        ([softmax("p", 1), node("Squeeze", ["p", "axis1"], ["out"])], 2, None),
        ([softmax("p"), node("Unsqueeze", ["p", "axis0"], ["out"])], 3, None),
        ([softmax("p", 1), node("Unsqueeze", ["p", "axis2"], ["out"])], 3, 1),
        ([softmax("p", 1), node("Unsqueeze", ["p", "axis1"], ["out"])], 3, 2),
        ([softmax("p"), node("Squeeze", ["p"], ["out"])], 1, 0),
        ([softmax("p", 1), node("Slice", ["p", "zero", "two", "axis0"], ["out"])], 2, 1),
        ([softmax("p", 1), node("Gather", ["p", "first"], ["out"], axis=0)], 1, 0),
        ([softmax("p", 2), node("Gather", ["p", "first"], ["out"], axis=1)], 2, 1),
    ],
)
def test_a_softmax_is_found_and_its_axis_followed(nodes: list[Any], rank: int, axis: int | None) -> None:
    assert origin(nodes, rank) == OutputOrigin(role="probabilities", operator="Softmax", axis=axis, rank=rank)


def test_before_opset_13_a_softmax_goes_along_the_first_axis_by_default() -> None:
    assert origin([node("Softmax", ["x"], ["out"])], 3, opset=11).axis == 1
    assert origin([node("Softmax", ["x"], ["out"])], 3, opset=13).axis == 2
    axes = node("Squeeze", ["p"], ["out"], axes=[1])
    assert origin([softmax("p", 2), axes], 2, opset=11).axis == 1


@pytest.mark.parametrize(
    "taken",
    [
        node("Slice", ["p", "zero", "two", "axis1"], ["out"]),
        node("Slice", ["p", "axis1", "far", "axis1"], ["out"]),
        node("Gather", ["p", "firsts"], ["out"], axis=1),
        node("ArrayFeatureExtractor", ["p", "firsts"], ["out"], domain="ai.onnx.ml"),
        node("Split", ["p"], ["out", "other"], axis=1),
    ],
)
def test_some_of_the_classes_are_partial(taken: Any) -> None:
    read = origin([softmax("p", -1 if taken.op_type == "ArrayFeatureExtractor" else 1), taken])
    assert (read.role, read.is_partial, read.axis) == ("probabilities", True, 1)


def test_one_class_is_partial_and_has_no_axis() -> None:
    read = origin([softmax("p", 1), node("Gather", ["p", "first"], ["out"], axis=1)], 1)
    assert (read.role, read.is_partial, read.axis) == ("probabilities", True, None)


@pytest.mark.parametrize(
    ("nodes", "role"),
    [
        ([node("LogSoftmax", ["x"], ["out"], axis=-1)], "log_probabilities"),
        ([node("LogSoftmax", ["x"], ["p"], axis=-1), node("Exp", ["p"], ["out"])], "probabilities"),
        ([softmax("p"), node("Log", ["p"], ["out"])], "log_probabilities"),
        ([node("ReduceLogSumExp", ["x"], ["s_"], axes=[1]), node("Sub", ["x", "s_"], ["out"])], "log_probabilities"),
        ([node("Exp", ["x"], ["e"]), node("ReduceSum", ["e", "axis1"], ["t"]), node("Div", ["e", "t"], ["out"])],
         "probabilities"),
        ([node("ReduceL1", ["x"], ["t"], axes=[1]), node("Clip", ["t"], ["u"]), node("Div", ["x", "u"], ["out"])],
         "other"),
        ([node("Sigmoid", ["x"], ["p"]), node("ReduceL1", ["p"], ["t"], axes=[1]), node("Div", ["p", "t"], ["out"])],
         "probabilities"),
        ([node("ReduceL2", ["x"], ["t"], axes=[1]), node("Clip", ["t"], ["c"]), node("Expand", ["c", "k"], ["u"]),
          node("Div", ["x", "u"], ["out"])], "unit_vector"),
        ([node("Mul", ["x", "x"], ["q"]), node("ReduceSum", ["q", "axis1"], ["t"]), node("Sqrt", ["t"], ["u"]),
          node("Div", ["x", "u"], ["out"])], "unit_vector"),
        ([node("LpNormalization", ["x"], ["out"])], "unit_vector"),
        ([node("LpNormalization", ["x"], ["out"], p=1)], "other"),
        ([node("Normalizer", ["x"], ["out"], norm="L2", domain="ai.onnx.ml")], "unit_vector"),
        ([node("Normalizer", ["x"], ["out"], norm="L1", domain="ai.onnx.ml")], "other"),
        ([node("Sigmoid", ["x"], ["out"])], "sigmoid"),
        ([node("Sigmoid", ["x"], ["p"]), node("Sub", ["one", "p"], ["out"])], "sigmoid"),
        ([node("Sigmoid", ["x"], ["p"]), node("Sub", ["one", "p"], ["q"]), node("Concat", ["q", "p"], ["out"], axis=1)],
         "probabilities"),
        ([node("Gemm", ["x", "w"], ["out"])], "linear"),
        ([node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "one"], ["out"])], "linear"),
        ([node("MatMul", ["x", "w"], ["m"]), node("Div", ["m", "half"], ["out"])], "linear"),
        ([node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "x"], ["out"])], "other"),
        ([node("MatMul", ["x", "w"], ["m"]), node("Relu", ["m"], ["out"])], "other"),
        ([node("Tanh", ["x"], ["out"])], "other"),
        ([node("Identity", ["x"], ["out"])], "input"),
        ([node("Shape", ["x"], ["out"])], "counts"),
        ([softmax("p"), node("Mul", ["p", "half"], ["out"])], "class_scores"),
        ([softmax("p"), softmax("q", source="y"), node("Add", ["p", "q"], ["t"]), node("Mul", ["t", "half"], ["out"])],
         "class_scores"),
        ([softmax("p"), node("Neg", ["p"], ["out"])], "other"),
        ([node("Sigmoid", ["x"], ["p"]), node("Concat", ["p", "x"], ["out"], axis=1)], "other"),
        ([node("ArgMax", ["x"], ["out"], axis=1)], "label"),
        ([node("NonMaxSuppression", ["x", "y"], ["out"])], "detections"),
        ([node("NonMaxSuppression", ["x", "y"], ["i"]), node("Gather", ["x", "i"], ["out"])], "detections"),
        ([node("LinearRegressor", ["x"], ["out"], coefficients=[1.0], domain="ai.onnx.ml")], "values"),
        ([node("LinearRegressor", ["x"], ["v"], coefficients=[1.0], domain="ai.onnx.ml"),
          node("Mul", ["v", "half"], ["out"])], "values"),
        ([node("TreeEnsembleRegressor", ["x"], ["out"], post_transform="LOGISTIC", domain="ai.onnx.ml")], "sigmoid"),
        ([node("TreeEnsembleRegressor", ["x"], ["out"], post_transform="SOFTMAX", domain="ai.onnx.ml")],
         "probabilities"),
        ([node("MadeUpHere", ["x"], ["out"], domain="our")], "other"),
    ],
)  # fmt: skip
def test_roles(nodes: list[Any], role: str) -> None:
    assert origin(nodes).role == role


def test_outputs_of_a_recurrent_network() -> None:
    nodes = [node("LSTM", ["x", "w", "w"], ["out", "hidden", "cell"], hidden_size=4)]
    read = origins(nodes, out=3, hidden=3, cell=3)
    assert {name: entry.role for name, entry in read.items()} == {"out": "other", "hidden": "state", "cell": "state"}


def test_a_top_k_has_two_outputs_that_belong_together() -> None:
    read = origins([softmax("p"), node("TopK", ["p", "k"], ["scores", "classes"], axis=1)], scores=2, classes=2)
    common: dict[str, Any] = {"operator": "TopK", "axis": 1, "rank": 2, "source_role": "probabilities"}
    assert read == {
        "scores": OutputOrigin(role="top_k_scores", companion="classes", **common),
        "classes": OutputOrigin(role="top_k_labels", companion="scores", **common),
    }


def test_the_results_of_two_top_k_are_not_mixed_up() -> None:
    nodes = [softmax("p"), node("TopK", ["p", "k"], ["a", "b"]), node("TopK", ["y", "k"], ["c", "d"])]
    read = origins(nodes, a=2, b=2, c=2, d=2)
    assert {name: entry.companion for name, entry in read.items()} == {"a": "b", "b": "a", "c": "d", "d": "c"}


def test_the_greatest_probability_and_its_class() -> None:
    nodes = [
        softmax("p", 1),
        node("ReduceMax", ["p"], ["best"], axes=[1], keepdims=0),
        node("ArgMax", ["p"], ["at"], axis=1),
    ]
    read = origins(nodes, best=1, at=2)
    assert {name: (entry.role, entry.companion) for name, entry in read.items()} == {
        "best": ("top_k_scores", "at"), "at": ("label", "best"),
    }  # fmt: skip


@pytest.mark.parametrize("scored", ["p", "x_"])
def test_a_label_belongs_to_the_scores_it_is_the_greatest_of(scored: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["x_"]), softmax("p", 1, "x_"), node("ArgMax", [scored], ["at"], axis=1)]
    read = origins(nodes, p=2, at=2)
    assert (read["at"].companion, read["p"].companion) == ("p", "at")


@pytest.mark.parametrize(
    "lookup",
    [
        node("ArrayFeatureExtractor", ["words", "i"], ["out"], domain="ai.onnx.ml"),
        node("Gather", ["words", "i"], ["out"]),
        node(
            "LabelEncoder",
            ["i"],
            ["out"],
            keys_int64s=[2, 0, 1],
            values_strings=["cow", "ant", "bee"],
            domain="ai.onnx.ml",
        ),
    ],
)
def test_class_names_that_a_label_is_looked_up_in(lookup: Any) -> None:
    nodes = [softmax("p", 1), node("ArgMax", ["p"], ["i"], axis=1), lookup]
    read = origins(nodes, out=1, p=2)
    assert (read["out"].role, read["out"].labels) == ("label", ("ant", "bee", "cow"))
    assert (read["p"].labels, read["p"].companion) == (("ant", "bee", "cow"), "out")


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"classlabels_strings": ["yes", "no"]}, ("yes", "no")),
        ({"classlabels_ints": [4, 7]}, ("4", "7")),
        ({}, ()),
    ],
)
@pytest.mark.parametrize(
    ("transform", "role"), [("SOFTMAX", "probabilities"), ("LOGISTIC", "class_scores"), ("NONE", "class_scores")]
)
def test_a_classifier_names_its_classes(options: Any, labels: tuple[str, ...], transform: str, role: Any) -> None:
    classifier = node(
        "LinearClassifier", ["x"], ["label", "scores"], coefficients=[1.0], post_transform=transform,
        domain="ai.onnx.ml", **options,
    )  # fmt: skip
    read = origins([classifier], label=1, scores=2)
    assert read == {
        "label": OutputOrigin(role="label", operator="LinearClassifier", rank=1, source_role="class_scores",
                              labels=labels, companion="scores"),
        "scores": OutputOrigin(role=role, operator="LinearClassifier", axis=1, rank=2, labels=labels,
                               companion="label"),
    }  # fmt: skip


def test_the_scores_of_a_classifier_are_normalised_by_its_normaliser() -> None:
    nodes = [
        node(
            "LinearClassifier",
            ["x"],
            ["label", "s_"],
            coefficients=[1.0],
            classlabels_ints=[0, 1, 2],
            domain="ai.onnx.ml",
        ),
        node("Normalizer", ["s_"], ["p"], norm="L1", domain="ai.onnx.ml"),
    ]
    read = origins(nodes, label=1, p=2)
    assert (read["p"].role, read["p"].axis, read["p"].companion) == ("probabilities", 1, "label")


@pytest.mark.parametrize(
    ("nodes", "scale"),
    [
        ([softmax("p"), node("QuantizeLinear", ["p", "s", "z"], ["out"])], 1 / 256),
        (
            [
                softmax("p"),
                node("QuantizeLinear", ["p", "s", "z"], ["q"]),
                node("DequantizeLinear", ["q", "s", "z"], ["out"]),
            ],
            1.0,
        ),
        (
            [node("QLinearSoftmax", ["x", "s", "z", "s", "z"], ["out"], axis=-1, opset=13, domain="com.microsoft")],
            1 / 256,
        ),
    ],
)
def test_a_quantised_tail(nodes: list[Any], scale: float) -> None:
    read = origin(nodes)
    assert (read.role, read.axis, read.is_quantised, read.scale) == ("probabilities", 1, True, scale)


def branch(operator: str) -> Any:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, SHAPE[2])
    return helper.make_graph([node(operator, ["x"], ["b"])], operator, [], [value])


@pytest.mark.parametrize(("other", "role"), [("Sigmoid", "sigmoid"), ("Tanh", "unknown")])
def test_both_branches_of_an_if_have_to_agree(other: str, role: str) -> None:
    choice = node("If", ["c"], ["out"], then_branch=branch("Sigmoid"), else_branch=branch(other))
    nodes = [node("Identity", ["x"], ["unused"]), node("Cast", ["one"], ["c"], to=9), choice]
    assert origin(nodes).role == role


def test_a_function_of_the_model_is_looked_into() -> None:
    function = helper.make_function(
        "our", "Head", ["f"], ["g"], [node("Softmax", ["f"], ["h"], axis=1), node("Identity", ["h"], ["g"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    nodes = [node("Gemm", ["x", "w"], ["m"]), node("Head", ["m"], ["out"], domain="our")]
    assert origin(nodes, functions=[function]) == OutputOrigin(role="probabilities", operator="Softmax", axis=1, rank=2)


def test_branches_of_a_concatenation_along_another_axis() -> None:
    nodes = [softmax("p", 2), softmax("q", 2, "y"), node("Concat", ["p", "q"], ["out"], axis=1)]
    assert (origin(nodes, 3).role, origin(nodes, 3).axis) == ("probabilities", 2)
    beside = [softmax("p", 1), softmax("q", 1, "y"), node("Concat", ["p", "q"], ["out"], axis=1)]
    assert origin(beside, 2).role == "other"


def test_a_constant_that_torch_writes_as_a_node() -> None:
    shape = node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([-1, 3])))
    assert origin([softmax("p"), shape, node("Reshape", ["p", "shape"], ["out"])]).axis == 1


@pytest.mark.parametrize("make", [lambda at: node("Identity", [f"t{at}"], [f"t{at + 1}"])])
def test_a_long_chain_is_unknown_and_ends(make: Callable[[int], Any]) -> None:
    nodes = [softmax("t0"), *(make(at) for at in range(300)), node("Identity", ["t300"], ["out"])]
    assert origin(nodes).role == "unknown"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_scikit_learn_exports() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_iris
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    data = load_iris()
    rows, names = data.data.astype("f4"), data.target_names[data.target].astype(str)

    def read(model: Any, target: Any = names, **options: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
        exported = skl2onnx.to_onnx(
            model.fit(rows, target), rows[:1], options=options or None, target_opset={"": 17, "ai.onnx.ml": 3}
        ).SerializeToString()
        outputs = read_model_bytes(exported, names=()).outputs
        return {name: (entry.role, entry.labels) for name, entry in outputs.items()}

    classes = ("setosa", "versicolor", "virginica")
    for model in (
        LogisticRegression(max_iter=500), make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(5), SVC(), GaussianNB(), KNeighborsClassifier(),
        CalibratedClassifierCV(LogisticRegression(max_iter=500)), MLPClassifier((5,), max_iter=5),
    ):  # fmt: skip
        for zipmap in (True, False):
            outputs = read(model, zipmap=zipmap)
            (label, said), (scores, named) = outputs.values()
            assert (label, said) == ("label", classes), (model, outputs)
            assert named in ({classes, ()} if scores == "other" else {classes}), (model, outputs)
            assert scores in {"probabilities", "class_scores", "other"}, (model, outputs)
    two_targets = np.column_stack([rows[:, 0], rows[:, 1] * 2])
    assert list(read(LinearRegression(), two_targets).values()) == [("values", ())]
    assert [role for role, _ in read(PCA(2)).values()] == ["linear"]
    assert [role for role, _ in read(KMeans(3)).values()] == ["label", "other"]
    assert "probabilities" not in {role for role, _ in read(IsolationForest(n_estimators=5)).values()}
