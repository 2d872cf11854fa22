"""What an output says: decided once a session and output, then read a batch at a time.

The developer's word comes first. Else names, types, shapes and the first values decide, and where they leave a doubt
that would make wrong evidence, the output is timed only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.call.call import Tensor

Kind = Literal["probabilities", "logits", "score", "labels", "regression", "none"]
"""What an output is: one probability a class, one logit a class, one probability in all, the label, a number."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TOLERANCE: Final = 1e-3
"""How far a row of probabilities may be from summing to 1, in half precision too."""

_NOT_SCORES: Final = re.compile(r"embed|hidden|pool|feature|box|landmark|coord|mask|anchor|state|latent|vector")
_SCORE_NAME: Final = re.compile(r"prob|sigmoid|score|conf")
_VALUE_NAME: Final = re.compile(r"variable|regress|value|price|amount|target|count|rate|estimate")
_EMBEDDING_WIDTHS: Final = frozenset({64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """Labels and confidences of a batch of rows, shape (m,) each."""

    codes: Ints
    """Positions among the labels; -1 where a row holds no number."""
    confidences: Floats
    """The probability of the label, within [0, 1]; NaN with code -1."""


def decide(tensor: Tensor, rows: NDArray[Any], *, said: Kind | None, names: Sequence[str], has_labels: bool) -> Kind:
    """What `tensor` is, of which `rows`, shape (m, k), were the first; m above 0.

    Args:
        tensor: The output.
        rows: Its first values.
        said: The developer's word.
        names: Class names, if known.
        has_labels: Whether another output holds the labels.
    """
    if said is not None:
        return said if tensor.layout != "text" else "labels"
    width = rows.shape[1] if rows.ndim == 2 else 1
    if tensor.layout == "text" or rows.dtype.kind in "iub":
        return "labels" if width == 1 else "none"
    values = rows.astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if width > 1:
        return _vector(tensor.name.lower(), values, names=names, has_labels=has_labels)
    return "none" if has_labels else _single(tensor.name.lower(), values)


def _vector(name: str, values: Floats, *, names: Sequence[str], has_labels: bool) -> Kind:
    if are_probabilities(values):
        return "probabilities"
    width = values.shape[1]
    if "logit" in name or len(names) == width:
        return "logits"
    # Beside labels, scores that are not probabilities are distances, votes or margins: no softmax makes them one.
    if has_labels or _NOT_SCORES.search(name) or width in _EMBEDDING_WIDTHS or not values.size:
        return "none"
    # Independent sigmoids: each a probability, together not.
    in_unit = bool(((values >= 0) & (values <= 1)).all())
    unit_length = bool((np.abs(np.linalg.norm(values, axis=1) - 1) < _TOLERANCE).all())
    return "none" if in_unit or unit_length else "logits"


def _single(name: str, values: Floats) -> Kind:
    if not values.size:
        return "none"
    in_unit = bool(((values >= 0) & (values <= 1)).all())
    if in_unit and (_SCORE_NAME.search(name) or not _VALUE_NAME.search(name)):
        return "score"
    return "regression"


def are_probabilities(values: Floats) -> bool:
    """Whether every row, shape (m, k), is 0 or above and sums to 1; False of no rows."""
    return bool(
        values.size and (values >= -_TOLERANCE).all() and (np.abs(values.sum(axis=1) - 1) <= _TOLERANCE * 2).all()
    )


def contradicts(kind: Kind, values: Floats) -> bool:
    """Whether later `values`, shape (m, k), cannot be of `kind`: a number outside [0, 1] is no probability."""
    return kind == "score" and bool(((values < -_TOLERANCE) | (values > 1 + _TOLERANCE)).any())


def classify(kind: Kind, rows: Floats) -> Classes:
    """Label and confidence of each row, shape (m, k), of `probabilities`, `logits` or a single `score`.

    Of logits, the confidence is the largest value of their softmax, 1 / Σ exp(x - max x). Of a single score p it is
    max(p, 1 - p), the label 1 from p = 0.5 on.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(rows).all(axis=1))
    values = rows if finite.all() else np.where(finite[:, None], rows, 0.0)
    if kind == "score":
        codes = (values[:, 0] >= 0.5).astype(np.int64)
        confidences = np.maximum(values[:, 0], 1 - values[:, 0])
    else:
        codes = values.argmax(axis=1)
        peaks = values[np.arange(len(values)), codes]
        confidences = peaks if kind == "probabilities" else 1 / np.exp(values - peaks[:, None]).sum(axis=1)
    return Classes(
        codes=np.where(finite, codes, -1),
        confidences=np.where(finite, np.clip(confidences, 0.0, 1.0), np.nan),
    )
