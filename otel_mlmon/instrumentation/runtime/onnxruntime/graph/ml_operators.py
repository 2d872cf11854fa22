"""Finds how outputs of `ai.onnx.ml` operators are computed: classifiers, regressors and their labels.

Their semantics are those of https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from otel_mlmon.instrumentation.runtime.model_graph import OutputRole
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.node import GraphNode
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import (
    CHOICES,
    LIKELIHOODS,
    TensorAxis,
    TensorOrigin,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.trace import OperatorTracer, TraceStep

_LOGISTIC: Final = frozenset({"LOGISTIC", 2})
_SOFTMAX: Final = frozenset({"SOFTMAX", "SOFTMAX_ZERO", 1, 3})


def _trace_classifier(step: TraceStep) -> TensorOrigin:
    node, labels = step.node, _read_class_labels(step.node)
    if step.index == 0:
        scores = frozenset((id(step.scope), name) for name in node.outputs[1:2])
        return TensorOrigin(
            role="label", operator=step.operator, source_role="class_scores", labels=labels, choices=scores
        )
    role: OutputRole = "probabilities" if node.read_string_attribute("post_transform") in _SOFTMAX else "class_scores"
    return TensorOrigin(role=role, operator=step.operator, axis=TensorAxis(1, 2), labels=labels)


def _read_class_labels(node: GraphNode) -> tuple[str, ...]:
    names = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
    return next((tuple(map(str, values)) for name in names if (values := node.read_list_attribute(name))), ())


def _trace_regressor(step: TraceStep) -> TensorOrigin:
    transform = step.node.read_string_attribute("post_transform") or step.node.read_integer_attribute(
        "post_transform", 0
    )
    if transform in _LOGISTIC:
        return TensorOrigin(role="sigmoid", operator=step.operator)
    if transform in _SOFTMAX:
        return TensorOrigin(role="probabilities", operator=step.operator, axis=TensorAxis(1, 2))
    return TensorOrigin(role="values", operator=step.operator)


def _trace_zip_map(step: TraceStep) -> TensorOrigin:
    return dataclasses.replace(step.trace_input(), labels=_read_class_labels(step.node), axis=TensorAxis(1, 2))


def _trace_normalizer(step: TraceStep) -> TensorOrigin:
    source, norm = step.trace_input(), step.node.read_string_attribute("norm", "MAX")
    if norm == "L2":
        return TensorOrigin(role="unit_vector", operator=step.operator)
    if norm == "L1" and source.role in LIKELIHOODS:
        return dataclasses.replace(source, role="probabilities", operator=step.operator, axis=TensorAxis(1, 2))
    return step.make_other_origin()


def _trace_label_encoder(step: TraceStep) -> TensorOrigin:
    source, node = step.trace_input(), step.node
    if source.role not in CHOICES:
        return step.make_other_origin()
    names = ("values_strings", "values_int64s", "values_floats", "classes_strings")
    values = next((values for name in names if (values := node.read_list_attribute(name))), ())
    keys = node.read_list_attribute("keys_int64s") or ()
    for name in ("values", "keys"):
        tensor = node.read_tensor_attribute(f"{name}_tensor")
        if tensor is not None:
            values, keys = (tensor.values, keys) if name == "values" else (values, tensor.values)
    if len(keys) == len(values) and all(isinstance(key, int) for key in keys):
        values = tuple(values[at] for at in sorted(range(len(keys)), key=keys.__getitem__))  # type: ignore[assignment]
    return dataclasses.replace(source, labels=tuple(map(format_label_text, values)))


def format_label_text(value: object) -> str:
    """Formats a label from a model's file as text; a whole number has no decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


ML_TRACERS: Final[Mapping[str, OperatorTracer]] = {
    "LinearClassifier": _trace_classifier,
    "TreeEnsembleClassifier": _trace_classifier,
    "SVMClassifier": _trace_classifier,
    "LinearRegressor": _trace_regressor,
    "TreeEnsembleRegressor": _trace_regressor,
    "SVMRegressor": _trace_regressor,
    "TreeEnsemble": _trace_regressor,
    "ZipMap": _trace_zip_map,
    "Normalizer": _trace_normalizer,
    "LabelEncoder": _trace_label_encoder,
}
"""The function that finds how a node's output is computed, by its operator."""
