"""Finds out how an ONNX model computes each of its outputs, and which outputs belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from otel_mlmon.instrumentation.runtime.model_graph import OutputOrigin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.model import GraphScope, OnnxModelParts, read_value_shape
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.node import GraphNode
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.operators import OPERATOR_TRACERS, SUPPRESSIONS
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import TensorAxis, TensorOrigin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.trace import TensorTracer
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.wire import ModelContent

MAX_OUTPUTS: Final = 256
"""Outputs of a model that are looked at; caches of large models are hundreds."""

_SCORES: Final = frozenset(
    {"probabilities", "log_probabilities", "class_scores", "sigmoid", "linear", "values", "other"}
)
_CHOICES: Final = frozenset({"label", "top_k_labels"})
_PRODUCTS: Final = frozenset({"MatMul", "Mul", "Gemm", "Einsum", "FusedMatMul"})
_FORMS: Final = frozenset({"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten"})
"""Operators between a distribution and an output of it."""

MAX_NODE_BYTES: Final = 4096
"""A larger node is no product of two tensors."""


def trace_outputs(model: OnnxModelParts, content: ModelContent) -> dict[str, OutputOrigin]:
    """Returns how a model computes each of its outputs, by name.

    Raises:
        ModelFileError: The model is damaged, or too large.
    """
    tracer = TensorTracer(model, OPERATOR_TRACERS)
    graph = model.graph
    names = list(graph.outputs)
    origins = {name: tracer.trace_tensor(graph, name) for name in names[:MAX_OUTPUTS]}
    if any(content.has_text(operator.encode()) for operator in SUPPRESSIONS):
        origins = {name: _mark_as_detection(origin) for name, origin in origins.items()}
    origins |= {
        name: origin.with_role("weights")
        for name, origin in origins.items()
        if len(names) > 1 and origin.role == "probabilities" and _is_attention_weight(graph, name)
    }
    companions = {name: _find_companion_output(name, origins) for name in origins}
    outputs = {name: OutputOrigin() for name in names}
    for name, origin in origins.items():
        companion = companions[name]
        labels = origin.labels or (origins[companion].labels if companion else ())
        outputs[name] = _describe_output_origin(
            origin, read_value_shape(content, graph.outputs[name]), labels, companion
        )
    return outputs


def _mark_as_detection(origin: TensorOrigin) -> TensorOrigin:
    return origin if origin.role == "state" else origin.with_role("detections", origin.operator)


def _is_attention_weight(graph: GraphScope, name: str) -> bool:
    """Returns whether an output is a distribution by which the model weighs other numbers, as attention does."""
    names = [name]
    while (
        len(names) <= len(_FORMS) and (node := graph.find_producer(names[-1])) is not None and node.operator in _FORMS
    ):
        names.append(node.inputs[0])
    wanted = [text.encode() for text in names]
    for span in graph.nodes:
        if span[1] - span[0] > MAX_NODE_BYTES or not any(text in graph.content.read_range(*span) for text in wanted):
            continue
        node = GraphNode(graph.content, span)
        if node.operator in _PRODUCTS and not set(names).isdisjoint(node.inputs):
            others = [other for other in node.inputs if other and other not in names]
            if any(graph.find_constant(other) is None for other in others[:1]):
                return True
    return False


def _find_companion_output(name: str, origins: Mapping[str, TensorOrigin]) -> str:
    """Returns the output that belongs to another one, such as the scores of a label; empty if there is none."""
    origin = origins[name]
    others = {other: candidate for other, candidate in origins.items() if other != name}
    if origin.role in {"top_k_scores", "top_k_labels"}:
        opposite = "top_k_labels" if origin.role == "top_k_scores" else "top_k_scores"
        same = [other for other, candidate in others.items() if candidate.choices & origin.choices]
        exact = [other for other in same if others[other].role == opposite]
        return next(iter(exact), next((other for other in same if others[other].role == "label"), ""))
    if origin.role in _CHOICES:
        scores = [
            other
            for other, candidate in others.items()
            if candidate.role in {*_SCORES, "top_k_scores"} and (candidate.tensors | candidate.choices) & origin.choices
        ]
        return next(iter(scores), "")
    if origin.role in _SCORES:
        return next(
            (other for other, candidate in others.items()
             if candidate.role in _CHOICES and candidate.choices & origin.tensors), "",
        )  # fmt: skip
    return ""


def _describe_output_origin(
    origin: TensorOrigin, shape: tuple[int | str, ...] | None, labels: tuple[str, ...], companion: str
) -> OutputOrigin:
    rank = None if shape is None else len(shape)
    axis = origin.axis
    if axis is not None and rank is not None:
        axis = TensorAxis(axis.position, rank).count_from_front() if axis.rank in {None, rank} else None
    is_placed = axis is not None and 0 <= axis.position < (rank if rank is not None else axis.rank or 0)
    return OutputOrigin(
        role=origin.role,
        operator=origin.operator,
        axis=axis.position if axis is not None and is_placed else None,
        rank=rank,
        width=shape[-1] if shape and isinstance(shape[-1], int) and shape[-1] > 0 else 0,
        source_role=origin.source_role,
        is_partial=origin.is_partial,
        is_quantised=origin.is_quantised,
        labels=labels,
        companion=companion,
        scale=origin.scale,
        zero_point=origin.zero_point,
    )
