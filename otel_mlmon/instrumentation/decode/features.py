"""What the inputs were: one column of numbers a feature, or counts of categories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import Items, each
from otel_mlmon.instrumentation.decode.columns import Column, column
from otel_mlmon.instrumentation.decode.images import image_features
from otel_mlmon.instrumentation.runtime.call import Item, Tensor
from otel_mlmon.types import Floats

MAX_FREE_WIDTH: Final = 64
"""Columns of a table whose width the model leaves open; a wider one is a sequence: sound, or a text's tokens."""

CATEGORY_RANGE: Final = (-1, 31)
"""Whole numbers of which all lie in here are categories, until one does not."""

MAX_INTEGER_COLUMNS: Final = 20
"""A wider table of whole numbers holds pixels or counts, not categories."""

_TOKENS: Final = re.compile(r"((input|token|position|segment|decoder|attention)_?)+(type_?)?(ids?|mask|s)?$")


@dataclass(slots=True, kw_only=True)
class Inputs:
    """The features of a batch of calls; filled input by input."""

    features: dict[str, Floats] = field(default_factory=dict)
    """Finite values by feature."""
    missing: dict[str, int] = field(default_factory=dict)
    categories: dict[str, Mapping[str, int]] = field(default_factory=dict)
    samples: int = 0
    """Rows profiled; of several inputs, those of the one with the most."""


@dataclass(slots=True, kw_only=True)
class InputPlan:
    """The features of one input; decided once a session."""

    position: int
    tensor: Tensor
    names: tuple[str, ...] = ()
    """One a column; empty for an image."""
    width: int = 0
    """Columns, named or not."""
    categorical: set[int] = field(default_factory=set)
    """Columns that are categories."""
    supposed: set[int] = field(default_factory=set)
    """Those of them that nobody said are, so that a value may show the contrary."""


class Profiler:
    """Profiles the inputs of one plan.

    Runs on: one thread at a time.

    Args:
        tensors: The inputs copied.
        names: The developer's, over all columns in order; what is not named is `f0`, `f1`, …. Of several tables, a
            single column is called as its input, and the columns of a wide one `<input>.f0`, ….
        categorical: Names of those that are categories; None to let whole numbers of few values be some.
        limit: Features at most.
        note: Told what a developer would like to know.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        *,
        names: Sequence[str],
        categorical: Sequence[str] | None,
        limit: int,
        note: Callable[[str], None],
    ) -> None:
        self._tensors = tensors
        self._names = list(names)
        self._categorical = categorical
        self._limit = limit
        self._note = note
        self._plans: list[InputPlan] | None = None

    def read(self, columns: Sequence[Items]) -> Inputs:
        """The features of `columns`, of each input the items of all calls; empty while none shows how wide it is."""
        inputs = Inputs()
        if self._plans is None:
            if not any(any(each(items)) for items in columns):
                return inputs
            widths = [_width(tensor, items) for tensor, items in zip(self._tensors, columns, strict=True)]
            if not any(widths):
                return inputs
            self._plans = self._planned(widths)
        for plan in list(self._plans):
            inputs.samples = max(inputs.samples, self._read(plan, columns[plan.position], inputs))
        return inputs

    def _planned(self, widths: Sequence[int]) -> list[InputPlan]:
        tables = [
            (at, tensor, width)
            for at, (tensor, width) in enumerate(zip(self._tensors, widths, strict=True))
            if width and tensor.layout in {"rows", "text"} and (self._names or not _is_sequence(tensor, width))
        ]
        left, given, columns = self._limit, self._names, sum(width for _, _, width in tables)
        plans = [
            InputPlan(position=at, tensor=tensor)
            for at, tensor in enumerate(self._tensors)
            if tensor.layout in {"nchw", "nhwc"} and left
        ]
        for at, tensor, width in tables:
            own = _own_names(tensor.name, min(width, self._limit), is_only=len(tables) == 1)
            said, given = given[:width], given[width:]
            names = (*said, *own[len(said) :])[:left]
            left -= len(names)
            if names:
                plans.append(self._table(at, tensor, names, width))
        if columns > self._limit > 0:
            self._note(f"{columns} columns, the first {self._limit} are profiled (max_features)")
        return plans

    def _table(self, at: int, tensor: Tensor, names: tuple[str, ...], width: int) -> InputPlan:
        plan = InputPlan(position=at, tensor=tensor, names=names, width=width)
        if tensor.layout == "text" or tensor.dtype == "bool":
            plan.categorical = set(range(len(names)))
        elif self._categorical is not None:
            plan.categorical = {index for index, name in enumerate(names) if name in self._categorical}
        elif "int" in tensor.dtype and width <= MAX_INTEGER_COLUMNS:
            plan.categorical, plan.supposed = set(range(len(names))), set(range(len(names)))
        return plan

    def _read(self, plan: InputPlan, items: Items, inputs: Inputs) -> int:
        if plan.tensor.layout == "text":
            return _read_texts(plan, each(items), inputs)
        if not plan.names:
            return _read_images(plan, each(items), inputs)
        found = column(plan.tensor, items, width=plan.width)
        if found.is_mixed and self._plans is not None:
            self._plans.remove(plan)
            self._note(f"{plan.tensor.name} is as wide as it comes, a sequence, and not profiled")
            return 0
        if plan.supposed and found.rows.size:
            self._doubt(plan, found)
        return _read_table(plan, found, inputs)

    def _doubt(self, plan: InputPlan, found: Column) -> None:
        low, high = CATEGORY_RANGE
        for index in sorted(plan.supposed):
            values = found.rows[:, index]
            if values.min() < low or values.max() > high:
                plan.supposed.remove(index)
                plan.categorical.remove(index)
                self._note(f"{plan.names[index]} is a number")


def _is_sequence(tensor: Tensor, width: int) -> bool:
    if tensor.layout == "text" or width == 1:
        return False
    if _TOKENS.fullmatch(tensor.name.lower()) and "int" in tensor.dtype:
        return True
    return tensor.row_shape is None and ("int" in tensor.dtype or width > MAX_FREE_WIDTH)


def _own_names(tensor: str, width: int, *, is_only: bool) -> list[str]:
    if is_only:
        return [f"f{index}" for index in range(width)]
    return [tensor] if width == 1 else [f"{tensor}.f{index}" for index in range(width)]


def _width(tensor: Tensor, items: Items) -> int:
    """Columns of an input; 0 if nothing shows them yet."""
    if tensor.row_shape is not None:
        return int(np.prod(tensor.row_shape, dtype=np.int64))
    shape = next((item[0] for item in each(items) if isinstance(item, tuple)), None)
    if shape is None:
        return 0
    return int(np.prod(shape[1:], dtype=np.int64)) if tensor.layout in {"rows", "text"} else 1


def _read_table(plan: InputPlan, found: Column, inputs: Inputs) -> int:
    rows = found.rows
    if not rows.size:
        return 0
    is_whole = rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
    numbers = [index for index in range(len(plan.names)) if index not in plan.categorical]
    table = np.ascontiguousarray(rows.T[: len(plan.names)], dtype=np.float64) if numbers else np.zeros((0, 0))
    for index in numbers:
        inputs.features[plan.names[index]] = _finite(table[index], plan.names[index], inputs, is_whole=is_whole)
    for index in sorted(plan.categorical):
        name = plan.names[index]
        values, counts = np.unique(_finite(rows[:, index], name, inputs, is_whole=is_whole), return_counts=True)
        words: Counter[str] = Counter()
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            words[_word(value)] += count
        inputs.categories[name] = words
    return len(rows)


def _finite(values: NDArray[Any], name: str, inputs: Inputs, *, is_whole: bool) -> NDArray[Any]:
    if is_whole:
        return values
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(values))
    if finite.all():
        return values
    inputs.missing[name] = int(len(values) - finite.sum())
    return values[finite]


def _word(value: float) -> str:
    """A number as the name of a category; -0.0 is 0."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _read_texts(plan: InputPlan, items: Sequence[Item], inputs: Inputs) -> int:
    # All texts of one width in a row, so that each column is counted in one step of C.
    texts: dict[int, list[str]] = {}
    for item in items:
        if isinstance(item, tuple) and isinstance(item[1], tuple):
            stride = item[0][1] if len(item[0]) > 1 else 1
            texts.setdefault(stride, []).extend(item[1][: len(item[1]) // max(stride, 1) * stride])
    counters: list[Counter[str]] = [Counter() for _ in plan.names]
    rows = 0
    for stride, found in texts.items():
        rows += len(found) // stride if stride else 0
        for index in range(min(len(counters), stride)):
            counters[index].update(found[index::stride])
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
        rows = len(values)
        inputs.features[name] = _finite(values, name, inputs, is_whole=False)
    return rows
