"""The watermark of a model: the time up to which its senders are expected to have sent everything.

Each sender has a watermark of its own, the largest event time of its points, since each has its own clock and its own
backlog. A pane waits for the sender that is furthest behind, unless that is more than `idle_after` behind the one that
is furthest ahead, or has sent nothing for `idle_after`: a replica that died, a clock that is wrong or a backlog of
minutes holds up nobody for longer than that. What such a sender sends for closed panes is late, and still counted.

Source: Apache Flink, event time and watermarks (idleness, watermark alignment).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from otel_mlmon.processor.window.introduction import Introduction
from otel_mlmon.types import ModelKey


@dataclass(slots=True, kw_only=True)
class ModelProgress:
    """Holds the stored progress of one model version: how far its panes are closed."""

    model: ModelKey
    received_ns: int
    """When its last point was received, by our clock."""
    watermark_ns: int = 0
    """The largest event time of its points."""
    closed_ns: int = 0
    """Panes up to here are closed, and points for them are late: counted, and no evidence."""
    first_ns: int = 0
    """Start of the first pane with points."""
    last_ns: int = 0
    """End of the last pane with points."""
    predictions: int = 0
    late_predictions: int = 0
    """Those of `predictions` that came after their pane had closed."""
    introduction: Introduction | None = None
    """Its first predictions, until they are held against the version before; None if there is none."""


@dataclass(slots=True, kw_only=True)
class SenderProgress:
    """Holds the stored progress of one sender of one model version."""

    model: ModelKey
    sender: str
    watermark_ns: int
    """The largest event time of its points."""
    received_ns: int
    """When its last point was received, by our clock."""


@dataclass(slots=True)
class SenderWatermarks:
    """The watermarks of the senders of one model that sent something of late.

    Memory: one record a sender, for `idle_after`.
    """

    model: ModelKey
    idle_after_ns: int
    senders: dict[str, SenderProgress] = field(default_factory=dict)

    def add_point(self, sender: str, time_ns: int, now_ns: int) -> None:
        """Notes a point of a sender, of an event time, that was received now."""
        progress = self.senders.get(sender)
        if progress is None:
            self.senders[sender] = SenderProgress(
                model=self.model, sender=sender, watermark_ns=time_ns, received_ns=now_ns
            )
            return
        progress.watermark_ns = max(progress.watermark_ns, time_ns)
        progress.received_ns = now_ns

    def remove_idle(self, now_ns: int, resumed_ns: int) -> Iterator[str]:
        """Removes the senders that sent nothing for `idle_after` while this process ran, and yields them."""
        limit_ns = now_ns - self.idle_after_ns
        if resumed_ns > limit_ns:
            return
        for sender in [name for name, progress in self.senders.items() if progress.received_ns <= limit_ns]:
            del self.senders[sender]
            yield sender

    def oldest_received_ns(self) -> int | None:
        """Returns when the sender that is silent longest last sent, by our clock; None if all are idle."""
        return min([progress.received_ns for progress in self.senders.values()], default=None)

    def watermark(self, default_ns: int) -> int:
        """Returns the watermark of all senders together, Unix nanoseconds; `default_ns` where all of them are idle."""
        if not self.senders:
            return default_ns
        times = [progress.watermark_ns for progress in self.senders.values()]
        return max(min(times), max(times) - self.idle_after_ns)
