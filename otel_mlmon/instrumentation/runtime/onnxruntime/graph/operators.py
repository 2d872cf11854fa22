"""Finds how the outputs of ONNX operators are computed: one function for each kind of operator.

Their semantics are those of https://onnx.ai/onnx/operators and of onnxruntime's `ContribOperators.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from otel_mlmon.instrumentation.runtime.model_graph import OutputRole
from otel_mlmon.instrumentation.runtime.onnxruntime.graph import tensor_origin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.ml_operators import ML_FINDERS, format_label_text
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import (
    CHOICES,
    LIKELIHOODS,
    SCORES,
    UNKNOWN,
    TensorAxis,
    TensorOrigin,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.trace import Finder, TraceStep

MAX_BRANCHES: Final = 16
"""Inputs of a concatenation, or of a sum, that are looked at."""

_GRIDS: Final = {
    "QuantizeLinear": 1, "QLinearSoftmax": 3, "QLinearSigmoid": 3, "QLinearGlobalAveragePool": 3,
    "QLinearMatMul": 6, "QLinearConv": 6, "QLinearAdd": 6,
}  # fmt: skip
"""Operators that give integers, and the position of their scale among the inputs."""


def _find_same(step: TraceStep) -> TensorOrigin:
    return step.trace_input()


def _find_clipped(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return source if source.role in LIKELIHOODS | {"values"} else step.make_other_origin()


def _find_quantised(step: TraceStep) -> TensorOrigin:
    return _with_grid(step, dataclasses.replace(step.trace_input(), is_quantised=True, scale=1.0, zero_point=0))


def _with_grid(step: TraceStep, origin: TensorOrigin) -> TensorOrigin:
    """Adds to a quantised tensor the scale and zero point by which its integers stand for numbers."""
    at = _GRIDS.get(step.operator)
    if at is None:
        return origin
    scale, zero_point = step.read_constant_input(at), step.read_constant_input(at + 1)
    return dataclasses.replace(
        origin,
        is_quantised=True,
        scale=float(scale[0]) if len(scale) == 1 else 1.0,
        zero_point=int(zero_point[0]) if len(zero_point) == 1 else 0,
    )


def _find_softmax(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "top_k_scores":  # normalised among those that were chosen, in their order
        return _with_grid(step, dataclasses.replace(source, operator=step.operator, source_role="other"))
    version = step.node.read_integer("opset", step.opset) if step.operator == "QLinearSoftmax" else step.opset
    axis = step.node.read_integer("axis", -1 if version >= 13 else 1)
    role: OutputRole = "log_probabilities" if step.operator == "LogSoftmax" else "probabilities"
    return _with_grid(
        step, TensorOrigin(role=role, operator=step.operator, axis=TensorAxis(axis), tensors=source.tensors)
    )


def _find_sigmoid(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "top_k_scores":
        return _with_grid(step, dataclasses.replace(source, operator=step.operator, source_role="sigmoid"))
    return _with_grid(
        step, TensorOrigin(role="sigmoid", operator=step.operator, axis=source.axis, tensors=source.tensors)
    )


def _find_linear(step: TraceStep) -> TensorOrigin:
    activation = step.node.read_string("activation") if step.operator.startswith("Fused") else ""
    if activation:
        return TensorOrigin(role="sigmoid" if activation == "Sigmoid" else "other", operator=activation)
    return _with_grid(step, TensorOrigin(role="linear", operator=step.operator))


def _find_choice(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    is_least = step.operator == "ArgMin"
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts", operator=step.operator)
    choices = frozenset[object]() if is_least else source.tensors
    return TensorOrigin(
        role="label", operator=step.operator, source_role=source.role, labels=source.labels, choices=choices
    )


def _find_top_k(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    is_least = not step.node.read_integer("largest", 1)
    if step.index:
        source = dataclasses.replace(source, is_quantised=False, scale=1.0, zero_point=0)
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts" if step.index else "other", operator=step.operator)
    return TensorOrigin(
        role="top_k_labels" if step.index else "top_k_scores",
        operator=step.operator,
        axis=TensorAxis(step.node.read_integer("axis", -1)),
        source_role=source.role,
        is_quantised=source.is_quantised,
        scale=source.scale,
        zero_point=source.zero_point,
        labels=source.labels,
        choices=frozenset({step.node.span}) | (frozenset() if is_least else source.tensors),
    )


def _find_lp_normalization(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="unit_vector" if step.node.read_integer("p", 2) == 2 else "other", operator=step.operator)


def _find_extracted(step: TraceStep) -> TensorOrigin:
    """Finds how a tensor is computed that an operator picks from a table of classes, or from columns of scores."""
    if step.is_constant_input(0):
        index = step.trace_input(1)
        if index.role not in CHOICES:
            return step.make_other_origin()
        return dataclasses.replace(index, labels=tuple(map(format_label_text, step.read_constant_input(0))))
    if step.operator == "ArrayFeatureExtractor":
        return tensor_origin.select_along_axis(step.trace_input(), -1, drops_axis=False)
    axis, is_one = step.node.read_integer("axis", 0), step.is_scalar_input(1)
    if not step.is_constant_input(1):
        return step.trace_input().without_axis(is_partial=True)
    return tensor_origin.select_along_axis(step.trace_input(), axis, drops_axis=is_one)


def _find_sliced(step: TraceStep) -> TensorOrigin:
    origin = step.trace_input()
    if step.operator == "Split":
        return tensor_origin.select_along_axis(origin, step.node.read_integer("axis", 0), drops_axis=False)
    starts, ends = step.read_integers("starts", 1), step.read_integers("ends", 2)
    axes = step.read_integers("axes", 3) or tuple(range(len(starts or ())))
    if starts is None or ends is None or len(starts) != len(axes) or len(ends) != len(axes):
        return origin.without_axis(is_partial=True)
    for axis, start, end in zip(axes, starts, ends, strict=True):
        if start != 0 or end < 2**31 - 1:
            origin = tensor_origin.select_along_axis(origin, axis, drops_axis=False)
    return origin


def _find_transposed(step: TraceStep) -> TensorOrigin:
    order = step.node.read_list("perm")
    return tensor_origin.transpose(step.trace_input(), tuple(map(int, order)) if order else None)


def _find_squeezed(step: TraceStep) -> TensorOrigin:
    return tensor_origin.squeeze(step.trace_input(), step.read_integers("axes", 1))


def _find_unsqueezed(step: TraceStep) -> TensorOrigin:
    return tensor_origin.unsqueeze(step.trace_input(), step.read_integers("axes", 1))


def _find_flattened(step: TraceStep) -> TensorOrigin:
    return tensor_origin.flatten(step.trace_input(), step.node.read_integer("axis", 1))


def _find_reshaped(step: TraceStep) -> TensorOrigin:
    return tensor_origin.reshape(step.trace_input(), step.read_integers("shape", 1))


def _find_reduced(step: TraceStep) -> TensorOrigin:
    source, axes = step.trace_input(), step.read_integers("axes", 1)
    is_dropped = bool(step.node.read_integer("keepdims", 1))
    if source.axis is not None and axes is not None and any(source.axis.is_at(axis) for axis in axes):
        # The greatest probability of a row, which is its confidence.
        is_greatest = step.operator == "ReduceMax" and source.role in LIKELIHOODS
        return TensorOrigin(
            role="top_k_scores", operator=step.operator, source_role=source.role, choices=source.tensors
        ) if is_greatest else step.make_other_origin()  # fmt: skip
    if source.role not in LIKELIHOODS | {"linear"} or step.operator in {"ReduceSum", "ReduceProd"}:
        return step.make_other_origin()
    origin = source if source.role in {"linear", "sigmoid"} else source.with_role("class_scores", step.operator)
    return tensor_origin.squeeze(origin, axes) if is_dropped is False else origin


def _find_pooled(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return _with_grid(step, source) if source.role in {"linear", "sigmoid"} else step.make_other_origin()


def _find_concatenated(step: TraceStep) -> TensorOrigin:
    origins = [step.trace_input(at) for at in range(min(len(step.node.inputs), MAX_BRANCHES))]
    axis = TensorAxis(step.node.read_integer("axis", 0))
    if len(origins) == 2 and all(origin.role == "sigmoid" for origin in origins) and _are_complements(step):
        tensors = frozenset[object]().union(*(origin.tensors for origin in origins))
        return TensorOrigin(role="probabilities", operator=step.operator, axis=axis, tensors=tensors)
    origin = _common_origin(origins)
    if origin is None:
        return step.make_other_origin()
    if origin.axis is not None and origin.axis.is_at(axis.position) is not False:
        # Distributions side by side are none together.
        return step.make_other_origin() if origin.role in SCORES else origin
    return origin


def _are_complements(step: TraceStep) -> bool:
    """Returns whether two inputs of a node are p and 1 - p."""
    for at in (0, 1):
        name, other = step.input_name(at), step.input_name(1 - at)
        node = step.scope.find_producer(name)
        if node is not None and node.operator == "Sub" and other in node.inputs[1:2]:
            return True
    return False


def _common_origin(origins: list[TensorOrigin]) -> TensorOrigin | None:
    """Returns how several tensors are computed if all are in the same way; else None."""
    first = origins[0] if origins else UNKNOWN
    if first.role in {"unknown", "other", "input"} or any(origin.role != first.role for origin in origins):
        return None
    tensors = frozenset[object]().union(*(origin.tensors for origin in origins))
    is_same_axis = all(origin.axis == first.axis for origin in origins)
    labels = first.labels if all(origin.labels == first.labels for origin in origins) else ()
    is_same_grid = all((origin.scale, origin.zero_point) == (first.scale, first.zero_point) for origin in origins)
    return dataclasses.replace(
        first,
        tensors=tensors,
        axis=first.axis if is_same_axis else None,
        labels=labels,
        is_partial=any(origin.is_partial for origin in origins),
        is_quantised=any(origin.is_quantised for origin in origins),
        scale=first.scale if is_same_grid else 1.0,
        zero_point=first.zero_point if is_same_grid else 0,
    )


def _find_branch(step: TraceStep) -> TensorOrigin:
    """Finds how the output of an If operator is computed, whose branches mostly compute the same."""
    origin = _common_origin([step.trace_subgraph_output("then_branch"), step.trace_subgraph_output("else_branch")])
    return origin or UNKNOWN


def _find_quotient(step: TraceStep) -> TensorOrigin:
    norm = step.find_norm(1, step.input_name())
    if norm is not None and norm.kind == "sum":
        source = step.trace_input()
        if source.role in LIKELIHOODS or source.operator == "Exp":
            return dataclasses.replace(
                source, role="probabilities", operator="Div by ReduceSum", axis=norm.axis, labels=()
            )
        # Shares of anything: magnitudes, counts, an energy.
        is_choice = source.role == "top_k_scores"
        return dataclasses.replace(
            source if is_choice else step.make_other_origin(), source_role="other", operator="Div by ReduceSum"
        )
    if norm is not None and norm.kind == "euclidean":
        return TensorOrigin(role="unit_vector", operator="Div by ReduceL2")
    return _find_arithmetic(step)


def _find_difference(step: TraceStep) -> TensorOrigin:
    norm = step.find_norm(1, step.input_name())
    if norm is not None and norm.kind == "log_sum_exp":
        return TensorOrigin(
            role="log_probabilities", operator="ReduceLogSumExp", axis=norm.axis, tensors=step.trace_input().tensors
        )
    if step.read_constant_input(0) == (1.0,) and step.trace_input(1).role == "sigmoid":
        return TensorOrigin(role="sigmoid", operator=step.operator, axis=step.trace_input(1).axis)
    return _find_arithmetic(step)


def _find_exponential(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "log_probabilities":
        return source.with_role("probabilities")
    return step.make_other_origin()


def _find_logarithm(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return source.with_role("log_probabilities") if source.role == "probabilities" else step.make_other_origin()


def _find_arithmetic(step: TraceStep) -> TensorOrigin:
    """Finds how a sum or product is computed; scores stay scores, although of another scale."""
    places = range(1 if step.operator == "Where" else 0, min(len(step.node.inputs), MAX_BRANCHES))
    variables = [step.trace_input(at) for at in places if not step.is_constant_input(at)]
    if step.operator == "QLinearAdd":
        variables = [step.trace_input(0), step.trace_input(3)]
    quantised_scale = any(origin.operator in {"MatMulInteger", "ConvInteger"} for origin in variables)
    if quantised_scale:
        variables = [origin for origin in variables if origin.role == "linear"]
    origin = _common_origin(variables)
    if origin is None:
        return step.make_other_origin()
    if origin.role == "top_k_scores":  # in their order still, though of another scale
        return dataclasses.replace(origin, source_role="other", is_quantised=False, scale=1.0, zero_point=0)
    # What the numbers of a grid stand for is lost with it.
    origin = _with_grid(step, dataclasses.replace(origin, scale=1.0, zero_point=0))
    if origin.role in {"linear", "values"}:
        return origin
    is_score = origin.role in LIKELIHOODS and step.operator not in {"Sub", "Pow", "Min"}
    return origin.with_role("class_scores", step.operator) if is_score else step.make_other_origin()


def _find_recurrent(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="state" if step.index else "other", operator=step.operator)


def _find_counts(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="counts", operator=step.operator)


def _find_detections(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="detections", operator=step.operator)


SUPPRESSIONS: Final = (
    "NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "TRTBatchedNMS", "RoiAlign",
    "MultiscaleDeformableAttn",
)  # fmt: skip
"""Operators that only detectors of objects have."""


def _by_operator(*rows: tuple[Finder, str]) -> Mapping[str, Finder]:
    return {**ML_FINDERS, **{operator: find for find, operators in rows for operator in operators.split()}}


FINDERS: Final = _by_operator(
    (_find_same, "Identity Cast CastLike Dropout Resize Upsample Optional OptionalGetElement"),
    (_find_clipped, "Clip"),
    (_find_quantised, "QuantizeLinear DequantizeLinear"),
    (_find_softmax, "Softmax LogSoftmax QLinearSoftmax BiasSoftmax"),
    (_find_sigmoid, "Sigmoid HardSigmoid QLinearSigmoid"),
    (_find_linear, "Gemm MatMul Conv ConvTranspose Einsum MatMulInteger ConvInteger QLinearMatMul QLinearConv QGemm "
                   "DynamicQuantizeMatMul MatMulIntegerToFloat MatMulNBits NhwcConv FusedGemm FusedConv FusedMatMul"),
    (_find_choice, "ArgMax ArgMin"),
    (_find_top_k, "TopK"),
    (_find_lp_normalization, "LpNormalization"),
    (_find_extracted, "ArrayFeatureExtractor Gather"),
    (_find_sliced, "Slice Split"),
    (_find_transposed, "Transpose"),
    (_find_squeezed, "Squeeze"),
    (_find_unsqueezed, "Unsqueeze"),
    (_find_flattened, "Flatten"),
    (_find_reshaped, "Reshape"),
    (_find_reduced, "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd"),
    (_find_pooled, "GlobalAveragePool GlobalMaxPool AveragePool MaxPool QLinearGlobalAveragePool"),
    (_find_concatenated, "Concat"),
    (_find_branch, "If"),
    (_find_quotient, "Div"),
    (_find_difference, "Sub"),
    (_find_exponential, "Exp"),
    (_find_logarithm, "Log"),
    (_find_arithmetic, "Add Mul Sum Mean Pow Where Max Min QLinearAdd"),
    (_find_recurrent, "RNN LSTM GRU DynamicQuantizeLSTM"),
    (_find_counts, "Shape Size NonZero Range"),
    (_find_detections, " ".join(SUPPRESSIONS)),
)  # fmt: skip
"""The function that finds how a node's output is computed, by its operator."""
