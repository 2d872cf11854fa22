"""Decodes the outputs of a session's inference calls: finds the kind of each, then labels, values or boxes."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import (
    Items,
    SampleSizes,
    TensorRows,
    compute_batch_sizes,
    join_tensor_rows,
    split_copies_by_call,
)
from otel_mlmon.instrumentation.decode.heads import (
    MAX_HEADS,
    ClassDecoder,
    Classification,
    ClassificationJoiner,
    DeclaredOutputs,
    Note,
    OutputSeriesNames,
)
from otel_mlmon.instrumentation.decode.items import DetectedItemDecoder, choose_item_outputs
from otel_mlmon.instrumentation.decode.output_kind import (
    DETECTOR,
    KindDecision,
    OutputFacts,
    are_probabilities,
    are_within_unit_interval,
    compute_vector_norms,
    decide_output_kind,
    is_label_output,
    is_object_detector,
    select_informative_rows,
)
from otel_mlmon.instrumentation.decode.predictions import (
    ClassificationHead,
    DetectedItems,
)
from otel_mlmon.instrumentation.runtime.call import Plan, Tensor
from otel_mlmon.types import Floats, Ints, OutputKind
from otel_mlmon.vocabulary import TextPseudonymizer

TIMED_ONLY: Final = "unknown kind, timed only (set ModelOptions.output_kind)"

MAX_CHECKED_ROWS: Final = 1024
"""Rows of a batch that are checked for a contradiction."""

_NOT_SAMPLES: Final = "not one row a sample, timed only (set ModelOptions.output_kind)"

_VECTORS: Final = frozenset({"probabilities", "logits", "multi_label", "embedding", "top_k"})
"""Kinds of which one row has several columns."""

_HEAD_ROLES: Final = frozenset({
    "probabilities", "log_probabilities", "sigmoid", "class_scores", "label", "top_k_scores", "top_k_labels", "values",
})  # fmt: skip
"""The roles by which a model's file marks an output as a head or as one of two outputs of a head."""


@dataclass(slots=True, kw_only=True)
class DecodedOutputs:
    """Holds the predictions decoded from the outputs of a batch of inference calls."""

    heads: dict[str, ClassificationHead] = field(default_factory=dict)
    values: dict[str, Floats] = field(default_factory=dict)
    items: dict[str, DetectedItems] = field(default_factory=dict)
    sizes: Ints
    """Shape (n,): rows of each call by the first output that has one a sample; 0 if unknown."""


class OutputKindEvidence:
    """Decides of which kind one output is from the rows of its first calls, and whether later rows contradict that.

    The first rows that contradict what was assumed of it make it timed only: what was counted before must not be mixed
    with what would be counted after.

    Runs on: one thread at a time.

    Args:
        facts: What is known of the output.
        settled: What the developer or all outputs together say, which is never revised; None to decide by the rows.
    """

    def __init__(self, facts: OutputFacts, *, settled: KindDecision | None = None) -> None:
        self.decision: KindDecision = settled or KindDecision(None, "no row shows its kind yet")
        self.facts = facts
        self.width = 0
        """Columns of the rows that showed the kind."""
        self._is_settled = settled is not None
        self._informative_rows = 0

    @property
    def kind(self) -> OutputKind | None:
        """The kind of the output, such as `probabilities`; None while no row has shown it."""
        return self.decision.kind

    def update_kind(self, rows: NDArray[Any]) -> OutputKind | None:
        """Returns the kind of the output after further rows, shape (m, k); None while no row has shown it."""
        if self._is_settled or self.kind == "none":
            return self.kind
        if self.kind is None:
            self._informative_rows += len(select_informative_rows(rows)) if rows.dtype.kind == "f" else len(rows)
            self.width = rows.shape[1]
            self.decision = decide_output_kind(self.facts, rows, row_count=self._informative_rows)
        elif self.is_contradicted(rows):
            self.decision = KindDecision("none", f"rows contradict {self.kind}", is_certain=False)
        return self.kind

    def is_contradicted(self, rows: NDArray[Any]) -> bool:
        """Returns whether rows, shape (m, k), cannot be of the kind that was decided on."""
        if rows.shape[1] != self.width:
            return True  # a sequence: no other kind would fit it
        if rows.dtype.kind != "f" or self.kind not in {"sigmoid", "multi_label", "probabilities"}:
            return False
        checked = rows[:: -(-len(rows) // MAX_CHECKED_ROWS)].astype(np.float64)
        if self.kind != "probabilities" or self.facts.origin.role == "probabilities":
            return not are_within_unit_interval(checked)
        checked = select_informative_rows(checked)
        return bool(checked.size) and not are_probabilities(checked, self.facts.compute_sum_tolerance(self.width))


class OutputDecoder:
    """Decodes the outputs of the inference calls of one session into predictions.

    Runs on: one thread at a time.

    Args:
        plan: What was copied of each call.
        declared: What the developer declared.
        note: Takes what is inferred.
        namer: Names labels as they may leave the process.
        report: Takes the name of an output and its kind with the reason, whenever that changes.
    """

    def __init__(
        self,
        plan: Plan,
        declared: DeclaredOutputs,
        note: Note,
        namer: TextPseudonymizer,
        report: Callable[[str, KindDecision], object] = lambda _, __: None,
    ) -> None:
        self._plan = plan
        self._declared = declared
        self._note = note
        self._report = report
        self._evidence: dict[int, OutputKindEvidence] = {}
        self._noted: dict[int, str] = {}
        self._counted: dict[int, OutputKind] = {}
        """The kind by which each output was first counted."""
        self._overrides: dict[int, OutputKind] = {}
        """The kind of outputs of which rows have shown that the first one was wrong."""
        self.is_folded: dict[int, bool] = {}
        """Whether an output of one axis is one row a call, by position, once rows have shown it."""
        self._waiting: Counter[int] = Counter()
        """Rows that came before the kind of their output was known."""
        self._item_decoders: dict[int, DetectedItemDecoder] = {}
        self.heads = ClassificationJoiner()
        self.batches = 0
        """Batches decoded: what is known of the outputs changes only with them."""
        self.classes = ClassDecoder(plan, declared, note, namer)
        for position, kind in self._declared_kinds.items():
            report(plan.outputs[position].name, KindDecision(kind, "declared"))

    def decode_outputs(self, outputs: Sequence[Items], samples: SampleSizes, calls: int) -> DecodedOutputs:
        """Decodes the copied outputs of a batch of inference calls into labels, confidences, values and boxes."""
        self.batches += 1
        decoded = DecodedOutputs(sizes=np.zeros(calls, dtype=np.int64))
        parts: list[Classification] = []
        values: dict[str, Floats] = {}
        for position, (tensor, items) in enumerate(zip(self._plan.outputs, outputs, strict=True)):
            if tensor.layout == "text":
                self._decode_texts(position, tensor, items, samples, parts)
            else:
                self._decode_rows(position, tensor, items, samples, decoded, parts, values)
        heads = self.heads.join_outputs(parts)
        # Outputs of classes come first: they say what a sample is, wherever they stand.
        for part in sorted(parts, key=lambda part: part.has_scores):
            decoded.sizes = np.where(decoded.sizes > 0, decoded.sizes, part.sizes)
        limited = list(values)[:MAX_HEADS]
        names = self.series_names.assign_series_names([*heads, *limited])
        decoded.heads = {names[output]: head for output, head in heads.items()}
        decoded.values |= {names[output]: values[output] for output in limited}
        return decoded

    def find_output_kind(self, position: int) -> tuple[OutputKind | None, OutputKindEvidence | None]:
        """Returns the kind of an output, None while undecided, and the evidence that may still change it."""
        kind = self._declared_kinds.get(position) or self._overrides.get(position)
        evidence = self._evidence.get(position)
        if kind is not None or evidence is None:
            return kind, None
        return evidence.kind, evidence

    def _decode_rows(
        self,
        position: int,
        tensor: Tensor,
        items: Items,
        samples: SampleSizes,
        decoded: DecodedOutputs,
        parts: list[Classification],
        values: dict[str, Floats],
    ) -> None:
        kind = self._declared_kinds.get(position) or self._overrides.get(position)
        joined = None
        if kind is None and tensor.layout != "items":
            joined = self._fold_vectors(position, tensor, self._join_output_rows(tensor, items), samples)
            kind = self._infer_output_kind(position, tensor, joined, samples)
        if kind in {"detection", "sequence"}:
            self._decode_items(position, tensor, kind, items, decoded)
            return
        if kind == "none":
            return
        if tensor.layout == "items":
            word = f"{kind} does not fit its three axes, timed only" if kind else TIMED_ONLY
            self._report_output_kind(position, word, KindDecision("none", word if kind else "three axes or more"))
            return
        joined = joined or self._fold_vectors(position, tensor, self._join_output_rows(tensor, items), samples)
        if kind is None:
            self._waiting[position] += int(joined.sizes.sum())
            return
        self._counted.setdefault(position, kind)
        if kind == "regression":
            values |= self.classes.split_regression_targets(tensor.name, joined.rows.astype(np.float64), MAX_HEADS)
        elif kind == "embedding":
            norms = compute_vector_norms(joined.rows.astype(np.float64))
            decoded.values[f"{tensor.name}.norm"] = norms[np.isfinite(norms)]
        else:
            earlier = self._waiting.pop(position, 0)
            parts.append(self.classes.decode_class_rows(tensor, kind, joined, earlier=earlier))
            return
        decoded.sizes = np.where(decoded.sizes > 0, decoded.sizes, joined.sizes)

    def _decode_items(
        self, position: int, tensor: Tensor, kind: OutputKind, items: Items, decoded: DecodedOutputs
    ) -> None:
        self._counted.setdefault(position, kind)
        decoder = self._item_decoders.get(position)
        if decoder is None:
            decoder = DetectedItemDecoder(
                tensor, kind, is_quantised=self.classes.find_output_origin(tensor).is_quantised
            )
            self._item_decoders[position] = decoder
        if kind == "sequence" or position in self._find_detection_outputs():
            decoded.items[tensor.name] = decoder.decode_items(items)

    def _find_detection_outputs(self) -> set[int]:
        """Returns which outputs of an object detector its boxes are counted by, each box once."""
        kinds = {**self._overrides, **self._declared_kinds}
        positions = [position for position, kind in kinds.items() if kind == "detection"]
        return choose_item_outputs({position: self._plan.outputs[position] for position in positions})

    def _decode_texts(
        self, position: int, tensor: Tensor, items: Items, samples: SampleSizes, parts: list[Classification]
    ) -> None:
        kind = self._declared_kinds.get(position) or self._overrides.get(position)
        sizes = compute_batch_sizes(tensor, items)
        if kind is None and samples.has_row_per_sample(sizes) is False:
            kind = self._overrides[position] = "none"
            self._report_output_kind(position, _NOT_SAMPLES, KindDecision("none", _NOT_SAMPLES))
        if kind is None and position not in self._noted:
            self._noted[position] = ""
            self._report(tensor.name, KindDecision("labels", "texts, one a row"))
        if kind in {None, "labels", "top_k"}:
            parts.append(self.classes.decode_label_texts(tensor, kind or "labels", split_copies_by_call(items), sizes))

    def _infer_output_kind(
        self, position: int, tensor: Tensor, joined: TensorRows, samples: SampleSizes
    ) -> OutputKind | None:
        if not joined.rows.size:
            return self._counted.get(position)
        evidence = self._evidence.get(position)
        if evidence is None:
            evidence = self._evidence[position] = self._start_kind_evidence(tensor)
        kind = evidence.update_kind(joined.rows)
        counted = self._counted.get(position, kind)
        word: str = TIMED_ONLY if kind == "none" else kind or "waiting for rows that show its kind"
        if kind != counted:
            # Counts of two kinds under one name would look like drift.
            word = f"rows contradict {counted}, timed only from here on (set ModelOptions.output_kind)"
            kind = self._overrides[position] = "none"
        elif kind not in {None, "none"} and samples.has_row_per_sample(joined.sizes) is False:
            is_sequence = kind == "probabilities" and joined.rows.shape[1] > 1 and position not in self._counted
            kind = self._overrides[position] = "sequence" if is_sequence else "none"
            word = "several rows a sample that sum to 1, taken for a sequence" if is_sequence else _NOT_SAMPLES
        decision = evidence.decision
        reason = decision.reason if kind == decision.kind and position not in self._overrides else word
        assumption = "" if decision.is_certain or kind is None else decision.reason
        self._report_output_kind(position, word, KindDecision(kind, reason), assumption=assumption)
        return kind

    def _report_output_kind(self, position: int, word: str, decision: KindDecision, *, assumption: str = "") -> None:
        """Records of which kind an output was found to be, and logs it if that was not expected."""
        if self._noted.get(position) != word:
            self._noted[position] = word
            is_logged = position in self._overrides or self._is_timed_only()
            output = self._plan.outputs[position].name
            self._report(output, decision)
            self._note(f"output {output}", word, is_logged=is_logged, assumption=assumption, output=output)

    def _is_timed_only(self) -> bool:
        kinds = [evidence.kind for evidence in self._evidence.values()]
        kinds += ["none" for tensor in self._plan.outputs if tensor.layout == "items"]
        return len(kinds) == len(self._plan.outputs) and set(kinds) == {"none"}

    def _start_kind_evidence(self, tensor: Tensor) -> OutputKindEvidence:
        outputs = self._plan.outputs
        is_detector = is_object_detector([*self._plan.output_names, *(output.name for output in outputs)])
        has_labels = any(
            is_label_output(output) and not self.classes.find_output_origin(output).is_quantised
            for output in outputs
            if output is not tensor
        )
        facts = OutputFacts(
            tensor=tensor,
            class_names=self.classes.class_names,
            has_labels=has_labels,
            origin=self.classes.find_output_origin(tensor),
            producer=self._plan.session.graph().producer,
            is_only=len(self._plan.output_names or outputs) == 1,
        )
        return OutputKindEvidence(facts, settled=DETECTOR if is_detector else None)

    def _join_output_rows(self, tensor: Tensor, items: Items) -> TensorRows:
        """Joins the copied rows of an output, and converts quantised integers to the numbers they stand for."""
        joined, origin = join_tensor_rows(tensor, items), self.classes.find_output_origin(tensor)
        if origin.scale == 1.0:
            return joined
        return dataclasses.replace(joined, rows=(joined.rows.astype(np.float64) - origin.zero_point) * origin.scale)

    def _fold_vectors(self, position: int, tensor: Tensor, joined: TensorRows, samples: SampleSizes) -> TensorRows:
        """Reads an output with one axis as one vector a call, where it does not hold one number a sample."""
        if tensor.row_shape != () or not joined.rows.size:
            return joined
        sizes = joined.sizes[joined.sizes > 0]
        width = int(sizes[0]) if len(sizes) else 0
        is_even = len(joined.rows) == sizes.sum() and bool((sizes == width).all())
        if position not in self.is_folded:
            self.is_folded[position] = (
                is_even
                and width > 1
                and self._is_vector_output(position, joined.rows.reshape(-1, width), samples, joined.sizes)
            )
        if not self.is_folded[position]:
            return joined
        rows = joined.rows.reshape(-1, width) if is_even else joined.rows[:0].reshape(0, max(width, 1))
        calls = np.flatnonzero(joined.sizes > 0)
        return TensorRows(rows=rows, calls=calls[: len(rows)], sizes=np.minimum(joined.sizes, 1))

    def _is_vector_output(self, position: int, rows: NDArray[Any], samples: SampleSizes, sizes: Ints) -> bool:
        kind = self._declared_kinds.get(position)
        if kind is not None:
            has_no_columns = kind in {"probabilities", "embedding"}  # a single number is neither
            return kind in _VECTORS and (has_no_columns or samples.has_row_per_sample(sizes) is not True)
        values = rows.astype(np.float64)
        return bool(rows.dtype.kind == "f" and (values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 2e-3).all())

    @functools.cached_property
    def _declared_kinds(self) -> dict[int, OutputKind]:
        """The kinds that the developer has declared, by position of the output."""
        kind: Any = self._declared.output_kind
        outputs = list(enumerate(self._plan.outputs))
        if kind is None or callable(kind):
            return {}
        if isinstance(kind, Mapping):
            kinds = {position: kind[tensor.name] for position, tensor in outputs if tensor.name in kind}
        else:
            scores = [position for position, tensor in outputs if tensor.dtype.startswith(("float", "bool"))]
            kinds = {(scores or [0])[0]: kind} if outputs else {}
        ranked = [self._plan.outputs[position] for position, kind in kinds.items() if kind == "top_k"]
        for position, tensor in outputs:
            is_ranked = any(tensor.row_shape == other.row_shape for other in ranked)
            if position not in kinds and (tensor.layout == "text" or "int" in tensor.dtype) and is_ranked:
                kinds[position] = "top_k"
        return kinds

    @functools.cached_property
    def series_names(self) -> OutputSeriesNames:
        """The names under which the classifications and regressions of this model are counted."""
        origins = self._plan.session.graph().outputs
        heads = {
            frozenset({name, origin.companion} - {""})
            for name, origin in origins.items()
            if origin.role in _HEAD_ROLES and (origin.rank or 0) <= 2
        }
        return OutputSeriesNames(has_several=len(heads) > 1)
