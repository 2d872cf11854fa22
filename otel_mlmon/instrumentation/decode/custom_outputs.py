"""Decodes a model's outputs with a function of the developer's, call by call on copies, on the worker thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT
from otel_mlmon.instrumentation.decode.predictions import (
    PredictedLabels,
    PredictionConfidences,
    encode_distinct_texts,
    format_class_label,
)
from otel_mlmon.instrumentation.runtime.call import Item, Tensor

OutputFunction = Callable[[dict[str, NDArray[Any]]], "tuple[object, object]"]
"""Reads the outputs of one call: from arrays by name to labels and confidences, a sequence each or None."""

STAGE: Final = "output_function"


def decode_with_function(
    function: OutputFunction,
    tensors: Sequence[Tensor],
    outputs_of_calls: Sequence[Sequence[Item]],
    class_names: Sequence[str],
) -> tuple[PredictedLabels, PredictionConfidences]:
    """Decodes the outputs of each inference call with the developer's function; counts the calls where it fails.

    Args:
        function: The developer's.
        tensors: The outputs that were copied.
        outputs_of_calls: Their copies; empty for a call that failed.
        class_names: Names for labels that are numbers.
    """
    texts: list[str] = []
    confidences: list[float] = []
    label_calls: list[int] = []
    confidence_calls: list[int] = []
    stage = guard(STAGE)
    for call, items in enumerate(outputs_of_calls):
        if stage.is_open:
            break
        with stage:
            arrays = _convert_to_arrays(tensors, items)
            if arrays is None:
                continue
            labels, scores = function(arrays)
            label_texts, ratios = _format_label_texts(labels, class_names), _clip_confidences(scores)
            texts += label_texts
            label_calls += [call] * len(label_texts)
            confidences += ratios
            confidence_calls += [call] * len(ratios)
    codes, table = encode_distinct_texts(texts)
    return (
        PredictedLabels(codes, np.array(label_calls, dtype=np.int64), table, class_names),
        PredictionConfidences(np.array(confidences), np.array(confidence_calls, dtype=np.int64)),
    )


def _convert_to_arrays(tensors: Sequence[Tensor], items: Sequence[Item]) -> dict[str, NDArray[Any]] | None:
    """Returns the copied outputs of one inference call as arrays; None if one was too large to copy."""
    arrays: dict[str, NDArray[Any]] = {}
    for tensor, item in zip(tensors, items, strict=False):
        if isinstance(item, bytes) and tensor.row_shape is not None:
            item = ((-1, *tensor.row_shape), item)
        if not isinstance(item, tuple):
            return None
        shape, data = item
        if isinstance(data, tuple):
            arrays[tensor.name] = np.array(data, dtype=object)
            continue
        array = np.frombuffer(data, dtype=tensor.dtype)
        if shape[:1] != (-1,) and array.size != int(np.prod(shape, dtype=np.int64)):
            return None
        arrays[tensor.name] = array.reshape(shape).copy()
    return arrays or None


def _format_label_texts(labels: object, class_names: Sequence[str]) -> list[str]:
    if labels is None:
        return []
    values = np.asarray(labels).ravel().tolist()
    return [
        (value if isinstance(value, str) else format_class_label(value, class_names))[:MAX_TEXT] for value in values
    ]


def _clip_confidences(confidences: object) -> list[float]:
    if confidences is None:
        return []
    values = np.asarray(confidences, dtype=np.float64).ravel()
    ratios: list[float] = np.clip(values[np.isfinite(values)], 0.0, 1.0).tolist()
    return ratios
