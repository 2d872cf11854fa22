"""One stream of one model: its reference, its rolling window, and what each closed pane makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from otel_mlmon.processor.window.moving_reference import History
from otel_mlmon.processor.window.reference import Baseline
from otel_mlmon.processor.window.rolling import Rolling, Slot
from otel_mlmon.processor.window.settings import ModelSettings
from otel_mlmon.processor.window.window import Bins, Origin, Reference, StreamKey, Window
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts

_NONE = np.zeros(0, dtype=np.int64)
_EMPTY = StreamSketch()
_NO_BINS = Bins(names=(), is_ordered=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSummary:
    """One stream as it stands, for people."""

    stream: str
    learned: int
    """Values seen towards the reference; all it was made of, once there is one."""
    learn: int
    """Values it takes."""
    origin: Origin | Literal[""]
    """Empty while it is learned."""
    is_stationary: bool | None
    """Of a learned reference: whether its halves are alike; None where that is not known."""
    reference_count: int
    current_count: int
    """Values in the rolling window."""
    bins: Bins
    """No bins while it is learned."""
    reference_shares: tuple[float, ...]
    current_shares: tuple[float, ...]
    """Zeros while the rolling window is empty."""
    current_counts: tuple[int, ...]
    """What the rolling window holds, by bin; empty while there are no bins."""
    reference_mean: float
    """In the stream's own unit, NaN if unknown."""
    current_mean: float


@dataclass(slots=True, kw_only=True)
class Stream:
    """Reference and rolling window of one stream."""

    key: StreamKey
    baseline: Baseline
    rolling: Rolling
    history: History | None = None
    """What a reference of moving time is made of; None for one that stays."""

    @property
    def reference(self) -> Reference | None:
        """What is judged by now."""
        season = self.history.season if self.history is not None else None
        moving = season.reference if season is not None else None
        return moving if moving is not None else self.baseline.reference

    def close(
        self, sketch: StreamSketch | None, *, start_ns: int, end_ns: int, exemplars: tuple[str, ...] = ()
    ) -> tuple[Window | None, bool]:
        """The window of a pane, and whether the reference changed.

        Choice: a pane without values makes a window of zeros while the rolling window still holds any, so
        that a feature that went silent is seen to; after that it makes none.
        """
        self.rolling.evict(end_ns)
        if sketch is None or not sketch.total:
            sketch = _EMPTY
            if not self.rolling.total:
                return None, False
        if self.baseline.reference is None:
            # Judging the pane that completes the reference against it would count the pane twice.
            self.baseline.learn(sketch)
            learned = self.baseline.sketch.total
            return self._window(sketch, _NONE, start_ns, end_ns, exemplars, learned=learned), True
        changed = self.baseline.fit(sketch)
        if changed:
            self._forget_counts()
        pane = self._count(sketch)
        moments = sketch.moments
        if self.history is not None:
            self.turn(end_ns)
            if sketch.total:
                self.history.add(end_ns, pane, moments.count, moments.exact_sum)
            pane = self.history.adjusted(end_ns, pane)
        if sketch.total:
            self.rolling.add(Slot(start_ns, end_ns, pane, moments.count, moments.exact_sum))
        return self._window(sketch, pane, start_ns, end_ns, exemplars), changed

    def follow(self, settings: ModelSettings) -> bool:
        """Go by other settings; whether the reference is another one now."""
        baseline = self.baseline.replaced(settings)
        if baseline is None:
            return False
        self.baseline = baseline
        self._forget_counts()
        return True

    def turn(self, end_ns: int) -> None:
        """Go by the reference of the time of a pane that ends at `end_ns`."""
        if self.history is not None and self.baseline.reference is not None:
            self.history.reference(end_ns, self.baseline.reference.bins)

    def summary(self) -> StreamSummary:
        """For people."""
        baseline, reference = self.baseline, self.reference
        is_empty = reference is not None and not self.rolling.counts.size
        current = self._count(_EMPTY) if is_empty else self.rolling.counts
        return StreamSummary(
            stream=self.key.stream,
            learned=baseline.sketch.total,
            learn=baseline.settings.learn,
            origin=reference.origin if reference is not None else "",
            is_stationary=reference.is_stationary if reference is not None else None,
            reference_count=reference.total if reference is not None else 0,
            current_count=self.rolling.total,
            bins=reference.bins if reference is not None else _NO_BINS,
            reference_shares=_shares(reference.counts) if reference is not None else (),
            current_shares=_shares(current),
            current_counts=tuple(current.tolist()),
            reference_mean=reference.mean if reference is not None else float("nan"),
            current_mean=self.rolling.mean,
        )

    def _forget_counts(self) -> None:
        """The bins are others now."""
        self.rolling.clear()
        if self.history is not None:
            self.history.clear()

    def _count(self, sketch: StreamSketch) -> Counts:
        return self.baseline.binning.count(sketch) if self.baseline.binning is not None else _NONE

    def _window(
        self,
        sketch: StreamSketch,
        pane: Counts,
        start_ns: int,
        end_ns: int,
        exemplars: tuple[str, ...],
        *,
        learned: int | None = None,
    ) -> Window:
        is_learning = learned is not None
        return Window(
            stream=self.key,
            start_ns=start_ns,
            end_ns=end_ns,
            reference=None if is_learning else self.reference,
            learned=learned or 0,
            pane=pane,
            pane_mean=sketch.moments.mean,
            rolling=_NONE if is_learning else self.rolling.counts,
            rolling_start_ns=start_ns if is_learning else self.rolling.start_ns(start_ns),
            rolling_mean=float("nan") if is_learning else self.rolling.mean,
            exemplars=exemplars,
        )


def _shares(counts: Counts) -> tuple[float, ...]:
    return tuple((counts / max(int(counts.sum()), 1)).tolist())
