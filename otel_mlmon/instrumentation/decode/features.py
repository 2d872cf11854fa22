"""Summarizes a model's inputs as features: columns of numbers, counts of categories, or mean and spread.

Wide are inputs of one kind of value: sound, raw bytes, tokens, spectrograms. A feature a column would be a hundred
streams that say nothing each; mean and standard deviation of a sample's values show when it gets louder or emptier.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import Items, TensorRows, join_tensor_rows, split_copies_by_call
from otel_mlmon.instrumentation.decode.images import compute_image_features, name_color_channels
from otel_mlmon.instrumentation.decode.predictions import InputSummary
from otel_mlmon.instrumentation.runtime.call import Item, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import compute_sample_interval
from otel_mlmon.types import Bools
from otel_mlmon.vocabulary import TextPseudonymizer

MAX_FREE_WIDTH: Final = 64
"""Columns of a table whose width the model leaves open; a wider one is a sequence: sound, or a text's tokens."""

MAX_TABLE_WIDTH: Final = 256
"""Columns of a table without names; a wider one, of more columns than may be profiled, is a wide input."""

CATEGORY_RANGE: Final = (-1, 31)
"""Whole numbers that all lie in here, ends included, are categories, until one does not."""

MAX_INTEGER_COLUMNS: Final = 20
"""A wider table of whole numbers holds pixels or counts, not categories; one of small integers is a wide input."""

MAX_WIDE_VALUES: Final = 1024
"""Values of a sample that its mean and spread are computed of, about."""

_TOKENS: Final = re.compile(r"((input|token|position|segment|decoder|attention)_?)+(type_?)?(ids?|mask|s)?$")


@dataclass(slots=True, kw_only=True)
class InputFeaturePlan:
    """Describes how the features of one model input are summarized; decided once a session."""

    position: int
    tensor: Tensor
    names: tuple[str, ...] = ()
    """Names of the columns; empty for an image; of a wide input, of its mean and spread."""
    is_wide: bool = False
    """Whether the input has a mean and a spread instead of columns."""
    prefix: str = ""
    """The beginning of the names of an image's features, empty unless a model takes several images."""
    channels: tuple[str, ...] = ()
    """Names of the means of an image's colour channels."""
    width: int = 0
    """Number of columns, named or not."""
    categorical: set[int] = field(default_factory=set)
    """Positions of the columns that are categories."""
    inferred: set[int] = field(default_factory=set)
    """Categorical columns that were inferred, not declared, so that a value may still show that they are numbers."""


class FeatureProfiler:
    """Summarizes the inputs of inference calls as features, for one session of a model.

    Runs on: one thread at a time.

    Args:
        tensors: The inputs copied.
        names: The developer's, over all columns in order; a column without a name is `f0`, `f1`, …. Of several tables,
            a single column has the name of its input, and the columns of a wide one are `<input>.f0`, ….
        categorical: Names of those that are categories; None to infer them from whole numbers of few values.
        limit: Number of features at most.
        note: Takes what a developer would like to know.
        namer: Names categories as they may leave the process.
        metadata: The model's, which may say the order of an image's colours.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        *,
        names: Sequence[str],
        categorical: Sequence[str] | None,
        limit: int,
        note: Callable[[str], None],
        namer: TextPseudonymizer,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._namer = namer
        self._tensors = tensors
        self._names = list(names)
        self._categorical = categorical
        self._limit = limit
        self._note = note
        self._metadata = metadata or {}
        self._plans: list[InputFeaturePlan] | None = None

    def summarize_inputs(self, inputs: Sequence[Items]) -> InputSummary:
        """Summarizes the copied inputs of a batch of inference calls; the summary is empty while widths are unknown."""
        summary = InputSummary()
        if self._plans is None:
            if not any(any(split_copies_by_call(items)) for items in inputs):
                return summary
            widths = [_find_input_width(tensor, items) for tensor, items in zip(self._tensors, inputs, strict=True)]
            if not any(widths):
                return summary
            self._plans = self._plan_inputs(widths)
        for plan in list(self._plans):
            summary.samples = max(summary.samples, self._add_input_features(plan, inputs[plan.position], summary))
        return summary

    def _plan_inputs(self, widths: Sequence[int]) -> list[InputFeaturePlan]:
        inputs = [
            (position, tensor, width)
            for position, (tensor, width) in enumerate(zip(self._tensors, widths, strict=True))
            if width and tensor.layout in {"rows", "text", "wide"}
        ]
        wide = [(position, tensor) for position, tensor, width in inputs if self._is_wide_input(tensor, width)]
        tables = [entry for entry in inputs if entry[:2] not in wide]
        images = [
            (position, tensor) for position, tensor in enumerate(self._tensors) if tensor.layout in {"nchw", "nhwc"}
        ]
        free, names, columns = self._limit, self._names, sum(width for _, _, width in tables)
        plans = [
            InputFeaturePlan(
                position=position,
                tensor=tensor,
                prefix=f"{tensor.name}." if len(images) > 1 else "",
                channels=name_color_channels(tensor.name, self._metadata),
            )
            for position, tensor in images
            if free
        ]
        for position, tensor, width in tables:
            default_names = _make_default_names(tensor.name, width, limit=self._limit, is_only=len(tables) == 1)
            declared_names, names = names[:width], names[width:]
            column_names = (*declared_names, *default_names[len(declared_names) :])[:free]
            free -= len(column_names)
            if column_names:
                plans.append(self._plan_table_input(position, tensor, column_names, width))
        for position, tensor in wide[: max(free, 0) // 2]:
            if self._names:
                self._note(f"{tensor.name} is too wide for features of their own: its mean and spread are profiled")
            names_of_wide = (f"{tensor.name}.mean", f"{tensor.name}.spread")
            plans.append(InputFeaturePlan(position=position, tensor=tensor, names=names_of_wide, is_wide=True))
        if columns > self._limit > 0:
            self._note(f"{columns} columns, the first {self._limit} are profiled (max_features)")
        return plans

    def _is_wide_input(self, tensor: Tensor, width: int) -> bool:
        if tensor.layout == "wide":
            return True
        if tensor.layout == "text" or width == 1 or self._names:
            return False
        return _is_sequence_input(tensor, width) or width > max(self._limit, MAX_TABLE_WIDTH)

    def _plan_table_input(self, position: int, tensor: Tensor, names: tuple[str, ...], width: int) -> InputFeaturePlan:
        plan = InputFeaturePlan(position=position, tensor=tensor, names=names, width=width)
        if tensor.layout == "text" or tensor.dtype == "bool":
            plan.categorical = set(range(len(names)))
        elif self._categorical is not None:
            plan.categorical = {index for index, name in enumerate(names) if name in self._categorical}
        elif "int" in tensor.dtype and width <= MAX_INTEGER_COLUMNS:
            plan.categorical, plan.inferred = set(range(len(names))), set(range(len(names)))
        return plan

    def _add_input_features(self, plan: InputFeaturePlan, items: Items, summary: InputSummary) -> int:
        """Adds one model input to the summary of features; returns the number of its rows."""
        if plan.tensor.layout == "text":
            return _add_text_features(plan, split_copies_by_call(items), summary, self._namer)
        if not plan.names:
            return _add_image_features(plan, split_copies_by_call(items), summary)
        if plan.is_wide:
            return _add_wide_features(plan, split_copies_by_call(items), summary)
        joined = join_tensor_rows(plan.tensor, items, width=plan.width)
        if joined.is_ragged and self._plans is not None:
            self._plans.remove(plan)
            self._note(f"{plan.tensor.name} varies in width, as a sequence does, and is not profiled")
            return 0
        if plan.inferred and joined.rows.size:
            self._check_inferred_categories(plan, joined)
        return _add_table_features(plan, joined, summary, self._namer)

    def _check_inferred_categories(self, plan: InputFeaturePlan, joined: TensorRows) -> None:
        low, high = CATEGORY_RANGE
        for index in sorted(plan.inferred):
            values = joined.rows[:, index]
            if values.min() < low or values.max() > high:
                plan.inferred.remove(index)
                plan.categorical.remove(index)
                self._note(f"{plan.names[index]} is a number")


def _is_sequence_input(tensor: Tensor, width: int) -> bool:
    if tensor.dtype in {"uint8", "int8", "int16"} and width > MAX_INTEGER_COLUMNS:
        return True
    if _TOKENS.fullmatch(tensor.name.lower()) and "int" in tensor.dtype:
        return True
    return tensor.row_shape is None and ("int" in tensor.dtype or width > MAX_FREE_WIDTH)


def _make_default_names(tensor_name: str, width: int, *, limit: int, is_only: bool) -> list[str]:
    if width == 1 and not is_only:
        return [tensor_name]
    prefix = "" if is_only else f"{tensor_name}."
    return [f"{prefix}f{index}" for index in range(min(width, limit))]


def _find_input_width(tensor: Tensor, items: Items) -> int:
    """Returns how many columns a model input has; 0 if no copy shows it yet."""
    if tensor.row_shape is not None:
        return math.prod(tensor.row_shape)
    shape = next((item[0] for item in split_copies_by_call(items) if isinstance(item, tuple)), None)
    if shape is None:
        return 0
    return math.prod(shape[1:]) if tensor.layout in {"rows", "text", "wide"} else 1


def _add_table_features(
    plan: InputFeaturePlan, joined: TensorRows, summary: InputSummary, namer: TextPseudonymizer
) -> int:
    rows = joined.rows
    if not rows.size:
        return 0
    is_finite = rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
    numbers = [index for index in range(len(plan.names)) if index not in plan.categorical]
    table = np.ascontiguousarray(rows.T[: len(plan.names)], dtype=np.float64) if numbers else np.zeros((0, 0))
    for index in numbers:
        name = plan.names[index]
        summary.features[name] = _select_finite_values(table[index], name, summary, is_finite=is_finite)
    for index in sorted(plan.categorical):
        name = plan.names[index]
        finite = _select_finite_values(rows[:, index], name, summary, is_finite=is_finite)
        values, counts = np.unique(finite, return_counts=True)
        categories: Counter[str] = Counter()
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            categories[_format_category(value)] += count
        summary.categories[name] = namer.count_categories(name, categories, are_texts=False)
    return len(rows)


def _select_finite_values(values: NDArray[Any], name: str, summary: InputSummary, *, is_finite: bool) -> NDArray[Any]:
    if is_finite:
        return values
    is_number: Bools = np.asarray(np.isfinite(values))
    if is_number.all():
        return values
    summary.missing[name] = int(len(values) - is_number.sum())
    return values[is_number]


def _format_category(value: float) -> str:
    """Returns a number as the name of a category: `6` for 6.0, and `0` for -0.0."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _add_text_features(
    plan: InputFeaturePlan, items: Sequence[Item], summary: InputSummary, namer: TextPseudonymizer
) -> int:
    # All texts of one width in a row, so that each column is counted in one step of C.
    texts_by_width: dict[int, list[str]] = {}
    for item in items:
        if isinstance(item, tuple) and isinstance(item[1], tuple):
            width = item[0][1] if len(item[0]) > 1 else 1
            texts_by_width.setdefault(width, []).extend(item[1][: len(item[1]) // max(width, 1) * width])
    counters: list[Counter[str]] = [Counter() for _ in plan.names]
    rows = 0
    for width, texts in texts_by_width.items():
        rows += len(texts) // width if width else 0
        for index in range(min(len(counters), width)):
            counters[index].update(texts[index::width])
    for name, counter in zip(plan.names, counters, strict=True):
        missing = counter.pop("", 0) + counter.pop("None", 0) + counter.pop("nan", 0)
        if counter:
            summary.categories[name] = namer.count_categories(name, counter, are_texts=True)
        if missing:
            summary.missing[name] = missing
    return rows


def _add_wide_features(plan: InputFeaturePlan, items: Sequence[Item], summary: InputSummary) -> int:
    """Adds mean and standard deviation of each copied sample of a wide input, such as sound or tokens."""
    dtype = np.dtype(plan.tensor.dtype)
    tables: dict[int, list[NDArray[Any]]] = {}
    for item in items:
        shape, data = item if isinstance(item, tuple) else ((0, *(plan.tensor.row_shape or ())), item)
        width = math.prod(shape[1:])
        values = -(-width // compute_sample_interval(width)) if plan.tensor.layout == "wide" and width else width
        if isinstance(data, bytes) and values and data and len(data) % (values * dtype.itemsize) == 0:
            rows = np.frombuffer(data, dtype=dtype).reshape(-1, values)[:, :: -(-values // MAX_WIDE_VALUES)]
            tables.setdefault(rows.shape[1], []).append(rows)
    columns = [_compute_mean_and_spread(np.concatenate(tables_of_width)) for tables_of_width in tables.values()]
    if not columns:
        return 0
    means, spreads = np.concatenate(columns, axis=1)
    for name, values_of_samples in zip(plan.names, (means, spreads), strict=True):
        summary.features[name] = _select_finite_values(values_of_samples, name, summary, is_finite=False)
    return len(means)


def _compute_mean_and_spread(rows: NDArray[Any]) -> NDArray[Any]:
    """Computes mean and standard deviation of the finite values of each row; NaN without any. Shape (2, rows)."""
    is_number = np.isfinite(rows) if rows.dtype.kind == "f" else np.ones(rows.shape, dtype=bool)
    counts = is_number.sum(axis=1)
    values = np.where(is_number, rows, 0).astype(np.float64)
    with np.errstate(all="ignore"):
        means = values.sum(axis=1) / counts
        deviations = np.where(is_number, values - means[:, None], 0)
        return np.stack([means, np.sqrt((deviations**2).sum(axis=1) / counts)])


def _add_image_features(plan: InputFeaturePlan, items: Sequence[Item], summary: InputSummary) -> int:
    rows = 0
    for feature, values in compute_image_features(plan.tensor, items, plan.channels).items():
        rows, name = len(values), f"{plan.prefix}{feature}"
        summary.features[name] = _select_finite_values(values, name, summary, is_finite=False)
    return rows
