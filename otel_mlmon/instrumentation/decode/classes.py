"""Decodes the rows of one output into classes: labels by name, and confidences."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import TensorRows
from otel_mlmon.instrumentation.decode.heads import Classification
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, class_names
from otel_mlmon.instrumentation.decode.predictions import (
    Confidences,
    Labels,
    decode_classes,
    decode_multi_labels,
    encode_texts,
    label_of,
    label_table,
    texts_of,
)
from otel_mlmon.instrumentation.decode.vocabulary import TextNamer
from otel_mlmon.instrumentation.runtime.call import Item, Plan, Tensor
from otel_mlmon.instrumentation.runtime.model_graph import NO_ORIGIN
from otel_mlmon.types import Bools, Floats, Ints, OutputKind

TOLERANCE: Final = 2e-3
"""The amount by which probabilities of a row may exceed a sum of 1."""

Note = Callable[..., None]
"""Takes a subject, a finding, and `is_logged`."""


class DeclaredOutputs(Protocol):
    """The Protocol of what the developer declared of a model's outputs; empty or None where nothing was declared."""

    @property
    def output_kind(self) -> object:
        """The kind of the output of the scores, or of each output by name, or a function that reads them."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names."""


class ClassDecoder:
    """Decodes the outputs of one plan that hold classes.

    Runs on: one thread at a time.

    Args:
        plan: What was copied of each call.
        declared: What the developer declared.
        note: Takes what is inferred.
        namer: Names labels as they may leave the process.
    """

    def __init__(self, plan: Plan, declared: DeclaredOutputs, note: Note, namer: TextNamer) -> None:
        self._namer = namer
        self._plan = plan
        self._declared = declared
        self._note = note
        self._unlikely: set[str] = set()
        """Outputs of `top_k` whose scores are no probabilities."""

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that are declared, or in the model's metadata."""
        names = tuple(str(name)[:MAX_TEXT] for name in self._declared.labels)
        return names or class_names(self._plan.session.metadata)

    def decode(self, tensor: Tensor, kind: OutputKind, joined: TensorRows, *, earlier: int = 0) -> Classification:
        """Decodes rows of `labels`, `top_k`, `multi_label`, or scores of classes.

        Args:
            tensor: The output.
            kind: Its kind.
            joined: The rows.
            earlier: Rows that came before the kind was known.
        """
        rows, calls, count = joined.rows, joined.calls, len(joined.sizes)
        has_scores = kind != "labels" and not (kind == "top_k" and rows.dtype.kind in "iu")
        labels, confidences = Labels(), Confidences()
        if not has_scores:
            labels = self._number_labels(rows[:, 0] if rows.size else rows.ravel(), calls[: len(rows)])
            decoded = labels.calls
        elif kind == "top_k":
            confidences = self._best_scores(tensor, rows, calls)
            decoded = calls
        elif kind == "multi_label":
            codes, label_rows, certainties = decode_multi_labels(rows)
            is_finite: Bools = np.asarray(np.isfinite(certainties))
            calls = calls[: len(certainties)]
            confidences = Confidences(certainties[is_finite], calls[is_finite])
            labels = Labels(codes, calls[label_rows], self._label_table(tensor, rows.shape[1]))
            decoded = confidences.calls
        else:
            codes, likelihoods = decode_classes(kind, rows) if rows.size else (calls[:0], np.zeros(0))
            is_known: Bools = np.asarray(codes >= 0)
            if not is_known.all():
                codes, likelihoods, calls = codes[is_known], likelihoods[is_known], calls[is_known]
            decoded = calls = calls[: len(codes)]
            labels = Labels(codes, calls, self._label_table(tensor, max(rows.shape[1], 2)))
            confidences = Confidences(likelihoods, calls)
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
            companion=self._plan.session.graph().outputs.get(tensor.name, NO_ORIGIN).companion,
        )

    def decode_texts(self, tensor: Tensor, kind: OutputKind, items: Sequence[Item], sizes: Ints) -> Classification:
        """Decodes strings of `labels` or `top_k`; `sizes`, shape (n,), are the rows of each call."""
        texts, calls = texts_of(items, is_ranked=kind == "top_k")
        codes, table = encode_texts(texts)
        shapes = [item[0] for item in items if type(item) is tuple]
        return Classification(
            output=tensor.name,
            kind=kind,
            has_scores=False,
            labels=Labels(codes, calls, list(map(self._namer.name_label, table))),
            sizes=sizes,
            decoded=np.bincount(calls, minlength=len(sizes)).astype(np.int64),
            width=shapes[0][-1] if shapes and len(shapes[0]) > 1 else 1,
            companion=self._plan.session.graph().outputs.get(tensor.name, NO_ORIGIN).companion,
        )

    def decode_values(self, output: str, rows: Floats, limit: int) -> dict[str, Floats]:
        """Decodes the finite numbers of a regression, shape (m, k), by target; at most `limit` targets."""
        is_finite: Bools = np.asarray(np.isfinite(rows))
        if rows.shape[1] == 1:
            return {output: rows[is_finite]}
        targets = self.class_names if len(self.class_names) == rows.shape[1] else range(rows.shape[1])
        columns = zip(targets, range(min(rows.shape[1], limit)), strict=False)
        return {f"{output}.{target}": rows[is_finite[:, index], index] for target, index in columns}

    def _best_scores(self, tensor: Tensor, rows: NDArray[Any], calls: Ints) -> Confidences:
        """Returns the first score of each row, as long as all may be probabilities of different classes."""
        values = rows.astype(np.float64)
        is_finite: Bools = np.asarray(np.isfinite(values).all(axis=1))
        values, calls = values[is_finite], calls[is_finite]
        if not values.size:
            return Confidences()
        is_quantised = self._plan.session.graph().outputs.get(tensor.name, NO_ORIGIN).is_quantised
        slack = max(TOLERANCE, rows.shape[1] / 512 if is_quantised else 0.0)
        is_ordered = bool((np.diff(values, axis=1) <= 0).all())
        if not is_ordered or (values < 0).any() or (values.sum(axis=1) > 1 + slack).any():
            self._unlikely.add(tensor.name)
        return Confidences() if tensor.name in self._unlikely else Confidences(np.minimum(values[:, 0], 1.0), calls)

    def _label_table(self, tensor: Tensor, classes: int) -> Sequence[str]:
        names = self.class_names
        is_only = sum(output.dtype.startswith("float") for output in self._plan.outputs) <= 1
        if self._declared.labels and len(names) != classes and is_only:
            self._note("labels", f"{len(names)} given for {classes} classes")
            return [*names[:classes], *(str(index) for index in range(len(names), classes))]
        labels = self._plan.session.graph().outputs.get(tensor.name, NO_ORIGIN).labels
        return label_table(names, labels if len(labels) == classes else tensor.keys, classes)

    def _number_labels(self, values: NDArray[Any], calls: Ints) -> Labels:
        """Returns labels that are numbers, shape (m,); one that is a position in the class names has that name."""
        if values.dtype.kind == "f":
            is_finite = np.isfinite(values)
            values, calls = values[is_finite], calls[is_finite]
        unique, codes = np.unique(values, return_inverse=True)
        table = [self._namer.name_number_label(label_of(value, self.class_names)) for value in unique.tolist()]
        return Labels(codes.astype(np.int64), calls, table)
