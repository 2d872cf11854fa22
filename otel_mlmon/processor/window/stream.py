"""One stream of a model version: its reference, its rolling window, and the window for each pane that closes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.window.moving_reference import MovingReference
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.summary import StreamSummary
from otel_mlmon.processor.window.window import PaneCounts, ReferenceCounts, RollingWindow, StreamKey, StreamWindow
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts
from otel_mlmon.vocabulary import split_bucket_label

_NO_COUNTS: Final = np.zeros(0, dtype=np.int64)
_EMPTY: Final = StreamSketch()


@dataclass(slots=True, kw_only=True)
class StreamWindows:
    """Makes the windows of one stream from its panes, its rolling window and its reference."""

    key: StreamKey
    learned: StreamReference
    """The first reference, which defines the bins."""
    rolling: RollingWindow
    moving: MovingReference | None = None
    """None for a reference that does not move with time."""
    fault: str = ""
    """Why the latest pane was not judged; empty if it was."""

    @property
    def reference(self) -> ReferenceCounts | None:
        """The reference that the stream's panes are compared with at present."""
        epoch = self.moving.epoch_reference if self.moving is not None else None
        reference = epoch.reference if epoch is not None else None
        return reference if reference is not None else self.learned.reference

    def close_pane(
        self,
        sketch: StreamSketch | None,
        *,
        start_ns: int,
        end_ns: int,
        exemplars: tuple[str, ...] = (),
        absence: StreamAbsence | None = None,
    ) -> tuple[StreamWindow | None, bool]:
        """Makes the window of a closed pane of the stream; returns it and whether the reference changed.

        A pane without values makes a window of zeros while the rolling window still holds any, and for as long as
        there is an `absence`; else it makes none.
        """
        self.rolling.evict(end_ns)
        total = sketch.total if sketch is not None else 0
        if sketch is not None and total:
            self.fault = find_text_fault(self.learned.state.sketch, sketch, is_learned=self._is_learned)
        if sketch is None or not total or self.fault:
            sketch, total = _EMPTY, 0
            if absence is None and not self.rolling.total:
                return None, False
        if self.learned.reference is None:
            # Judging the pane that completes the reference against it would count the pane twice.
            if total:
                self.learned.learn_reference(sketch, end_ns=end_ns)
            learned = self.learned.state.sketch.total
            moments = sketch.moments
            window = self._window(moments, _NO_COUNTS, start_ns, end_ns, exemplars, absence, learned=learned)
            return window, bool(total)
        is_changed = self.learned.fit_bins(sketch)
        if is_changed:
            self._clear()
        moments = sketch.moments
        pane = self._count_pane(sketch, moments, start_ns, end_ns)
        if self.moving is not None:
            self.update_reference(end_ns)
            if total:
                self.moving.add(pane)
            pane = pane._replace(counts=self.moving.adjust_counts(end_ns, pane.counts))
        if total:
            self.rolling.add(pane)
        return self._window(moments, pane.counts, start_ns, end_ns, exemplars, absence), is_changed

    def amend_pane(self, sketch: StreamSketch, *, start_ns: int, end_ns: int, last_ns: int) -> PaneCounts | None:
        """Adds late values of a closed pane to the rolling window; returns their counts.

        None where it cannot be counted over the present bins: while there are none, or where texts or buckets do not
        fit. Nothing is learned from it.

        Args:
            sketch: The late values.
            start_ns: Start of their pane.
            end_ns: End of their pane.
            last_ns: End of the model's last closed pane.
        """
        binning = self.learned.binning
        if self.learned.reference is None or binning is None or binning.find_required_grid(sketch) is not None:
            return None
        if not sketch.total or find_text_fault(self.learned.state.sketch, sketch, is_learned=self._is_learned):
            return None
        pane = self._count_pane(sketch, sketch.moments, start_ns, end_ns)
        if self.moving is not None:
            pane = pane._replace(counts=self.moving.adjust_counts(end_ns, pane.counts))
        if end_ns > last_ns - self.rolling.length_ns:
            self.rolling.add(pane)
        return pane

    def apply_settings(self, settings: ModelWindowSettings) -> bool:
        """Applies other settings to the stream; returns whether it gets another reference by that."""
        reference = self.learned.replace(settings)
        if reference is None:
            return False
        self.learned = reference
        self._clear()
        return True

    def relearn(self) -> bool:
        """Starts to learn the stream's reference again; returns False if the reference is not a learned one."""
        if not self.is_relearnable:
            return False
        self.learned = self.learned.relearn()
        self._clear()
        return True

    @property
    def is_relearnable(self) -> bool:
        """Whether the stream's reference is learned or moves with time, rather than fixed."""
        return self.learned.is_relearnable or self.moving is not None

    def update_reference(self, end_ns: int) -> None:
        """Advances a reference that moves with time to the epoch of a pane that ends at `end_ns`."""
        if self.moving is not None and self.learned.reference is not None:
            self.moving.find_reference(end_ns, self.learned.reference.bins)

    def restore_pane(self, pane: PaneCounts) -> None:
        """Adds a stored pane to the rolling window, if its counts are over the present bins."""
        if self._has_bins_of(pane):
            self.rolling.add(pane)

    def restore_hour(self, hour: int, counts: PaneCounts) -> None:
        """Adds a stored hour to the moving reference, if its counts are over the present bins."""
        if self.moving is not None and self._has_bins_of(counts):
            self.moving.hours[hour] = counts

    def summary(self) -> StreamSummary:
        """Returns a summary of the stream for people."""
        return StreamSummary(
            stream=self.key.stream,
            learn=self.learned.settings.learn,
            sketch=self.learned.state.sketch,
            reference=self.reference,
            current=self.rolling.counts,
            current_mean=self.rolling.mean,
            fault=self.fault,
        )

    @property
    def _is_learned(self) -> bool:
        """Whether the reference is, or will be, learned from the stream's own values."""
        reference = self.learned.reference
        return reference is None or reference.origin == "learned"

    def _has_bins_of(self, pane: PaneCounts) -> bool:
        """Returns whether counts are over the present bins, as reference and settings may have changed since."""
        reference = self.learned.reference
        has_same_size = reference is not None and pane.counts.size == reference.bins.count
        return has_same_size and pane.generation == self.learned.state.generation

    def _clear(self) -> None:
        """Removes all counts, as the stream has other bins now."""
        self.rolling.clear()
        if self.moving is not None:
            self.moving.clear()

    def _count_pane(self, sketch: StreamSketch, moments: Moments, start_ns: int, end_ns: int) -> PaneCounts:
        return PaneCounts(
            start_ns=start_ns,
            end_ns=end_ns,
            generation=self.learned.state.generation,
            counts=self._count(sketch),
            number_count=moments.count,
            exact_sum=moments.exact_sum,
        )

    def _count(self, sketch: StreamSketch) -> Counts:
        return self.learned.binning.count(sketch) if self.learned.binning is not None else _NO_COUNTS

    def _window(
        self,
        moments: Moments,
        counts: Counts,
        start_ns: int,
        end_ns: int,
        exemplars: tuple[str, ...],
        absence: StreamAbsence | None,
        *,
        learned: int | None = None,
    ) -> StreamWindow:
        is_learning = learned is not None
        return StreamWindow(
            stream=self.key,
            start_ns=start_ns,
            end_ns=end_ns,
            reference=None if is_learning else self.reference,
            learned=learned or 0,
            pane=counts,
            pane_mean=moments.mean,
            rolling=_NO_COUNTS if is_learning else self.rolling.counts,
            rolling_start_ns=start_ns if is_learning else self.rolling.start_ns(start_ns),
            rolling_mean=float("nan") if is_learning else self.rolling.mean,
            exemplars=exemplars,
            absence=absence,
            calibration=self.learned.settings.calibration if self.key.stream == semconv.STREAM_CONFIDENCE else None,
        )


def find_text_fault(reference: StreamSketch, pane: StreamSketch, *, is_learned: bool) -> str:
    """Returns why the hashed texts of a pane cannot be compared with those of a reference; empty if they can be.

    Buckets under another key hold other texts, and texts as they are cannot be found among buckets.

    Args:
        reference: The counts of the reference, or what was learned towards it.
        pane: The counts of the pane.
        is_learned: Whether the same senders taught the reference; then a bucket that is new is a text that is new.
    """
    key_counts = _count_keys(pane)
    if not key_counts or not reference.total:
        return ""
    expected = _count_keys(reference).keys()
    if expected and not key_counts.keys() <= expected:
        return (
            f"texts are hashed with the key {min(key_counts.keys() - expected)}, those of the reference with "
            f"{', '.join(sorted(expected))}: set one OTEL_MLMON_TEXT_KEY everywhere, or learn the reference anew"
        )
    if not expected and not is_learned and 2 * sum(key_counts.values()) > pane.total:
        return (
            "texts arrive hashed, and the reference has them as they are: build it without --keep-text, or declare the "
            "words in the application (ModelOptions.categories or labels)"
        )
    return ""


def _count_keys(sketch: StreamSketch) -> dict[str, int]:
    """Counts the values in buckets of hashed texts by the fingerprint of the hash key."""
    counts: dict[str, int] = {}
    for label, count in sketch.categories.counts.items():
        key_id = split_bucket_label(label)[1]
        if key_id:
            counts[key_id] = counts.get(key_id, 0) + count
    return counts
