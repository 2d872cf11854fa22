"""OUT Predictions: what a batch of calls of one session said, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.instrumentation.decode.features import Inputs
from otel_mlmon.instrumentation.decode.model_identity import Model
from otel_mlmon.types import Floats, Ints

_NO_INTS: Final[Ints] = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Final[Floats] = np.zeros(0)


class Labels(NamedTuple):
    """m labels: one a row, or of independent labels none or several, the most probable first."""

    codes: Ints = _NO_INTS
    """Shape (m,): positions in `table`, 0 or above."""
    calls: Ints = _NO_INTS
    """Shape (m,): the call of each row, not decreasing."""
    table: Sequence[str] = ()


class Confidences(NamedTuple):
    """Confidences of k rows, finite."""

    values: Floats = _NO_FLOATS
    """Shape (k,), within [0, 1]."""
    calls: Ints = _NO_INTS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """n calls of one session, in the order in which they ended up in the buffer."""

    model: Model
    operation: str
    started_ns: Ints
    """Shape (n,), as `time.perf_counter_ns` counts."""
    duration_ns: Ints
    """Shape (n,), 0 or above; 0 if nobody measured."""
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
    inputs: Inputs = field(default_factory=Inputs)
