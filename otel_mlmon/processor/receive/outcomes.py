"""Outcomes of receiving: the answer to one request, and the counts of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The answer to an accepted request; without rejected points and message it is full success."""

    rejected: int = 0
    """Points that were rejected and must not be sent again."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCounts:
    """Counts of what was received so far.

    Accepted, rejected, refused, ignored and loop-dropped points add up to all points of the requests that were parsed.
    A log record about a loaded model counts as a point.
    """

    accepted: int
    """Points delivered and acknowledged."""
    rejected: Mapping[str, int]
    """Points that break the data model, or are in the dead letters, by reason."""
    refused: int
    """Points of requests that were refused after parsing; senders send them again, and then they count again."""
    ignored: int
    """Points of metrics outside the contract, and points without a recorded value."""
    loop_dropped: int
    """Points that a processor sent."""
    unused: Mapping[str, int]
    """Log records and spans, by signal, that the processor does not use."""
    unread_requests: Mapping[str, int]
    """Requests that were refused before parsing, by reason: `queue` and `memory`, which senders send again, and
    `too_large` and `unauthorized`, which they do not."""
    unread_bytes: Mapping[str, int]
    """Their bytes as they were sent, as far as they were read, by reason."""
    malformed: int
    """Requests that are not valid protobuf."""
    dead_letters: int
    """Requests that failed twice."""

    @property
    def rejected_total(self) -> int:
        """The rejected points over all reasons."""
        return sum(self.rejected.values())
