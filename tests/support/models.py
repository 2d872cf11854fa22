"""Tiny ONNX models, built in memory: opset 17, IR version 8, weights of a fixed seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray],
    *,
    name: str,
    metadata: Mapping[str, str] | None,
    version: int | None = None,
    ml: bool = False,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        name,
        list(inputs),
        list(outputs),
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if version is not None:
        model.model_version = version
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def digest_version(model: bytes) -> str:
    """Returns the version of a model that names none itself."""
    return hashlib.sha256(model).hexdigest()[:12]


def _floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def classifier(
    *, features: int = 10, classes: int = 4, name: str = "tiny", metadata: Mapping[str, str] | None = None
) -> bytes:
    """Builds Gemm(features→16)-Relu-Gemm(16→classes): `input` (N, features) to `logits` (N, classes)."""
    return _model(
        [
            helper.make_node("Gemm", ["input", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"]),
        ],
        [_floats("input", "N", features)],
        [_floats("logits", "N", classes)],
        {"w1": _weights(features, 16), "b1": _weights(16), "w2": _weights(16, classes), "b2": _weights(classes)},
        name=name,
        metadata=metadata,
    )


def softmax(
    *, classes: int = 4, name: str = "soft", metadata: Mapping[str, str] | None = None, version: int | None = None
) -> bytes:
    """Builds a softmax of the input: `input` (N, classes) to `probabilities` (N, classes)."""
    return _model(
        [helper.make_node("Softmax", ["input"], ["probabilities"], axis=1)],
        [_floats("input", "N", classes)],
        [_floats("probabilities", "N", classes)],
        {},
        name=name,
        metadata=metadata,
        version=version,
    )


def sigmoid(*, name: str = "sigmoid_model", metadata: Mapping[str, str] | None = None) -> bytes:
    """Builds a sigmoid of the input: `input` (N, 1) to `probability` (N, 1)."""
    return _model(
        [helper.make_node("Sigmoid", ["input"], ["probability"])],
        [_floats("input", "N", 1)],
        [_floats("probability", "N", 1)],
        {},
        name=name,
        metadata=metadata,
    )


def labelled(*, name: str = "labelled", metadata: Mapping[str, str] | None = None) -> bytes:
    """Builds a model as scikit-learn's export: `input` (N, 3) to `label` int64 and `probabilities` (N, 3)."""
    return _model(
        [
            helper.make_node("Softmax", ["input"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["input"], ["label"], axis=1, keepdims=0),
        ],
        [_floats("input", "N", 3)],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]), _floats("probabilities", "N", 3)],
        {},
        name=name,
        metadata=metadata,
    )


def text_labels(*, name: str = "text_labels") -> bytes:
    """`input` (N, 3) to `label` string (N,) and ZipMap's `probabilities`, as scikit-learn's classic export."""
    zipmap = helper.make_node(
        "ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=["ant", "bee", "cow"]
    )
    encode = helper.make_node(
        "LabelEncoder",
        ["i"],
        ["label"],
        domain="ai.onnx.ml",
        keys_int64s=[0, 1, 2],
        values_strings=["ant", "bee", "cow"],
        default_string="?",
    )
    map_type = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    return _model(
        [
            helper.make_node("Softmax", ["input"], ["p"], axis=1),
            zipmap,
            helper.make_node("ArgMax", ["input"], ["i"], axis=1, keepdims=0),
            encode,
        ],
        [_floats("input", "N", 3)],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_value_info("probabilities", helper.make_sequence_type_proto(map_type)),
        ],
        {},
        name=name,
        metadata=None,
        ml=True,
    )


def regression(*, name: str = "price", output: str = "variable") -> bytes:
    """Builds the sum of two columns: `input` (N, 2) to `variable` (N, 1)."""
    return _model(
        [helper.make_node("ReduceSum", ["input", "axes"], [output], keepdims=1)],
        [_floats("input", "N", 2)],
        [_floats(output, "N", 1)],
        {"axes": np.array([1], dtype=np.int64)},
        name=name,
        metadata=None,
    )


def image(
    *, channels: int | str = 1, height: int | str = 8, width: int | str = 8, last: bool = False, dtype: int = 1
) -> bytes:
    """Builds the mean of the pixels: `image` (N, C, H, W), or (N, H, W, C) if `last`, to `value` (N, 1)."""
    shape = ["N", height, width, channels] if last else ["N", channels, height, width]
    return _model(
        [
            helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["m", "one"], ["value"]),
        ],
        [helper.make_tensor_value_info("image", dtype, shape)],
        [_floats("value", "N", 1)],
        {"one": np.array([1], dtype=np.int64)},
        name="picture",
        metadata=None,
    )


def strings() -> bytes:
    """Gives its strings back: `word` string (N, 1) and `number` (N, 1) to `value` (N, 1), the number."""
    return _model(
        [
            helper.make_node("Identity", ["word"], ["unused"]),
            helper.make_node("Identity", ["number"], ["value"]),
        ],
        [helper.make_tensor_value_info("word", TensorProto.STRING, ["N", 1]), _floats("number", "N", 1)],
        [_floats("value", "N", 1), helper.make_tensor_value_info("unused", TensorProto.STRING, ["N", 1])],
        {},
        name="words",
        metadata=None,
    )


def identity(*shape: int | str, name: str = "same", output: str = "output", dtype: int = 1) -> bytes:
    """Builds the identity of `input` to `output`, both of `shape`."""
    return _model(
        [helper.make_node("Identity", ["input"], [output])],
        [helper.make_tensor_value_info("input", dtype, list(shape))],
        [helper.make_tensor_value_info(output, dtype, list(shape))],
        {},
        name=name,
        metadata=None,
    )
