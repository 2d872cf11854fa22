"""Many calls of one plan, field by field."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from otel_mlmon.instrumentation.runtime.call import Item, Plan
from otel_mlmon.types import Ints


class PackedTensor(NamedTuple):
    """A tensor that was copied whole at each of n calls: rows of the plan's shape, in C order."""

    data: bytes
    """The copies, one after the other."""
    lengths: Ints
    """Shape (n,): bytes of each."""


Items: TypeAlias = "PackedTensor | Sequence[Item]"
"""The copies of one tensor, one a call."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """n calls, in the order in which they ended up in the buffer."""

    plan: Plan
    started_ns: Ints
    """Shape (n,), as `time.perf_counter_ns` counts."""
    ended_ns: Ints
    contexts: Sequence[object]
    """The OpenTelemetry context of each call, None where there was none."""
    errors: Sequence[str | None]
    """The class of each call's exception."""
    inputs: Sequence[Items]
    """One a tensor of the plan."""
    outputs: Sequence[Items]


def each(items: Items) -> Sequence[Item]:
    """The copies call by call."""
    if not isinstance(items, PackedTensor):
        return items
    ends = np.cumsum(items.lengths).tolist()
    return [items.data[start:end] for start, end in itertools.pairwise([0, *ends])]
