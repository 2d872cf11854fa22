"""What the outputs of a batch of calls say together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT
from otel_mlmon.instrumentation.decode.output_kind import Tags, classify, norms
from otel_mlmon.instrumentation.decode.predictions import Confidences, Labels
from otel_mlmon.instrumentation.runtime.call import Item
from otel_mlmon.types import Floats, Ints, OutputKind

MAX_TARGETS: Final = 32
"""Columns of a regression output that are told apart."""


class Reading:
    """The first output that knows labels, confidences or sizes is heard; further ones add values of their own.

    Args:
        calls: How many calls there are.
    """

    def __init__(self, calls: int) -> None:
        self.sizes: Ints = np.zeros(calls, dtype=np.int64)
        self.labels: Labels | None = None
        self.confidences: Confidences | None = None
        self.values: dict[str, Floats] = {}
        self._head: tuple[OutputKind, int] | None = None

    def size(self, sizes: Ints) -> None:
        """The rows of each call, where they were not known."""
        self.sizes = np.where(self.sizes > 0, self.sizes, sizes) if self.sizes.any() else sizes

    def add_labels(self, codes: Ints, calls: Ints, table: Sequence[str]) -> None:
        """Labels, positions in `table`."""
        self.labels = self.labels or Labels(codes, calls, table)

    def add_numbers(self, values: NDArray[Any], calls: Ints, names: Sequence[str]) -> None:
        """Labels that are numbers, shape (m,); those that count the names from 0 are called so."""
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            values, calls = values[finite], calls[finite]
        unique, codes = np.unique(values, return_inverse=True)
        self.add_labels(codes.astype(np.int64), calls, [label_of(value, names) for value in unique.tolist()])

    def add_classes(self, kind: OutputKind, name: str, rows: NDArray[Any], calls: Ints, table: Sequence[str]) -> None:
        """Classes of probability: the prediction itself, or of a further output `<name>.confidence`."""
        if self.confidences is not None:
            self._add_further(kind, name, rows)
            return
        classes = classify(kind, rows)
        self._head = (kind, rows.shape[1])
        codes, confidences = classes.codes, classes.confidences
        known = codes >= 0
        if not known.all():
            codes, confidences, calls = codes[known], confidences[known], calls[known]
        self.confidences = Confidences(confidences, calls)
        self.add_labels(codes, calls, table)

    def add_tags(self, name: str, tags: Tags, calls: Ints, table: Sequence[str]) -> None:
        """Independent labels: the prediction itself, or of a further output `<name>.confidence`."""
        known: NDArray[np.bool_] = np.asarray(np.isfinite(tags.confidences))
        if self.confidences is not None:
            self.values[f"{name}.confidence"] = tags.confidences[known]
            return
        self.confidences = Confidences(tags.confidences[known], calls[known])
        self.add_labels(tags.codes, calls[tags.rows], table)

    def add_values(self, name: str, rows: Floats, targets: Sequence[str]) -> None:
        """Numbers, shape (m, k): one value a target."""
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(rows))
        if rows.shape[1] == 1:
            self.values[name] = rows[finite]
            return
        for index in range(min(rows.shape[1], MAX_TARGETS)):
            target = targets[index] if len(targets) == rows.shape[1] else str(index)
            self.values[f"{name}.{target}"] = rows[finite[:, index], index]

    def add_norms(self, name: str, rows: Floats) -> None:
        """Lengths of vectors, shape (m, k)."""
        self.values[f"{name}.norm"] = norms(rows)

    def _add_further(self, kind: OutputKind, name: str, rows: NDArray[Any]) -> None:
        # Logits beside the probabilities that they make are one prediction, told twice.
        if self._head is None or (
            self._head[1] == rows.shape[1] and {kind, self._head[0]} == {"logits", "probabilities"}
        ):
            return
        confidences = classify(kind, rows).confidences
        self.values[f"{name}.confidence"] = confidences[np.isfinite(confidences)]


def label_of(value: object, names: Sequence[str]) -> str:
    """The label that a number stands for: its name where it counts the names, else its digits."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return f"{value:g}" if isinstance(value, float) else str(value)[:MAX_TEXT]


def table_of(names: Sequence[str], keys: Sequence[str], classes: int) -> Sequence[str]:
    """The labels of `classes` scores: names or a dictionary's keys where they are as many, else numbers."""
    if len(names) == classes:
        return names
    return keys if len(keys) == classes else [str(index) for index in range(classes)]


def said_names(names: Sequence[str], classes: int) -> list[str]:
    """The developer's names made to fit `classes` scores: what is too much is left, what lacks is a number."""
    return [*names[:classes], *(str(index) for index in range(len(names), classes))]


def texts_of(items: Sequence[Item]) -> tuple[list[str], Ints]:
    """The strings of an output, and the call of each."""
    found = [item[1] if type(item) is tuple else () for item in items]
    texts = [str(text)[:MAX_TEXT] for text in itertools.chain.from_iterable(found)]
    return texts, np.repeat(np.arange(len(found), dtype=np.int64), list(map(len, found)))


def coded(texts: Sequence[str]) -> tuple[Ints, list[str]]:
    """Strings as positions in a table of them."""
    table: dict[str, int] = {}
    codes = [table.setdefault(text, len(table)) for text in texts]
    return np.array(codes, dtype=np.int64), list(table)
