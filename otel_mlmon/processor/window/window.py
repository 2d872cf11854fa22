"""OUT Window: the counts of one stream in one closed pane, beside its reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from otel_mlmon.types import Counts, ModelKey

ReferenceOrigin = Literal["learned", "file", "model", "budget", "rolling", "hour_of_week"]
"""Source of a reference: the first predictions, the operator's file, the model's own metadata, an allowance (of
latency and errors), the panes of a time that moves, or those of the same hour in the weeks before."""


class StreamKey(NamedTuple):
    """Identifies one stream of one model version."""

    model: ModelKey
    stream: str
    """`prediction.label`, `.confidence` or `.value`, `input.<feature>`, `latency` or `errors`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """The K bins of a stream, in order."""

    names: tuple[str, ...]
    """Names for people: a label, or a range such as `0.4 … 0.5`."""
    is_ordered: bool
    """Whether neighbouring bins hold neighbouring values; classes are not ordered."""
    edges: tuple[float, ...] = ()
    """Upper bounds of the ordered bins but the last; a bin that is not of the value axis comes after them."""

    @property
    def count(self) -> int:
        """K."""
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Holds the counts that a stream is judged by."""

    bins: Bins
    counts: Counts
    """Shape (K,), int64."""
    mean: float = float("nan")
    """Mean of the values, in their own unit; NaN where the stream has no numbers or they are unknown."""
    origin: ReferenceOrigin = "learned"
    is_stationary: bool | None = None
    """Whether the halves of a learned reference are alike; None where that is not known."""

    @property
    def total(self) -> int:
        """N."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Holds the counts of one stream in one closed pane and in the rolling window that ends with it."""

    stream: StreamKey
    start_ns: int
    """Start of the pane, Unix nanoseconds."""
    end_ns: int
    reference: Reference | None
    """None while it is learned."""
    learned: int = 0
    """Number of values learned towards the reference so far, while it is learned."""
    pane: Counts
    """Shape (K,), int64: this pane's counts; shape (0,) while there are no bins."""
    pane_mean: float = float("nan")
    """Mean of the values in this pane, in their own unit; NaN where it is not known."""
    rolling: Counts
    """Shape (K,), int64: the counts of the rolling window that ends with this pane."""
    rolling_start_ns: int
    rolling_mean: float = float("nan")
    """Mean of the values in the rolling window, in their own unit."""
    exemplars: tuple[str, ...] = field(default=())
    """Trace ids seen in this pane."""
