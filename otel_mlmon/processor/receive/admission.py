"""What both receivers hand a request to: admission, parsing, delivery, and the account of every point.

A log record that says something of a model is of the same account.

Admission goes by bytes in flight and is decided before a request is parsed, since parsing is what costs. A
fault of ours answers "unavailable", so that the sender keeps the batch and sends it again: one that is
answered "internal" it drops. A body that fails twice is poison: put aside as a dead letter, and rejected.
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
from typing import Any, Final, Literal, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon.errors import MalformedError, OverloadedError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor.receive.data_point import TelemetryItem
from otel_mlmon.processor.receive.dead_letters import DeadLetters
from otel_mlmon.processor.receive.decode import Decoded, decode_metrics
from otel_mlmon.processor.receive.decode_logs import DecodedLogs, decode_logs
from otel_mlmon.processor.receive.wire import DATA_POINTS, LOG_RECORDS, count_messages

Signal: TypeAlias = Literal["metrics", "logs", "traces"]

MAX_REQUEST_BYTES: Final = 64 * 2**20
"""After decompression. Source: opentelemetry-proto, specification.md, the recommended default."""

MAX_PENDING_BYTES: Final = 256 * 2**20
RETRY_AFTER_S: Final = 1.0
MAX_REMEMBERED_FAILURES: Final = 1024

DEAD_LETTER: Final = "dead_letter"
"""The reason of points in a request that failed twice by a fault of ours."""

_REQUESTS: Final[Mapping[str, Any]] = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
_COUNTED: Final = {"metrics": DATA_POINTS, "logs": LOG_RECORDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request that was taken: nothing rejected and no message is full success."""

    rejected: int = 0
    """Points that were not taken and must not be sent again."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The account so far: accepted, rejected, refused, ignored and loop-dropped add up to all points sent."""

    accepted: int
    """Points delivered and acknowledged."""
    rejected: Mapping[str, int]
    """Points that break the data model, or were put aside, by reason."""
    refused: int
    """Points of requests that were turned away and may be sent again, when they are counted again."""
    ignored: int
    """Points that are not ours, and points that say that nothing was recorded."""
    loop_dropped: int
    """Points that a processor sent."""
    unused: Mapping[str, int]
    """Log records and spans, by signal: taken, and not used."""
    malformed: int
    """Requests that could not be read."""
    dead_letters: int
    """Requests that failed twice."""

    @property
    def rejected_total(self) -> int:
        """Over all reasons."""
        return sum(self.rejected.values())


class Admission:
    """Takes requests from any number of receivers, and hands their observations on.

    Runs on: the receivers' threads; delivery is acknowledged on any thread. A lock guards integers only.

    Args:
        deliver: What comes next: takes the observations of one request and answers at once with a future that
            is done when they are safe. To turn a request away it raises, or ends the future with,
            `OverloadedError`.
        max_request_bytes: What a receiver may accept for one request, after decompression.
        max_pending_bytes: Of all requests that are not answered yet.
        dead_letters: A directory for requests that failed twice; None to keep none.
        retry_after_s: What senders are told to wait, in seconds.
    """

    def __init__(
        self,
        deliver: Callable[[tuple[TelemetryItem, ...]], Future[None]],
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
        self._dead_letters = DeadLetters(dead_letters) if dead_letters is not None else None
        self._lock = threading.Lock()
        self._pending_bytes = 0
        self._totals: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._failed: OrderedDict[bytes, None] = OrderedDict()

    @property
    def counts(self) -> Counts:
        """The account of everything so far, all of one moment."""
        with self._lock:
            return Counts(
                accepted=self._totals["accepted"],
                rejected=MappingProxyType(dict(self._rejected)),
                refused=self._totals["refused"],
                ignored=self._totals["ignored"],
                loop_dropped=self._totals["loop_dropped"],
                unused=MappingProxyType(dict(self._unused)),
                malformed=self._totals["malformed"],
                dead_letters=self._totals["dead_letters"],
            )

    @property
    def pending_bytes(self) -> int:
        """Bytes of requests that are not answered yet."""
        return self._pending_bytes

    def consume(self, signal: Signal, body: bytes, encoding: Literal["protobuf"] = "protobuf") -> Future[Outcome]:
        """Take a request; the future is done when its observations are safe, or were not taken.

        The future ends with `OverloadedError` if what comes next has no room, with `UnavailableError` if a
        fault of ours kept the request from being taken; both may be sent again. It cannot be cancelled.

        Args:
            signal: What the request carries.
            body: The request, decompressed, of at most `max_request_bytes`.
            encoding: How it is written.

        Raises:
            OverloadedError: There is no room; decided before parsing.
            MalformedError: `body` is not a request of this signal.
        """
        del encoding  # one so far; part of the signature so that receivers say what they were sent
        self._admit(signal, body)
        request = self._parse(signal, body)
        outcome: Future[Outcome] = Future()
        outcome.set_running_or_notify_cancel()  # so that nobody can cancel what is being written
        if signal != "traces":
            self._take(signal, request, body, outcome)
        else:
            with self._lock:
                self._unused[signal] += _span_count(request)
            self._finish(outcome, body, Outcome())
        return outcome

    def _admit(self, signal: Signal, body: bytes) -> None:
        with self._lock:
            has_room = not self._pending_bytes or self._pending_bytes + len(body) <= self.max_pending_bytes
            if has_room:
                self._pending_bytes += len(body)
        if not has_room:
            points = count_messages(body) if signal == "metrics" else 0  # what a log record is takes parsing
            with self._lock:
                self._totals["refused"] += points
            raise OverloadedError("too many bytes are in flight", retry_after_s=self.retry_after_s)

    def _parse(self, signal: Signal, body: bytes) -> Any:
        try:
            return _REQUESTS[signal].FromString(body)
        except DecodeError:
            with self._lock:
                self._totals["malformed"] += 1
                self._pending_bytes -= len(body)
            raise MalformedError(f"the body is not an OTLP {signal} request in protobuf") from None

    def _take(self, signal: Signal, request: Any, body: bytes, outcome: Future[Outcome]) -> None:
        decoded: Decoded | DecodedLogs | None = None
        with guard("intake.decode"):
            decoded = decode_metrics(request) if signal == "metrics" else decode_logs(request)
        if decoded is None:
            self._fail(body, count_messages(body, _COUNTED[signal]), outcome, signal)
        elif not decoded.observations:
            self._succeed(body, decoded, outcome)
        else:
            self._hand_on(body, decoded, outcome)

    def _hand_on(self, body: bytes, decoded: Decoded | DecodedLogs, outcome: Future[Outcome]) -> None:
        delivered: Future[None] | None = None
        overloaded: OverloadedError | None = None
        with guard("intake.deliver"):
            try:
                delivered = self._deliver(decoded.observations)
            except OverloadedError as error:
                overloaded = error
        if delivered is not None:
            delivered.add_done_callback(lambda done: self._settle(done, body, decoded, outcome))
        elif overloaded is not None:
            self._refuse(body, decoded.points, outcome, overloaded)
        else:
            self._fail(body, decoded.points, outcome, decoded.signal)

    def _settle(
        self, delivered: Future[None], body: bytes, decoded: Decoded | DecodedLogs, outcome: Future[Outcome]
    ) -> None:
        """Runs on: whichever thread ended the delivery."""
        is_safe = False
        overloaded: OverloadedError | None = None
        with guard("intake.deliver"):
            try:
                delivered.result()
                is_safe = True
            except OverloadedError as error:
                overloaded = error
        if is_safe:
            self._succeed(body, decoded, outcome)
        elif overloaded is not None:
            self._refuse(body, decoded.points, outcome, overloaded)
        else:
            self._fail(body, decoded.points, outcome, decoded.signal)

    def _succeed(self, body: bytes, decoded: Decoded | DecodedLogs, outcome: Future[Outcome]) -> None:
        with self._lock:
            self._totals["accepted"] += decoded.accepted
            self._totals["ignored"] += decoded.ignored
            self._totals["loop_dropped"] += decoded.loop_dropped
            if decoded.unused:
                self._unused["logs"] += decoded.unused
            self._rejected.update(decoded.faults)
            if self._failed:
                self._failed.pop(_digest(body), None)
        self._finish(outcome, body, Outcome(rejected=decoded.rejected, message=_explain(decoded.faults)))

    def _refuse(self, body: bytes, points: int, outcome: Future[Outcome], error: Exception) -> None:
        with self._lock:
            self._totals["refused"] += points
        self._finish(outcome, body, error)

    def _fail(self, body: bytes, points: int, outcome: Future[Outcome], signal: str) -> None:
        """A fault of ours: once the request may be sent again, twice it is put aside."""
        digest = _digest(body)
        with self._lock:
            failed_before = digest in self._failed
            if failed_before:
                del self._failed[digest]
                self._rejected[DEAD_LETTER] += points
                self._totals["dead_letters"] += 1
            else:
                self._failed[digest] = None
                if len(self._failed) > MAX_REMEMBERED_FAILURES:
                    self._failed.popitem(last=False)
        if not failed_before:
            error = UnavailableError("the processor failed to take the request", retry_after_s=self.retry_after_s)
            self._refuse(body, points, outcome, error)
            return
        with guard("intake.dead_letter"):
            if self._dead_letters is not None:
                self._dead_letters.keep(body, name=f"{signal}-{digest.hex()}")
        message = "the processor failed twice to take the request and has put it aside"
        self._finish(outcome, body, Outcome(rejected=points, message=message))

    def _finish(self, outcome: Future[Outcome], body: bytes, result: Outcome | Exception) -> None:
        with self._lock:
            self._pending_bytes -= len(body)
        if isinstance(result, Outcome):
            outcome.set_result(result)
        else:
            outcome.set_exception(result)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _explain(faults: Mapping[str, int]) -> str:
    """Why points were rejected, the most frequent reason first; empty if none was."""
    ranked = sorted(faults.items(), key=lambda fault: (-fault[1], fault[0]))
    return ", ".join(f"{reason}: {count}" for reason, count in ranked)


def _span_count(request: ExportTraceServiceRequest) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
