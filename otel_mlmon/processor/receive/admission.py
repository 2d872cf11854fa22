"""Admits OTLP requests from the receivers, decodes and delivers them, and counts what became of each point.

Admission is decided before a request is parsed, since parsing is what costs: it goes by the time that the requests in
progress are going to take, and by their bytes. A fault of ours is answered with "unavailable", so that the sender keeps
the batch and sends it again; senders drop a batch that is answered with "internal". A request that fails twice is
written to the dead letters and rejected.
Source: opentelemetry-proto, specification.md (partial success, retryable codes).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError, StoreError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.internal_events import EventJournal
from otel_mlmon.processor.receive.codec import CODECS, BodyFormat, Signal, SignalCodec, parse_request
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.dead_letters import DeadLetterDirectory
from otel_mlmon.processor.receive.decode import DecodedRequest
from otel_mlmon.processor.receive.events import PointsRejected, RequestMalformed, RequestRefused
from otel_mlmon.processor.receive.load import ReturnSchedule, WorkTimeMeter
from otel_mlmon.processor.receive.outcomes import DEAD_LETTER, ExportResult, ReceivedCounts, RefusalReason
from otel_mlmon.processor.receive.sender_versions import SenderVersions

T = TypeVar("T")

MAX_REQUEST_BYTES: Final = 64 * 2**20
"""After decompression. Source: opentelemetry-proto, specification.md, the recommended default."""

MAX_PENDING_BYTES: Final = 256 * 2**20
MAX_PENDING_REQUESTS: Final = 256
MAX_QUEUE_S: Final = 2.0
"""Exporters give up after 5 s or 10 s: what waits longer is worked off for nobody, and sent again."""

MAX_RETRY_AFTER_S: Final = 30.0
DECODERS: Final = 2
"""How many requests are decoded at a time; more would only take turns at the interpreter with the state's thread."""

RETRY_AFTER_S: Final = 1.0
MAX_REMEMBERED_FAILURES: Final = 1024

_SUFFIXES: Final[Mapping[BodyFormat, str]] = {"protobuf": ".pb", "json": ".json"}
_LOG: Final = logging.getLogger("otel_mlmon.receiver")
_FAULT: Final = RuntimeError("an internal error, which the guard has reported")


@dataclass(slots=True, kw_only=True, eq=False)
class AdmittedRequest:
    """The place that an admitted OTLP request takes among those in progress, with its size."""

    size_bytes: int
    """After decompression, estimated before it."""
    sent_bytes: int
    """As they were read."""
    arrived_s: float


class _PendingRequest(NamedTuple):
    """An OTLP request that is not answered yet."""

    signal: Signal
    body: bytes
    body_format: BodyFormat
    place: AdmittedRequest
    result: Future[ExportResult]


class RequestAdmission:
    """Admits or refuses OTLP requests of any number of receivers, decodes them, and hands on their data points.

    Runs on: the receivers' threads; a delivery may be acknowledged on any thread. Its lock guards integers only.

    Args:
        deliver: Takes the items of one request and returns at once with a future that is done when they are stored,
            with the points that were not counted, by reason. To refuse a request it raises, or ends the future with, a
            `RetryableError`, or a `StoreError` where the state cannot be stored.
        max_request_bytes: The largest request that a receiver may accept, after decompression.
        max_pending_bytes: The limit on all requests together that are not answered yet. A request is admitted above
            it where no other is pending.
        max_queue_s: The limit on the time, in seconds, that the requests in progress are going to take, by the rate at
            which those before them were worked off. A request is admitted above it where no other is pending.
        meter: Measures that rate; whoever works off the items must measure its work with it too.
        dead_letters: A directory for requests that failed twice; None to keep none.
        retry_after_s: The shortest delay that senders are asked for before they try again, in seconds.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        deliver: Callable[[tuple[TelemetryItem, ...]], Future[Rejections]],
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        max_queue_s: float = MAX_QUEUE_S,
        meter: WorkTimeMeter | None = None,
        dead_letters: Path | None = None,
        retry_after_s: float = RETRY_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_request_bytes: int = max_request_bytes
        self.max_pending_bytes: int = max_pending_bytes
        self.retry_after_s: float = retry_after_s
        self._deliver = deliver
        self._max_queue_s = max_queue_s
        self._meter = meter or WorkTimeMeter()
        self._clock = clock
        self._decoders = threading.BoundedSemaphore(DECODERS)
        self._journal = EventJournal(log=_LOG)
        self._versions = SenderVersions()
        self._places: dict[int, AdmittedRequest] = {}
        """Of requests that are not answered yet, the oldest first."""
        self._dead_letters = DeadLetterDirectory(dead_letters) if dead_letters is not None else None
        self._lock = threading.Lock()
        self._pending_bytes = 0
        self._returns = ReturnSchedule(max_delay_s=max(MAX_RETRY_AFTER_S, retry_after_s), clock=clock)
        self._totals: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._unread_requests: Counter[str] = Counter()
        self._unread_bytes: Counter[str] = Counter()
        self._failed: OrderedDict[bytes, None] = OrderedDict()
        """Digests of requests that failed once, the oldest first."""

    @property
    def read_counts(self) -> ReceivedCounts:
        """The counts of all received data points and requests by their outcome, all of one moment."""
        with self._lock:
            return ReceivedCounts(
                accepted=self._totals["accepted"],
                rejected=MappingProxyType(dict(self._rejected)),
                refused=self._totals["refused"],
                ignored=self._totals["ignored"],
                loop_dropped=self._totals["loop_dropped"],
                unused=MappingProxyType(dict(self._unused)),
                unread_requests=MappingProxyType(dict(self._unread_requests)),
                unread_bytes=MappingProxyType(dict(self._unread_bytes)),
                malformed=self._totals["malformed"],
                dead_letters=self._totals["dead_letters"],
            )

    @property
    def pending_bytes(self) -> int:
        """The number of bytes of OTLP requests that are not answered yet."""
        return self._pending_bytes

    @property
    def queue_s(self) -> float:
        """The estimated seconds that the OTLP requests in progress will take."""
        with self._lock:
            return self._meter.estimate_s(len(self._places), self._pending_bytes)

    def count_unread(self, reason: RefusalReason, explanation: str, read_bytes: int) -> None:
        """Counts and logs an OTLP request that is refused before it is parsed; `explanation` is a sentence."""
        with self._lock:
            self._unread_requests[reason] += 1
            self._unread_bytes[reason] += read_bytes
        self._journal.emit_event(RequestRefused(reason=reason, explanation=explanation))

    def count_malformed(self, explanation: str) -> None:
        """Counts and logs a request that is not valid in its encoding; `explanation` is a sentence."""
        with self._lock:
            self._totals["malformed"] += 1
        self._journal.emit_event(RequestMalformed(explanation=explanation))

    def admit_request(self, size_bytes: int, *, sent_bytes: int | None = None) -> AdmittedRequest:
        """Admits an OTLP request before it is parsed; `release_request` or `consume_request` must follow.

        Args:
            size_bytes: Its size after decompression, estimated.
            sent_bytes: Its size as it was read; None if that is the same.

        Raises:
            OverloadedError: The requests in progress take too long or too much memory.
        """
        sent_bytes = size_bytes if sent_bytes is None else sent_bytes
        place = AdmittedRequest(size_bytes=size_bytes, sent_bytes=sent_bytes, arrived_s=self._clock())
        with self._lock:
            refusal = self._refusal(size_bytes)
            if refusal is None:
                self._places[id(place)] = place
                self._pending_bytes += size_bytes
                return place
            reason, explanation, delay_s = refusal
            cost_s = self._meter.estimate_s(1, size_bytes)
            delay_s = self._returns.add(cost_s, min_delay_s=max(delay_s, self.retry_after_s))
        self.count_unread(reason, explanation, sent_bytes)
        raise OverloadedError(f"{explanation} Send the request again later.", retry_after_s=delay_s)

    def release_request(self, place: AdmittedRequest) -> None:
        """Gives back the place of an admitted OTLP request that was not consumed. Safe twice."""
        with self._lock:
            if self._places.pop(id(place), None) is not None:
                self._pending_bytes -= place.size_bytes

    def consume_request(
        self, signal: Signal, body: bytes, *, body_format: BodyFormat = "protobuf", place: AdmittedRequest | None = None
    ) -> Future[ExportResult]:
        """Decodes an OTLP request and hands on its data points; returns a future that is done when they are stored.

        The future ends with `OverloadedError` if the next step has no room, with `UnavailableError` if a fault of
        ours kept the request from being taken; after both it may be sent again. It cannot be cancelled.

        Args:
            signal: The signal of the request.
            body: The request, decompressed, of at most `max_request_bytes`.
            body_format: Protobuf or JSON.
            place: Its place; None to ask for one here.

        Raises:
            OverloadedError: There is no place, or its turn did not come in time; decided before parsing.
            MalformedError: `body` is not a request of this signal.
        """
        place = place or self.admit_request(len(body))
        with self._lock:
            self._pending_bytes += len(body) - place.size_bytes
            place.size_bytes = len(body)
        request = _PendingRequest(signal, body, body_format, place, Future())
        request.result.set_running_or_notify_cancel()  # so that nobody can cancel it while it is being stored
        codec = CODECS[signal]
        decoded: DecodedRequest | None = None
        try:
            with self._decoders, self._meter.measure():
                self._check_wait(place)
                message = self._parse(request)
                decoded = self._decode(codec, message)
        except BaseException:
            self.release_request(place)  # whatever happened, or every later request would wait behind it
            raise
        if decoded is None:
            self._fail(request, codec.count(message))
        elif not decoded.items:
            self._succeed(request, decoded, {})
        else:
            self._submit(request, decoded)
        return request.result

    def _refusal(self, size_bytes: int) -> tuple[RefusalReason, str, float] | None:
        """Returns why a request is refused, as reason, explanation and delay; None if not. Called under the lock."""
        if not self._places:
            return None
        if self._pending_bytes + size_bytes > self.max_pending_bytes:
            return "memory", "The processor works on too many bytes at a time.", 0.0
        queue_s = self._meter.estimate_s(len(self._places) + 1, self._pending_bytes + size_bytes)
        waited_s = self._clock() - next(iter(self._places.values())).arrived_s
        if max(queue_s, waited_s) > self._max_queue_s:
            explanation = f"The processor has more than {self._max_queue_s:g} s of work before it."
            return "queue", explanation, queue_s - self._max_queue_s
        if len(self._places) >= MAX_PENDING_REQUESTS:
            return "queue", f"The processor works on {MAX_PENDING_REQUESTS} requests already.", 0.0
        return None

    def _check_wait(self, place: AdmittedRequest) -> None:
        """Refuses an OTLP request whose turn to be parsed did not come in time."""
        if self._clock() - place.arrived_s > self._max_queue_s:
            self.release_request(place)
            explanation = f"The processor could not begin with it within {self._max_queue_s:g} s."
            self.count_unread("queue", explanation, place.sent_bytes)
            raise OverloadedError(f"{explanation} Send it again later.", retry_after_s=self.retry_after_s)

    def _parse(self, request: _PendingRequest) -> Any:
        try:
            return parse_request(request.signal, request.body, request.body_format)
        except MalformedError as error:
            self.count_malformed(str(error))
            self.release_request(request.place)
            raise

    def _decode(self, codec: SignalCodec, message: Any) -> DecodedRequest | None:
        """Decodes an OTLP request into data points and events; None after an internal error."""
        decoded: DecodedRequest | None = None
        malformed: MalformedError | None = None
        with guard("receive.decode"):
            try:
                decoded = codec.decode(message)
            except MalformedError as error:
                malformed = error
            self._versions.warn_of_version(message)
        if malformed is not None:
            self.count_malformed(str(malformed))
            raise malformed
        return decoded

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
        self._log_rejections(request, rejected)
        self._answer(request, ExportResult(rejected=sum(rejected.values()), message=_list_rejections(rejected)))

    def _log_rejections(self, request: _PendingRequest, rejected: Rejections) -> None:
        for reason, count in rejected.items():
            self._journal.emit_event(PointsRejected(signal=request.signal, reason=reason, count=count))

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
                self._dead_letters.write(
                    request.body, name=f"{request.signal}-{digest.hex()}", suffix=_SUFFIXES[request.body_format]
                )
        self._log_rejections(request, {DEAD_LETTER: points})
        message = "The processor failed twice to take the request and rejected it; do not send it again."
        self._answer(request, ExportResult(rejected=points, message=message))

    def _answer(self, request: _PendingRequest, result: ExportResult | Exception) -> None:
        self.release_request(request.place)
        self._meter.complete(len(request.body))
        if isinstance(result, ExportResult):
            request.result.set_result(result)
        else:
            request.result.set_exception(result)


def _run_step(step: Callable[[], T]) -> T | Exception:
    """Runs one step of handing on a request; returns its result, why it refuses the request, or `_FAULT`."""
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
    """Lists for a sender why data points were rejected, the most frequent reason first; empty if none were."""
    ranked = sorted(faults.items(), key=lambda fault: (-fault[1], fault[0]))
    return ", ".join(f"{reason}: {count}" for reason, count in ranked)
