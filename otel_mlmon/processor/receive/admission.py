"""Admits OTLP requests from the receivers, decodes and delivers them, and counts what became of each point.

Admission goes by bytes in flight and is decided before a request is parsed, since parsing is what costs. A fault of
ours is answered with "unavailable", so that the sender keeps the batch and sends it again; senders drop a batch that
is answered with "internal". A request that fails twice is written to the dead letters and rejected.
Source: opentelemetry-proto, specification.md (partial success, retryable codes).
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError, StoreError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.dead_letters import DeadLetterDirectory
from otel_mlmon.processor.receive.decode import DecodedRequest, count_points, decode_metrics
from otel_mlmon.processor.receive.decode_logs import count_records, decode_logs

T = TypeVar("T")

Signal: TypeAlias = Literal["metrics", "logs", "traces"]

MAX_REQUEST_BYTES: Final = 64 * 2**20
"""After decompression. Source: opentelemetry-proto, specification.md, the recommended default."""

MAX_PENDING_BYTES: Final = 256 * 2**20
RETRY_AFTER_S: Final = 1.0
MAX_REMEMBERED_FAILURES: Final = 1024

DEAD_LETTER: Final = "dead_letter"
"""The reason for which the points of a request are rejected that failed twice by an internal error."""


_FAULT: Final = RuntimeError("an internal error, which the guard has reported")


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
    refused_requests: int
    """Requests that were refused before parsing since too many bytes were in flight; senders send them again."""
    malformed: int
    """Requests that are not valid protobuf."""
    dead_letters: int
    """Requests that failed twice."""

    @property
    def rejected_total(self) -> int:
        """The rejected points over all reasons."""
        return sum(self.rejected.values())


class _SignalCodec(NamedTuple):
    """Holds how the requests of one signal are parsed, decoded, and counted where decoding fails."""

    request: Any
    decode: Callable[[Any], DecodedRequest]
    count: Callable[[Any], int]


class _PendingRequest(NamedTuple):
    """A request that is not answered yet."""

    signal: Signal
    body: bytes
    result: Future[ExportResult]


class Admission:
    """Takes requests from any number of receivers and delivers their items.

    Runs on: the receivers' threads; a delivery may be acknowledged on any thread. Its lock guards integers only.

    Args:
        deliver: Takes the items of one request and returns at once with a future that is done when they are stored,
            with the points that were not counted, by reason. To refuse a request it raises, or ends the future with, a
            `RetryableError`, or a `StoreError` where the state cannot be stored.
        max_request_bytes: The largest request that a receiver may accept, after decompression.
        max_pending_bytes: The limit on all requests together that are not answered yet. A request is admitted above
            it where no other is pending.
        dead_letters: A directory for requests that failed twice; None to keep none.
        retry_after_s: The delay that senders are asked for before they try again, in seconds.
    """

    def __init__(
        self,
        deliver: Callable[[tuple[TelemetryItem, ...]], Future[Rejections]],
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        dead_letters: Path | None = None,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self.max_request_bytes: int = max_request_bytes
        self.max_pending_bytes: int = max_pending_bytes
        self.retry_after_s: float = retry_after_s
        self._deliver = deliver
        self._dead_letters = DeadLetterDirectory(dead_letters) if dead_letters is not None else None
        self._lock = threading.Lock()
        self._pending_bytes = 0
        self._totals: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._failed: OrderedDict[bytes, None] = OrderedDict()
        """Digests of requests that failed once, the oldest first."""

    @property
    def counts(self) -> ReceivedCounts:
        """The counts of everything so far, all of one moment."""
        with self._lock:
            return ReceivedCounts(
                accepted=self._totals["accepted"],
                rejected=MappingProxyType(dict(self._rejected)),
                refused=self._totals["refused"],
                ignored=self._totals["ignored"],
                loop_dropped=self._totals["loop_dropped"],
                unused=MappingProxyType(dict(self._unused)),
                refused_requests=self._totals["refused_requests"],
                malformed=self._totals["malformed"],
                dead_letters=self._totals["dead_letters"],
            )

    @property
    def pending_bytes(self) -> int:
        """Bytes of requests that are not answered yet."""
        return self._pending_bytes

    def count_refusal(self) -> None:
        """Counts a request that a receiver refused before it was handed in, for too many bytes in flight."""
        with self._lock:
            self._totals["refused_requests"] += 1

    def consume(self, signal: Signal, body: bytes) -> Future[ExportResult]:
        """Takes a request; the future is done when its items are stored, or were not taken.

        The future ends with `OverloadedError` if the next step has no room, with `UnavailableError` if a fault of
        ours kept the request from being taken; after both it may be sent again. It cannot be cancelled.

        Args:
            signal: The signal of the request.
            body: The request in protobuf, decompressed, of at most `max_request_bytes`.

        Raises:
            OverloadedError: Too many bytes are in flight; decided before parsing.
            MalformedError: `body` is not a request of this signal.
        """
        self._reserve(body)
        message = self._parse(signal, body)
        request = _PendingRequest(signal, body, Future())
        request.result.set_running_or_notify_cancel()  # so that nobody can cancel it while it is being stored
        codec = _CODECS[signal]
        decoded: DecodedRequest | None = None
        with guard("receive.decode"):
            decoded = codec.decode(message)
        if decoded is None:
            self._fail(request, codec.count(message))
        elif not decoded.items:
            self._succeed(request, decoded, {})
        else:
            self._submit(request, decoded)
        return request.result

    def _reserve(self, body: bytes) -> None:
        with self._lock:
            has_room = not self._pending_bytes or self._pending_bytes + len(body) <= self.max_pending_bytes
            if has_room:
                self._pending_bytes += len(body)
        if not has_room:
            self.count_refusal()
            message = "The processor works on too many bytes at a time; send the request again later."
            raise OverloadedError(message, retry_after_s=self.retry_after_s)

    def _parse(self, signal: Signal, body: bytes) -> Any:
        try:
            return _CODECS[signal].request.FromString(body)
        except DecodeError:
            with self._lock:
                self._totals["malformed"] += 1
                self._pending_bytes -= len(body)
            raise MalformedError(f"The body is not an OTLP {signal} request in protobuf.") from None

    def _submit(self, request: _PendingRequest, decoded: DecodedRequest) -> None:
        def settle(delivery: Future[Rejections]) -> None:
            """Runs on: the thread that ended the delivery."""
            self._settle(request, decoded, _run_step(delivery.result))

        started = _run_step(lambda: self._deliver(decoded.items))
        if isinstance(started, Future):
            started.add_done_callback(settle)
        else:
            self._settle(request, decoded, started)

    def _settle(self, request: _PendingRequest, decoded: DecodedRequest, outcome: Rejections | Exception) -> None:
        if isinstance(outcome, RetryableError):
            self._refuse(request, decoded.points, outcome)
        elif isinstance(outcome, StoreError):
            message = "The processor cannot store its state now; send the request again."
            self._refuse(request, decoded.points, UnavailableError(message, retry_after_s=self.retry_after_s))
        elif isinstance(outcome, Exception):
            self._fail(request, decoded.points)
        else:
            self._succeed(request, decoded, outcome)

    def _succeed(self, request: _PendingRequest, decoded: DecodedRequest, rejections: Rejections) -> None:
        rejected = Counter(decoded.faults)
        rejected.update(rejections)
        with self._lock:
            self._totals["accepted"] += decoded.accepted - sum(rejections.values())
            self._totals["ignored"] += decoded.ignored
            self._totals["loop_dropped"] += decoded.loop_dropped
            if decoded.unused:
                self._unused[request.signal] += decoded.unused
            self._rejected.update(rejected)
            if self._failed:
                self._failed.pop(_hash_body(request.body), None)
        self._answer(request, ExportResult(rejected=sum(rejected.values()), message=_list_rejections(rejected)))

    def _refuse(self, request: _PendingRequest, points: int, error: Exception) -> None:
        with self._lock:
            self._totals["refused"] += points
        self._answer(request, error)

    def _fail(self, request: _PendingRequest, points: int) -> None:
        """Handles an internal error: the first time the request may be sent again; then it is a dead letter."""
        digest = _hash_body(request.body)
        with self._lock:
            has_failed_before = digest in self._failed
            if has_failed_before:
                del self._failed[digest]
                self._rejected[DEAD_LETTER] += points
                self._totals["dead_letters"] += 1
            else:
                self._failed[digest] = None
                if len(self._failed) > MAX_REMEMBERED_FAILURES:
                    self._failed.popitem(last=False)
        if not has_failed_before:
            error = "The processor failed to take the request; send it again."
            self._refuse(request, points, UnavailableError(error, retry_after_s=self.retry_after_s))
            return
        with guard("receive.dead_letter"):
            if self._dead_letters is not None:
                self._dead_letters.write(request.body, name=f"{request.signal}-{digest.hex()}")
        message = "The processor failed twice to take the request and rejected it; do not send it again."
        self._answer(request, ExportResult(rejected=points, message=message))

    def _answer(self, request: _PendingRequest, result: ExportResult | Exception) -> None:
        with self._lock:
            self._pending_bytes -= len(request.body)
        if isinstance(result, ExportResult):
            request.result.set_result(result)
        else:
            request.result.set_exception(result)


def _run_step(step: Callable[[], T]) -> T | Exception:
    """Runs one step of a delivery; returns its result, why it refuses the request, or `_FAULT`."""
    outcome: T | Exception = _FAULT
    with guard("receive.deliver"):
        try:
            outcome = step()
        except (RetryableError, StoreError) as error:
            outcome = error
    return outcome


def _hash_body(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _list_rejections(faults: Mapping[str, int]) -> str:
    """Lists the reasons for which points were rejected, the most frequent first; empty if there are none."""
    ranked = sorted(faults.items(), key=lambda fault: (-fault[1], fault[0]))
    return ", ".join(f"{reason}: {count}" for reason, count in ranked)


def _decode_traces(request: ExportTraceServiceRequest) -> DecodedRequest:
    return DecodedRequest(unused=_count_spans(request))


def _count_spans(request: ExportTraceServiceRequest) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


_CODECS: Final[Mapping[Signal, _SignalCodec]] = {
    "metrics": _SignalCodec(ExportMetricsServiceRequest, decode_metrics, count_points),
    "logs": _SignalCodec(ExportLogsServiceRequest, decode_logs, count_records),
    "traces": _SignalCodec(ExportTraceServiceRequest, _decode_traces, _count_spans),
}
