"""Reads the parts of an ONNX model that tell how its outputs are made: nodes, constants, inputs, functions.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Nodes are found from the last one
on, since they are sorted topologically and outputs are made at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_mlmon.instrumentation.runtime.onnxruntime.graph.node import (
    MAX_FIELDS,
    GraphNode,
    SmallTensor,
    Span,
    read_constant_node,
    read_tensor,
    read_tensor_name,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.wire import (
    MESSAGE,
    VARINT,
    ModelContent,
    ModelFileError,
    convert_to_signed_integer,
    iterate_protobuf_fields,
    read_protobuf_text,
)

ORT_FORMAT: Final = b"ORTM"
"""The identifier of onnxruntime's own format, in the bytes 4 to 8."""

MAX_ENTRY_BYTES: Final = 1 << 20
"""Bytes of a text of the metadata that are read."""

MAX_EXTERNAL_BYTES: Final = 4096
"""The largest description of a tensor that is stored elsewhere."""


@dataclass(slots=True, eq=False)
class GraphScope:
    """The names that the nodes of one ONNX graph, or of a function's body, can refer to."""

    content: ModelContent
    nodes: list[Span] = field(default_factory=list)
    tensors: list[Span] = field(default_factory=list)
    inputs: dict[str, Span] = field(default_factory=dict)
    """Formal inputs, with their type where a graph declares it."""
    outputs: dict[str, Span] = field(default_factory=dict)
    arguments: Mapping[str, tuple[GraphScope, str]] = field(default_factory=dict)
    """For a function's body: the name outside that each input is bound to."""
    outer: GraphScope | None = None
    """For a subgraph: the graph that it is in, whose names it may use."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    _producers: dict[str, GraphNode] = field(default_factory=dict)
    _indexed: int = 0
    """Nodes whose outputs are in `_producers`, counted from the last."""
    _constants: dict[str, Span] | None = None

    def find_producer(self, name: str) -> GraphNode | None:
        """Returns the node of an ONNX graph that computes a value; None for an input or a constant."""
        while name not in self._producers and self._indexed < len(self.nodes):
            self._indexed += 1
            node = GraphNode(self.content, self.nodes[-self._indexed])
            self._producers.update((output, node) for output in node.outputs if output)
        return self._producers.get(name)

    def find_constant(self, name: str) -> Span | None:
        """Returns where the constant of a name stands in the model's file; None if there is none."""
        if self._constants is None:
            self._constants = {read_tensor_name(self.content, span): span for span in self.tensors}
        if name in self._constants:
            return self._constants[name]
        node = self.find_producer(name)
        if node is not None:
            return node.span if node.operator == "Constant" else None
        if name in self.arguments:
            scope, outer_name = self.arguments[name]
            return scope.find_constant(outer_name)
        return self.outer.find_constant(name) if self.outer is not None and name not in self.inputs else None

    def read_constant(self, name: str) -> SmallTensor | None:
        """Reads a small constant of an ONNX graph; None if it is no constant, or a large one."""
        span = self.find_constant(name)
        if span is None:
            return None
        return (
            read_tensor(self.content, span)
            if span in self.tensors
            else read_constant_node(GraphNode(self.content, span))
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnnxModelParts:
    """The parts of an ONNX model: its graph, functions, producer, version and metadata."""

    graph: GraphScope
    functions: Mapping[tuple[str, str], Span]
    """By domain and name."""
    producer: str
    graph_name: str
    version: int
    """0 if nobody set one."""
    metadata: Mapping[str, str]


def read_model_parts(content: ModelContent) -> OnnxModelParts:  # noqa: C901 - one branch a field
    """Reads where the parts of an ONNX model stand in its file.

    Raises:
        ModelFileError: It is no model, or too large a one.
    """
    if content.size >= 8 and content.read_range(4, 8) == ORT_FORMAT:
        raise ModelFileError("ort_format")
    graph: Span | None = None
    opsets: dict[str, int] = {}
    functions: dict[tuple[str, str], Span] = {}
    producer, version = "", 0
    metadata: dict[str, str] = {}
    for count, (number, wire, start, end) in enumerate(iterate_protobuf_fields(content, 0, content.size)):
        if count > MAX_FIELDS:
            raise ModelFileError("too_large")
        if number == 7 and wire == MESSAGE:
            graph = start, end
        elif number == 8 and wire == MESSAGE:
            domain, opset = _read_opset_version(content, (start, end))
            opsets[domain] = opset
        elif number == 25 and wire == MESSAGE:
            functions[_read_function_name(content, (start, end))] = (start, end)
        elif number == 2 and wire == MESSAGE:
            producer = read_protobuf_text(content, start, end, max_bytes=64)
        elif number == 5 and wire == VARINT:
            version = convert_to_signed_integer(start)
        elif number == 14 and wire == MESSAGE:
            key, value = _read_metadata_entry(content, (start, end))
            metadata[key] = value
    if graph is None or not opsets:
        raise ModelFileError("unreadable")
    return OnnxModelParts(
        graph=read_graph_scope(content, graph, opsets=opsets),
        functions=functions,
        producer=producer,
        graph_name=_read_graph_name(content, graph),
        version=version,
        metadata=metadata,
    )


def read_graph_scope(
    content: ModelContent, span: Span, *, opsets: Mapping[str, int], outer: GraphScope | None = None
) -> GraphScope:
    """Reads where the parts of an ONNX graph, or of a subgraph inside a node, stand in the model's file."""
    scope = GraphScope(content, opsets=opsets, outer=outer)
    nodes, tensors = scope.nodes, scope.tensors
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if wire != MESSAGE:
            continue
        if number == 1:
            nodes.append((start, end))
        elif number == 5:
            tensors.append((start, end))
        elif number == 11:
            scope.inputs[read_value_name(content, (start, end))] = (start, end)
        elif number == 12:
            scope.outputs[read_value_name(content, (start, end))] = (start, end)
        if len(nodes) + len(tensors) > MAX_FIELDS:
            raise ModelFileError("too_large")
    return scope


def read_function_scope(
    content: ModelContent, span: Span, node: GraphNode, scope: GraphScope, *, opsets: Mapping[str, int]
) -> tuple[GraphScope, list[str]]:
    """Reads the parts of an ONNX function that a node calls, and the names of its outputs."""
    formal: list[str] = []
    outputs: list[str] = []
    body = GraphScope(content, opsets=opsets)
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if wire != MESSAGE:
            continue
        if number == 4:
            formal.append(read_protobuf_text(content, start, end))
        elif number == 5:
            outputs.append(read_protobuf_text(content, start, end))
        elif number == 7:
            body.nodes.append((start, end))
    body.inputs = dict.fromkeys(formal, (0, 0))
    body.arguments = {name: (scope, actual) for name, actual in zip(formal, node.inputs, strict=False) if actual}
    return body, outputs


def list_external_files(scope: GraphScope) -> list[str]:
    """Lists the files beside the model that hold its weights, each once."""
    names: dict[str, None] = {}
    for span in scope.tensors:
        if span[1] - span[0] > MAX_EXTERNAL_BYTES or b"location" not in scope.content.read_range(*span):
            continue
        for number, wire, start, end in iterate_protobuf_fields(scope.content, *span):
            if number == 13 and wire == MESSAGE:
                key, value = _read_metadata_entry(scope.content, (start, end))
                if key == "location":
                    names[value] = None
    return list(names)


def read_value_name(content: ModelContent, span: Span) -> str:
    """Reads the name of a model's input or output."""
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 1 and wire == MESSAGE:
            return read_protobuf_text(content, start, end)
    return ""


def read_value_shape(content: ModelContent, span: Span) -> tuple[int | str, ...] | None:
    """Reads the declared shape of a model's input or output: a size or a symbol for each axis; None if absent."""
    kind = _find_submessage(content, span, 2)
    tensor = kind and _find_submessage(content, kind, 1)
    shape = tensor and _find_submessage(content, tensor, 2)
    if not shape:
        return None
    sizes: list[int | str] = []
    for number, wire, start, end in iterate_protobuf_fields(content, *shape):
        if number == 1 and wire == MESSAGE:
            size: int | str = ""
            for part, part_wire, value, value_end in iterate_protobuf_fields(content, start, end):
                if part == 1 and part_wire == VARINT:
                    size = convert_to_signed_integer(value)
                elif part == 2:
                    size = read_protobuf_text(content, value, value_end)
            sizes.append(size)
    return tuple(sizes)


def _find_submessage(content: ModelContent, span: Span, wanted: int) -> Span | None:
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == wanted and wire == MESSAGE:
            return start, end
    return None


def _read_graph_name(content: ModelContent, span: Span) -> str:
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 2 and wire == MESSAGE:
            return read_protobuf_text(content, start, end)
        if number > 2:
            break
    return ""


def _read_metadata_entry(content: ModelContent, span: Span) -> tuple[str, str]:
    texts = {
        number: read_protobuf_text(content, start, end, max_bytes=MAX_ENTRY_BYTES)
        for number, wire, start, end in iterate_protobuf_fields(content, *span)
        if wire == MESSAGE
    }
    return texts.get(1, ""), texts.get(2, "")


def _read_opset_version(content: ModelContent, span: Span) -> tuple[str, int]:
    domain, version = "", 0
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number == 1 and wire == MESSAGE:
            domain = read_protobuf_text(content, start, end)
        elif number == 2 and wire == VARINT:
            version = start
    return domain, version


def _read_function_name(content: ModelContent, span: Span) -> tuple[str, str]:
    texts = {1: "", 10: ""}
    for number, wire, start, end in iterate_protobuf_fields(content, *span):
        if number in texts and wire == MESSAGE:
            texts[number] = read_protobuf_text(content, start, end)
    return texts[10], texts[1]
