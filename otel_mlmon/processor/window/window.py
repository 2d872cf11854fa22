"""Defines `StreamWindow`: the counts of one stream in one closed pane (10 s by default), and its reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from operator import add
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from msgspec import Struct, structs

from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.design_effect import DesignEffect
from otel_mlmon.sketch.moments import ExactSum, Moments, compute_mean
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts, ModelKey

ReferenceOrigin = Literal["learned", "file", "model", "budget", "rolling", "hour_of_week"]
"""Source of a reference: the first predictions, the operator's file, the model's own metadata, an allowance (of
latency and errors), the panes of a time that moves, or those of the same hour in the weeks before."""

SHORT_PANES: Final = 6
"""The panes that rates, latency percentiles and error ratios are read from."""


class StreamKey(NamedTuple):
    """The identity of one stream of one model version."""

    model: ModelKey
    stream: str
    """A name of `streams.STREAMS`, such as `prediction.label`, `input.<feature>` or `latency`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramBins:
    """The K bins of a stream's histogram, in order."""

    names: tuple[str, ...]
    """Names for people: a label, or a range such as `0.4 … 0.5`."""
    is_ordered: bool
    """Whether neighbouring bins hold neighbouring values; classes are not ordered."""
    edges: tuple[float, ...] = ()
    """Upper bounds of the ordered bins but the last; a bin that is not of the value axis comes after them."""

    @property
    def count(self) -> int:
        """The number of bins, K."""
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCounts:
    """The counts that a stream had when all was well, which it is compared with."""

    bins: HistogramBins
    counts: Counts
    """Shape (K,), int64."""
    mean: float = float("nan")
    """Mean of the values, in their own unit; NaN where the stream has no numbers or they are unknown."""
    origin: ReferenceOrigin = "learned"
    is_stationary: bool | None = None
    """Whether the halves of a learned reference are alike; None where that is not known."""
    design_effect: DesignEffect | None = None
    """By how much the shares of its values vary more than those of independent ones; None where that is not known."""
    first_ns: int = 0
    """For a learned one, the end of the first pane that was learned, Unix nanoseconds; else 0."""

    @property
    def total(self) -> int:
        """The number of values in the reference, N."""
        return int(self.counts.sum())


class NumberSum(Struct, frozen=True, gc=False):
    """The exact sum of numbers, and how many they are; one is made for each stream and pane."""

    units: int
    """The sum, in units of 2^-1074."""
    number_count: int

    @classmethod
    def from_moments(cls, moments: Moments) -> NumberSum:
        """Returns the exact sum and the count of a sketch's numbers."""
        return cls(moments.exact_sum, moments.count)

    @property
    def mean(self) -> float:
        """The mean of the numbers, rounded once; NaN without numbers, ±inf beyond the range of a float."""
        return compute_mean(self.units, self.number_count)


NO_NUMBERS: Final = NumberSum(0, 0)


class StreamWindow(Struct, frozen=True, kw_only=True):
    """The counts of one stream in a closed pane and in the rolling window that ends with it, and the reference.

    One is made for each stream and pane: a `Struct` takes a tenth of the time of a frozen dataclass.
    """

    stream: StreamKey
    start_ns: int
    """Start of the pane, Unix nanoseconds."""
    end_ns: int
    reference: ReferenceCounts | None
    """None while it is learned."""
    learned: int = 0
    """Number of values learned towards the reference so far, while it is learned."""
    pane: Counts
    """Shape (K,), int64: this pane's counts; shape (0,) while there are no bins."""
    pane_numbers: NumberSum = NO_NUMBERS
    """The numbers among the values in this pane, in their own unit."""
    rolling: Counts
    """Shape (K,), int64: the counts of the rolling window that ends with this pane."""
    rolling_start_ns: int
    rolling_numbers: NumberSum = NO_NUMBERS
    """The numbers among the values in the rolling window, in their own unit."""
    exemplars: tuple[str, ...] = ()
    """Trace ids seen in this pane."""
    absence: StreamAbsence | None = None
    """Since when the stream is no longer sent although its model has predictions; None if it is."""
    calibration: Calibration | None = None
    """How often predictions are right at each confidence on labelled data; None if that is not known."""

    @property
    def pane_mean(self) -> float:
        """The mean of the numbers in this pane; NaN where it has none."""
        return self.pane_numbers.mean

    @property
    def rolling_mean(self) -> float:
        """The mean of the numbers in the rolling window; NaN where it has none."""
        return self.rolling_numbers.mean

    def replace(self, **changes: Any) -> StreamWindow:
        """Returns the window with other values of some fields."""
        return structs.replace(self, **changes)


class VersionPair(NamedTuple):
    """The first predictions of a new model version, with those of the version before as reference."""

    model: ModelKey
    before: ModelKey
    time_ns: int
    """End of the last pane of the first predictions, Unix nanoseconds."""
    predictions: int
    """How many they are."""
    windows: tuple[StreamWindow, ...]
    """By stream: the counts of the first predictions, and as their reference those of the version before."""
    absent: tuple[str, ...]
    """Streams that only the version before has."""
    added: tuple[str, ...]
    """Streams that only the new version has."""


class PaneCounts(NamedTuple):
    """The counts of one stream over its bins in one interval of time, such as a pane or an hour."""

    start_ns: int
    end_ns: int
    generation: int
    """Generation of the bins; counts of different generations do not add up."""
    counts: Counts
    """Shape (K,), int64."""
    number_count: int
    """The number of values that are numbers."""
    exact_sum: ExactSum
    """The exact sum of the numbers."""

    def merge(self, other: PaneCounts) -> PaneCounts:
        """Adds the counts of another interval over the same bins."""
        return PaneCounts(
            start_ns=min(self.start_ns, other.start_ns),
            end_ns=max(self.end_ns, other.end_ns),
            generation=self.generation,
            counts=self.counts + other.counts,
            number_count=self.number_count + other.number_count,
            exact_sum=self.exact_sum + other.exact_sum,
        )


class PaneLayout(NamedTuple):
    """The streams of a table of counts, and the bins that they are counted over."""

    names: tuple[str, ...] = ()
    generations: tuple[int, ...] = ()
    """Generations of their bins; counts of different generations do not add up."""
    sizes: tuple[int, ...] = ()
    """The number of bins of each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaneTable:
    """The counts of several streams in one interval of time, one stream after the other in one array."""

    layout: PaneLayout
    counts: Counts
    """Shape (K₁ + K₂ + …,)."""
    number_counts: Sequence[int]
    """By stream, how many of its values are numbers."""
    sums: Sequence[int]
    """By stream, the exact sum of the numbers, in units of 2^-1074."""

    @classmethod
    def build(cls, streams: Mapping[str, PaneCounts]) -> PaneTable:
        """Builds a table of the counts of streams, in their order."""
        parts = streams.values()
        sizes = tuple(part.counts.size for part in parts)
        return cls(
            layout=PaneLayout(tuple(streams), tuple(part.generation for part in parts), sizes),
            counts=np.concatenate([part.counts for part in parts]) if parts else np.zeros(0, dtype=np.int64),
            number_counts=[part.number_count for part in parts],
            sums=[part.exact_sum for part in parts],
        )

    def split(self, start_ns: int, end_ns: int) -> dict[str, PaneCounts]:
        """Splits the table into the counts of each stream, for an interval of time."""
        names, generations, sizes = self.layout
        ends = accumulate(sizes)
        columns = zip(names, generations, sizes, ends, self.number_counts, self.sums, strict=True)
        return {
            name: PaneCounts(start_ns, end_ns, generation, self.counts[end - size : end], number_count, ExactSum(units))
            for name, generation, size, end, number_count, units in columns
        }

    def merge(self, other: PaneTable) -> PaneTable:
        """Merges the table with the counts of another interval; of streams with different bins the later ones stay."""
        if self.layout == other.layout:
            return PaneTable(
                layout=self.layout,
                counts=self.counts + other.counts,
                number_counts=list(map(add, self.number_counts, other.number_counts)),
                sums=list(map(add, self.sums, other.sums)),
            )
        streams = self.split(0, 0)
        for name, counts in other.split(0, 0).items():
            present = streams.get(name)
            if present is None or counts.generation > present.generation:
                streams[name] = counts
            elif counts.generation == present.generation and counts.counts.size == present.counts.size:
                streams[name] = present.merge(counts)
        return PaneTable.build(streams)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPane:
    """The counts of all streams of one model version in one closed pane."""

    model: ModelKey
    start_ns: int
    end_ns: int
    duration: StreamSketch
    """Seconds, failed calls included."""
    failed: int
    """Calls that failed."""
    streams: PaneTable
    """Counts of the streams that have a reference and values."""

    def merge(self, other: ModelPane) -> ModelPane:
        """Merges the pane with another one, or with late counts of its own; of different bins the later ones stay."""
        return ModelPane(
            model=self.model,
            start_ns=min(self.start_ns, other.start_ns),
            end_ns=max(self.end_ns, other.end_ns),
            duration=self.duration.merge(other.duration),
            failed=self.failed + other.failed,
            streams=self.streams.merge(other.streams),
        )


def add_model_pane(panes: deque[ModelPane], pane: ModelPane) -> None:
    """Adds a model's pane to others in the order of time, or merges it with the one of the same time."""
    index = len(panes)
    while index and panes[index - 1].end_ns > pane.end_ns:
        index -= 1
    if index and panes[index - 1].end_ns == pane.end_ns:
        panes[index - 1] = panes[index - 1].merge(pane)
    else:
        panes.insert(index, pane)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """The lengths of panes, windows and waiting times, and limits, which are the same for all models."""

    pane_s: float = 10.0
    """Length of a pane, the unit of evidence; above 0."""
    lateness_s: float = 15.0
    """Allowed lateness: how long after its end a pane accepts points, in event time; 0 or above."""
    idle_after_s: float = 30.0
    """A sender that sent nothing for this long, or is this far behind the others, holds up no pane; above 0."""
    amend_for_s: float = 14 * 86_400.0
    """How long after its end a closed pane takes late points into its counts."""
    rolling_s: float = 3600.0
    """Length of the window that is reported; `pane_s` or above."""
    short_panes: int = SHORT_PANES
    """Panes that latency percentiles, throughput and error ratio are read from; 1 or above."""
    stale_after_s: float = 86_400.0
    """A series without points for this long is removed."""
    max_bounds: int = 16
    """How many different bounds the explicit histograms of one stream may have; 1 or above."""
    max_pending_points: int = 1_000_000
    """How many points may wait until their pane closes; 1 or above. At this number the oldest panes
    wait for no late ones."""
    stored_s: float = 7_200.0
    """How long closed panes stay stored one by one; never less than the rolling window."""
    retention_s: float = 14 * 86_400.0
    """How long panes stay stored at all, by the minute and then by the hour. A model without points for this long is
    removed, with what it learned."""
    history_hours: int = 0
    """The longest that hours are stored for any model's moving reference."""

    @property
    def pane_ns(self) -> int:
        """The length of a pane, nanoseconds."""
        return _convert_to_ns(self.pane_s)

    @property
    def lateness_ns(self) -> int:
        """The time for which a pane accepts data points after its end, nanoseconds."""
        return _convert_to_ns(self.lateness_s)

    @property
    def idle_after_ns(self) -> int:
        """The silence after which panes no longer wait for a sender, nanoseconds."""
        return _convert_to_ns(self.idle_after_s)

    @property
    def amend_for_ns(self) -> int:
        """The time for which closed panes accept late data points, nanoseconds."""
        return _convert_to_ns(self.amend_for_s)

    @property
    def rolling_ns(self) -> int:
        """The length of the rolling window, nanoseconds."""
        return _convert_to_ns(self.rolling_s)

    @property
    def stale_after_ns(self) -> int:
        """The age at which a series without data points is stale, nanoseconds."""
        return _convert_to_ns(self.stale_after_s)

    @property
    def stored_ns(self) -> int:
        """The time for which closed panes stay stored, nanoseconds."""
        return max(_convert_to_ns(self.stored_s), self.rolling_ns)

    @property
    def retention_ns(self) -> int:
        """The age at which a silent model is removed, nanoseconds."""
        return _convert_to_ns(self.retention_s)


@cache
def _convert_to_ns(seconds: float) -> int:
    return round(seconds * 1e9)
