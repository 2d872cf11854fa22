"""Finds how the outputs of ONNX operators are computed: one function for each kind of operator.

Their semantics are those of https://onnx.ai/onnx/operators and of onnxruntime's `ContribOperators.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from otel_mlmon.instrumentation.runtime.model_graph import OutputRole
from otel_mlmon.instrumentation.runtime.onnxruntime.graph import tensor_origin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.ml_operators import ML_TRACERS, format_label_text
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import (
    CHOICES,
    LIKELIHOODS,
    SCORES,
    UNKNOWN,
    TensorAxis,
    TensorOrigin,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.trace import OperatorTracer, TraceStep

MAX_BRANCHES: Final = 16
"""Inputs of a concatenation, or of a sum, that are looked at."""

_GRIDS: Final = {
    "QuantizeLinear": 1, "QLinearSoftmax": 3, "QLinearSigmoid": 3, "QLinearGlobalAveragePool": 3,
    "QLinearMatMul": 6, "QLinearConv": 6, "QLinearAdd": 6,
}  # fmt: skip
"""Operators that give integers, and the position of their scale among the inputs."""


def _trace_first_input(step: TraceStep) -> TensorOrigin:
    return step.trace_input()


def _trace_clip(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return source if source.role in LIKELIHOODS | {"values"} else step.make_other_origin()


def _trace_quantisation(step: TraceStep) -> TensorOrigin:
    return _add_quantisation_grid(
        step, dataclasses.replace(step.trace_input(), is_quantised=True, scale=1.0, zero_point=0)
    )


def _add_quantisation_grid(step: TraceStep, origin: TensorOrigin) -> TensorOrigin:
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


def _trace_softmax(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "top_k_scores":  # normalised among those that were chosen, in their order
        return _add_quantisation_grid(step, dataclasses.replace(source, operator=step.operator, source_role="other"))
    version = step.node.read_integer_attribute("opset", step.opset) if step.operator == "QLinearSoftmax" else step.opset
    axis = step.node.read_integer_attribute("axis", -1 if version >= 13 else 1)
    role: OutputRole = "log_probabilities" if step.operator == "LogSoftmax" else "probabilities"
    return _add_quantisation_grid(
        step, TensorOrigin(role=role, operator=step.operator, axis=TensorAxis(axis), tensors=source.tensors)
    )


def _trace_sigmoid(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "top_k_scores":
        return _add_quantisation_grid(step, dataclasses.replace(source, operator=step.operator, source_role="sigmoid"))
    return _add_quantisation_grid(
        step, TensorOrigin(role="sigmoid", operator=step.operator, axis=source.axis, tensors=source.tensors)
    )


def _trace_linear_layer(step: TraceStep) -> TensorOrigin:
    activation = step.node.read_string_attribute("activation") if step.operator.startswith("Fused") else ""
    if activation:
        return TensorOrigin(role="sigmoid" if activation == "Sigmoid" else "other", operator=activation)
    return _add_quantisation_grid(step, TensorOrigin(role="linear", operator=step.operator))


def _trace_arg_max(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    is_least = step.operator == "ArgMin"
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts", operator=step.operator)
    choices = frozenset[object]() if is_least else source.tensors
    return TensorOrigin(
        role="label", operator=step.operator, source_role=source.role, labels=source.labels, choices=choices
    )


def _trace_top_k(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    is_least = not step.node.read_integer_attribute("largest", 1)
    if step.index:
        source = dataclasses.replace(source, is_quantised=False, scale=1.0, zero_point=0)
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts" if step.index else "other", operator=step.operator)
    return TensorOrigin(
        role="top_k_labels" if step.index else "top_k_scores",
        operator=step.operator,
        axis=TensorAxis(step.node.read_integer_attribute("axis", -1)),
        source_role=source.role,
        is_quantised=source.is_quantised,
        scale=source.scale,
        zero_point=source.zero_point,
        labels=source.labels,
        choices=frozenset({step.node.span}) | (frozenset() if is_least else source.tensors),
    )


def _trace_lp_normalization(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(
        role="unit_vector" if step.node.read_integer_attribute("p", 2) == 2 else "other", operator=step.operator
    )


def _trace_gather(step: TraceStep) -> TensorOrigin:
    """Finds how a tensor is computed that an operator picks from a table of classes, or from columns of scores."""
    if step.is_constant_input(0):
        index = step.trace_input(1)
        if index.role not in CHOICES:
            return step.make_other_origin()
        return dataclasses.replace(index, labels=tuple(map(format_label_text, step.read_constant_input(0))))
    if step.operator == "ArrayFeatureExtractor":
        return tensor_origin.select_origin_along_axis(step.trace_input(), -1, drops_axis=False)
    axis, is_one = step.node.read_integer_attribute("axis", 0), step.is_scalar_input(1)
    if not step.is_constant_input(1):
        return step.trace_input().without_axis(is_partial=True)
    return tensor_origin.select_origin_along_axis(step.trace_input(), axis, drops_axis=is_one)


def _trace_slice(step: TraceStep) -> TensorOrigin:
    origin = step.trace_input()
    if step.operator == "Split":
        return tensor_origin.select_origin_along_axis(
            origin, step.node.read_integer_attribute("axis", 0), drops_axis=False
        )
    starts, ends = step.read_integers("starts", 1), step.read_integers("ends", 2)
    axes = step.read_integers("axes", 3) or tuple(range(len(starts or ())))
    if starts is None or ends is None or len(starts) != len(axes) or len(ends) != len(axes):
        return origin.without_axis(is_partial=True)
    for axis, start, end in zip(axes, starts, ends, strict=True):
        if start != 0 or end < 2**31 - 1:
            origin = tensor_origin.select_origin_along_axis(origin, axis, drops_axis=False)
    return origin


def _trace_transpose(step: TraceStep) -> TensorOrigin:
    order = step.node.read_list_attribute("perm")
    return tensor_origin.transpose_origin(step.trace_input(), tuple(map(int, order)) if order else None)


def _trace_squeeze(step: TraceStep) -> TensorOrigin:
    return tensor_origin.squeeze_origin(step.trace_input(), step.read_integers("axes", 1))


def _trace_unsqueeze(step: TraceStep) -> TensorOrigin:
    return tensor_origin.unsqueeze_origin(step.trace_input(), step.read_integers("axes", 1))


def _trace_flatten(step: TraceStep) -> TensorOrigin:
    return tensor_origin.flatten_origin(step.trace_input(), step.node.read_integer_attribute("axis", 1))


def _trace_reshape(step: TraceStep) -> TensorOrigin:
    return tensor_origin.reshape_origin(step.trace_input(), step.read_integers("shape", 1))


def _trace_reduction(step: TraceStep) -> TensorOrigin:
    source, axes = step.trace_input(), step.read_integers("axes", 1)
    is_dropped = bool(step.node.read_integer_attribute("keepdims", 1))
    if source.axis is not None and axes is not None and any(source.axis.is_at_position(axis) for axis in axes):
        # The greatest probability of a row, which is its confidence.
        is_greatest = step.operator == "ReduceMax" and source.role in LIKELIHOODS
        return TensorOrigin(
            role="top_k_scores", operator=step.operator, source_role=source.role, choices=source.tensors
        ) if is_greatest else step.make_other_origin()  # fmt: skip
    if source.role not in LIKELIHOODS | {"linear"} or step.operator in {"ReduceSum", "ReduceProd"}:
        return step.make_other_origin()
    origin = source if source.role in {"linear", "sigmoid"} else source.with_role("class_scores", step.operator)
    return tensor_origin.squeeze_origin(origin, axes) if is_dropped is False else origin


def _trace_pooling(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return _add_quantisation_grid(step, source) if source.role in {"linear", "sigmoid"} else step.make_other_origin()


def _trace_concatenation(step: TraceStep) -> TensorOrigin:
    origins = [step.trace_input(at) for at in range(min(len(step.node.inputs), MAX_BRANCHES))]
    axis = TensorAxis(step.node.read_integer_attribute("axis", 0))
    if len(origins) == 2 and all(origin.role == "sigmoid" for origin in origins) and _are_inputs_complementary(step):
        tensors = frozenset[object]().union(*(origin.tensors for origin in origins))
        return TensorOrigin(role="probabilities", operator=step.operator, axis=axis, tensors=tensors)
    origin = _find_common_origin(origins)
    if origin is None:
        return step.make_other_origin()
    if origin.axis is not None and origin.axis.is_at_position(axis.position) is not False:
        # Distributions side by side are none together.
        return step.make_other_origin() if origin.role in SCORES else origin
    return origin


def _are_inputs_complementary(step: TraceStep) -> bool:
    """Returns whether two inputs of a node are p and 1 - p."""
    for at in (0, 1):
        name, other = step.input_name(at), step.input_name(1 - at)
        node = step.scope.find_producer(name)
        if node is not None and node.operator == "Sub" and other in node.inputs[1:2]:
            return True
    return False


def _find_common_origin(origins: list[TensorOrigin]) -> TensorOrigin | None:
    """Returns how several tensors are computed if all are computed in the same way; else None."""
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


def _trace_if_branches(step: TraceStep) -> TensorOrigin:
    """Finds how the output of an If operator is computed, whose branches mostly compute the same."""
    origin = _find_common_origin([step.trace_subgraph_output("then_branch"), step.trace_subgraph_output("else_branch")])
    return origin or UNKNOWN


def _trace_division(step: TraceStep) -> TensorOrigin:
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
    return _trace_arithmetic(step)


def _trace_subtraction(step: TraceStep) -> TensorOrigin:
    norm = step.find_norm(1, step.input_name())
    if norm is not None and norm.kind == "log_sum_exp":
        return TensorOrigin(
            role="log_probabilities", operator="ReduceLogSumExp", axis=norm.axis, tensors=step.trace_input().tensors
        )
    if step.read_constant_input(0) == (1.0,) and step.trace_input(1).role == "sigmoid":
        return TensorOrigin(role="sigmoid", operator=step.operator, axis=step.trace_input(1).axis)
    return _trace_arithmetic(step)


def _trace_exponential(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    if source.role == "log_probabilities":
        return source.with_role("probabilities")
    return step.make_other_origin()


def _trace_logarithm(step: TraceStep) -> TensorOrigin:
    source = step.trace_input()
    return source.with_role("log_probabilities") if source.role == "probabilities" else step.make_other_origin()


def _trace_arithmetic(step: TraceStep) -> TensorOrigin:
    """Finds how a sum or product is computed; scores stay scores, although of another scale."""
    places = range(1 if step.operator == "Where" else 0, min(len(step.node.inputs), MAX_BRANCHES))
    variables = [step.trace_input(at) for at in places if not step.is_constant_input(at)]
    if step.operator == "QLinearAdd":
        variables = [step.trace_input(0), step.trace_input(3)]
    quantised_scale = any(origin.operator in {"MatMulInteger", "ConvInteger"} for origin in variables)
    if quantised_scale:
        variables = [origin for origin in variables if origin.role == "linear"]
    origin = _find_common_origin(variables)
    if origin is None:
        return step.make_other_origin()
    if origin.role == "top_k_scores":  # in their order still, though of another scale
        return dataclasses.replace(origin, source_role="other", is_quantised=False, scale=1.0, zero_point=0)
    # What the numbers of a grid stand for is lost with it.
    origin = _add_quantisation_grid(step, dataclasses.replace(origin, scale=1.0, zero_point=0))
    if origin.role in {"linear", "values"}:
        return origin
    is_score = origin.role in LIKELIHOODS and step.operator not in {"Sub", "Pow", "Min"}
    return origin.with_role("class_scores", step.operator) if is_score else step.make_other_origin()


def _trace_recurrent_layer(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="state" if step.index else "other", operator=step.operator)


def _trace_count(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="counts", operator=step.operator)


def _trace_detection(step: TraceStep) -> TensorOrigin:
    return TensorOrigin(role="detections", operator=step.operator)


SUPPRESSIONS: Final = (
    "NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "TRTBatchedNMS", "RoiAlign",
    "MultiscaleDeformableAttn",
)  # fmt: skip
"""Operators that only detectors of objects have."""


def _index_by_operator(*rows: tuple[OperatorTracer, str]) -> Mapping[str, OperatorTracer]:
    return {**ML_TRACERS, **{operator: trace for trace, operators in rows for operator in operators.split()}}


OPERATOR_TRACERS: Final = _index_by_operator(
    (_trace_first_input, "Identity Cast CastLike Dropout Resize Upsample Optional OptionalGetElement"),
    (_trace_clip, "Clip"),
    (_trace_quantisation, "QuantizeLinear DequantizeLinear"),
    (_trace_softmax, "Softmax LogSoftmax QLinearSoftmax BiasSoftmax"),
    (_trace_sigmoid, "Sigmoid HardSigmoid QLinearSigmoid"),
    (_trace_linear_layer,
        "Gemm MatMul Conv ConvTranspose Einsum MatMulInteger ConvInteger QLinearMatMul QLinearConv QGemm "
        "DynamicQuantizeMatMul MatMulIntegerToFloat MatMulNBits NhwcConv FusedGemm FusedConv FusedMatMul"),
    (_trace_arg_max, "ArgMax ArgMin"),
    (_trace_top_k, "TopK"),
    (_trace_lp_normalization, "LpNormalization"),
    (_trace_gather, "ArrayFeatureExtractor Gather"),
    (_trace_slice, "Slice Split"),
    (_trace_transpose, "Transpose"),
    (_trace_squeeze, "Squeeze"),
    (_trace_unsqueeze, "Unsqueeze"),
    (_trace_flatten, "Flatten"),
    (_trace_reshape, "Reshape"),
    (_trace_reduction, "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd"),
    (_trace_pooling, "GlobalAveragePool GlobalMaxPool AveragePool MaxPool QLinearGlobalAveragePool"),
    (_trace_concatenation, "Concat"),
    (_trace_if_branches, "If"),
    (_trace_division, "Div"),
    (_trace_subtraction, "Sub"),
    (_trace_exponential, "Exp"),
    (_trace_logarithm, "Log"),
    (_trace_arithmetic, "Add Mul Sum Mean Pow Where Max Min QLinearAdd"),
    (_trace_recurrent_layer, "RNN LSTM GRU DynamicQuantizeLSTM"),
    (_trace_count, "Shape Size NonZero Range"),
    (_trace_detection, " ".join(SUPPRESSIONS)),
)  # fmt: skip
"""The function that finds how a node's output is computed, by its operator."""
