"""Reads the calls of one plan: which output is what, and what they say together."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.batch import Batch, Items, PackedTensor, each
from otel_mlmon.instrumentation.decode.columns import Column, column, row_bytes
from otel_mlmon.instrumentation.decode.custom_outputs import Function, read_with
from otel_mlmon.instrumentation.decode.features import Profiler
from otel_mlmon.instrumentation.decode.findings import Findings
from otel_mlmon.instrumentation.decode.kind_evidence import Evidence
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, class_names, identify, model_name
from otel_mlmon.instrumentation.decode.output_kind import holds_labels, is_detection, tag
from otel_mlmon.instrumentation.decode.outputs import Reading, coded, said_names, table_of, texts_of
from otel_mlmon.instrumentation.decode.predictions import Confidences, Labels, Predictions
from otel_mlmon.instrumentation.decode.vocabulary import MIN_SEEN, Vocabulary
from otel_mlmon.instrumentation.runtime.call import Item, Plan, Tensor
from otel_mlmon.types import OutputKind

MAX_WORDS: Final = 1000
"""Labels that are strings, of one output, that may leave at most."""

_TIMED_ONLY: Final = "unknown kind, timed only (set ModelOptions.output_kind)"


class Said(Protocol):
    """What the developer said of a model; empty or None where nothing."""

    @property
    def version(self) -> str:
        """The version."""

    @property
    def output_kind(self) -> OutputKind | Mapping[str, OutputKind] | Function | None:
        """What the output of the scores is, or each output by name, or a function that reads them."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names."""

    @property
    def features(self) -> Sequence[str]:
        """Names of the inputs' columns."""

    @property
    def categorical(self) -> Sequence[str] | None:
        """Features that are categories although they are numbers; None to find out."""


class Reader:
    """Reads the calls of one plan.

    Runs on: one thread at a time.

    Args:
        plan: What was copied.
        options: What the developer said of a model, by its name.
        max_features: Features profiled at most.
        findings: Where what is found out is told.
    """

    def __init__(
        self, plan: Plan, *, options: Callable[[str], Said], max_features: int, findings: Findings | None = None
    ) -> None:
        said = options(model_name(plan.session))
        self.model = identify(plan.session, version=said.version)
        self._plan = plan
        self._said = said
        self._findings = findings or Findings()
        self._evidence: dict[int, Evidence] = {}
        self._order = sorted(range(len(plan.outputs)), key=lambda at: not holds_labels(plan.outputs[at]))
        self._inputs = Profiler(
            plan.inputs,
            names=said.features,
            categorical=said.categorical,
            limit=max_features,
            note=functools.partial(self._note, "inputs"),
        )

    def read(self, batch: Batch) -> Predictions:
        """What the calls of `batch`, at least one, all of this reader's plan, said."""
        reading = Reading(len(batch.errors))
        self._read_outputs(batch.outputs, reading)
        if not self._plan.outputs and not all(batch.errors):
            self._note("outputs", _TIMED_ONLY)
        for tensor, items in zip(self._plan.inputs, batch.inputs, strict=True):
            if reading.sizes.all():
                break
            reading.size(_sizes(tensor, items))
        return Predictions(
            model=self.model,
            operation=self._plan.operation,
            started_ns=batch.started_ns,
            duration_ns=np.maximum(batch.ended_ns - batch.started_ns, 0),
            contexts=batch.contexts,
            errors=batch.errors,
            batch_sizes=reading.sizes,
            labels=reading.labels or Labels(),
            confidences=reading.confidences or Confidences(),
            values=reading.values,
            inputs=self._inputs.read(batch.inputs),
        )

    def _read_outputs(self, columns: Sequence[Items], reading: Reading) -> None:
        if callable(self._said.output_kind):
            tensors = self._plan.outputs
            if tensors:
                reading.size(_sizes(tensors[0], columns[0]))
            made = list(zip(*map(each, columns), strict=True))
            reading.labels, reading.confidences = read_with(self._said.output_kind, tensors, made, self._names)
            return
        for position in self._order:
            self._read_output(position, self._plan.outputs[position], columns[position], reading)

    def _read_output(self, position: int, tensor: Tensor, items: Items, reading: Reading) -> None:
        if tensor.layout == "text":
            reading.size(_sizes(tensor, items))
            self._read_texts(tensor, each(items), reading)
            return
        found = column(tensor, items)
        reading.size(found.sizes)
        if not found.rows.size:
            return
        kind = self._kind(position, tensor, found.rows)
        if kind == "labels":
            reading.add_numbers(found.rows[:, 0], found.calls, self._names)
        elif kind == "multi_label":
            tags = tag(found.rows)
            reading.add_tags(tensor.name, tags, found.calls, self._table(tensor, found.rows.shape[1]))
        elif kind not in {"none", None}:
            self._read_numbers(kind, tensor, found, reading)

    def _read_numbers(self, kind: OutputKind, tensor: Tensor, found: Column, reading: Reading) -> None:
        rows = found.rows
        if kind == "regression":
            reading.add_values(tensor.name, rows.astype(np.float64), self._names)
        elif kind == "embedding":
            reading.add_norms(tensor.name, rows.astype(np.float64))
        else:
            table = self._table(tensor, max(rows.shape[1], 2))
            reading.add_classes(kind, tensor.name, rows, found.calls, table)

    def _read_texts(self, tensor: Tensor, items: Sequence[Item], reading: Reading) -> None:
        if self._said_of(tensor, is_first=True) == "none" or reading.labels is not None:
            return
        texts, calls = texts_of(items)
        codes, table = coded(texts)
        # A text that is no class of the model's may be the host's: it leaves after it was seen often enough.
        self._words.admit(Counter(texts))
        reading.add_labels(codes, calls, [text if text in self._words else semconv.OTHER for text in table])

    def _kind(self, position: int, tensor: Tensor, rows: NDArray[Any]) -> OutputKind | None:
        evidence = self._evidence.get(position)
        if evidence is None:
            evidence = self._evidence[position] = self._begun(position, tensor)
        before = evidence.kind, evidence.is_revised
        kind = evidence.of(rows)
        if before != (kind, evidence.is_revised) or not evidence.is_told:
            evidence.is_told = True
            again = " after all" if evidence.is_revised else ""
            text = _TIMED_ONLY if kind == "none" else f"{kind or 'waiting for rows that tell what it is'}{again}"
            self._note(f"output {tensor.name}", text, is_logged=evidence.is_revised or self._is_timed_only())
        return kind

    def _is_timed_only(self) -> bool:
        found = self._evidence.values()
        return len(found) == len(self._plan.outputs) and all(evidence.kind == "none" for evidence in found)

    def _begun(self, position: int, tensor: Tensor) -> Evidence:
        outputs = self._plan.outputs
        said = self._said_of(tensor, is_first=position == 0)
        if said is None and is_detection([*self._plan.output_names, *(other.name for other in outputs)]):
            said = "none"
        has_labels = any(holds_labels(other) for other in outputs if other is not tensor)
        return Evidence(tensor, said=said, names=self._names, has_labels=has_labels)

    def _said_of(self, tensor: Tensor, *, is_first: bool) -> OutputKind | None:
        said = self._said.output_kind
        if said is None or isinstance(said, Mapping):
            return said.get(tensor.name) if said else None
        scores = [other for other in self._plan.outputs if other.dtype.startswith(("float", "bool"))]
        is_meant = tensor in scores[:1] if scores else is_first
        return said if is_meant and not callable(said) else None

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        said = tuple(str(name)[:MAX_TEXT] for name in self._said.labels)
        return said or class_names(self._plan.session.metadata)

    @functools.cached_property
    def _words(self) -> Vocabulary:
        keys = [key for tensor in self._plan.outputs for key in tensor.keys]
        return Vocabulary(limit=MAX_WORDS, min_seen=MIN_SEEN, known=[*self._names, *keys])

    def _table(self, tensor: Tensor, classes: int) -> Sequence[str]:
        is_only = sum(other.dtype.startswith("float") for other in self._plan.outputs) <= 1
        if self._said.labels and len(self._names) != classes and is_only:
            self._note("labels", f"{len(self._names)} given for {classes} classes")
            return said_names(self._names, classes)
        return table_of(self._names, tensor.keys, classes)

    def _note(self, subject: str, finding: str, *, is_logged: bool = True) -> None:
        self._findings.note(self.model.name, subject, finding, is_logged=is_logged)


def _sizes(tensor: Tensor, items: Items) -> NDArray[np.int64]:
    """The rows of each call; 0 if they are not known."""
    if isinstance(items, PackedTensor):
        return items.lengths // max(row_bytes(tensor), 1)
    if tensor.layout == "none":
        return np.zeros(len(items), dtype=np.int64)
    one = max(row_bytes(tensor), 1) if tensor.dtype else 1
    sizes = [
        (item[0][0] if item[0] else 0) if type(item) is tuple else len(item) // one if item is not None else 0
        for item in items
    ]
    return np.array(sizes, dtype=np.int64)
