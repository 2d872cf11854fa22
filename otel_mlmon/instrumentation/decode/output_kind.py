"""Infers the kind of an output from its name, type, shape and values.

The developer's `ModelOptions.output_kind` comes first. Else names, types, shapes and the first values decide. A first
batch may be all zeros, hold no number, or be one row that fits several kinds: then the output waits for rows that show
its kind. The first row that contradicts the decision makes it anew, from that batch on. An output that is contradicted
again is only timed: wrong evidence is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import Floats, OutputKind

MIN_ROWS: Final = 8
"""Rows within [0, 1] that do not sum to 1 needed to infer independent probabilities; fewer may be logits by chance."""

MAX_CHECKED_ROWS: Final = 1024
"""Rows of a batch that are checked for a contradiction."""

_TOLERANCE: Final = 1e-3
"""Distance from 0 and 1 that a probability may have, in half precision too; the sum of a row may have twice that."""

_SAFE_NORM: Final = 1e-140
"""Smaller norms are computed with scaled numbers, since their squares underflow."""

_DETECTION: Final = re.compile(r"box|bbox|(^|_)dets?($|_)|detection|anchor")
_NOT_SCORES: Final = re.compile(r"box|landmark|coord|mask|anchor|state|(^|_)[hc]n?$")
_EMBEDDING: Final = re.compile(r"embed|hidden|pool|feature|latent|vector|encod")
_SCORE_NAME: Final = re.compile(r"prob|sigmoid|score|conf")
_MULTI_NAME: Final = re.compile(r"prob|sigmoid|score|conf|tag|multi")
_VALUE_NAME: Final = re.compile(r"variable|regress|value|price|amount|target|count|rate|estimate")
_SIZE_NAME: Final = re.compile(r"(^|_)(num|n|len|lengths?|sizes?|shape|offsets?)(_|$)")
_EMBEDDING_WIDTHS: Final = frozenset({64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096})


class KindEvidence:
    """Decides the kind of one output from the rows of its calls, and revises the decision at most once.

    Runs on: one thread at a time.

    Args:
        tensor: The output.
        declared_kind: The developer's word, which is never revised; None if there is none.
        class_names: Names of the classes, if known.
        has_labels: Whether another output holds the labels.
    """

    def __init__(
        self, tensor: Tensor, *, declared_kind: OutputKind | None, class_names: Sequence[str], has_labels: bool
    ) -> None:
        self.kind: OutputKind | None = declared_kind
        """None while no row showed it."""
        self.is_revised: bool = False
        self._tensor = tensor
        self._is_declared = declared_kind is not None
        self._class_names = class_names
        self._has_labels = has_labels
        self._informative_rows = 0
        self._width: int

    def update(self, rows: NDArray[Any]) -> OutputKind | None:
        """Returns the kind after further rows, shape (m, k); None if no row showed it so far."""
        if self._is_declared or self.kind == "none":
            return self.kind
        if self.kind is None:
            self._decide(rows)
        elif self._is_contradicted(rows):
            if self.is_revised:
                self.kind = "none"
            else:
                self.is_revised, self._informative_rows = True, 0
                self._decide(rows)
        return self.kind

    def _decide(self, rows: NDArray[Any]) -> None:
        self._informative_rows += len(informative_rows(rows)) if rows.dtype.kind == "f" else len(rows)
        self._width = rows.shape[1]
        self.kind = infer_kind(
            self._tensor,
            rows,
            class_names=self._class_names,
            has_labels=self._has_labels,
            row_count=self._informative_rows,
        )

    def _is_contradicted(self, rows: NDArray[Any]) -> bool:
        if rows.shape[1] != self._width:
            self.is_revised = True  # a sequence: no other kind would fit it
            return True
        if rows.dtype.kind != "f" or self.kind not in {"sigmoid", "multi_label", "probabilities"}:
            return False
        checked = rows[:: -(-len(rows) // MAX_CHECKED_ROWS)].astype(np.float64)
        if self.kind != "probabilities":
            return not are_within_unit(checked)
        checked = informative_rows(checked)
        return bool(checked.size) and not are_probabilities(checked)


def is_detection(output_names: Iterable[str]) -> bool:
    """Whether a model detects objects: the rows of its outputs are then not one prediction a sample."""
    return any(_DETECTION.search(name.lower()) for name in output_names)


def holds_labels(tensor: Tensor) -> bool:
    """Whether a tensor is, by its type, shape and name, the label of each row."""
    if tensor.layout == "text":
        return True
    if "int" not in tensor.dtype or tensor.layout != "rows" or _SIZE_NAME.search(tensor.name.lower()):
        return False
    return tensor.row_shape is None or set(tensor.row_shape) <= {1}


def infer_kind(
    tensor: Tensor, rows: NDArray[Any], *, class_names: Sequence[str], has_labels: bool, row_count: int = MIN_ROWS
) -> OutputKind | None:
    """Infers the kind of a tensor from rows, shape (m, k); None if they do not show it yet.

    Args:
        tensor: The output.
        rows: Its values.
        class_names: Names of the classes, if known.
        has_labels: Whether another output holds the labels.
        row_count: Number of informative rows so far, these included.
    """
    width = rows.shape[1]
    name = tensor.name.lower()
    if rows.dtype.kind in "iub":
        return _infer_integers(name, rows, width)
    values = informative_rows(rows)
    if width == 1:
        return "none" if has_labels else _infer_single(name, values)
    return _infer_vector(name, values, class_names=class_names, has_labels=has_labels, row_count=row_count)


def informative_rows(rows: NDArray[Any]) -> Floats:
    """Returns the rows that show what an output is: all numbers, not all of them 0."""
    values = rows.astype(np.float64)
    informative: Floats = values[np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)]
    return informative


def are_probabilities(values: Floats) -> bool:
    """Whether every row, shape (m, k), has no value below 0 and sums to 1; False of no rows."""
    with np.errstate(over="ignore"):
        sums = values.sum(axis=1)
    return bool(values.size) and bool((values >= -_TOLERANCE).all()) and _is_close_to_one(sums, 2 * _TOLERANCE)


def are_within_unit(values: Floats) -> bool:
    """Whether no value lies outside [0, 1]."""
    return not ((values < -_TOLERANCE) | (values > 1 + _TOLERANCE)).any()


def vector_norms(rows: Floats) -> Floats:
    """Computes the Euclidean norm of each row, shape (m, k); not finite where the row or its norm is not.

    Numbers whose squares overflow or underflow are scaled by the largest of their row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        is_extreme = (norms < _SAFE_NORM) | np.isinf(norms)
        if is_extreme.any():
            extreme = rows[is_extreme]
            scales = np.abs(extreme).max(axis=1)
            scales[scales == 0] = 1.0
            scaled = extreme / scales[:, None]
            norms[is_extreme] = scales * np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return norms


def _infer_integers(name: str, rows: NDArray[Any], width: int) -> OutputKind:
    if width > 1:
        return "multi_label" if rows.dtype.kind == "b" else "none"
    if _SIZE_NAME.search(name):
        return "none"
    return "regression" if _VALUE_NAME.search(name) else "labels"


def _infer_single(name: str, values: Floats) -> OutputKind | None:
    if "logit" in name:
        return "logits"
    if _VALUE_NAME.search(name):
        return "regression"
    if not values.size:
        return "sigmoid" if _SCORE_NAME.search(name) else None
    return "sigmoid" if are_within_unit(values) else "regression"


def _infer_vector(
    name: str, values: Floats, *, class_names: Sequence[str], has_labels: bool, row_count: int
) -> OutputKind | None:
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
    has_class_names = len(class_names) == width
    if not has_class_names and (_EMBEDDING.search(name) or width in _EMBEDDING_WIDTHS):
        return "embedding"
    if are_within_unit(values):
        return "multi_label" if _MULTI_NAME.search(name) or row_count >= MIN_ROWS else None
    return "embedding" if not has_class_names and _is_close_to_one(vector_norms(values), _TOLERANCE) else "logits"


def _is_close_to_one(values: Floats, tolerance: float) -> bool:
    return bool((np.abs(values - 1) <= tolerance).all())
