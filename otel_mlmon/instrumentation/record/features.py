"""What the inputs were: one column of numbers a feature, or counts of categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.call.call import Item, Tensor
from otel_mlmon.instrumentation.record.columns import column
from otel_mlmon.instrumentation.record.images import image_features

Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Inputs:
    """The features of a batch of calls; filled input by input."""

    features: dict[str, Floats] = field(default_factory=dict)
    """Finite values by feature."""
    missing: dict[str, int] = field(default_factory=dict)
    categories: dict[str, Mapping[str, int]] = field(default_factory=dict)
    samples: int = 0
    """Rows profiled; of several inputs, those of the one with the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPlan:
    """The features of one input; decided once a session."""

    position: int
    tensor: Tensor
    names: tuple[str, ...]
    """One a column; empty for an image."""
    categorical: tuple[bool, ...] = ()


def plan_inputs(
    tensors: Sequence[Tensor],
    widths: Sequence[int],
    *,
    names: Sequence[str],
    categorical: Sequence[str],
    limit: int,
) -> list[InputPlan]:
    """Which columns of which inputs are features, and their names: said, or `f0`, `f1`, …; at most `limit`.

    Of several tables, a single column is called as its input, and the columns of a wide one `<input>.f0`, ….

    Args:
        tensors: The inputs copied.
        widths: Columns of each.
        names: The developer's, over all columns in order.
        categorical: Names of those that are categories.
        limit: Features at most.
    """
    tables = [tensor for tensor in tensors if tensor.layout in {"rows", "text"}]
    plans: list[InputPlan] = []
    left, given = limit, list(names)
    for position, (tensor, width) in enumerate(zip(tensors, widths, strict=True)):
        if tensor.layout in {"nchw", "nhwc"} and left:
            plans.append(InputPlan(position=position, tensor=tensor, names=()))
        if tensor.layout not in {"rows", "text"}:
            continue
        own = _names(tensor.name, width, is_only=len(tables) == 1)
        said, given = given[:width], given[width:]
        chosen = tuple(said + own[len(said) :])[:left]
        left -= len(chosen)
        if chosen:
            is_word = tensor.layout == "text" or tensor.dtype == "bool"
            flags = tuple(is_word or name in categorical for name in chosen)
            plans.append(InputPlan(position=position, tensor=tensor, names=chosen, categorical=flags))
    return plans


def _names(tensor: str, width: int, *, is_only: bool) -> list[str]:
    if is_only:
        return [f"f{index}" for index in range(width)]
    return [tensor] if width == 1 else [f"{tensor}.f{index}" for index in range(width)]


def read_inputs(plans: Sequence[InputPlan], calls: Sequence[Sequence[Item]]) -> Inputs:
    """The features of `calls`, each the copied inputs of one."""
    inputs = Inputs()
    for plan in plans:
        items = [call[plan.position] for call in calls if len(call) > plan.position]
        if plan.tensor.layout == "text":
            rows = _read_texts(plan, items, inputs)
        elif plan.tensor.layout == "rows":
            rows = _read_table(plan, items, inputs)
        else:
            rows = _read_images(plan, items, inputs)
        inputs.samples = max(inputs.samples, rows)
    return inputs


def _read_table(plan: InputPlan, items: Sequence[Item], inputs: Inputs) -> int:
    rows = column(plan.tensor, items).rows[:, : len(plan.names)]
    if not rows.size:
        return 0
    table = np.ascontiguousarray(rows.T, dtype=np.float64)
    finite = np.isfinite(table)
    whole: NDArray[np.bool_] = np.asarray(finite.all(axis=1))
    for index, name in enumerate(plan.names[: len(table)]):
        values = table[index] if whole[index] else table[index][finite[index]]
        if plan.categorical[index]:
            numbers, counts = np.unique(values, return_counts=True)
            words = [f"{number:g}" for number in numbers.tolist()]
            inputs.categories[name] = dict(zip(words, counts.tolist(), strict=True))
        else:
            inputs.features[name] = values
        if not whole[index]:
            inputs.missing[name] = int(len(rows) - values.size)
    return len(rows)


def _read_texts(plan: InputPlan, items: Sequence[Item], inputs: Inputs) -> int:
    width = len(plan.names)
    counters: list[Counter[str]] = [Counter() for _ in plan.names]
    rows = 0
    for item in items:
        if not isinstance(item, tuple):
            continue
        texts: tuple[Any, ...] = tuple(item[1])
        stride = item[0][1] if len(item[0]) > 1 else 1
        rows += len(texts) // stride if stride else 0
        for index in range(min(width, stride)):
            counters[index].update(texts[index::stride])
    for name, counter in zip(plan.names, counters, strict=True):
        absent = counter.pop("", 0) + counter.pop("None", 0) + counter.pop("nan", 0)
        if counter:
            inputs.categories[name] = dict(counter)
        if absent:
            inputs.missing[name] = absent
    return rows


def _read_images(plan: InputPlan, items: Sequence[Item], inputs: Inputs) -> int:
    rows = 0
    for name, values in image_features(plan.tensor, items).items():
        finite = np.isfinite(values)
        inputs.features[name] = values[finite]
        rows = len(values)
        if not finite.all():
            inputs.missing[name] = int(rows - finite.sum())
    return rows
