"""Decodes batches of calls into predictions: which kind each output has, labels, confidences, values and features."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.batch import (
    CallBatch,
    Items,
    PackedTensor,
    TensorRows,
    join_rows,
    row_bytes,
    split_calls,
)
from otel_mlmon.instrumentation.decode.custom_outputs import OutputFunction, decode_with_function
from otel_mlmon.instrumentation.decode.features import FeatureProfiler
from otel_mlmon.instrumentation.decode.findings import Findings
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, class_names, identify, model_name
from otel_mlmon.instrumentation.decode.output_kind import KindEvidence, holds_labels, is_detection
from otel_mlmon.instrumentation.decode.predictions import (
    Confidences,
    Labels,
    PredictionBuilder,
    Predictions,
    encode_texts,
    label_table,
    texts_of,
)
from otel_mlmon.instrumentation.decode.vocabulary import MIN_COUNT, Vocabulary
from otel_mlmon.instrumentation.runtime.call import Item, Plan, Tensor
from otel_mlmon.types import Ints, OutputKind

MAX_DECODERS: Final = 1024
"""The largest number of plans whose decoders are cached; beyond it the oldest is evicted."""

MAX_TEXT_LABELS: Final = 1000
"""Labels of an output of strings that may leave the process at most."""

_TIMED_ONLY: Final = "unknown kind, timed only (set ModelOptions.output_kind)"


class DeclaredModel(Protocol):
    """The Protocol of a model's declared options; empty or None where nothing was declared."""

    @property
    def version(self) -> str:
        """The version."""

    @property
    def output_kind(self) -> OutputKind | Mapping[str, OutputKind] | OutputFunction | None:
        """The kind of the output of the scores, or of each output by name, or a function that reads them."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names."""

    @property
    def features(self) -> Sequence[str]:
        """Names of the inputs' columns."""

    @property
    def categorical(self) -> Sequence[str] | None:
        """Features that are categories although they are numbers; None to infer them."""


class CallDecoder(Protocol):
    """Decodes the calls of one plan.

    Runs on: one thread at a time.
    """

    def decode(self, batch: CallBatch) -> Predictions:
        """Decodes at least one call of this decoder's plan."""


class Decoder:
    """Decodes the tensors of the calls of one plan.

    Runs on: one thread at a time.

    Args:
        plan: What was copied of each call.
        options: Returns what the developer declared of the model of a name.
        max_features: Number of features that are profiled at most.
        findings: Takes what is inferred.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        options: Callable[[str], DeclaredModel],
        max_features: int,
        findings: Findings | None = None,
    ) -> None:
        declared = options(model_name(plan.session))
        self.model = identify(plan.session, version=declared.version)
        self._plan = plan
        self._declared = declared
        self._findings = findings or Findings()
        self._evidence: dict[int, KindEvidence] = {}
        self._noted_kinds: dict[int, tuple[OutputKind | None, bool]] = {}
        # Outputs of labels first: they define the labels, wherever they stand.
        self._order = sorted(range(len(plan.outputs)), key=lambda position: not holds_labels(plan.outputs[position]))
        self._profiler = FeatureProfiler(
            plan.inputs,
            names=declared.features,
            categorical=declared.categorical,
            limit=max_features,
            metadata=plan.session.metadata,
            note=functools.partial(self._note, "inputs"),
        )

    def decode(self, batch: CallBatch) -> Predictions:
        """Decodes at least one call of this decoder's plan."""
        builder = PredictionBuilder(len(batch.errors))
        self._decode_outputs(batch.outputs, builder)
        if not self._plan.outputs and not all(batch.errors):
            self._note("outputs", _TIMED_ONLY)
        for tensor, items in zip(self._plan.inputs, batch.inputs, strict=True):
            if builder.sizes.all():
                break
            builder.add_sizes(_batch_sizes(tensor, items))
        return Predictions(
            model=self.model,
            operation=self._plan.operation,
            started_ns=batch.started_ns,
            duration_ns=np.maximum(batch.ended_ns - batch.started_ns, 0),
            contexts=batch.contexts,
            errors=batch.errors,
            batch_sizes=builder.sizes,
            labels=builder.labels or Labels(),
            confidences=builder.confidences or Confidences(),
            values=builder.values,
            inputs=self._profiler.summarize(batch.inputs),
        )

    def _decode_outputs(self, outputs: Sequence[Items], builder: PredictionBuilder) -> None:
        tensors, function = self._plan.outputs, self._declared.output_kind
        if callable(function):
            if tensors:
                builder.add_sizes(_batch_sizes(tensors[0], outputs[0]))
            calls = list(zip(*map(split_calls, outputs), strict=True))
            builder.labels, builder.confidences = decode_with_function(function, tensors, calls, self._class_names)
            return
        for position in self._order:
            self._decode_output(position, tensors[position], outputs[position], builder)

    def _decode_output(self, position: int, tensor: Tensor, items: Items, builder: PredictionBuilder) -> None:
        if tensor.layout == "text":
            builder.add_sizes(_batch_sizes(tensor, items))
            self._decode_texts(tensor, split_calls(items), builder)
            return
        joined = join_rows(tensor, items)
        builder.add_sizes(joined.sizes)
        if not joined.rows.size:
            return
        kind = self._infer_kind(position, tensor, joined.rows)
        if kind not in {"none", None}:
            self._decode_rows(kind, tensor, joined, builder)

    def _decode_rows(self, kind: OutputKind, tensor: Tensor, joined: TensorRows, builder: PredictionBuilder) -> None:
        rows, calls = joined.rows, joined.calls
        if kind == "labels":
            builder.add_numeric_labels(rows[:, 0], calls, self._class_names)
        elif kind == "regression":
            builder.add_values(tensor.name, rows.astype(np.float64), self._class_names)
        elif kind == "embedding":
            builder.add_norms(tensor.name, rows.astype(np.float64))
        elif kind == "multi_label":
            builder.add_multi_labels(tensor.name, rows, calls, self._label_table(tensor, rows.shape[1]))
        else:
            table = self._label_table(tensor, max(rows.shape[1], 2))
            builder.add_classes(kind, tensor.name, rows, calls, table)

    def _decode_texts(self, tensor: Tensor, items: Sequence[Item], builder: PredictionBuilder) -> None:
        if self._declared_kind(tensor, is_first=True) == "none" or builder.labels is not None:
            return
        texts, calls = texts_of(items)
        codes, table = encode_texts(texts)
        # A text that is no class of the model may be the user's: it leaves once it came often enough.
        self._vocabulary.admit(Counter(texts))
        builder.add_labels(codes, calls, [text if text in self._vocabulary else semconv.OTHER for text in table])

    def _infer_kind(self, position: int, tensor: Tensor, rows: NDArray[Any]) -> OutputKind | None:
        evidence = self._evidence.get(position)
        if evidence is None:
            evidence = self._evidence[position] = self._start_evidence(position, tensor)
        kind = evidence.update(rows)
        decision = (kind, evidence.is_revised)
        if self._noted_kinds.get(position) != decision:
            self._noted_kinds[position] = decision
            text = _TIMED_ONLY if kind == "none" else kind or "waiting for rows that show its kind"
            self._note(
                f"output {tensor.name}",
                f"{text}, revised" if evidence.is_revised else text,
                is_logged=evidence.is_revised or self._is_timed_only(),
            )
        return kind

    def _is_timed_only(self) -> bool:
        kinds = [evidence.kind for evidence in self._evidence.values()]
        return len(kinds) == len(self._plan.outputs) and set(kinds) == {"none"}

    def _start_evidence(self, position: int, tensor: Tensor) -> KindEvidence:
        outputs = self._plan.outputs
        kind = self._declared_kind(tensor, is_first=position == 0)
        if kind is None and is_detection([*self._plan.output_names, *(output.name for output in outputs)]):
            kind = "none"
        has_labels = any(holds_labels(output) for output in outputs if output is not tensor)
        return KindEvidence(tensor, declared_kind=kind, class_names=self._class_names, has_labels=has_labels)

    def _declared_kind(self, tensor: Tensor, *, is_first: bool) -> OutputKind | None:
        kind = self._declared.output_kind
        if kind is None or callable(kind):
            return None
        if isinstance(kind, Mapping):
            return kind.get(tensor.name)
        scores = [output for output in self._plan.outputs if output.dtype.startswith(("float", "bool"))]
        return kind if (tensor in scores[:1] if scores else is_first) else None

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        names = tuple(str(name)[:MAX_TEXT] for name in self._declared.labels)
        return names or class_names(self._plan.session.metadata)

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        keys = [key for tensor in self._plan.outputs for key in tensor.keys]
        return Vocabulary(limit=MAX_TEXT_LABELS, min_count=MIN_COUNT, initial_words=[*self._class_names, *keys])

    def _label_table(self, tensor: Tensor, classes: int) -> Sequence[str]:
        names = self._class_names
        is_only = sum(output.dtype.startswith("float") for output in self._plan.outputs) <= 1
        if self._declared.labels and len(names) != classes and is_only:
            self._note("labels", f"{len(names)} given for {classes} classes")
            return [*names[:classes], *(str(index) for index in range(len(names), classes))]
        return label_table(names, tensor.keys, classes)

    def _note(self, subject: str, finding: str, *, is_logged: bool = True) -> None:
        self._findings.note(self.model.name, subject, finding, is_logged=is_logged)


class Decoders:
    """Keeps one decoder a plan, of the latest plans.

    Runs on: one thread at a time.

    Args:
        make: Makes the decoder of a plan.
        on_new: Called with a plan once it has a decoder.
    """

    def __init__(self, make: Callable[[Plan], CallDecoder], *, on_new: Callable[[Plan], None]) -> None:
        self._make = make
        self._on_new = on_new
        self._decoders: dict[Plan, CallDecoder] = {}

    def decode_batch(self, batch: CallBatch) -> Predictions:
        """Decodes a batch of captured calls into predictions."""
        decoder = self._decoders.get(batch.plan)
        if decoder is None:
            if len(self._decoders) >= MAX_DECODERS:
                del self._decoders[next(iter(self._decoders))]
            decoder = self._decoders[batch.plan] = self._make(batch.plan)
            self._on_new(batch.plan)
        return decoder.decode(batch)


def _batch_sizes(tensor: Tensor, items: Items) -> Ints:
    """Returns the rows of each call; 0 if unknown."""
    if isinstance(items, PackedTensor):
        return items.lengths // max(row_bytes(tensor), 1)
    if tensor.layout == "none":
        return np.zeros(len(items), dtype=np.int64)
    size_bytes = max(row_bytes(tensor), 1) if tensor.dtype else 1
    sizes = [
        (item[0][0] if item[0] else 0) if type(item) is tuple else len(item) // size_bytes if item is not None else 0
        for item in items
    ]
    return np.array(sizes, dtype=np.int64)
