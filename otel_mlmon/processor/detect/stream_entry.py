"""Where the evidence of each stream is, which streams are taken in together, and which version came before which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.window import Reference, StreamKey, Window

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


@dataclass(slots=True)
class PaneBatch:
    """Collects one pane of each of several streams of one bank, whose bins are all ordered or all not."""

    bank: BankKey
    is_ordered: bool
    positions: list[int] = field(default_factory=list)
    """Positions of the windows in the call of `evaluate`."""
    windows: list[Window] = field(default_factory=list)
    policies: list[DetectionPolicy] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Rows of the bank."""


class Lineage:
    """The versions of every stream of every model, so that a new one finds the version before."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str, str], dict[StreamKey, None]] = {}

    def add(self, stream: StreamKey) -> None:
        """Adds the stream of one version."""
        self._versions.setdefault(_name_of(stream), {})[stream] = None

    def remove(self, stream: StreamKey) -> None:
        """Removes it."""
        versions = self._versions.get(_name_of(stream), {})
        versions.pop(stream, None)
        if not versions:
            self._versions.pop(_name_of(stream), None)

    def find_before(self, stream: StreamKey, measure_traffic: Callable[[StreamKey], float]) -> StreamKey | None:
        """Finds the same stream of the version before: of several, the one that bears the traffic; None without any.

        Args:
            stream: Of a version that is new.
            measure_traffic: Returns how many values a stream had lately.
        """
        others = [other for other in self._versions.get(_name_of(stream), ()) if other != stream]
        return max(others, key=lambda other: (measure_traffic(other), other), default=None)


def _name_of(stream: StreamKey) -> tuple[str, str, str]:
    return stream.model.name, stream.model.environment, stream.stream
