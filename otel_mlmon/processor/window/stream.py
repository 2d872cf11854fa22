"""One stream of a model version: its reference, its rolling window, and the window for each pane that closes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon.processor.window.binning import NumberBins
from otel_mlmon.processor.window.moving_reference import MovingReference
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.rolling import RollingWindows
from otel_mlmon.processor.window.summary import StreamSummary
from otel_mlmon.processor.window.window import NumberSum, PaneCounts, ReferenceCounts, StreamKey
from otel_mlmon.sketch.moments import ExactSum
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.sketch.table import Bounds
from otel_mlmon.types import Counts
from otel_mlmon.vocabulary import split_bucket_label

_EMPTY: Final = StreamSketch()


class StreamPane(NamedTuple):
    """The values of one stream in a pane that closes, before they are counted over the stream's bins."""

    stream: StreamWindows
    total: int
    """How many values they are."""
    numbers: NumberSum
    sketch: StreamSketch
    """The values."""
    learned: int | None = None
    """Values learned towards the reference so far; None where there is one by which the pane is judged."""
    is_changed: bool = False
    """Whether the reference grew or changed."""


@dataclass(slots=True, kw_only=True)
class StreamWindows:
    """Makes the windows of one stream from its panes, its rolling window and its reference."""

    key: StreamKey
    learned: StreamReference
    """The first reference, which defines the bins."""
    rolling: RollingWindows
    """The rolling windows of all streams of the model version."""
    moving: MovingReference | None = None
    """None for a reference that does not move with time."""
    fault: str = ""
    """Why the latest pane was not judged; empty if it was."""
    bounds: dict[Bounds, int] = field(default_factory=dict)
    """When each of the bounds of its explicit histograms was received last, by our clock, since this process began."""

    @property
    def reference(self) -> ReferenceCounts | None:
        """The reference that the stream's panes are compared with at present."""
        epoch = self.moving.epoch_reference if self.moving is not None else None
        reference = epoch.reference if epoch is not None else None
        return reference if reference is not None else self.learned.reference

    @property
    def rolling_counts(self) -> Counts:
        """The counts of the rolling window, shape (K,); (0,) before its first pane."""
        return self.rolling.sums().counts(self.key.stream)

    @property
    def rolling_mean(self) -> float:
        """The mean of the numbers in the rolling window; NaN without any."""
        return self.rolling.sums().mean(self.key.stream)

    def rolling_start_ns(self, default_ns: int) -> int:
        """Returns the start of the oldest pane of the rolling window, or `default_ns` if there is none."""
        return self.rolling.sums().start_ns(self.key.stream, default_ns)

    def take_pane(
        self,
        sketch: StreamSketch | None,
        total: int,
        *,
        end_ns: int,
        is_absent: bool,
        block_counts: Counts | None = None,
    ) -> StreamPane | None:
        """Takes the values of a closing pane, to learn from or to count; None if they make no window.

        A pane without values makes a window of zeros while the rolling window still holds any, and for as long as the
        stream is absent; else it makes none.

        Args:
            sketch: The values; None without any.
            total: How many they are.
            end_ns: End of the pane.
            is_absent: Whether the stream is no longer sent although its model has predictions.
            block_counts: As `StreamReference.learn_reference` has it.
        """
        if sketch is not None and total:
            self.fault = find_text_fault(self.learned.state.sketch, sketch, is_learned=self._is_learned)
        if sketch is None or not total or self.fault:
            sketch, total = _EMPTY, 0
            if not is_absent and not self.rolling_counts.any():
                return None
        learned: int | None = None
        if self.learned.reference is None:
            # Judging the pane that completes the reference against it would count the pane twice.
            is_changed = bool(total)
            if total:
                learned = self.learned.learn_reference(sketch, end_ns=end_ns, block_counts=block_counts)
            else:
                learned = self.learned.state.sketch.total
        else:
            is_changed = self.learned.fit_bins(sketch)
            if is_changed:
                self._clear_counts()
        return StreamPane(self, total, NumberSum.from_moments(sketch.moments), sketch, learned, is_changed)

    def find_cuts(self, scale: int) -> NumberBins | None:
        """Returns the bins in which exponential buckets of a scale are counted together with those of other streams.

        They are those of its blocks while it learns; None where there are none, or others.
        """
        learned = self.learned
        binning = learned.state.blocks.binning if learned.reference is None else learned.binning
        return binning if isinstance(binning, NumberBins) and binning.has_cuts_at(scale) else None

    def count_pane(self, pane: StreamPane) -> Counts | None:
        """Counts the values of a pane that came as a sketch over the stream's bins; None while it learns."""
        binning = self.learned.binning
        if pane.learned is not None or binning is None:
            return None
        return binning.count(pane.sketch)

    def adjust_counts(self, counts: Counts, numbers: NumberSum | None, start_ns: int, end_ns: int) -> Counts:
        """Adds the counts of a pane to a reference that moves with time; returns them as this reference judges them.

        Args:
            counts: Shape (K,).
            numbers: The numbers among its values; None where it has no values.
            start_ns: Start of the pane.
            end_ns: End of the pane.
        """
        if self.moving is None:
            return counts
        self.update_reference(end_ns)
        if numbers is not None:
            self.moving.add(self._build_pane_counts(counts, numbers, start_ns, end_ns))
        return self.moving.adjust_counts(end_ns, counts)

    def amend_pane(self, sketch: StreamSketch, *, start_ns: int, end_ns: int) -> PaneCounts | None:
        """Counts the values that came late for a closed pane, and returns the counts.

        None where they cannot be counted over the present bins: while there are none, or where texts or buckets do not
        fit. Nothing is learned from them.

        Args:
            sketch: The late values.
            start_ns: Start of their pane.
            end_ns: End of their pane.
        """
        binning = self.learned.binning
        if self.learned.reference is None or binning is None or binning.find_required_grid(sketch) is not None:
            return None
        if not sketch.total or find_text_fault(self.learned.state.sketch, sketch, is_learned=self._is_learned):
            return None
        counts = binning.count(sketch)
        if self.moving is not None:
            counts = self.moving.adjust_counts(end_ns, counts)
        return self._build_pane_counts(counts, NumberSum.from_moments(sketch.moments), start_ns, end_ns)

    def apply_settings(self, settings: ModelWindowSettings) -> bool:
        """Applies changed settings to the stream; returns whether they replace the reference it is compared with."""
        reference = self.learned.replace(settings)
        if reference is None:
            return False
        self.learned = reference
        self._clear_counts()
        return True

    def relearn(self) -> bool:
        """Starts to learn the stream's reference again; returns False if the reference is not a learned one."""
        if not self.is_relearnable:
            return False
        self.learned = self.learned.relearn()
        self._clear_counts()
        return True

    def count_other_bounds(self, bounds: Bounds, *, stale_ns: int) -> int:
        """Counts the bounds, other than these, that were received since `stale_ns`, or that its reference has."""
        for other in [other for other, received_ns in self.bounds.items() if received_ns < stale_ns]:
            del self.bounds[other]
        return len((self.bounds.keys() | self.learned.state.sketch.explicit.keys()) - {bounds})

    @property
    def is_relearnable(self) -> bool:
        """Whether the stream's reference is learned or moves with time, rather than fixed."""
        return self.learned.is_relearnable or self.moving is not None

    def update_reference(self, end_ns: int) -> None:
        """Advances a reference that moves with time to the epoch of a pane that ends at `end_ns`."""
        if self.moving is not None and self.learned.reference is not None:
            self.moving.find_reference(end_ns, self.learned.reference.bins)

    def restore_hour(self, hour: int, counts: PaneCounts) -> None:
        """Adds a stored hour to the moving reference, if its counts are over the present bins."""
        if self.moving is not None and self.has_bins(counts.generation, counts.counts.size):
            self.moving.hours[hour] = counts

    def summary(self) -> StreamSummary:
        """Returns a summary of the stream for people, without its rolling window."""
        return StreamSummary(
            stream=self.key.stream,
            learn=self.learned.settings.learn,
            sketch=self.learned.state.sketch,
            reference=self.reference,
            fault=self.fault,
        )

    @property
    def _is_learned(self) -> bool:
        """Whether the reference is, or will be, learned from the stream's own values."""
        reference = self.learned.reference
        return reference is None or reference.origin == "learned"

    def has_bins(self, generation: int, size: int) -> bool:
        """Returns whether stored counts are over the present bins, as reference and settings may have changed since."""
        reference = self.learned.reference
        return reference is not None and size == reference.bins.count and generation == self.learned.state.generation

    def _clear_counts(self) -> None:
        """Removes all counts, as the stream has other bins now."""
        self.rolling.clear(self.key.stream)
        if self.moving is not None:
            self.moving.clear()

    def _build_pane_counts(self, counts: Counts, numbers: NumberSum, start_ns: int, end_ns: int) -> PaneCounts:
        return PaneCounts(
            start_ns=start_ns,
            end_ns=end_ns,
            generation=self.learned.state.generation,
            counts=counts,
            number_count=numbers.number_count,
            exact_sum=ExactSum(numbers.units),
        )


def find_text_fault(reference: StreamSketch, pane: StreamSketch, *, is_learned: bool) -> str:
    """Returns why the hashed texts of a pane cannot be compared with those of a reference; empty if they can be.

    Buckets under another key hold other texts, and texts as they are cannot be found among buckets.

    Args:
        reference: The counts of the reference, or what was learned towards it.
        pane: The counts of the pane.
        is_learned: Whether the same senders taught the reference; then a bucket that is new is a text that is new.
    """
    key_counts = _count_hash_keys(pane)
    if not key_counts or not reference.total:
        return ""
    expected = _count_hash_keys(reference).keys()
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


def _count_hash_keys(sketch: StreamSketch) -> dict[str, int]:
    """Counts the values in buckets of hashed texts by the fingerprint of the hash key."""
    counts: dict[str, int] = {}
    for label, count in sketch.categories.counts.items():
        key_id = split_bucket_label(label)[1]
        if key_id:
            counts[key_id] = counts.get(key_id, 0) + count
    return counts
