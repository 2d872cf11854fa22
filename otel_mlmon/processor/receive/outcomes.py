"""Defines the outcomes of receiving: the answer to one OTLP request, and the counts of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from otel_mlmon.processor.receive.data_point import Rejections

RefusalReason: TypeAlias = Literal[
    "queue",
    "memory",
    "pending_points",
    "timeout",
    "incomplete",
    "too_large",
    "unauthorized",
    "not_found",
    "bad_method",
    "unsupported",
]
"""The reason for which a request was refused before it was parsed. Those that are sent again: `queue`, `memory` and
`pending_points`, no room for now; `timeout`, it arrived too slowly or too late; `incomplete`, its sender gave up, or
gRPC ended the call by itself, at more than twice the limit. Those that are not: `too_large`; `unauthorized`;
`not_found`, another path or service than OTLP's; `bad_method`, not POST; `unsupported`, another content type or
encoding."""

REFUSAL_REASONS: Final[tuple[str, ...]] = get_args(RefusalReason)

DEAD_LETTER: Final = "dead_letter"
"""The reason for which the points of a request are rejected that failed twice by an internal error."""

FAULTS: Final = (
    "attributes_too_large", "bad_offset", "bad_scale", "bad_time", "bad_value", "bounds_not_increasing",
    "bucket_mismatch", "count_mismatch", DEAD_LETTER, "name_too_long", "no_feature_name", "no_model_name",
    "no_output_name", "no_provider", "no_temporality", "no_time", "no_value", "not_monotonic", "too_large",
    "too_many_buckets", "wrong_type",
)  # fmt: skip
"""Every reason for which the receivers reject a point, so that each is a series of its metric from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The answer to an accepted OTLP request; without rejected points and message it is full success."""

    rejected: int = 0
    """Points that were rejected and must not be sent again."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOutcomeCounts:
    """The numbers of data points of one stored request by their outcome."""

    accepted: int
    ignored: int
    loop_dropped: int
    unused: int
    rejected: Mapping[str, int]
    """By reason: all of them."""
    uncounted: Rejections
    """By reason: those that the windows rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCounts:
    """The counts of all received data points and requests by their outcome.

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
    """Requests that were refused before parsing, by `RefusalReason`."""
    unread_bytes: Mapping[str, int]
    """The bytes read of these requests by reason: over HTTP as they were sent, over gRPC after decompression."""
    malformed: int
    """Requests that are not valid in their encoding."""
    dead_letters: int
    """Requests that failed twice."""

    @property
    def rejected_total(self) -> int:
        """The number of rejected data points, over all reasons."""
        return sum(self.rejected.values())
