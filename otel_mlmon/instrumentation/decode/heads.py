"""Decodes model outputs into classes, and joins a label output and a score output of one classification (a head).

An output belongs to another one because the model's file says so, or because their values do: the label is the class of
the greatest score, row by row. What belongs together, and the names that heads are counted by, are decided at the
first rows and then stay, so that no stream changes its meaning.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import TensorRows
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, read_class_names
from otel_mlmon.instrumentation.decode.predictions import (
    ClassificationHead,
    PredictedLabels,
    PredictionConfidences,
    build_label_table,
    decode_classes,
    decode_multi_labels,
    encode_distinct_texts,
    format_class_label,
    read_output_texts,
)
from otel_mlmon.instrumentation.runtime.call import Item, Plan, Tensor
from otel_mlmon.instrumentation.runtime.model_graph import NO_ORIGIN, OutputOrigin
from otel_mlmon.types import Bools, Floats, Ints, OutputKind
from otel_mlmon.vocabulary import WHOLE_NUMBERS, TextPseudonymizer

MAX_HEADS: Final = 32
"""Heads, and targets of regressions, that are reported of a model; further ones are left out."""

TOLERANCE: Final = 2e-3
"""The amount by which probabilities of a row may exceed a sum of 1."""

Note = Callable[..., None]
"""Takes a subject, a finding, and `is_logged`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification:
    """The classes and confidences that one output predicts for the rows of a batch of inference calls."""

    output: str
    kind: OutputKind
    has_scores: bool = True
    """Whether it holds scores, not classes."""
    labels: PredictedLabels = field(default_factory=PredictedLabels)
    """The class of the greatest score in each row; empty for `top_k`, whose classes are another output."""
    confidences: PredictionConfidences = field(default_factory=PredictionConfidences)
    sizes: Ints
    """Shape (n,): rows of each call, copied or not."""
    decoded: Ints
    """Shape (n,): rows of each call that were decoded."""
    earlier: int = 0
    """Rows that came before the kind of the output was known, and were not counted."""
    width: int = 1
    """Columns of the output."""
    companion: str = ""
    """The output that belongs to this one by the model's file; empty if that is not known."""


class DeclaredOutputs(Protocol):
    """The Protocol of the options by which the developer describes a model's outputs; empty or None if not given."""

    @property
    def output_kind(self) -> object:
        """The declared kind of the model's outputs, one for all or by output, or a function that decodes them."""

    @property
    def labels(self) -> Sequence[str]:
        """The declared names of the model's classes."""


class ClassDecoder:
    """Decodes the outputs of a model session that hold classes, as labels or as scores.

    Runs on: one thread at a time.

    Args:
        plan: What was copied of each call.
        declared: What the developer declared.
        note: Takes what is inferred.
        namer: Names labels as they may leave the process.
    """

    def __init__(self, plan: Plan, declared: DeclaredOutputs, note: Note, namer: TextPseudonymizer) -> None:
        self.namer = namer
        self._plan = plan
        self._declared = declared
        self._note = note
        self._origins = plan.session.graph().outputs
        self._unlikely: set[str] = set()
        """Outputs of `top_k` whose scores are no probabilities."""

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the model's classes, as declared or as in the metadata of its file; empty if unknown."""
        names = tuple(str(name)[:MAX_TEXT] for name in self._declared.labels)
        return names or read_class_names(self._plan.session.metadata)

    def pseudonymize_number_label(self, value: object) -> str:
        """Returns the label of a numeric class, as it may leave the process."""
        return self.namer.pseudonymize_number_label(format_class_label(value, self.class_names))

    def find_output_origin(self, tensor: Tensor) -> OutputOrigin:
        """Returns how an output is computed, according to the model's file."""
        return self._origins.get(tensor.name, NO_ORIGIN)

    def decode_class_rows(
        self, tensor: Tensor, kind: OutputKind, joined: TensorRows, *, earlier: int = 0
    ) -> Classification:
        """Decodes the rows of an output into labels and confidences, by the output's kind.

        Args:
            tensor: The output.
            kind: Its kind.
            joined: The rows.
            earlier: Rows that came before the kind was known.
        """
        rows, calls, count = joined.rows, joined.calls, len(joined.sizes)
        has_scores = kind != "labels" and not (kind == "top_k" and rows.dtype.kind in "iu")
        labels, confidences = PredictedLabels(), PredictionConfidences()
        if not has_scores:
            labels = self._decode_number_labels(tensor, rows[:, 0] if rows.size else rows.ravel(), calls[: len(rows)])
            decoded = labels.calls
        elif kind == "top_k":
            confidences = self._read_best_scores(tensor, rows, calls)
            decoded = calls
        elif kind == "multi_label":
            codes, label_rows, certainties = decode_multi_labels(rows)
            is_finite: Bools = np.asarray(np.isfinite(certainties))
            calls = calls[: len(certainties)]
            table = self.list_class_labels(tensor, rows.shape[1])
            labels = PredictedLabels(codes, calls[label_rows], table, table)
            decoded = calls[is_finite]
            if rows.dtype.kind == "f":  # flags say nothing of how sure they are
                confidences = PredictionConfidences(certainties[is_finite], decoded)
        else:
            codes, likelihoods = decode_classes(kind, rows) if rows.size else (calls[:0], np.zeros(0))
            is_known: Bools = np.asarray(codes >= 0)
            if not is_known.all():
                codes, likelihoods, calls = codes[is_known], likelihoods[is_known], calls[is_known]
            decoded = calls = calls[: len(codes)]
            table = self.list_class_labels(tensor, max(rows.shape[1], 2))
            labels = PredictedLabels(codes, calls, table, table)
            confidences = PredictionConfidences(likelihoods, calls)
        return Classification(
            output=tensor.name,
            kind=kind,
            has_scores=has_scores,
            labels=labels,
            confidences=confidences,
            sizes=joined.sizes,
            decoded=np.bincount(decoded, minlength=count).astype(np.int64),
            earlier=earlier,
            width=rows.shape[1],
            companion=self.find_output_origin(tensor).companion,
        )

    def decode_label_texts(
        self, tensor: Tensor, kind: OutputKind, items: Sequence[Item], sizes: Ints
    ) -> Classification:
        """Decodes an output of strings into labels, with the number of rows of each inference call, shape (n,)."""
        texts, calls = read_output_texts(items, is_ranked=kind == "top_k")
        codes, table = encode_distinct_texts(texts)
        shapes = [item[0] for item in items if type(item) is tuple]
        return Classification(
            output=tensor.name,
            kind=kind,
            has_scores=False,
            labels=PredictedLabels(
                codes, calls, list(map(self.namer.pseudonymize_label, table)), self._list_known_labels(tensor)
            ),
            sizes=sizes,
            decoded=np.bincount(calls, minlength=len(sizes)).astype(np.int64),
            width=shapes[0][-1] if shapes and len(shapes[0]) > 1 else 1,
            companion=self.find_output_origin(tensor).companion,
        )

    def split_regression_targets(self, output: str, rows: Floats, limit: int) -> dict[str, Floats]:
        """Splits the finite numbers of a regression output, shape (m, k), by target; at most `limit` targets."""
        is_finite: Bools = np.asarray(np.isfinite(rows))
        if rows.shape[1] == 1:
            return {output: rows[is_finite]}
        targets = self.class_names if len(self.class_names) == rows.shape[1] else range(rows.shape[1])
        columns = zip(targets, range(min(rows.shape[1], limit)), strict=False)
        return {f"{output}.{target}": rows[is_finite[:, index], index] for target, index in columns}

    def _read_best_scores(self, tensor: Tensor, rows: NDArray[Any], calls: Ints) -> PredictionConfidences:
        """Returns the best score of each row of a top-k output; nothing if the scores are no probabilities."""
        origin = self.find_output_origin(tensor)
        if origin.role == "top_k_scores" and origin.source_role not in {"probabilities", "sigmoid"}:
            return PredictionConfidences()  # the greatest of votes, margins or distances
        values = rows.astype(np.float64)
        is_finite: Bools = np.asarray(np.isfinite(values).all(axis=1))
        values, calls = values[is_finite], calls[is_finite]
        if not values.size:
            return PredictionConfidences()
        slack = max(TOLERANCE, rows.shape[1] / 512 if origin.is_quantised else 0.0)
        is_ordered = bool((np.diff(values, axis=1) <= 0).all())
        if not is_ordered or (values < 0).any() or (values.sum(axis=1) > 1 + slack).any():
            self._unlikely.add(tensor.name)
        return (
            PredictionConfidences()
            if tensor.name in self._unlikely
            else PredictionConfidences(np.minimum(values[:, 0], 1.0), calls)
        )

    def list_class_labels(self, tensor: Tensor, classes: int) -> Sequence[str]:
        """Returns the labels of all classes of an output, in the order of its scores."""
        names = self.class_names
        is_only = sum(output.dtype.startswith("float") for output in self._plan.outputs) <= 1
        if self._declared.labels and len(names) != classes and is_only:
            self._note("labels", f"{len(names)} given for {classes} classes", is_warning=True)
            return [*names[:classes], *(str(index) for index in range(len(names), classes))]
        labels = self.find_output_origin(tensor).labels
        return build_label_table(names, labels if len(labels) == classes else tensor.keys, classes)

    def _list_known_labels(self, tensor: Tensor) -> Sequence[str]:
        """Returns all labels that an output of labels can have, in order; empty if they are unknown."""
        origin = self.find_output_origin(tensor)
        if self.class_names or origin.labels:
            return self.class_names or origin.labels
        return WHOLE_NUMBERS if origin.operator == "ArgMax" else ()

    def _decode_number_labels(self, tensor: Tensor, values: NDArray[Any], calls: Ints) -> PredictedLabels:
        """Returns the labels of numeric classes, shape (m,), with class names where they are known."""
        if values.dtype.kind == "f":
            is_finite = np.isfinite(values)
            values, calls = values[is_finite], calls[is_finite]
        unique, codes = np.unique(values, return_inverse=True)
        table = list(map(self.pseudonymize_number_label, unique.tolist()))
        return PredictedLabels(codes.astype(np.int64), calls, table, self._list_known_labels(tensor))


@dataclass(slots=True)
class _HeadOutputs:
    """Names the outputs that make up one classification (head): its label output and its score output."""

    name: str
    """The output that the head is named after: the first one that had rows."""
    label: str = ""
    scores: str = ""


class ClassificationJoiner:
    """Joins outputs that describe one classification, such as a label and its scores, for one session.

    Runs on: one thread at a time.
    """

    def __init__(self) -> None:
        self._heads: list[_HeadOutputs] = []
        self._repeats: set[str] = set()
        """Outputs of scores that give the classes of another head a second time."""

    def join_outputs(self, classifications: Sequence[Classification]) -> dict[str, ClassificationHead]:
        """Joins the label and score outputs of a batch of inference calls into classifications, by output name."""
        by_output = {part.output: part for part in classifications}
        placed = {name for head in self._heads for name in (head.label, head.scores)} | self._repeats
        added = [part for part in classifications if part.output not in placed and part.sizes.any()]
        for part in sorted(added, key=lambda part: not part.has_scores):
            self._place_output(part, by_output)
        order = {part.output: position for position, part in enumerate(classifications)}
        parts = [(head.name, by_output.get(head.label), by_output.get(head.scores)) for head in self._heads]
        present = [(name, label, scores) for name, label, scores in parts if label is not None or scores is not None]
        present.sort(key=lambda entry: order.get(entry[0], len(order)))
        return {name: _join_label_and_scores(label, scores) for name, label, scores in present}

    def find_first_head(self, sizes: Mapping[str, int]) -> tuple[str, str, str] | None:
        """Returns which outputs make up a model's first classification: its name, its label output, its score output.

        Args:
            sizes: Rows of each output of classes, in the model's order.

        Returns:
            Empty names where there is no head; None if an output with rows belongs to none yet.
        """
        placed = {name for head in self._heads for name in (head.label, head.scores)} | self._repeats
        if any(size and output not in placed for output, size in sizes.items()):
            return None
        order = {output: position for position, output in enumerate(sizes)}
        present = [head for head in self._heads if head.label in order or head.scores in order]
        if not present:
            return "", "", ""
        first = min(present, key=lambda head: order.get(head.name, len(order)))
        return first.name, first.label, first.scores

    def _place_output(self, part: Classification, by_output: Mapping[str, Classification]) -> None:
        """Adds an output to the classification that it belongs to, or to a new one."""
        if part.has_scores and any(_is_repeat(by_output.get(head.scores), part) for head in self._heads if head.scores):
            self._repeats.add(part.output)
            return
        for head in self._heads:
            partner = by_output.get(head.scores if not part.has_scores else head.label)
            is_open = not (head.scores if part.has_scores else head.label)
            if is_open and partner is not None and self._is_pair(part, partner, by_output):
                head.label, head.scores = (head.label, part.output) if part.has_scores else (part.output, head.scores)
                return
        if len(self._heads) < MAX_HEADS:
            members = _HeadOutputs(part.output)
            members.label, members.scores = ("", part.output) if part.has_scores else (part.output, "")
            self._heads.append(members)

    def _is_pair(self, part: Classification, partner: Classification, by_output: Mapping[str, Classification]) -> bool:
        """Returns whether a label output and a score output belong to one classification."""
        for one, other in ((part, partner), (partner, part)):
            if one.companion in by_output:
                return one.companion == other.output
        if "top_k" in {part.kind, partner.kind}:
            return part.kind == partner.kind and part.width == partner.width
        others = [other for other in by_output.values() if other.kind != "top_k" and other.output not in self._repeats]
        if sum(other.has_scores for other in others) == sum(not other.has_scores for other in others) == 1:
            return True
        return _are_labels_paired(part.labels, partner.labels)


def _join_label_and_scores(label: Classification | None, scores: Classification | None) -> ClassificationHead:
    parts = [part for part in (label, scores) if part is not None]
    classes = parts[0]
    if label is not None and scores is not None and scores.decoded.sum() > label.decoded.sum():
        classes = scores if _are_labels_top_scores(label, scores) else label
    decoded = classes.decoded if classes.kind != "top_k" or not classes.has_scores else 0
    uncounted = np.maximum(np.maximum(parts[0].sizes, parts[-1].sizes) - decoded, 0)
    uncounted[0] += classes.earlier
    confidences = scores.confidences if scores is not None else PredictionConfidences()
    return ClassificationHead(labels=classes.labels, confidences=confidences, uncounted=uncounted)


def _are_labels_top_scores(label: Classification, scores: Classification) -> bool:
    """Returns whether each copied label is the class with its row's greatest score.

    Rows of a label are copied at the smallest constant step that gives as many.
    """
    label_ends, score_ends = np.cumsum(label.decoded), np.cumsum(scores.decoded)
    if len(label.labels.codes) != label.decoded.sum() or len(scores.labels.codes) != scores.decoded.sum():
        return False
    for call in np.flatnonzero(label.decoded).tolist():
        size, count = int(scores.decoded[call]), int(label.decoded[call])
        if size != label.sizes[call] or size < count:
            return False
        first = int(score_ends[call]) - size
        codes = scores.labels.codes[first : first + size : -(-size // count)]
        texts = [scores.labels.table[code] for code in codes.tolist()]
        last = int(label_ends[call])
        if texts != [label.labels.table[code] for code in label.labels.codes[last - count : last].tolist()]:
            return False
    return True


def _are_labels_paired(one: PredictedLabels, other: PredictedLabels) -> bool:
    """Returns whether the labels of two outputs correspond one to one, row by row."""
    if not np.array_equal(one.calls, other.calls):
        return False
    pairs = set(zip(one.codes.tolist(), other.codes.tolist(), strict=True))
    return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})


def _is_repeat(first: Classification | None, part: Classification) -> bool:
    """Returns whether two score outputs are the logits and the probabilities of one classification."""
    return (
        first is not None
        and first.width == part.width
        and {first.kind, part.kind} == {"logits", "probabilities"}
        and np.array_equal(first.labels.codes, part.labels.codes)
        and np.array_equal(first.labels.calls, part.labels.calls)
    )


class OutputSeriesNames:
    """Decides under which output name each classification and regression is counted; a model's only one has none.

    Runs on: one thread at a time.

    Args:
        has_several: Whether the model is known to have several; else the first rows decide.
    """

    def __init__(self, *, has_several: bool) -> None:
        self._has_several = has_several
        self._names: dict[str, str] = {}

    def find_series_name(self, output: str) -> str | None:
        """Returns the name under which an output is counted; None if it has none yet."""
        return self._names.get(output)

    def assign_series_names(self, outputs: Sequence[str]) -> Mapping[str, str]:
        """Returns the name under which each output is counted, once given and never changed."""
        is_only = not self._names and not self._has_several and len(outputs) == 1
        for output in outputs:
            self._names.setdefault(output, "" if is_only else output)
        return self._names
