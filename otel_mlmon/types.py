"""Types that several steps name, each defined once: the key of a model, the kinds of outputs, arrays of numbers."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.int64]
"""Whole numbers of 0 or above: how often each bin, label or bucket was seen."""

Ints: TypeAlias = NDArray[np.int64]
"""Whole numbers, such as positions."""

Floats: TypeAlias = NDArray[np.float64]
"""Numbers in double precision."""

Bools: TypeAlias = NDArray[np.bool_]
"""Truth values."""

Indices: TypeAlias = NDArray[np.intp]
"""Positions in another array."""

OutputKind = Literal[
    "probabilities", "logits", "sigmoid", "labels", "multi_label", "top_k", "regression", "embedding", "detection",
    "sequence", "none",
]  # fmt: skip
"""The kind of values that an output of a model holds, one row a sample unless it says otherwise.

`probabilities`: one probability a class, which sum to 1. `logits`: one score a class before the softmax. `sigmoid`: the
probability of the second of two classes. `labels`: the class itself. `multi_label`: one independent probability a
label. `top_k`: the best scores, greatest first, or the classes that they belong to, which are another output of the
same width. `regression`: numbers, one a target. `embedding`: a vector of which only the length is reported.
`detection`: boxes, any number a sample, or their scores or classes. `sequence`: a vector a token or frame, any number a
sample. `none`: nothing is read.
"""

OUTPUT_KINDS: Final[tuple[OutputKind, ...]] = get_args(OutputKind)


class ModelKey(NamedTuple):
    """Identifies one version of one model in one deployment environment."""

    name: str
    version: str = ""
    """Empty if unknown."""
    environment: str = ""
    """The resource attribute `deployment.environment.name`; empty if unknown."""

    @property
    def id(self) -> str:
        """The text that identifies a model in one environment in the API: `fraud`, or `fraud@staging`.

        A name that contains an `@` is always followed by another one, so that no two models have the same text.
        """
        has_suffix = self.environment or "@" in self.name
        return f"{self.name}@{quote(self.environment, safe='')}" if has_suffix else self.name
