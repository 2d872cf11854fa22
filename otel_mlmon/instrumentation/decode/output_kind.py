"""What an output says: its kind, from names, types, shapes and values, and how rows of each kind are read.

The developer's word comes first. Else names, types, shapes and the first values decide, and where they leave a doubt
that would make wrong evidence, the output waits for more rows (see `evidence`) or is timed only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import Floats, Ints, OutputKind

MIN_ROWS: Final = 8
"""So many rows within [0, 1] that do not sum to 1 are independent probabilities; fewer may be logits by chance."""

_TOLERANCE: Final = 1e-3
"""How far a row of probabilities may be from summing to 1, in half precision too."""

_DETECTION: Final = re.compile(r"box|bbox|(^|_)dets?($|_)|detection|anchor")
_NOT_SCORES: Final = re.compile(r"box|landmark|coord|mask|anchor|state|(^|_)[hc]n?$")
_EMBEDDING: Final = re.compile(r"embed|hidden|pool|feature|latent|vector|encod")
_SCORE_NAME: Final = re.compile(r"prob|sigmoid|score|conf")
_MULTI_NAME: Final = re.compile(r"prob|sigmoid|score|conf|tag|multi")
_VALUE_NAME: Final = re.compile(r"variable|regress|value|price|amount|target|count|rate|estimate")
_SIZE_NAME: Final = re.compile(r"(^|_)(num|n|len|lengths?|sizes?|shape|offsets?)(_|$)")
_EMBEDDING_WIDTHS: Final = frozenset({64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """Labels and confidences of a batch of rows, shape (m,) each."""

    codes: Ints
    """Positions among the labels; -1 where a row holds no number."""
    confidences: Floats
    """The probability of the label, within [0, 1]; NaN with code -1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tags:
    """The labels of a batch of rows, none or several each."""

    codes: Ints
    """Shape (t,): positions among the labels."""
    rows: Ints
    """Shape (t,): the row of each, not decreasing; within one, the most probable first."""
    confidences: Floats
    """Shape (m,): the mean certainty of a row; NaN where it holds no number."""


def is_detection(outputs: Iterable[str]) -> bool:
    """Whether a model finds things in its input: the rows of its outputs are then not predictions one a sample."""
    return any(_DETECTION.search(name.lower()) for name in outputs)


def holds_labels(tensor: Tensor) -> bool:
    """Whether a tensor is, by its type, shape and name, the label of each row."""
    if tensor.layout == "text":
        return True
    if "int" not in tensor.dtype or tensor.layout != "rows" or _SIZE_NAME.search(tensor.name.lower()):
        return False
    return tensor.row_shape is None or set(tensor.row_shape) <= {1}


def decide(
    tensor: Tensor, rows: NDArray[Any], *, names: Sequence[str], has_labels: bool, seen: int = MIN_ROWS
) -> OutputKind | None:
    """What `tensor` is, of which `rows`, shape (m, k), were the first; None if they do not show it yet.

    Args:
        tensor: The output.
        rows: Its values.
        names: Class names, if known.
        has_labels: Whether another output holds the labels.
        seen: How many telling rows there were, these included.
    """
    width = rows.shape[1]
    name = tensor.name.lower()
    if rows.dtype.kind in "iub":
        return _whole_numbers(name, rows, width)
    values = telling(rows)
    if width == 1:
        return "none" if has_labels else _single(name, values)
    return _vector(name, values, names=names, has_labels=has_labels, seen=seen)


def telling(rows: NDArray[Any]) -> Floats:
    """The rows that show what an output is: all numbers, not all of them 0."""
    values = rows.astype(np.float64)
    found: Floats = values[np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)]
    return found


def _whole_numbers(name: str, rows: NDArray[Any], width: int) -> OutputKind:
    if width > 1:
        return "multi_label" if rows.dtype.kind == "b" else "none"
    if _SIZE_NAME.search(name):
        return "none"
    return "regression" if _VALUE_NAME.search(name) else "labels"


def _vector(name: str, values: Floats, *, names: Sequence[str], has_labels: bool, seen: int) -> OutputKind | None:
    if _NOT_SCORES.search(name):
        return "none"
    if not values.size:
        return None
    if are_probabilities(values):
        return "probabilities"
    if "logit" in name:
        return "logits"
    # Beside labels, scores that are not probabilities are distances, votes or margins: no softmax makes them one.
    if has_labels:
        return "none"
    width = values.shape[1]
    if len(names) != width and (_EMBEDDING.search(name) or width in _EMBEDDING_WIDTHS):
        return "embedding"
    if in_unit(values):
        return "multi_label" if _MULTI_NAME.search(name) or seen >= MIN_ROWS else None
    return "embedding" if len(names) != width and _are_of_length_one(values) else "logits"


def _single(name: str, values: Floats) -> OutputKind | None:
    if "logit" in name:
        return "logits"
    if _VALUE_NAME.search(name):
        return "regression"
    if not values.size:
        return "sigmoid" if _SCORE_NAME.search(name) else None
    return "sigmoid" if in_unit(values) else "regression"


def are_probabilities(values: Floats) -> bool:
    """Whether every row, shape (m, k), is 0 or above and sums to 1; False of no rows."""
    return bool(
        values.size and (values >= -_TOLERANCE).all() and (np.abs(values.sum(axis=1) - 1) <= _TOLERANCE * 2).all()
    )


def in_unit(values: Floats) -> bool:
    """Whether no value is below 0 or above 1."""
    return not ((values < -_TOLERANCE) | (values > 1 + _TOLERANCE)).any()


def _are_of_length_one(values: Floats) -> bool:
    return bool((np.abs(np.linalg.norm(values, axis=1) - 1) < _TOLERANCE).all())


def contradicts(kind: OutputKind, values: Floats) -> bool:
    """Whether later `values`, shape (m, k), cannot be of `kind`; rows that hold no number contradict nothing."""
    if kind in {"sigmoid", "multi_label"}:
        return not in_unit(values)
    if kind == "probabilities":
        found = telling(values)
        return bool(found.size) and not are_probabilities(found)
    return False


def classify(kind: OutputKind, rows: NDArray[Any]) -> Classes:
    """Label and confidence of each row, shape (m, k), of `probabilities`, `logits` or a single `sigmoid`.

    Of logits, the confidence is the largest value of their softmax, 1 / Σ exp(x - max x). Of a single probability p it
    is max(p, 1 - p), the label 1 from p = 0.5 on; a single logit is the logarithm of its odds.
    """
    together = max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    blocks = [_classify(kind, rows[first : first + together]) for first in range(0, len(rows), together)]
    if len(blocks) == 1:
        return blocks[0]
    return Classes(
        codes=np.concatenate([block.codes for block in blocks]),
        confidences=np.concatenate([block.confidences for block in blocks]),
    )


_BLOCK_VALUES: Final = 1 << 16
"""So many numbers, with what is made of them, stay in a core's cache."""

_FEW_COLUMNS: Final = 32
"""Up to here one column after the other: numpy's reductions along a short last axis take ten times as long."""


def _classify(kind: OutputKind, rows: NDArray[Any]) -> Classes:
    is_narrow = rows.shape[1] <= _FEW_COLUMNS
    # Classes along the first axis, rows along the second, whichever of them is contiguous in memory.
    table = np.ascontiguousarray(rows.T, dtype=np.float64) if is_narrow else rows.astype(np.float64).T
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(table).all(axis=0))
    is_whole = bool(finite.all())
    if not is_whole:
        table = np.where(finite, table, 0.0)
    if len(table) == 1:
        codes, confidences = _of_one(kind, table[0])
    else:
        peaks = table.max(axis=0)
        codes = _first_equal(table, peaks) if is_narrow else table.argmax(axis=0)
        confidences = peaks if kind == "probabilities" else 1 / np.exp(table - peaks).sum(axis=0)
    confidences = np.clip(confidences, 0.0, 1.0)
    if is_whole:
        return Classes(codes=codes, confidences=confidences)
    return Classes(codes=np.where(finite, codes, -1), confidences=np.where(finite, confidences, np.nan))


def _of_one(kind: OutputKind, values: Floats) -> tuple[Ints, Floats]:
    if kind != "logits":
        return (values >= 0.5).astype(np.int64), np.maximum(values, 1 - values)
    return (values >= 0).astype(np.int64), 1 / (1 + np.exp(-np.abs(values)))


def _first_equal(table: Floats, peaks: Floats) -> Ints:
    """The position of each row's first largest value; shape (k, m)."""
    codes = np.full(table.shape[1], len(table) - 1, dtype=np.int64)
    for index in range(len(table) - 2, -1, -1):
        np.copyto(codes, index, where=table[index] == peaks)
    return codes


def tag(rows: NDArray[Any]) -> Tags:
    """Labels and confidence of each row, shape (m, k), of independent probabilities.

    A row has every label of a probability above 0.5, or none. Its confidence is the mean certainty: of max(p, 1 - p)
    over all labels, since a label that is surely absent is as sure as one that is surely there.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(rows).all(axis=1))
    values = rows.astype(np.float64) if finite.all() else np.where(finite[:, None], rows, 0.0).astype(np.float64)
    np.clip(values, 0.0, 1.0, out=values)
    found, codes = np.nonzero(values > 0.5)
    # One key, the row and within it what lacks to 1, sorts six times as fast as two.
    order = np.argsort(found + (1 - values[found, codes]), kind="stable")
    certainty = np.maximum(values, 1 - values).mean(axis=1)
    return Tags(codes=codes[order], rows=found[order], confidences=np.where(finite, certainty, np.nan))


def norms(rows: Floats) -> Floats:
    """The lengths (L2) of rows, shape (m, k), where they are finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    found: Floats = lengths[np.isfinite(lengths)]
    return found
