"""OUT Predictions: what a batch of calls of one session predicted, as columns; and how rows of outputs become them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, ModelIdentity
from otel_mlmon.instrumentation.decode.output_kind import vector_norms
from otel_mlmon.instrumentation.runtime.call import Item
from otel_mlmon.types import Bools, Floats, Ints, OutputKind

MAX_TARGETS: Final = 32
"""Columns of a regression output that are exported one by one; further ones are left out."""

_BLOCK_VALUES: Final = 1 << 16
"""Numbers that are classified at a time: with what is computed from them, they stay in a core's cache."""

_MAX_NARROW: Final = 32
"""Up to so many classes one column after the other: numpy's reductions along a short last axis take ten times as
long."""

_NO_INTS: Final[Ints] = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Final[Floats] = np.zeros(0)


class Labels(NamedTuple):
    """Holds m labels: one a row, or of independent labels none or several a row, the most probable first."""

    codes: Ints = _NO_INTS
    """Shape (m,): positions in `table`, 0 or above."""
    calls: Ints = _NO_INTS
    """Shape (m,): the call of each row, not decreasing."""
    table: Sequence[str] = ()


class Confidences(NamedTuple):
    """Holds the confidences of k rows, finite."""

    values: Floats = _NO_FLOATS
    """Shape (k,), within [0, 1]."""
    calls: Ints = _NO_INTS


@dataclass(slots=True, kw_only=True)
class InputSummary:
    """Holds the features of the inputs of a batch of calls, or of several batches."""

    features: dict[str, Floats] = field(default_factory=dict)
    """Finite values by feature."""
    missing: dict[str, int] = field(default_factory=dict)
    """Number of values that are missing, by feature."""
    categories: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """Number of values by category, by feature."""
    samples: int = 0
    """Rows profiled; of several inputs, those of the one with the most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Holds what n calls of one session predicted, in the order of the queue."""

    model: ModelIdentity
    operation: str
    started_ns: Ints
    """Start of each call on the clock of `time.perf_counter_ns`, shape (n,)."""
    duration_ns: Ints
    """Duration of each call, 0 or above; 0 if it was not measured; shape (n,)."""
    contexts: Sequence[object]
    """The OpenTelemetry context of each call."""
    errors: Sequence[str | None]
    """The class of each call's exception."""
    batch_sizes: Ints
    """Shape (n,): true rows of each call; 0 if unknown."""
    labels: Labels = field(default_factory=Labels)
    confidences: Confidences = field(default_factory=Confidences)
    values: Mapping[str, Floats] = field(default_factory=dict)
    """Finite values by output: of a regression, `<output>.norm` of an embedding, `<output>.confidence` of a further
    classification; of several targets `<output>.<target>`."""
    inputs: InputSummary = field(default_factory=InputSummary)


class PredictionBuilder:
    """Joins the outputs of a batch of calls: the first output that has labels, confidences or sizes defines them.

    Further outputs add values of their own.

    Args:
        calls: The number of calls.
    """

    def __init__(self, calls: int) -> None:
        self.sizes: Ints = np.zeros(calls, dtype=np.int64)
        self.labels: Labels | None = None
        self.confidences: Confidences | None = None
        self.values: dict[str, Floats] = {}
        self._head: tuple[OutputKind, int] | None = None

    def add_sizes(self, sizes: Ints) -> None:
        """Adds the rows of each call, where they are not known yet."""
        self.sizes = np.where(self.sizes > 0, self.sizes, sizes) if self.sizes.any() else sizes

    def add_labels(self, codes: Ints, calls: Ints, table: Sequence[str]) -> None:
        """Adds labels, positions in `table`."""
        self.labels = self.labels or Labels(codes, calls, table)

    def add_numeric_labels(self, values: NDArray[Any], calls: Ints, names: Sequence[str]) -> None:
        """Adds labels that are numbers, shape (m,); one that is a position in `names` has that name."""
        if values.dtype.kind == "f":
            is_finite = np.isfinite(values)
            values, calls = values[is_finite], calls[is_finite]
        unique, codes = np.unique(values, return_inverse=True)
        self.add_labels(codes.astype(np.int64), calls, [label_of(value, names) for value in unique.tolist()])

    def add_classes(self, kind: OutputKind, name: str, rows: NDArray[Any], calls: Ints, table: Sequence[str]) -> None:
        """Adds `probabilities`, `logits` or a single `sigmoid`: as the prediction, or else as `<name>.confidence`."""
        if self.confidences is not None:
            self._add_further_classes(kind, name, rows)
            return
        codes, confidences = decode_classes(kind, rows)
        self._head = (kind, rows.shape[1])
        is_known = codes >= 0
        if not is_known.all():
            codes, confidences, calls = codes[is_known], confidences[is_known], calls[is_known]
        self.confidences = Confidences(confidences, calls)
        self.add_labels(codes, calls, table)

    def add_multi_labels(self, name: str, rows: NDArray[Any], calls: Ints, table: Sequence[str]) -> None:
        """Adds independent probabilities: as the prediction, or else as `<name>.confidence`."""
        codes, label_rows, confidences = decode_multi_labels(rows)
        is_known: Bools = np.asarray(np.isfinite(confidences))
        if self.confidences is not None:
            self.values[f"{name}.confidence"] = confidences[is_known]
            return
        self.confidences = Confidences(confidences[is_known], calls[is_known])
        self.add_labels(codes, calls[label_rows], table)

    def add_values(self, name: str, rows: Floats, targets: Sequence[str]) -> None:
        """Adds the numbers of a regression, shape (m, k): one value a target."""
        is_finite: Bools = np.asarray(np.isfinite(rows))
        if rows.shape[1] == 1:
            self.values[name] = rows[is_finite]
            return
        for index in range(min(rows.shape[1], MAX_TARGETS)):
            target = targets[index] if len(targets) == rows.shape[1] else str(index)
            self.values[f"{name}.{target}"] = rows[is_finite[:, index], index]

    def add_norms(self, name: str, rows: Floats) -> None:
        """Adds the norms of embeddings, shape (m, k), that are finite."""
        norms = vector_norms(rows)
        self.values[f"{name}.norm"] = norms[np.isfinite(norms)]

    def _add_further_classes(self, kind: OutputKind, name: str, rows: NDArray[Any]) -> None:
        # Logits beside the probabilities computed from them are the same prediction a second time.
        if self._head is None or (
            self._head[1] == rows.shape[1] and {kind, self._head[0]} == {"logits", "probabilities"}
        ):
            return
        _, confidences = decode_classes(kind, rows)
        self.values[f"{name}.confidence"] = confidences[np.isfinite(confidences)]


def decode_classes(kind: OutputKind, rows: NDArray[Any]) -> tuple[Ints, Floats]:
    """Decodes rows, shape (m, k), of `probabilities`, `logits` or a single `sigmoid`.

    Of logits, the confidence is the largest value of their softmax, 1 / Σ exp(x - max x). Of a single probability p it
    is max(p, 1 - p), the label 1 from p = 0.5 on; a single logit is the logarithm of its odds.

    Returns:
        The class of each row, -1 where a number is missing; its probability within [0, 1], NaN with -1.
    """
    size = max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    blocks = [_decode_block(kind, rows[first : first + size]) for first in range(0, len(rows), size)]
    if len(blocks) == 1:
        return blocks[0]
    codes, confidences = zip(*blocks, strict=True)
    return np.concatenate(codes), np.concatenate(confidences)


def decode_multi_labels(rows: NDArray[Any]) -> tuple[Ints, Ints, Floats]:
    """Decodes rows, shape (m, k), of independent probabilities.

    A row has all labels of a probability above 0.5. Its confidence is the mean certainty: of max(p, 1 - p) over all
    labels, since a label that is surely absent is as sure as one that is surely there.

    Returns:
        The labels; the row of each, not decreasing, and within a row the most probable first; the confidence of each
        row, NaN where a number is missing.
    """
    is_finite: Bools = np.asarray(np.isfinite(rows).all(axis=1))
    values = rows.astype(np.float64) if is_finite.all() else np.where(is_finite[:, None], rows, 0.0).astype(np.float64)
    np.clip(values, 0.0, 1.0, out=values)
    label_rows, codes = np.nonzero(values > 0.5)
    # One key, the row plus what the probability lacks to 1, sorts six times as fast as two.
    order = np.argsort(label_rows + (1 - values[label_rows, codes]), kind="stable")
    certainty = np.maximum(values, 1 - values).mean(axis=1)
    return codes[order], label_rows[order], np.where(is_finite, certainty, np.nan)


def label_of(value: object, names: Sequence[str]) -> str:
    """Returns the label of a number: its name if it is a position in `names`, else its digits."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return f"{value:g}" if isinstance(value, float) else str(value)[:MAX_TEXT]


def label_table(names: Sequence[str], keys: Sequence[str], classes: int) -> Sequence[str]:
    """Returns the labels of `classes` scores: names or a dictionary's keys where they are as many, else numbers."""
    if len(names) == classes:
        return names
    return keys if len(keys) == classes else [str(index) for index in range(classes)]


def texts_of(items: Sequence[Item]) -> tuple[list[str], Ints]:
    """Returns the strings of an output, and the call of each."""
    parts = [item[1] if type(item) is tuple else () for item in items]
    texts = [str(text)[:MAX_TEXT] for text in itertools.chain.from_iterable(parts)]
    return texts, np.repeat(np.arange(len(parts), dtype=np.int64), list(map(len, parts)))


def encode_texts(texts: Sequence[str]) -> tuple[Ints, list[str]]:
    """Encodes strings as positions in a table of them."""
    table: dict[str, int] = {}
    codes = [table.setdefault(text, len(table)) for text in texts]
    return np.array(codes, dtype=np.int64), list(table)


def _decode_block(kind: OutputKind, rows: NDArray[Any]) -> tuple[Ints, Floats]:
    is_narrow = rows.shape[1] <= _MAX_NARROW
    # Classes along the first axis, rows along the second, whichever of them is contiguous in memory.
    table = np.ascontiguousarray(rows.T, dtype=np.float64) if is_narrow else rows.astype(np.float64).T
    is_finite: Bools = np.asarray(np.isfinite(table).all(axis=0))
    is_complete = bool(is_finite.all())
    if not is_complete:
        table = np.where(is_finite, table, 0.0)
    if len(table) == 1:
        codes, confidences = _decode_single(kind, table[0])
    else:
        peaks = table.max(axis=0)
        codes = _first_positions(table, peaks) if is_narrow else table.argmax(axis=0)
        confidences = peaks if kind == "probabilities" else _softmax_peaks(table, peaks)
    confidences = np.clip(confidences, 0.0, 1.0)
    if is_complete:
        return codes, confidences
    return np.where(is_finite, codes, -1), np.where(is_finite, confidences, np.nan)


def _decode_single(kind: OutputKind, values: Floats) -> tuple[Ints, Floats]:
    if kind != "logits":
        return (values >= 0.5).astype(np.int64), np.maximum(values, 1 - values)
    return (values >= 0).astype(np.int64), 1 / (1 + np.exp(-np.abs(values)))


def _softmax_peaks(table: Floats, peaks: Floats) -> Floats:
    with np.errstate(over="ignore"):  # a difference beyond the largest number is -inf, whose power is 0
        peaks_of_softmax: Floats = 1 / np.exp(table - peaks).sum(axis=0)
    return peaks_of_softmax


def _first_positions(table: Floats, peaks: Floats) -> Ints:
    """Finds the position of each row's first largest value; shape (k, m)."""
    codes = np.full(table.shape[1], len(table) - 1, dtype=np.int64)
    for index in range(len(table) - 2, -1, -1):
        np.copyto(codes, index, where=table[index] == peaks)
    return codes
