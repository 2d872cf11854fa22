"""How one stream is judged, and what its evidence is against."""

from __future__ import annotations

from dataclasses import dataclass

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.detectable import MAX_DETECTABLE
from otel_mlmon.processor.detect.threshold import Threshold
from otel_mlmon.processor.window.window import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPolicy:
    """States what is tolerated of one stream, and in which direction a move is drift."""

    tolerance: float
    """The total variation that is tolerated, [0, 1]."""
    direction: Direction
    max_detectable: float = MAX_DETECTABLE
    """The largest detectable shift at which the stream is not weak, (0, 1]."""
    thresholds: tuple[Threshold, ...] = ()
    """On drift statistics; usually none."""


BankKey = tuple[int, Direction]
"""The number of bins and the direction, which all streams of one bank share."""


@dataclass(slots=True, kw_only=True)
class StreamEntry:
    """Locates the evidence of one stream, and names the reference, tolerance and direction it is measured against."""

    bank: BankKey
    row: int
    bin_names: tuple[str, ...]
    tolerance: float
    reference_counts: tuple[float, ...]
    reference: Reference | None = None
    """The reference object that last compared equal: most panes come with the same one."""

    def is_against(self, reference: Reference, policy: DetectionPolicy) -> bool:
        """Checks whether the evidence is against this very reference, tolerance and direction."""
        if self.tolerance != policy.tolerance or self.bank[1] != policy.direction:
            return False
        if self.reference is not reference:
            if self.bin_names != reference.bins.names or self.reference_counts != tuple(reference.counts.tolist()):
                return False
            self.reference = reference
        return True

    def is_rebinned(self, reference: Reference, policy: DetectionPolicy) -> bool:
        """Checks whether this reference is the same values in other bins, and judged the same way."""
        return (
            self.tolerance == policy.tolerance
            and self.bank[1] == policy.direction
            and reference.bins.is_ordered
            and self.bin_names != reference.bins.names
            and int(sum(self.reference_counts)) == reference.total
        )
