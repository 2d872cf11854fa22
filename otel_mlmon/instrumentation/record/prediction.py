"""OUT Predictions: what a batch of calls of one session said, as columns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.call.call import CallTuple, Item, Plan, Tensor
from otel_mlmon.instrumentation.record.columns import column
from otel_mlmon.instrumentation.record.features import InputPlan, Inputs, plan_inputs, read_inputs
from otel_mlmon.instrumentation.record.model import MAX_TEXT, Model, class_names, identify, model_name
from otel_mlmon.instrumentation.record.outputs import Classes, Kind, classify, contradicts, decide

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOG: Final = logging.getLogger("otel_mlmon")
_NO_INTS: Final[Ints] = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Final[Floats] = np.zeros(0)


class Labels(NamedTuple):
    """Labels of m rows."""

    codes: Ints = _NO_INTS
    """Shape (m,): positions in `table`, 0 or above."""
    calls: Ints = _NO_INTS
    """Shape (m,): the call of each row, not decreasing."""
    table: Sequence[str] = ()


class Confidences(NamedTuple):
    """Confidences of k rows, finite."""

    values: Floats = _NO_FLOATS
    """Shape (k,), within [0, 1]."""
    calls: Ints = _NO_INTS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """n calls of one session, in the order in which they ended up in the buffer."""

    model: Model
    operation: str
    started_ns: Ints
    """Shape (n,), as `time.perf_counter_ns` counts."""
    duration_ns: Ints
    """Shape (n,), 0 or above."""
    contexts: Sequence[object]
    """The OpenTelemetry context of each call."""
    errors: Sequence[str | None]
    """The class of each call's exception."""
    batch_sizes: Ints
    """Shape (n,): true rows of each call; 0 if unknown."""
    labels: Labels = field(default_factory=Labels)
    confidences: Confidences = field(default_factory=Confidences)
    values: Mapping[str, Floats] = field(default_factory=dict)
    """Finite values of regression outputs, by output."""
    inputs: Inputs = field(default_factory=Inputs)


class Said(Protocol):
    """What the developer said of a model; empty or None where nothing."""

    @property
    def version(self) -> str:
        """The version."""

    @property
    def scores(self) -> Kind | Mapping[str, Kind] | None:
        """What the output of the scores is, or each output by name."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names."""

    @property
    def features(self) -> Sequence[str]:
        """Names of the inputs' columns."""

    @property
    def categorical(self) -> Sequence[str]:
        """Features that are categories although they are numbers."""


class Reader:
    """Reads the calls of one plan.

    Runs on: one thread at a time.

    Args:
        plan: What was copied.
        options: What the developer said of a model, by its name.
        max_features: Features profiled at most.
    """

    def __init__(self, plan: Plan, *, options: Callable[[str], Said], max_features: int) -> None:
        said = options(model_name(plan.session))
        self.model = identify(plan.session, version=said.version)
        self._plan = plan
        self._said = said
        self._max_features = max_features
        self._names = tuple(str(name)[:MAX_TEXT] for name in said.labels) or class_names(plan.session.metadata)
        self._kinds: dict[int, Kind] = {}
        self._inputs: list[InputPlan] | None = None

    def read(self, calls: Sequence[CallTuple]) -> Predictions:
        """What `calls`, at least one, all of this reader's plan, said."""
        # Transposed in one step of C: a record has the fields of `Call`, in its order.
        _, started, ended, contexts, given, made, errors = zip(*calls, strict=True)
        started_ns = np.array(started, dtype=np.int64)
        reading = _Reading(len(calls))
        for position, tensor in enumerate(self._plan.outputs):
            items = [outputs[position] if outputs else None for outputs in made]
            self._read_output(position, tensor, items, reading)
        for position, tensor in enumerate(self._plan.inputs):
            reading.size_by(tensor, [inputs[position] if inputs else None for inputs in given])
        return Predictions(
            model=self.model,
            operation=self._plan.operation,
            started_ns=started_ns,
            duration_ns=np.maximum(np.array(ended, dtype=np.int64) - started_ns, 0),
            contexts=contexts,
            errors=errors,
            batch_sizes=reading.sizes,
            labels=reading.labels or Labels(),
            confidences=reading.confidences or Confidences(),
            values=reading.values,
            inputs=self._read_inputs([inputs for inputs in given if inputs]),
        )

    def _read_inputs(self, calls: Sequence[tuple[Item, ...]]) -> Inputs:
        if not calls:
            return Inputs()
        if self._inputs is None:
            tensors = self._plan.inputs
            widths = [_width(tensor, [call[index] for call in calls]) for index, tensor in enumerate(tensors)]
            if 0 in (width for tensor, width in zip(tensors, widths, strict=True) if tensor.layout == "rows"):
                return Inputs()  # nothing but empty batches so far
            self._inputs = plan_inputs(
                tensors,
                widths,
                names=self._said.features,
                categorical=self._said.categorical,
                limit=self._max_features,
            )
            if sum(widths) > self._max_features > 0:
                _LOG.info(
                    "Model %s has %d input columns; the first %d are profiled (max_features).",
                    self.model.name, sum(widths), self._max_features,
                )  # fmt: skip
        return read_inputs(self._inputs, calls)

    def _read_output(self, position: int, tensor: Tensor, items: Sequence[Item], reading: _Reading) -> None:
        if tensor.layout == "text":
            reading.add_texts(items)
            return
        found = column(tensor, items)
        reading.size(found.sizes)
        if not found.rows.size:
            return
        kind = self._kinds.get(position) or self._decide(position, tensor, found.rows)
        if kind == "none":
            return
        if kind == "labels":
            reading.add_integers(found.rows[:, 0], found.calls, self._names)
            return
        rows = found.rows.astype(np.float64)
        if contradicts(kind, rows):
            kind = self._kinds[position] = "regression"
            _LOG.info("Output %s of %s is no probability after all: a value.", tensor.name, self.model.name)
        if kind == "regression":
            reading.values[tensor.name] = rows[np.isfinite(rows)]
            return
        reading.add_classes(classify(kind, rows), found.calls, self._table(tensor, kind, rows.shape[1]))

    def _decide(self, position: int, tensor: Tensor, rows: NDArray[Any]) -> Kind:
        outputs = self._plan.outputs
        said = self._said.scores
        is_score = sum(1 for other in outputs if other.dtype.startswith("float")) == 1 or position == 0
        word = (
            said.get(tensor.name)
            if isinstance(said, Mapping)
            else (said if is_score and tensor.dtype.startswith("float") else None)
        )
        labels = any(other.layout == "text" or "int" in other.dtype for other in outputs if other is not tensor)
        kind = decide(tensor, rows, said=word, names=self._names, has_labels=labels)
        self._kinds[position] = kind
        if kind == "none":
            _LOG.info("Output %s of %s is timed only: ModelOptions.scores can say what it is.", tensor.name, self.model.name)  # fmt: skip  # noqa: E501
        return kind

    def _table(self, tensor: Tensor, kind: Kind, width: int) -> Sequence[str]:
        classes = 2 if kind == "score" else width
        if len(self._names) == classes:
            return self._names
        return tensor.keys if len(tensor.keys) == classes else [str(index) for index in range(classes)]


class _Reading:
    """What the outputs of n calls said so far; the first output that knows labels, confidences or sizes is heard."""

    def __init__(self, calls: int) -> None:
        self.sizes: Ints = np.zeros(calls, dtype=np.int64)
        self.labels: Labels | None = None
        self.confidences: Confidences | None = None
        self.values: dict[str, Floats] = {}

    def size(self, sizes: Ints) -> None:
        self.sizes = np.where(self.sizes > 0, self.sizes, sizes)

    def size_by(self, tensor: Tensor, items: Sequence[Item]) -> None:
        if not self.sizes.all() and tensor.layout != "none":
            self.size(np.fromiter((_rows(tensor, item) for item in items), dtype=np.int64, count=len(items)))

    def add_texts(self, items: Sequence[Item]) -> None:
        table: dict[str, int] = {}
        codes: list[int] = []
        calls: list[int] = []
        for position, item in enumerate(items):
            texts = item[1] if isinstance(item, tuple) else ()
            codes.extend(table.setdefault(str(text)[:MAX_TEXT], len(table)) for text in texts)
            calls.extend([position] * len(texts))
        self.size(np.array([item[0][0] if isinstance(item, tuple) else 0 for item in items], dtype=np.int64))
        self.labels = Labels(np.array(codes, dtype=np.int64), np.array(calls, dtype=np.int64), tuple(table))

    def add_integers(self, values: NDArray[Any], calls: Ints, names: Sequence[str]) -> None:
        unique, codes = np.unique(values, return_inverse=True)
        table = [names[value] if 0 <= value < len(names) else str(value) for value in unique.astype(np.int64).tolist()]
        self.labels = Labels(codes.astype(np.int64), calls, table)

    def add_classes(self, classes: Classes, calls: Ints, table: Sequence[str]) -> None:
        known = classes.codes >= 0
        self.confidences = self.confidences or Confidences(classes.confidences[known], calls[known])
        self.labels = self.labels or Labels(classes.codes[known], calls[known], table)


def _rows(tensor: Tensor, item: Item) -> int:
    if item is None:
        return 0
    if isinstance(item, tuple):
        return item[0][0] if item[0] else 0
    row_bytes = int(np.dtype(tensor.dtype).itemsize * np.prod(tensor.row_shape or (1,), dtype=np.int64))
    return len(item) // row_bytes if row_bytes else 0


def _width(tensor: Tensor, items: Sequence[Item]) -> int:
    """Columns of an input; 0 if nothing shows them yet."""
    if tensor.row_shape is not None:
        return int(np.prod(tensor.row_shape, dtype=np.int64))
    shape = next((item[0] for item in items if isinstance(item, tuple)), None)
    if shape is None:
        return 0
    return int(np.prod(shape[1:], dtype=np.int64)) if tensor.layout in {"rows", "text"} else 1
