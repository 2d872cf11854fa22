"""Graphs that look like classifiers and are none, and some that are: a class has a confidence only where it is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from otel_mlmon import semconv
from otel_mlmon.testing import capture

node = helper.make_node
RANDOM = np.random.default_rng(1)
CONSTANTS: dict[str, Any] = {
    "w": RANDOM.normal(size=(8, 6)).astype("f4"), "w1": RANDOM.normal(size=(8, 1)).astype("f4"),
    "w3": RANDOM.normal(size=(8, 3)).astype("f4"), "v": RANDOM.normal(size=(6, 5)).astype("f4"),
    "chain": RANDOM.dirichlet(np.ones(6), size=8).astype("f4"), "ages": np.arange(6, dtype="f4")[:, None],
    "half": np.float32(0.5), "hundred": np.float32(100), "zero": np.float32(0), "one": np.float32(1),
    "first": np.array([1]), "end": np.array([4]), "axis0": np.array(1), "axis": np.array([1]), "last": np.array([2]),
    "six": np.array(6), "three": np.array([3]), "off_on": np.array([0, 1], "f4"), "steps": np.array([-1, 8, 1]),
    "pairs": np.array([-1, 4, 2]), "flat": np.array([-1, 8]), "s": np.float32(1 / 255), "z": np.uint8(0),
}  # fmt: skip
H, HALF = node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["x", "w3"], ["g"])


def softmax(source: str = "h", name: str = "p", axis: int = 1) -> Any:
    return node("Softmax", [source], [name], axis=axis)


def total(source: str) -> Any:
    return node("ReduceSum", [source, "axis"], ["total"], keepdims=1)


class Case(NamedTuple):
    """A graph, and the kind of each output: those of classes have a confidence, all others none."""

    nodes: Sequence[Any]
    kinds: dict[str, str]
    types: dict[str, int] = {}  # noqa: RUF012 - never changed
    shapes: dict[str, list[Any]] = {}  # noqa: RUF012
    keys: Sequence[Any] = ()


CLASSES = {"probabilities", "logits", "multi_label", "sigmoid", "top_k"}
CASES = {
    "two heads of tags": Case(
        [H, node("Sigmoid", ["h"], ["tags"]), HALF, node("Sigmoid", ["g"], ["attributes"])],
        {"tags": "multi_label", "attributes": "multi_label"},
    ),
    "log softmax": Case([H, node("LogSoftmax", ["h"], ["out"], axis=1)], {"out": "logits"}),
    "temperature": Case([H, node("Div", ["h", "half"], ["t"]), softmax("t", "out")], {"out": "probabilities"}),
    "two heads under one softmax": Case(
        [H, HALF, node("Concat", ["h", "g"], ["c"], axis=1), softmax("c", "out")], {"out": "probabilities"}
    ),
    "softmax by hand": Case(
        [H, node("Exp", ["h"], ["e"]), total("e"), node("Div", ["e", "total"], ["out"])], {"out": "probabilities"}
    ),
    "mean of two softmaxes": Case(
        [
            H, softmax(), node("MatMul", ["x", "chain"], ["c"]), softmax("c", "q"),
            node("Add", ["p", "q"], ["sum"]), node("Mul", ["sum", "half"], ["out"]),
        ],
        {"out": "probabilities"},
    ),
    "age of classes": Case(
        [H, softmax(name="probabilities"), node("MatMul", ["probabilities", "ages"], ["age"])],
        {"probabilities": "probabilities", "age": "regression"},
    ),
    "one logit": Case([node("MatMul", ["x", "w1"], ["logits"])], {"logits": "logits"}),
    "quantised tags": Case(
        [H, node("Sigmoid", ["h"], ["p"]), node("QuantizeLinear", ["p", "s", "z"], ["out"])],
        {"out": "multi_label"}, {"out": TensorProto.UINT8},
    ),
    "keys are numbers": Case([H, softmax(), "ZipMap p"], {"out": "probabilities"}, keys=[10, 20, 30, 40, 50, 60]),
    "a dictionary of tags": Case([H, node("Sigmoid", ["h"], ["p"]), "ZipMap p"], {"out": "multi_label"}, keys="abcdef"),
    "a dictionary of logits": Case([H, "ZipMap h"], {"out": "none"}, keys="abcdef"),
    "a dictionary of regressions": Case([H, node("Relu", ["h"], ["r"]), "ZipMap r"], {"out": "none"}, keys="abcdef"),
    "softmax over time": Case(
        [node("Reshape", ["x", "steps"], ["r"]), softmax("r"), node("Squeeze", ["p", "last"], ["attention"])],
        {"attention": "none"},
    ),
    "softmax over the batch": Case([H, softmax(name="out", axis=0)], {"out": "none"}),
    "four softmaxes in a row": Case(
        [node("Reshape", ["x", "pairs"], ["r"]), softmax("r", axis=2), node("Reshape", ["p", "flat"], ["out"])],
        {"out": "none"},
    ),
    "some of a softmax": Case(
        [H, softmax(), node("Slice", ["p", "first", "end", "axis"], ["out"])], {"out": "none"}
    ),
    "some of a softmax, normalised again": Case(
        [H, softmax(), node("Slice", ["p", "first", "end", "axis"], ["q"]), total("q"),
         node("Div", ["q", "total"], ["out"])],
        {"out": "none"},
    ),
    "the greatest of a softmax, normalised again": Case(
        [H, softmax(), node("TopK", ["p", "three"], ["q", "i"], axis=1), total("q"),
         node("Div", ["q", "total"], ["scores"])],
        {"scores": "top_k, no confidence"},
    ),
    "softmax of the greatest": Case(
        [H, node("TopK", ["h", "three"], ["q", "i"], axis=1), softmax("q", "scores")],
        {"scores": "top_k, no confidence"},
    ),
    "attention beside what it weighs": Case(
        [H, softmax(name="out_1"), node("MatMul", ["out_1", "v"], ["c"]), softmax("c", "probs"),
         node("Mul", ["out_1", "h"], ["m"]), node("ReduceMean", ["m"], ["out_0"], axes=[1], keepdims=1)],
        {"probs": "probabilities", "out_1": "none", "out_0": "regression"},
        shapes={"probs": ["N", 5], "out_0": ["N", 1]},
    ),
    "gates of experts behind a name": Case(
        [H, softmax(), node("Identity", ["p"], ["extra"]), node("Mul", ["p", "h"], ["m"]), node("Relu", ["m"], ["y"])],
        {"extra": "none", "y": "none"},
    ),
    "probabilities in percent": Case(
        [H, softmax(), node("Mul", ["p", "hundred"], ["probabilities"])], {"probabilities": "none"}
    ),
    "one hot": Case(
        [H, node("ArgMax", ["h"], ["i"], axis=1, keepdims=0), node("OneHot", ["i", "six", "off_on"], ["out"])],
        {"out": "none"},
    ),
    "embedding of length 1 by magnitudes": Case(
        [H, node("Abs", ["h"], ["a"]), node("LpNormalization", ["a"], ["out"], p=1, axis=1)], {"out": "none"}
    ),
    "shares of magnitudes": Case(
        [H, node("Abs", ["h"], ["a"]), total("a"), node("Div", ["a", "total"], ["out"])], {"out": "none"}
    ),
    "a histogram": Case(
        [node("Mul", ["x", "x"], ["q"]), total("q"), node("Div", ["q", "total"], ["out"])],
        {"out": "none"}, shapes={"out": ["N", 8]},
    ),
    "a step of a Markov chain": Case([node("MatMul", ["shares", "chain"], ["out"])], {"out": "none"}),
    "portfolio": Case([H, softmax(name="weights")], {"weights": "none"}),
    "two softmaxes side by side": Case(
        [H, HALF, softmax(), softmax("g", "q"), node("Concat", ["p", "q"], ["c"], axis=1),
         node("Mul", ["c", "half"], ["out"])],
        {"out": "none"},
    ),
    "p and 1 - p of a clipped number": Case(
        [node("MatMul", ["x", "w1"], ["h"]), node("Clip", ["h", "zero", "one"], ["p"]),
         node("Sub", ["one", "p"], ["q"]), node("Concat", ["q", "p"], ["out"], axis=1)],
        {"out": "none"},
    ),
    "regression within 0 and 1, clipped": Case(
        [node("MatMul", ["x", "w1"], ["h"]), node("Clip", ["h", "zero", "one"], ["score"])], {"score": "regression"},
    ),
    "regression within 0 and 1, by a sigmoid": Case(
        [node("MatMul", ["x", "w1"], ["h"]), node("Sigmoid", ["h"], ["ratio"])], {"ratio": "regression"},
    ),
    "flags": Case(
        [H, node("Greater", ["h", "zero"], ["flags"])],
        {"flags": "multi_label, no confidence"}, {"flags": TensorProto.BOOL},
    ),
    "a mask": Case([H, node("Greater", ["h", "zero"], ["mask"])], {"mask": "none"}, {"mask": TensorProto.BOOL}),
}  # fmt: skip


def model_of(name: str, case: Case) -> bytes:
    are_numbers = bool(case.keys) and isinstance(case.keys[0], int)
    labels: dict[str, Any] = {"classlabels_int64s" if are_numbers else "classlabels_strings": list(case.keys)}
    nodes = [
        node("ZipMap", [entry.split()[1]], ["out"], domain="ai.onnx.ml", **labels) if isinstance(entry, str) else entry
        for entry in case.nodes
    ]
    used = {source for entry in nodes for source in entry.input}
    outputs = []
    for output in case.kinds:
        if case.keys:
            key = TensorProto.INT64 if are_numbers else TensorProto.STRING
            row = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
            outputs.append(helper.make_value_info(output, helper.make_sequence_type_proto(row)))
        else:
            dtype = case.types.get(output, TensorProto.FLOAT)
            outputs.append(helper.make_tensor_value_info(output, dtype, case.shapes.get(output, ["N", "k"])))
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [
            helper.make_tensor_value_info(source, TensorProto.FLOAT, ["N", 8])
            for source in ("x", "shares")
            if source in used
        ],
        outputs,
        [numpy_helper.from_array(np.asarray(CONSTANTS[key]), key) for key in CONSTANTS if key in used],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="pytorch")
    model.metadata_props.add(key="model_name", value=name)
    return bytes(model.SerializeToString())


FEEDS: dict[str, Callable[[], Any]] = {
    "x": lambda: RANDOM.normal(size=(4, 8)).astype("f4"),
    "shares": lambda: RANDOM.dirichlet(np.ones(8), size=4).astype("f4"),
}


@pytest.mark.filterwarnings("ignore")
def test_only_a_class_has_a_confidence() -> None:
    with capture(max_features=0) as captured:
        for name, case in CASES.items():
            session = ort.InferenceSession(model_of(name, case))
            for _ in range(6):
                session.run(None, {source.name: FEEDS[source.name]() for source in session.get_inputs()})
        captured.flush()
        status, metrics = captured.handle.status(), captured.metrics()
    confident: dict[str, set[str]] = {}
    for point in metrics[semconv.CONFIDENCE.name].data.data_points:
        attributes: Any = point.attributes
        confident.setdefault(attributes[semconv.MODEL_NAME], set()).add(attributes.get(semconv.OUTPUT_NAME, ""))
    kinds = {
        key.rpartition("/")[0]: {
            output: report.kind
            + (
                ", no confidence"
                if report.kind in CLASSES and not {output, ""} & confident.get(key.rpartition("/")[0], set())
                else ""
            )
            for output, report in outputs.items()
        }
        for key, outputs in status.outputs.items()
    }
    assert kinds == {name: case.kinds for name, case in CASES.items()}
    are_classes = {name for name, case in CASES.items() if CLASSES & set(case.kinds.values())}
    assert set(confident) == are_classes
    assert status.failures == {}
