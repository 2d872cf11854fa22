"""Finds how the outputs of ONNX operators are computed: one function for each kind of operator.

Their semantics are those of https://onnx.ai/onnx/operators and of onnxruntime's `ContribOperators.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from otel_mlmon.instrumentation.runtime.model_graph import OutputRole
from otel_mlmon.instrumentation.runtime.onnxruntime.graph import tensor_origin
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.ml_operators import ML_FINDERS, label_text
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.tensor_origin import (
    CHOICES,
    LIKELIHOODS,
    SCORES,
    UNKNOWN,
    Axis,
    TensorOrigin,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.trace import Finder, Step

MAX_BRANCHES: Final = 16
"""Inputs of a concatenation, or of a sum, that are looked at."""

_GRIDS: Final = {
    "QuantizeLinear": 1, "QLinearSoftmax": 3, "QLinearSigmoid": 3, "QLinearGlobalAveragePool": 3,
    "QLinearMatMul": 6, "QLinearConv": 6, "QLinearAdd": 6,
}  # fmt: skip
"""Operators that give integers, and the position of their scale among the inputs."""


def _find_same(step: Step) -> TensorOrigin:
    return step.source()


def _find_clipped(step: Step) -> TensorOrigin:
    source = step.source()
    return source if source.role in LIKELIHOODS | {"values"} else step.other()


def _find_quantised(step: Step) -> TensorOrigin:
    return _with_grid(step, dataclasses.replace(step.source(), is_quantised=True, scale=1.0, zero_point=0))


def _with_grid(step: Step, origin: TensorOrigin) -> TensorOrigin:
    """Adds to a quantised tensor the scale and zero point by which its integers stand for numbers."""
    at = _GRIDS.get(step.operator)
    if at is None:
        return origin
    scale, zero_point = step.constant(at), step.constant(at + 1)
    return dataclasses.replace(
        origin,
        is_quantised=True,
        scale=float(scale[0]) if len(scale) == 1 else 1.0,
        zero_point=int(zero_point[0]) if len(zero_point) == 1 else 0,
    )


def _find_softmax(step: Step) -> TensorOrigin:
    source = step.source()
    if source.role == "top_k_scores":  # normalised among those that were chosen, in their order
        return _with_grid(step, dataclasses.replace(source, operator=step.operator, source_role="other"))
    version = step.node.integer("opset", step.opset) if step.operator == "QLinearSoftmax" else step.opset
    axis = step.node.integer("axis", -1 if version >= 13 else 1)
    role: OutputRole = "log_probabilities" if step.operator == "LogSoftmax" else "probabilities"
    return _with_grid(step, TensorOrigin(role=role, operator=step.operator, axis=Axis(axis), tensors=source.tensors))


def _find_sigmoid(step: Step) -> TensorOrigin:
    source = step.source()
    if source.role == "top_k_scores":
        return _with_grid(step, dataclasses.replace(source, operator=step.operator, source_role="sigmoid"))
    return _with_grid(
        step, TensorOrigin(role="sigmoid", operator=step.operator, axis=source.axis, tensors=source.tensors)
    )


def _find_linear(step: Step) -> TensorOrigin:
    activation = step.node.text("activation") if step.operator.startswith("Fused") else ""
    if activation:
        return TensorOrigin(role="sigmoid" if activation == "Sigmoid" else "other", operator=activation)
    return _with_grid(step, TensorOrigin(role="linear", operator=step.operator))


def _find_choice(step: Step) -> TensorOrigin:
    source = step.source()
    is_least = step.operator == "ArgMin"
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts", operator=step.operator)
    choices = frozenset[object]() if is_least else source.tensors
    return TensorOrigin(
        role="label", operator=step.operator, source_role=source.role, labels=source.labels, choices=choices
    )


def _find_top_k(step: Step) -> TensorOrigin:
    source = step.source()
    is_least = not step.node.integer("largest", 1)
    if step.index:
        source = dataclasses.replace(source, is_quantised=False, scale=1.0, zero_point=0)
    if is_least and source.role in LIKELIHOODS:
        return TensorOrigin(role="counts" if step.index else "other", operator=step.operator)
    return TensorOrigin(
        role="top_k_labels" if step.index else "top_k_scores",
        operator=step.operator,
        axis=Axis(step.node.integer("axis", -1)),
        source_role=source.role,
        is_quantised=source.is_quantised,
        scale=source.scale,
        zero_point=source.zero_point,
        labels=source.labels,
        choices=frozenset({step.node.span}) | (frozenset() if is_least else source.tensors),
    )


def _find_lp_normalization(step: Step) -> TensorOrigin:
    return TensorOrigin(role="unit_vector" if step.node.integer("p", 2) == 2 else "other", operator=step.operator)


def _find_extracted(step: Step) -> TensorOrigin:
    """Finds how a tensor is computed that an operator picks from a table of classes, or from columns of scores."""
    if step.is_constant(0):
        index = step.source(1)
        if index.role not in CHOICES:
            return step.other()
        return dataclasses.replace(index, labels=tuple(map(label_text, step.constant(0))))
    if step.operator == "ArrayFeatureExtractor":
        return tensor_origin.select(step.source(), -1, drops_axis=False)
    axis, is_one = step.node.integer("axis", 0), step.is_scalar(1)
    if not step.is_constant(1):
        return step.source().without_axis(is_partial=True)
    return tensor_origin.select(step.source(), axis, drops_axis=is_one)


def _find_sliced(step: Step) -> TensorOrigin:
    origin = step.source()
    if step.operator == "Split":
        return tensor_origin.select(origin, step.node.integer("axis", 0), drops_axis=False)
    starts, ends = step.integers("starts", 1), step.integers("ends", 2)
    axes = step.integers("axes", 3) or tuple(range(len(starts or ())))
    if starts is None or ends is None or len(starts) != len(axes) or len(ends) != len(axes):
        return origin.without_axis(is_partial=True)
    for axis, start, end in zip(axes, starts, ends, strict=True):
        if start != 0 or end < 2**31 - 1:
            origin = tensor_origin.select(origin, axis, drops_axis=False)
    return origin


def _find_transposed(step: Step) -> TensorOrigin:
    order = step.node.values("perm")
    return tensor_origin.transpose(step.source(), tuple(map(int, order)) if order else None)


def _find_squeezed(step: Step) -> TensorOrigin:
    return tensor_origin.squeeze(step.source(), step.integers("axes", 1))


def _find_unsqueezed(step: Step) -> TensorOrigin:
    return tensor_origin.unsqueeze(step.source(), step.integers("axes", 1))


def _find_flattened(step: Step) -> TensorOrigin:
    return tensor_origin.flatten(step.source(), step.node.integer("axis", 1))


def _find_reshaped(step: Step) -> TensorOrigin:
    return tensor_origin.reshape(step.source(), step.integers("shape", 1))


def _find_reduced(step: Step) -> TensorOrigin:
    source, axes = step.source(), step.integers("axes", 1)
    is_dropped = bool(step.node.integer("keepdims", 1))
    if source.axis is not None and axes is not None and any(source.axis.equals(axis) for axis in axes):
        # The greatest probability of a row, which is its confidence.
        is_greatest = step.operator == "ReduceMax" and source.role in LIKELIHOODS
        return TensorOrigin(
            role="top_k_scores", operator=step.operator, source_role=source.role, choices=source.tensors
        ) if is_greatest else step.other()  # fmt: skip
    if source.role not in LIKELIHOODS | {"linear"} or step.operator in {"ReduceSum", "ReduceProd"}:
        return step.other()
    origin = source if source.role in {"linear", "sigmoid"} else source.as_role("class_scores", step.operator)
    return tensor_origin.squeeze(origin, axes) if is_dropped is False else origin


def _find_pooled(step: Step) -> TensorOrigin:
    source = step.source()
    return _with_grid(step, source) if source.role in {"linear", "sigmoid"} else step.other()


def _find_concatenated(step: Step) -> TensorOrigin:
    origins = [step.source(at) for at in range(min(len(step.node.inputs), MAX_BRANCHES))]
    axis = Axis(step.node.integer("axis", 0))
    if len(origins) == 2 and all(origin.role == "sigmoid" for origin in origins) and _are_complements(step):
        tensors = frozenset[object]().union(*(origin.tensors for origin in origins))
        return TensorOrigin(role="probabilities", operator=step.operator, axis=axis, tensors=tensors)
    origin = _common_origin(origins)
    if origin is None:
        return step.other()
    if origin.axis is not None and origin.axis.equals(axis.position) is not False:
        # Distributions side by side are none together.
        return step.other() if origin.role in SCORES else origin
    return origin


def _are_complements(step: Step) -> bool:
    """Returns whether two inputs of a node are p and 1 - p."""
    for at in (0, 1):
        name, other = step.name(at), step.name(1 - at)
        node = step.scope.producer(name)
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


def _find_branch(step: Step) -> TensorOrigin:
    """Finds how the output of an If operator is computed, whose branches mostly compute the same."""
    origin = _common_origin([step.subgraph_output("then_branch"), step.subgraph_output("else_branch")])
    return origin or UNKNOWN


def _find_quotient(step: Step) -> TensorOrigin:
    norm = step.norm_of(1, step.name())
    if norm is not None and norm.kind == "sum":
        source = step.source()
        if source.role in LIKELIHOODS or source.operator == "Exp":
            return dataclasses.replace(
                source, role="probabilities", operator="Div by ReduceSum", axis=norm.axis, labels=()
            )
        # Shares of anything: magnitudes, counts, an energy.
        is_choice = source.role == "top_k_scores"
        return dataclasses.replace(
            source if is_choice else step.other(), source_role="other", operator="Div by ReduceSum"
        )
    if norm is not None and norm.kind == "euclidean":
        return TensorOrigin(role="unit_vector", operator="Div by ReduceL2")
    return _find_arithmetic(step)


def _find_difference(step: Step) -> TensorOrigin:
    norm = step.norm_of(1, step.name())
    if norm is not None and norm.kind == "log_sum_exp":
        return TensorOrigin(
            role="log_probabilities", operator="ReduceLogSumExp", axis=norm.axis, tensors=step.source().tensors
        )
    if step.constant(0) == (1.0,) and step.source(1).role == "sigmoid":
        return TensorOrigin(role="sigmoid", operator=step.operator, axis=step.source(1).axis)
    return _find_arithmetic(step)


def _find_exponential(step: Step) -> TensorOrigin:
    source = step.source()
    if source.role == "log_probabilities":
        return source.as_role("probabilities")
    return step.other()


def _find_logarithm(step: Step) -> TensorOrigin:
    source = step.source()
    return source.as_role("log_probabilities") if source.role == "probabilities" else step.other()


def _find_arithmetic(step: Step) -> TensorOrigin:
    """Finds how a sum or product is computed; scores stay scores, although of another scale."""
    places = range(1 if step.operator == "Where" else 0, min(len(step.node.inputs), MAX_BRANCHES))
    variables = [step.source(at) for at in places if not step.is_constant(at)]
    if step.operator == "QLinearAdd":
        variables = [step.source(0), step.source(3)]
    quantised_scale = any(origin.operator in {"MatMulInteger", "ConvInteger"} for origin in variables)
    if quantised_scale:
        variables = [origin for origin in variables if origin.role == "linear"]
    origin = _common_origin(variables)
    if origin is None:
        return step.other()
    if origin.role == "top_k_scores":  # in their order still, though of another scale
        return dataclasses.replace(origin, source_role="other", is_quantised=False, scale=1.0, zero_point=0)
    # What the numbers of a grid stand for is lost with it.
    origin = _with_grid(step, dataclasses.replace(origin, scale=1.0, zero_point=0))
    if origin.role in {"linear", "values"}:
        return origin
    is_score = origin.role in LIKELIHOODS and step.operator not in {"Sub", "Pow", "Min"}
    return origin.as_role("class_scores", step.operator) if is_score else step.other()


def _find_recurrent(step: Step) -> TensorOrigin:
    return TensorOrigin(role="state" if step.index else "other", operator=step.operator)


def _find_counts(step: Step) -> TensorOrigin:
    return TensorOrigin(role="counts", operator=step.operator)


def _find_detections(step: Step) -> TensorOrigin:
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
