"""The developer's own way to read outputs, run behind on copies of them, one call after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT
from otel_mlmon.instrumentation.decode.outputs import coded, label_of
from otel_mlmon.instrumentation.decode.predictions import Confidences, Labels
from otel_mlmon.instrumentation.runtime.call import Item, Tensor

Outputs = dict[str, NDArray[Any]]
Function = Callable[[Outputs], "tuple[object, object]"]
"""From the outputs of one call by name to labels and confidences, a sequence each, or None where there are none."""

STAGE: Final = "scores_function"


def read_with(
    function: Function, tensors: Sequence[Tensor], made: Sequence[Sequence[Item]], names: Sequence[str]
) -> tuple[Labels, Confidences]:
    """What `function` says of each call of `made`; a call it fails for has no labels, and the fault is counted.

    Args:
        function: The developer's.
        tensors: The outputs copied.
        made: Their copies, of each call; empty of one that failed.
        names: Class names for labels that are numbers.
    """
    texts: list[str] = []
    confidences: list[float] = []
    label_calls: list[int] = []
    confidence_calls: list[int] = []
    stage = guard(STAGE)
    for call, items in enumerate(made):
        if stage.is_open:
            break
        with stage:
            outputs = _arrays(tensors, items)
            if outputs is None:
                continue
            labels, sure = function(outputs)
            words, numbers = _words(labels, names), _ratios(sure)
            texts += words
            label_calls += [call] * len(words)
            confidences += numbers
            confidence_calls += [call] * len(numbers)
    codes, table = coded(texts)
    return (
        Labels(codes, np.array(label_calls, dtype=np.int64), table),
        Confidences(np.array(confidences), np.array(confidence_calls, dtype=np.int64)),
    )


def _arrays(tensors: Sequence[Tensor], items: Sequence[Item]) -> Outputs | None:
    """The outputs of one call, each an array of its own; None if one was too large to copy."""
    found: Outputs = {}
    for tensor, item in zip(tensors, items, strict=False):
        if isinstance(item, bytes) and tensor.row_shape is not None:
            item = ((-1, *tensor.row_shape), item)
        if not isinstance(item, tuple):
            return None
        shape, data = item
        if isinstance(data, tuple):
            found[tensor.name] = np.array(data, dtype=object)
            continue
        array = np.frombuffer(data, dtype=tensor.dtype)
        if shape[:1] != (-1,) and array.size != int(np.prod(shape, dtype=np.int64)):
            return None
        found[tensor.name] = array.reshape(shape).copy()
    return found or None


def _words(labels: object, names: Sequence[str]) -> list[str]:
    if labels is None:
        return []
    flat = np.asarray(labels).ravel().tolist()
    return [(value if isinstance(value, str) else label_of(value, names))[:MAX_TEXT] for value in flat]


def _ratios(confidences: object) -> list[float]:
    if confidences is None:
        return []
    flat = np.asarray(confidences, dtype=np.float64).ravel()
    found: list[float] = np.clip(flat[np.isfinite(flat)], 0.0, 1.0).tolist()
    return found
