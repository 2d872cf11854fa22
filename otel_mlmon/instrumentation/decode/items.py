"""Decodes outputs of detectors and sequence models: how many boxes, tokens or frames, and their confidences.

A score is reported where the values leave no doubt: one column of a detector that lies within [0, 1] and is not whole,
or a vector a token or frame that sums to 1. The first rows that contradict it end the scores of an output for good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import Items, split_copies_by_call
from otel_mlmon.instrumentation.decode.output_kind import are_probabilities
from otel_mlmon.instrumentation.decode.predictions import DetectedItems
from otel_mlmon.instrumentation.runtime.call import Item, Tensor
from otel_mlmon.types import Floats, OutputKind

MIN_ITEMS: Final = 8
"""Boxes from which on a column may be taken for their score."""

BOX_COLUMNS: Final = 4
MAX_COLUMNS: Final = 7
"""Columns of a box at most: image, four corners, class and score; wider rows hold scores of every class."""

_SCORES: Final = re.compile(r"score|conf|prob")


def choose_item_outputs(outputs: Mapping[int, Tensor]) -> set[int]:
    """Chooses which outputs of an object detector its boxes are counted by: their scores, or the first output."""
    scores = {position for position, tensor in outputs.items() if _has_score_name(tensor)}
    return scores or set(list(outputs)[:1])


class DetectedItemDecoder:
    """Decodes one output of kind `detection` or `sequence`: counts its boxes, tokens or frames.

    Runs on: one thread at a time.

    Args:
        tensor: The output.
        kind: Its kind.
        is_quantised: Whether its numbers lie on a grid of 8 bits, so that they need not sum to 1.
    """

    def __init__(self, tensor: Tensor, kind: OutputKind, *, is_quantised: bool = False) -> None:
        self._tensor = tensor
        self._kind = kind
        self._is_quantised = is_quantised
        self._has_score_name = kind == "detection" and _has_score_name(tensor)
        self._columns: set[int] | None = None
        """Columns that may hold the score; None before the first rows."""
        self._rows = 0
        self._has_no_scores = tensor.dtype[:5] != "float"

    def decode_items(self, items: Items) -> DetectedItems:
        """Counts the boxes, tokens or frames of each inference call of a batch, and reads their confidences."""
        counts: list[float] = []
        parts: list[NDArray[Any]] = []
        for item in split_copies_by_call(items):
            shape = self._find_copied_shape(item)
            if shape is None:
                continue
            width = 1 if self._has_score_name or len(shape) < 2 else shape[-1]
            counts.append(float(math.prod(shape) // width if width else 0))
            data = item if isinstance(item, bytes) else item[1] if item is not None else b""
            if isinstance(data, bytes) and data and len(data) % (width * self._element_bytes) == 0:
                parts.append(np.frombuffer(data, dtype=self._tensor.dtype).reshape(-1, width))
        return DetectedItems(counts=np.array(counts), confidences=self._read_item_scores(parts))

    @property
    def _element_bytes(self) -> int:
        return int(np.dtype(self._tensor.dtype).itemsize)

    def _find_copied_shape(self, item: Item) -> tuple[int, ...] | None:
        """Returns the shape that a copied output had; None for a call that failed."""
        if item is None:
            return None
        if isinstance(item, tuple):
            return item[0]
        rows = self._tensor.row_shape or ()
        return (len(item) // max(math.prod(rows) * self._element_bytes, 1), *rows)

    def _read_item_scores(self, parts: Sequence[NDArray[Any]]) -> Floats:
        nothing = np.zeros(0)
        widths = {part.shape[1] for part in parts}
        if self._has_no_scores or not parts or len(widths) > 1:
            self._has_no_scores |= len(widths) > 1
            return nothing
        rows: Floats = np.concatenate(parts).astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            return nothing
        scores = self._score_sequence(rows) if self._kind == "sequence" else self._score_boxes(rows)
        if scores is None:
            self._has_no_scores = True
            return nothing
        return np.clip(scores, 0.0, 1.0)

    def _score_sequence(self, rows: Floats) -> Floats | None:
        """Returns the greatest probability of each token or frame; None if the rows are no probabilities."""
        if rows.shape[1] < 2:
            return None
        rows = rows[(rows != 0).any(axis=1)]
        self._rows += len(rows)
        if (rows <= 0).all():  # logarithms of probabilities, which sum to 1 as these do
            rows = np.exp(rows)
        if not len(rows):
            return rows.ravel()
        return rows.max(axis=1) if are_probabilities(rows) else None

    def _score_boxes(self, rows: Floats) -> Floats | None:
        """Returns the confidence of each detected box; None if it is not clear which column holds it."""
        width = rows.shape[1]
        if width != 1 and not BOX_COLUMNS < width <= MAX_COLUMNS:
            return None
        possible = set(np.flatnonzero(((rows >= 0) & (rows <= 1)).all(axis=0)).tolist())
        self._columns = possible if self._columns is None else self._columns & possible
        whole = set(np.flatnonzero((rows == np.rint(rows)).all(axis=0)).tolist())
        if width == 1:
            if not self._columns:
                return None
            self._rows += len(rows)
            return rows[:, 0]
        if not self._columns:
            return None
        self._rows += len(rows)
        candidates = self._columns - whole
        return rows[:, next(iter(candidates))] if len(candidates) == 1 and self._rows >= MIN_ITEMS else rows[:0, 0]


def _has_score_name(tensor: Tensor) -> bool:
    return tensor.dtype.startswith("float") and bool(_SCORES.search(tensor.name.lower()))
