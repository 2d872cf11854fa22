"""Types that several steps name, each defined once: the key of a model, the kinds of outputs, arrays of numbers."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias, get_args

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
    "probabilities", "logits", "sigmoid", "labels", "multi_label", "regression", "embedding", "none"
]  # fmt: skip
"""The kind of values that an output of a model holds, one row a sample.

`probabilities`: one probability a class, which sum to 1. `logits`: one score a class before the softmax. `sigmoid`: the
probability of the second of two classes. `labels`: the class itself. `multi_label`: one independent probability a
label. `regression`: numbers. `embedding`: a vector of which only the length is reported. `none`: nothing is read.
"""

OUTPUT_KINDS: Final[tuple[OutputKind, ...]] = get_args(OutputKind)


class ModelKey(NamedTuple):
    """Identifies one version of one model in one deployment environment."""

    name: str
    version: str = ""
    """Empty if unknown."""
    environment: str = ""
    """The resource attribute `deployment.environment.name`; empty if unknown."""
