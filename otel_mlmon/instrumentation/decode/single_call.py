"""Reads one inference call by itself for its span, ten times as fast as a batch of one call.

For a call that somebody waits for, at the end of a request. It changes nothing: it reads outputs whose kinds earlier
batches have settled, as `OutputDecoder` would. Where that would decide something first, it reads nothing, and the call
is left to a batch.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import SampleSizes, TensorRows, compute_row_bytes
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT
from otel_mlmon.instrumentation.decode.output_kind import TOLERANCE
from otel_mlmon.instrumentation.decode.outputs import OutputDecoder, OutputKindEvidence
from otel_mlmon.instrumentation.decode.predictions import CallSummary, read_row_texts
from otel_mlmon.instrumentation.runtime.call import Item, Plan, Side, Tensor
from otel_mlmon.types import OutputKind

MAX_VALUES: Final = 128
"""Numbers of an output that are read one after the other; numpy takes less time for more."""

_MARGIN: Final = 1e-9
"""Distance from a bound within which the order of an addition might decide: those rows are left to numpy."""

_PLAIN: Final = frozenset({"labels", "probabilities", "logits", "sigmoid"})
"""Kinds of outputs whose rows are read without numpy."""

_FORMATS: Final = {"float16": "e", "float32": "f", "float64": "d"}
"""How the standard library unpacks numbers, by the type of an output."""

Row = Sequence[float]

_ReadRow = Callable[[Side, Side], "CallSummary | None"]
"""Reads the copies of the inputs and outputs of a call; None if they are not what it can read."""


class _CopiedRows(NamedTuple):
    """Holds the copied rows of one output of a single inference call."""

    size: int
    """Rows, copied or not."""
    width: int
    data: bytes
    """The copied ones."""


class _OutputReading(NamedTuple):
    """Holds what one output tells of a single inference call: its size, label and confidence."""

    size: int = 0
    """Rows, copied or not; 0 of an output that does not say how many samples there are."""
    is_class: bool = False
    """Whether it predicts classes."""
    has_scores: bool = False
    label: str | None = None
    """The label of its first row."""
    label_count: int = 0
    row_count: int = 0
    """Rows that were decoded."""
    confidences: Sequence[float] = ()


_NOTHING: Final = _OutputReading()


class SingleCallReader:
    """Reads label and confidence of single inference calls of one session.

    Runs on: one thread at a time, with the decoder of the plan's batches.

    Args:
        plan: What was copied of each call.
        outputs: The decoder of its batches.
    """

    def __init__(self, plan: Plan, outputs: OutputDecoder) -> None:
        self._plan = plan
        self._outputs = outputs
        self._tables: dict[tuple[int, int], Sequence[str]] = {}
        """The labels of an output, by its position and number of classes."""
        self._batches = 0
        self._read_row: _ReadRow = _read_nothing

    def read_call(self, inputs: Side, outputs: Side) -> CallSummary | None:
        """Reads label and confidence of one inference call; None if the kinds of its outputs are not settled yet."""
        if self._batches != self._outputs.batches:
            self._batches, self._read_row = self._outputs.batches, self._make_row_reader()
        return self._read_row(inputs, outputs) or self._read_any_call(inputs, outputs)

    def _make_row_reader(self) -> _ReadRow:
        """Makes the function that reads a row of scores, with or without its label, in the fewest steps.

        The common case: a model of one input whose only outputs these are.
        """
        plan, outputs = self._plan, self._outputs
        positions = {tensor.name: position for position, tensor in enumerate(plan.outputs)}
        head = outputs.heads.find_first_head(dict.fromkeys(positions, 1))
        if len(plan.inputs) != 1 or head is None or {head[1], head[2]} - {""} != positions.keys() or not head[2]:
            return _read_nothing
        (source,), name = plan.inputs, outputs.series_names.find_series_name(head[0])
        read_scores = self._make_scores_reader(positions[head[2]])
        read_label = self._make_label_reader(positions[head[1]]) if head[1] else None
        if name is None or read_scores is None or (head[1] and read_label is None):
            return _read_nothing
        at_scores, at_label, count = positions[head[2]], positions.get(head[1], 0), len(positions)
        input_size = compute_row_bytes(source) if source.layout == "rows" and source.row_shape else -1

        def read_row(inputs: Side, side: Side) -> CallSummary | None:
            items = (side,) if isinstance(side, bytes) else side
            if len(items) != count or not inputs:
                return None
            if len(inputs) != input_size if isinstance(inputs, bytes) else _find_row_count(source, inputs[0]) != 1:
                return None
            scores = read_scores(items[at_scores])
            if scores is None:
                return None
            label = read_label(items[at_label]) if read_label else scores[0]
            return None if label is None else CallSummary(1, name, label, scores[1], scores[1])

        return read_row

    def _make_scores_reader(self, position: int) -> Callable[[Item], tuple[str, float] | None] | None:
        """Makes the function that reads label and confidence of one row of scores; None of other outputs."""
        outputs, tensor = self._outputs, self._plan.outputs[position]
        kind, evidence = outputs.find_output_kind(position)
        width = len(tensor.keys) if tensor.layout == "maps" else math.prod(tensor.row_shape or (0,))
        if (
            kind not in {"probabilities", "logits", "sigmoid"}
            or tensor.dtype not in _FORMATS
            or not 0 < width <= MAX_VALUES
            or outputs.classes.find_output_origin(tensor).scale != 1.0
            or (evidence is not None and evidence.width != width)
        ):
            return None
        layout, shape = struct.Struct(f"={width}{_FORMATS[tensor.dtype]}"), (1, width)
        read = _read_single_score if width == 1 else _read_score_vector
        labels = outputs.classes.list_class_labels(tensor, max(width, 2))

        def read_scores(item: Item) -> tuple[str, float] | None:
            if type(item) is tuple and item[0] == shape:
                item = cast("bytes", item[1])
            if type(item) is not bytes or len(item) != layout.size:
                return None
            row = layout.unpack(item)
            if not math.isfinite(sum(row)) or (evidence is not None and not _are_rows_of_kind(kind, (row,), evidence)):
                return None
            code, confidence = read(kind, row)
            return labels[code], min(max(confidence, 0.0), 1.0)

        return read_scores

    def _make_label_reader(self, position: int) -> Callable[[Item], str | None] | None:
        """Makes the function that reads the label of one row, a text or a whole number; None of other outputs."""
        outputs, tensor = self._outputs, self._plan.outputs[position]
        classes, (kind, evidence) = outputs.classes, outputs.find_output_kind(position)
        if tensor.layout == "text" and kind in {None, "labels"}:

            def read_text(item: Item) -> str | None:
                if type(item) is not tuple or item[0] != (1,) or len(item[1]) != 1:
                    return None
                return classes.namer.pseudonymize_label(str(item[1][0])[:MAX_TEXT])

            return read_text
        is_one = math.prod(tensor.row_shape or ()) == 1 and (evidence is None or evidence.width == 1)
        is_column = tensor.row_shape is not None and (tensor.row_shape or outputs.is_folded.get(position) is False)
        if kind != "labels" or tensor.dtype != "int64" or not is_one or not is_column:
            return None
        if classes.find_output_origin(tensor).scale != 1.0:
            return None

        def read_number(item: Item) -> str | None:
            if type(item) is not bytes or len(item) != 8:
                return None
            return classes.pseudonymize_number_label(int.from_bytes(item, sys.byteorder, signed=True))

        return read_number

    def _read_any_call(self, inputs: Side, outputs: Side) -> CallSummary | None:
        """Reads label and confidence of an inference call with any outputs."""
        items = _list_call_tensors(outputs, len(self._plan.outputs))
        input_items = _list_call_tensors(inputs, len(self._plan.inputs))
        readings: dict[str, _OutputReading] = {}
        for position, (tensor, item) in enumerate(zip(self._plan.outputs, items, strict=True)):
            read = self._read_labels if tensor.layout == "text" else self._read_values
            reading = read(position, tensor, item, input_items) if tensor.layout != "items" else _NOTHING
            if reading is None:
                return None
            readings[tensor.name] = reading
        classes = {output: reading.size for output, reading in readings.items() if reading.is_class}
        head = self._outputs.heads.find_first_head(classes)
        name = "" if head is None or not head[0] else self._outputs.series_names.find_series_name(head[0])
        if head is None or name is None:
            return None
        batch_size = self._find_batch_size(list(readings.values()), input_items)
        label, scores = readings.get(head[1], _NOTHING), readings.get(head[2], _NOTHING)
        # The class of the scores where the label could not be read: see `heads._join`.
        is_missing = not label.is_class or (not label.row_count and scores.label_count == scores.row_count)
        text = scores.label if is_missing else label.label
        confidences = scores.confidences
        return CallSummary(
            batch_size=batch_size,
            head_name=name,
            label=text if batch_size == 1 else None,
            mean_confidence=sum(confidences) / len(confidences) if confidences else None,
            min_confidence=min(confidences) if confidences else None,
        )

    def _find_batch_size(self, readings: Sequence[_OutputReading], inputs: Sequence[Item]) -> int:
        """Returns the number of rows of an inference call, from its outputs and inputs."""
        for wanted in ((False, False), (True, False), (True, True)):
            for reading in readings:
                if reading.size and (reading.is_class, reading.has_scores) == wanted:
                    return reading.size
        lengths = (_find_row_count(tensor, item) for tensor, item in zip(self._plan.inputs, inputs, strict=True))
        return next((length for length in lengths if length), 0)

    def _read_labels(self, position: int, tensor: Tensor, item: Item, inputs: Sequence[Item]) -> _OutputReading | None:
        kind, _ = self._outputs.find_output_kind(position)
        size = _find_row_count(tensor, item)
        if kind is None and not self._are_samples(size, inputs):
            return None
        if kind not in {None, "labels", "top_k"}:
            return _NOTHING
        texts = read_row_texts(*item, is_ranked=kind == "top_k") if isinstance(item, tuple) else ()
        label = self._outputs.classes.namer.pseudonymize_label(str(texts[0])[:MAX_TEXT]) if texts else None
        return _OutputReading(size, is_class=True, label=label, label_count=len(texts), row_count=len(texts))

    def _read_values(self, position: int, tensor: Tensor, item: Item, inputs: Sequence[Item]) -> _OutputReading | None:
        kind, evidence = self._outputs.find_output_kind(position)
        if kind in {"none", "detection", "sequence"}:
            return _NOTHING
        rows = _split_output_rows(tensor, item, is_folded=self._outputs.is_folded.get(position))
        if rows is None:
            return None
        if kind is None:
            return None if rows.data else _NOTHING
        is_odd = evidence is not None and (rows.width != evidence.width or not self._are_samples(rows.size, inputs))
        if is_odd and rows.data:
            return None
        if kind in {"regression", "embedding"}:
            return _OutputReading(rows.size)
        if not rows.data:
            is_label = kind == "labels" or (kind == "top_k" and "int" in tensor.dtype)
            return _OutputReading(rows.size, is_class=True, has_scores=not is_label)
        if kind in _PLAIN and len(rows.data) <= MAX_VALUES * np.dtype(tensor.dtype).itemsize:
            reading = self._read_few_rows(position, tensor, kind, rows, evidence)
            if reading is not None:
                return reading
        return self._read_many_rows(tensor, kind, rows, evidence)

    def _read_few_rows(
        self, position: int, tensor: Tensor, kind: OutputKind, rows: _CopiedRows, evidence: OutputKindEvidence | None
    ) -> _OutputReading | None:
        """Reads a few rows of finite numbers without numpy; None where numpy is needed."""
        classes, width = self._outputs.classes, rows.width
        origin = classes.find_output_origin(tensor)
        values: list[Any] = np.frombuffer(rows.data, dtype=tensor.dtype).tolist()
        if origin.scale != 1.0:
            values = [(float(value) - origin.zero_point) * origin.scale for value in values]
        if not all(map(math.isfinite, values)):
            return None
        if kind == "labels":
            count = len(values) // width
            label = classes.pseudonymize_number_label(values[0])
            return _OutputReading(rows.size, is_class=True, label=label, label_count=count, row_count=count)
        numbers = list(map(float, values))
        table = [numbers[start : start + width] for start in range(0, len(numbers), width)]
        is_float = tensor.dtype[:5] == "float" or origin.scale != 1.0
        if evidence is not None and is_float and not _are_rows_of_kind(kind, table, evidence):
            return None
        labels = self._tables.get((position, width))
        if labels is None:
            labels = self._tables[position, width] = classes.list_class_labels(tensor, max(width, 2))
        code, confidences = _read_score_rows(kind, table)
        count = len(table)
        return _OutputReading(
            rows.size,
            is_class=True,
            has_scores=True,
            label=labels[code],
            label_count=count,
            row_count=count,
            confidences=confidences,
        )

    def _read_many_rows(
        self, tensor: Tensor, kind: OutputKind, rows: _CopiedRows, evidence: OutputKindEvidence | None
    ) -> _OutputReading | None:
        classes = self._outputs.classes
        origin = classes.find_output_origin(tensor)
        table: NDArray[Any] = np.frombuffer(rows.data, dtype=tensor.dtype).reshape(-1, rows.width)
        if origin.scale != 1.0:
            table = (table.astype(np.float64) - origin.zero_point) * origin.scale
        if evidence is not None and evidence.is_contradicted(table):
            return None
        calls = np.zeros(len(table), dtype=np.int64)
        tensor_rows = TensorRows(rows=table, calls=calls, sizes=np.array([rows.size]))
        decoded = classes.decode_class_rows(tensor, kind, tensor_rows)
        labels = decoded.labels
        return _OutputReading(
            rows.size,
            is_class=True,
            has_scores=decoded.has_scores,
            label=labels.table[int(labels.codes[0])] if labels.codes.size else None,
            label_count=len(labels.codes),
            row_count=int(decoded.decoded[0]),
            confidences=decoded.confidences.values.tolist(),
        )

    def _are_samples(self, size: int, inputs: Sequence[Item]) -> bool:
        """Returns whether an output may have one row for each input sample."""
        tensors = self._plan.inputs
        if not size or any(_find_row_count(tensor, item) == size for tensor, item in zip(tensors, inputs, strict=True)):
            return True
        return SampleSizes(tensors, [[item] for item in inputs]).has_row_per_sample(np.array([size])) is not False


def _read_nothing(_inputs: Side, _outputs: Side) -> None:
    """Reads nothing of an inference call whose outputs are not decoded."""


def _list_call_tensors(side: Side, count: int) -> Sequence[Item]:
    """Returns the copied tensors of one inference call; None for each if the call failed."""
    if type(side) is bytes:
        return (side,)
    return cast("Sequence[Item]", side) or (None,) * count


def _find_row_count(tensor: Tensor, item: Item) -> int:
    """Returns the length of a copied tensor's first axis; 0 if unknown."""
    if item is None or tensor.layout == "none":
        return 0
    if isinstance(item, tuple):
        return item[0][0] if item[0] else 0
    return len(item) // max(compute_row_bytes(tensor), 1)


def _split_output_rows(tensor: Tensor, item: Item, *, is_folded: bool | None) -> _CopiedRows | None:
    """Splits a copied output into rows; None if their width is not clear."""
    itemsize = np.dtype(tensor.dtype).itemsize
    if item is None:
        return _CopiedRows(0, 1, b"")
    if isinstance(item, tuple):
        shape, data = item
        if not shape or not isinstance(data, bytes):
            return None
        size, width = shape[0], math.prod(shape[1:])
    elif tensor.row_shape is None:
        return None
    else:
        data, width = item, math.prod(tensor.row_shape)
        size = len(data) // (width * itemsize or 1)
    if not width or not data:
        return _CopiedRows(size, width, b"") if not data else None
    if len(data) % (width * itemsize):
        return None
    if tensor.row_shape == ():
        if is_folded is None or (is_folded and len(data) != size * width * itemsize):
            return None
        if is_folded:
            size, width = 1, size * width
    return _CopiedRows(size, width, data)


def _are_rows_of_kind(kind: OutputKind, table: Sequence[Row], evidence: OutputKindEvidence) -> bool:
    """Returns whether rows of an output are certainly of the kind that the output is taken for."""
    facts = evidence.facts
    if kind == "probabilities" and facts.origin.role != "probabilities":
        slack = facts.compute_sum_tolerance(evidence.width) - _MARGIN
        return all(min(row) >= -TOLERANCE and abs(sum(row) - 1) <= slack for row in table if any(row))
    if kind in {"probabilities", "sigmoid"}:
        return all(min(row) >= -TOLERANCE and max(row) <= 1 + TOLERANCE for row in table)
    return True


def _read_score_rows(kind: OutputKind, table: Sequence[Row]) -> tuple[int, list[float]]:
    """Returns the class of the first row of scores, and the confidence of each row."""
    read = _read_single_score if len(table[0]) == 1 else _read_score_vector
    code, confidence = read(kind, table[0])
    return code, [min(max(value, 0.0), 1.0) for value in (confidence, *(read(kind, row)[1] for row in table[1:]))]


def _read_single_score(kind: OutputKind, row: Row) -> tuple[int, float]:
    (value,) = row
    if kind == "logits":
        return int(value >= 0), 1 / (1 + math.exp(-abs(value)))
    return int(value >= 0.5), max(value, 1 - value)


def _read_score_vector(kind: OutputKind, row: Row) -> tuple[int, float]:
    peak = max(row)
    return row.index(peak), peak if kind == "probabilities" else 1 / sum([math.exp(value - peak) for value in row])
