"""Plans which inputs and outputs of a session are copied, once, from the arrays of its first call."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from numpy import ndarray

from otel_mlmon.instrumentation.runtime.call import Layout, Tensor

USEFUL: Final = frozenset({"rows", "items", "text", "maps", "whole"})
"""The layouts that hold predictions."""

MAX_COLUMNS: Final = 1024
"""A wider row of an input is no row of features, and a sample of its values is copied."""

_DTYPES: Final = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_TENSOR: Final = re.compile(r"(?:optional\()?tensor\((\w+)\)")
_MAP: Final = re.compile(r"seq\(map\((?:int64|string),tensor\(float\)\)\)")


class SessionNode(Protocol):
    """The Protocol of an input or output of a session, as onnxruntime's `NodeArg` describes it."""

    name: str
    type: str
    shape: Sequence[object]


def plan_input(node: SessionNode, value: Any) -> Tensor:
    """Plans how one input of a model is copied, from its first value: as image, table, strings, or its shape."""
    return _plan_tensor(node, value, is_input=True)


def plan_output(node: SessionNode, value: Any) -> Tensor:
    """Plans how one output of a model is copied, from its first value: as rows, or its shape."""
    if _MAP.fullmatch(node.type) and isinstance(value, list) and value and isinstance(value[0], dict):
        return Tensor(name=node.name, layout="maps", dtype="float32", keys=tuple(map(str, value[0])))
    return _plan_tensor(node, value, is_input=False)


def plan_outputs(values: Mapping[int, tuple[SessionNode, Any]], *, is_whole: bool) -> dict[int, Tensor]:
    """Plans which outputs of a model are copied, and how, by their position.

    Args:
        values: The description and the first value of each output.
        is_whole: Whether they are copied as they are, for the developer's own function.
    """
    planned = {position: plan_output(node, value) for position, (node, value) in values.items()}
    if is_whole:
        planned = {position: _copy_as_whole(tensor) for position, tensor in planned.items()}
    return {position: tensor for position, tensor in planned.items() if tensor.layout in USEFUL}


def _copy_as_whole(tensor: Tensor) -> Tensor:
    return dataclasses.replace(tensor, layout="whole") if tensor.layout in {"rows", "items", "shape"} else tensor


def _plan_tensor(node: SessionNode, value: object, *, is_input: bool) -> Tensor:
    match = _TENSOR.match(node.type)
    if not match:
        return Tensor(name=node.name, layout="none")
    is_optional = node.type.startswith("optional")
    declared = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    if match[1] == "string":
        return Tensor(name=node.name, layout="text", is_optional=is_optional)
    dtype = _DTYPES.get(match[1], "")
    if not dtype or not declared:
        return Tensor(name=node.name, layout="none")
    actual = value.shape if isinstance(value, ndarray) and value.ndim == len(declared) else declared
    layout = _choose_layout(
        tuple(size or actual_size for size, actual_size in zip(declared, actual, strict=True)), is_input=is_input
    )
    row_shape = None if None in declared[1:] else tuple(size for size in declared[1:] if size is not None)
    return Tensor(name=node.name, layout=layout, dtype=dtype, row_shape=row_shape, is_optional=is_optional)


def _choose_layout(shape: Sequence[int | None], *, is_input: bool) -> Layout:
    if is_input and len(shape) == 4:
        if shape[1] in {1, 3, 4}:
            return "nchw"
        return "nhwc" if shape[3] in {1, 3, 4} else "shape"
    if is_input and (len(shape) > 2 or (len(shape) == 2 and (shape[1] or 0) > MAX_COLUMNS)):
        return "wide"
    # (N, K, 1, 1) is a vector a row too: global pooling leaves it so.
    wide_axes = sum(1 for size in shape[1:] if size != 1)
    if len(shape) <= 2 or (not is_input and wide_axes <= 1):
        return "rows"
    return "items" if not is_input and len(shape) == 3 else "shape"


def plan_inputs(session: Any, feed: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Plans which inputs of a model are copied, and how, without those that hold recurrent states."""
    outputs, nodes = list(session.get_outputs()), session.get_inputs()
    states = {node.name for node in nodes if len(nodes) > 1 and is_recurrent_state(node, outputs)}
    inputs = [plan_input(node, feed.get(node.name)) for node in nodes if node.name not in states]
    profiled = [tensor for tensor in inputs if tensor.layout not in {"none", "shape"}]
    # Without any input to profile, one shape still shows the batch size.
    shapes = [tensor for tensor in inputs if tensor.layout == "shape"][:1]
    return tuple(profiled or shapes)


_STATE_WORDS: Final = re.compile(
    r"(?:^|(?<=[_./]))(?:in|out|input|output|past|present|prev|previous|next|new|old|initial|final|n|t|0|1)(?=$|[_./])"
    r"|(?<=[a-z])(?:n|0|_?in|_?out)$|[_./]"
)


_STATE_NAME: Final = re.compile(
    r"(?:^|[_./])(?:h|c|h_?[0n]|c_?[0n]|hx|cx|hidden|cell|states?|mems?|memory|caches?|past|past_key_values?|kv|lstm|gru|rnn)"
    r"(?=$|[_./\d])"
)


def is_recurrent_state(node: SessionNode, outputs: Sequence[SessionNode]) -> bool:
    """Returns whether an input of a model holds a recurrent state that the host feeds back from an output.

    The output has almost the same name; or the input is named like a state and has three axes or more, as the output.
    """
    if _has_matching_output(node, outputs):
        return True
    return (
        len(node.shape) > 2
        and _STATE_NAME.search(node.name.lower()) is not None
        and any(other.type == node.type and len(other.shape) == len(node.shape) for other in outputs)
    )


def _has_matching_output(node: SessionNode, outputs: Sequence[SessionNode]) -> bool:
    core = _STATE_WORDS.sub("", node.name.lower())
    return bool(core) and any(
        other.type == node.type
        and len(other.shape) == len(node.shape)
        and (_STATE_WORDS.sub("", other.name.lower()) == core)
        for other in outputs
    )
