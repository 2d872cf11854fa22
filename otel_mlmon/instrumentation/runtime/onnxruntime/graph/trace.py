"""Traces a tensor of a model back to the operator that decides what it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from otel_mlmon.instrumentation.runtime.onnxruntime.graph.model import (
    GraphScope,
    OnnxModelParts,
    read_function_scope,
    read_graph_scope,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.node import GraphNode, Scalars, Span
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import UNKNOWN, TensorAxis, TensorOrigin

NormKind = Literal["sum", "euclidean", "log_sum_exp"]

MAX_STEPS: Final = 1000
"""Tensors looked at in one model."""

MAX_DEPTH: Final = 48
"""Nodes between an output and what decides its role, and graphs inside each other, at most."""

_FORMS: Final = frozenset({
    "Cast", "Reshape", "Unsqueeze", "Expand", "Clip", "Max", "Add", "Where", "Identity", "Squeeze",
    "QuantizeLinear", "DequantizeLinear", "Sqrt",
})  # fmt: skip
"""Operators between a sum along an axis and what is divided by it."""


_SUMS: Final[Mapping[str, NormKind]] = {
    "ReduceSum": "sum",
    "ReduceL1": "sum",
    "ReduceL2": "euclidean",
    "ReduceSumSquare": "euclidean",
    "ReduceLogSumExp": "log_sum_exp",
}


class TensorNorm(NamedTuple):
    """A norm, such as the sum, that a model computes along an axis of a tensor."""

    kind: NormKind
    axis: TensorAxis


class TensorTracer:
    """Finds out how the tensors of one model are computed.

    Args:
        model: The model.
        tracers: The function that finds how the output of a node is computed, by its operator.
    """

    def __init__(self, model: OnnxModelParts, tracers: Mapping[str, OperatorTracer]) -> None:
        self._model = model
        self._tracers = tracers
        self._origins: dict[tuple[int, str], TensorOrigin] = {}
        self._bodies: dict[tuple[int, Span], tuple[GraphScope, list[str]]] = {}

    def trace_tensor(self, scope: GraphScope, name: str, depth: int = 0) -> TensorOrigin:
        """Returns how a tensor of a model's graph is computed.

        Raises:
            ModelFileError: The model is damaged, or too large.
        """
        key = (id(scope), name)
        if key in self._origins:
            return self._origins[key]
        if depth > MAX_DEPTH or len(self._origins) > MAX_STEPS:
            return UNKNOWN
        self._origins[key] = UNKNOWN  # a graph has no circle, but a damaged file may
        origin = self._trace_producer(scope, name, depth)
        self._origins[key] = dataclasses.replace(origin, tensors=origin.tensors | {key})
        return self._origins[key]

    def read_subgraph(self, scope: GraphScope, span: Span) -> tuple[GraphScope, list[str]]:
        """Reads a graph inside a node; returns it, and the names of its outputs."""
        key = (id(scope), span)
        if key not in self._bodies:
            inner = read_graph_scope(scope.content, span, opsets=scope.opsets, outer=scope)
            self._bodies[key] = inner, list(inner.outputs)
        return self._bodies[key]

    def _trace_producer(self, scope: GraphScope, name: str, depth: int) -> TensorOrigin:
        node = scope.find_producer(name)
        if node is not None:
            return self._trace_node_output(scope, node, node.outputs.index(name), depth)
        if name in scope.arguments:
            outer_scope, outer_name = scope.arguments[name]
            return self.trace_tensor(outer_scope, outer_name, depth + 1)
        if name in scope.inputs:
            is_input = scope.outer is None and scope.find_constant(name) is None
            return TensorOrigin(role="input") if is_input else UNKNOWN
        return self.trace_tensor(scope.outer, name, depth + 1) if scope.outer is not None else UNKNOWN

    def _trace_node_output(self, scope: GraphScope, node: GraphNode, index: int, depth: int) -> TensorOrigin:
        function = self._model.functions.get((node.domain, node.operator))
        if function is None:
            step = TraceStep(self, scope, node, index, depth)
            trace = self._tracers.get(node.operator)
            return trace(step) if trace is not None else step.make_other_origin()
        key = (id(scope), node.span)
        if key not in self._bodies:
            self._bodies[key] = read_function_scope(scope.content, function, node, scope, opsets=scope.opsets)
        body, outputs = self._bodies[key]
        return self.trace_tensor(body, outputs[index], depth + 1) if index < len(outputs) else UNKNOWN


class TraceStep:
    """One node of a model on the way back from an output to the operator that decides what it holds.

    Args:
        tracer: Looks further back.
        scope: The graph of the node.
        node: The node.
        index: The position of the output.
        depth: Nodes on the way so far.
    """

    def __init__(self, tracer: TensorTracer, scope: GraphScope, node: GraphNode, index: int, depth: int) -> None:
        self._tracer = tracer
        self._depth = depth
        self.scope = scope
        self.node = node
        self.index = index
        self.operator: str = node.operator
        self.opset: int = scope.opsets.get("", scope.opsets.get("ai.onnx", 13))
        """The version of the standard operators."""

    def make_other_origin(self) -> TensorOrigin:
        """Returns the origin of a tensor that no rule is known for."""
        return TensorOrigin(role="other", operator=self.operator)

    def input_name(self, at: int = 0) -> str:
        """Returns the name of an input of the traced ONNX node; empty if there is none."""
        return self.node.inputs[at] if at < len(self.node.inputs) else ""

    def trace_input(self, at: int = 0) -> TensorOrigin:
        """Returns how an input of the traced ONNX node is computed."""
        name = self.input_name(at)
        return self._tracer.trace_tensor(self.scope, name, self._depth + 1) if name else UNKNOWN

    def is_constant_input(self, at: int) -> bool:
        """Returns whether an input of the traced ONNX node is a constant."""
        name = self.input_name(at)
        return bool(name) and self.scope.find_constant(name) is not None

    def read_constant_input(self, at: int) -> Scalars:
        """Returns the values of an input of the traced ONNX node that is a small constant; empty if it is none."""
        name = self.input_name(at)
        constant = self.scope.read_constant(name) if name else None
        return constant.values if constant is not None else ()

    def is_scalar_input(self, at: int) -> bool:
        """Returns whether an input of the traced ONNX node is a constant without axes."""
        name = self.input_name(at)
        constant = self.scope.read_constant(name) if name else None
        return constant is not None and constant.rank == 0

    def read_integers(self, attribute: str, at: int) -> tuple[int, ...] | None:
        """Returns integers that an ONNX node has as an attribute, or as a constant input; None if unknown."""
        values = (
            self.node.read_list_attribute(attribute)
            if self.node.has_attribute(attribute)
            else self.read_constant_input(at)
        )
        return tuple(map(int, values)) if values and not isinstance(values[0], str) else None

    def trace_subgraph_output(self, attribute: str) -> TensorOrigin:
        """Traces back by which operators the output of a subgraph, as of an ONNX `If` or `Loop`, is computed."""
        span = self.node.find_subgraph(attribute)
        if span is None:
            return UNKNOWN
        inner, names = self._tracer.read_subgraph(self.scope, span)
        return (
            self._tracer.trace_tensor(inner, names[self.index], self._depth + 1) if self.index < len(names) else UNKNOWN
        )

    def find_norm(self, at: int, wanted: str) -> TensorNorm | None:
        """Returns which norm of a tensor an input of the ONNX node is, and along which axis; None if it is none."""
        name, is_root = self.input_name(at), False
        for _ in range(8):
            node = self.scope.find_producer(name)
            if node is None or node.operator not in {*_FORMS, *_SUMS}:
                return None
            if node.operator in _SUMS:
                kind = "euclidean" if is_root and node.operator != "ReduceLogSumExp" else _SUMS[node.operator]
                axis = (
                    self._read_norm_axis(node)
                    if wanted in {*node.inputs[:1], *self._find_summed_tensor(node)}
                    else None
                )
                return TensorNorm(kind, axis) if axis is not None else None
            is_root = is_root or node.operator == "Sqrt"
            # Of `Where(x == 0, 1, x)` the last input is the sum, of `Add(x, ε)` the one that is no constant.
            candidates = node.inputs[:0:-1] if node.operator == "Where" else node.inputs[:2]
            name = next((entry for entry in candidates if entry and self.scope.find_constant(entry) is None), "")
        return None

    def _read_norm_axis(self, node: GraphNode) -> TensorAxis | None:
        step = TraceStep(self._tracer, self.scope, node, 0, self._depth)
        axes = step.read_integers("axes", 1)
        return TensorAxis(axes[0]) if axes is not None and len(axes) == 1 else None

    def _find_summed_tensor(self, node: GraphNode) -> list[str]:
        """Returns the tensor whose squares, magnitudes or exponentials a node sums."""
        parent = self.scope.find_producer(node.inputs[0]) if node.inputs else None
        return parent.inputs[:1] if parent is not None and parent.operator in {"Abs", "Cast", "Mul", "Pow"} else []


OperatorTracer = Callable[[TraceStep], TensorOrigin]
