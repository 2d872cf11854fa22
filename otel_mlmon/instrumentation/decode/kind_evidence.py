"""How an output's kind is decided: as soon as its rows show it, and revised at most once.

A first batch may be all zeros, hold no number, or be one row that could be many things. So an output waits until a row
tells, and the first row that contradicts the decision makes it anew, from the rows that did. What is contradicted
again is timed only: wrong evidence is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.output_kind import contradicts, decide, telling
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import OutputKind

MAX_CHECKED: Final = 1024
"""Rows of a batch that are asked whether they contradict."""


class Evidence:
    """What one output is, as far as its rows show.

    Runs on: one thread at a time.

    Args:
        tensor: The output.
        said: The developer's word, which is never revised.
        names: Class names, if known.
        has_labels: Whether another output holds the labels.
    """

    def __init__(self, tensor: Tensor, *, said: OutputKind | None, names: Sequence[str], has_labels: bool) -> None:
        self.kind: OutputKind | None = said
        """None while nothing told yet."""
        self.is_revised: bool = False
        self.is_told: bool = False
        """Whether somebody was told what it is; the caller's to set."""
        self._tensor = tensor
        self._is_said = said is not None
        self._names = names
        self._has_labels = has_labels
        self._seen = 0
        self._width = 0

    def of(self, rows: NDArray[Any]) -> OutputKind | None:
        """What the output is, now that it held `rows`, shape (m, k); None if nothing told yet."""
        if self._is_said or self.kind == "none":
            return self.kind
        if self.kind is None:
            self._decide(rows)
        elif self._is_contradicted(rows):
            if self.is_revised:
                self.kind = "none"
            else:
                self.is_revised, self._seen = True, 0
                self._decide(rows)
        return self.kind

    def _decide(self, rows: NDArray[Any]) -> None:
        self._seen += len(telling(rows)) if rows.dtype.kind == "f" else len(rows)
        self._width = rows.shape[1]
        self.kind = decide(self._tensor, rows, names=self._names, has_labels=self._has_labels, seen=self._seen)

    def _is_contradicted(self, rows: NDArray[Any]) -> bool:
        if rows.shape[1] != self._width:
            self.is_revised = True  # a sequence: no other reading of it would hold
            return True
        if rows.dtype.kind != "f" or self.kind not in {"sigmoid", "multi_label", "probabilities"}:
            return False
        return contradicts(self.kind, rows[:: -(-len(rows) // MAX_CHECKED)].astype(np.float64))
