"""Admits OTLP requests from the receivers, decodes and delivers them, and counts what became of each point.

Admission is decided before a request is parsed, since parsing is what costs: it goes by the time that the requests in
progress are going to take, and by their bytes. A fault of ours is answered with "unavailable", so that the sender keeps
the batch and sends it again; senders drop a batch that is answered with "internal". A request that fails twice is
written to the dead letters and rejected.
Source: opentelemetry-proto, specification.md (partial success, retryable codes).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError, StoreError, UnavailableError
from otel_mlmon.guard import guard
from otel_mlmon.processor.receive.accounts import ReceiverAccounts
from otel_mlmon.processor.receive.codec import CODECS, BodyFormat, Signal, SignalCodec, parse_request
from otel_mlmon.processor.receive.data_point import DecodedRequest, Rejections, TelemetryItem
from otel_mlmon.processor.receive.dead_letters import DeadLetterDirectory
from otel_mlmon.processor.receive.load import (
    ANSWER_WITHIN_S,
    MAX_PENDING_BYTES,
    MAX_QUEUE_S,
    RETRY_AFTER_S,
    STORE_WITHIN_S,
    AdmittedRequest,
    PendingRequests,
    RequestRefusal,
    WorkTimeMeter,
)
from otel_mlmon.processor.receive.outcomes import ExportResult, PointOutcomeCounts, ReceivedCounts, RefusalReason
from otel_mlmon.processor.receive.recent_requests import RecentRequest, RecentRequests, hash_body
from otel_mlmon.processor.receive.sender_versions import SenderVersions

T = TypeVar("T")

MAX_REQUEST_BYTES: Final = 64 * 2**20
"""After decompression. Source: opentelemetry-proto, specification.md, the recommended default."""

PARSED_FACTOR: Final = 8
MIN_PARSED_BYTES: Final = 64 * 2**20
"""A request may take so much memory once it is parsed, or `PARSED_FACTOR` times the largest request if that is more."""

DECODERS: Final = 2
"""How many requests are decoded at a time; more would only take turns at the interpreter with the state's thread."""

_SUFFIXES: Final[Mapping[BodyFormat, str]] = {"protobuf": ".pb", "json": ".json"}
_FAULT: Final = RuntimeError("an internal error, which the guard has reported")


class _PendingRequest(NamedTuple):
    """An OTLP request that is not answered yet."""

    signal: Signal
    body: bytes
    body_format: BodyFormat
    place: AdmittedRequest
    result: Future[ExportResult]
    digest: bytes
    """A hash of the body."""


class RequestAdmission:
    """Admits or refuses OTLP requests of any number of receivers, decodes them, and hands on their data points.

    Runs on: the receivers' threads; a delivery may be acknowledged on any thread.

    Args:
        deliver: Takes the items of one request, and the seconds within which they must be stored or refused. Returns at
            once with a future that is done when they are stored, with the points that were not counted, by reason. To
            refuse a request it raises, or ends the future with, a `RetryableError`, or a `StoreError` where the state
            cannot be stored.
        max_request_bytes: The largest request that a receiver may accept, after decompression.
        max_pending_bytes: The limit on all requests together that are not answered yet. A request is admitted above
            it where no other is pending.
        max_queue_s: The limit on the time, in seconds, that the requests in progress are going to take, and on the time
            for which the oldest has waited. A request is admitted above it where no other is pending.
        has_room: Whether the points of one more metrics request may be delivered; looked at before it is parsed.
        count_repeated: Counts the points of a request that came again and was not delivered, by their outcome.
        meter: Measures that rate; whoever works off the items must measure its work with it too.
        dead_letters: A directory for requests that failed twice; None to keep none.
        retry_after_s: The shortest delay that senders are asked for before they try again, in seconds.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        deliver: Callable[[tuple[TelemetryItem, ...], float], Future[Rejections]],
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        max_queue_s: float = MAX_QUEUE_S,
        has_room: Callable[[], bool] = lambda: True,
        count_repeated: Callable[[Mapping[str, int]], None] = lambda _: None,
        meter: WorkTimeMeter | None = None,
        dead_letters: Path | None = None,
        retry_after_s: float = RETRY_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_request_bytes: int = max_request_bytes
        self.max_pending_bytes: int = max_pending_bytes
        self.retry_after_s: float = retry_after_s
        self._max_parsed_bytes = max(PARSED_FACTOR * max_request_bytes, MIN_PARSED_BYTES)
        self._deliver = deliver
        self._has_room = has_room
        self._count_repeated = count_repeated
        self._recent = RecentRequests(clock=clock)
        self._meter = meter or WorkTimeMeter()
        self._pending = PendingRequests(
            max_bytes=max_pending_bytes,
            max_queue_s=max_queue_s,
            retry_after_s=retry_after_s,
            meter=self._meter,
            clock=clock,
        )
        self._decoders = threading.BoundedSemaphore(DECODERS)
        self._versions = SenderVersions()
        self._dead_letters = DeadLetterDirectory(dead_letters) if dead_letters is not None else None
        self._accounts = ReceiverAccounts()

    @property
    def read_counts(self) -> ReceivedCounts:
        """The counts of all received data points and requests by their outcome, all of one moment."""
        return self._accounts.read()

    @property
    def pending_bytes(self) -> int:
        """The number of bytes of OTLP requests that are not answered yet."""
        return self._pending.size_bytes

    @property
    def queue_s(self) -> float:
        """The estimated seconds that the OTLP requests in progress will take."""
        return self._pending.queue_s

    @property
    def is_crowded(self) -> bool:
        """Whether more than one OTLP request is in progress."""
        return self._pending.is_crowded

    def remaining_s(self, place: AdmittedRequest) -> float:
        """Returns the seconds within which an admitted request must be answered; 0 or less if it is late."""
        return ANSWER_WITHIN_S - self._pending.measure_wait_s(place)

    def count_unread(self, reason: RefusalReason, explanation: str, read_bytes: int) -> None:
        """Counts and logs an OTLP request that is refused before it is parsed; `explanation` is a sentence."""
        self._accounts.add_unread(reason, explanation, read_bytes)

    def count_malformed(self, explanation: str) -> None:
        """Counts and logs a request that is not valid in its encoding; `explanation` is a sentence."""
        self._accounts.add_malformed(explanation)

    def admit_request(
        self, size_bytes: int, *, sent_bytes: int | None = None, waited_s: float = 0.0
    ) -> AdmittedRequest:
        """Admits an OTLP request before it is parsed; `release_request` or `consume_request` must follow.

        Args:
            size_bytes: Its size after decompression, estimated.
            sent_bytes: Its size as it was read; None if that is the same.
            waited_s: How long ago it arrived, in seconds.

        Raises:
            OverloadedError: The requests in progress take too long or too much memory.
        """
        sent_bytes = size_bytes if sent_bytes is None else sent_bytes
        place = self._pending.add(size_bytes, sent_bytes=sent_bytes, waited_s=waited_s)
        if isinstance(place, RequestRefusal):
            self._refuse_unread(place, sent_bytes)
        return place

    def check_room(self, *, waited_s: float) -> None:
        """Checks that there may be a place for an OTLP request that waited `waited_s` seconds and is not read yet.

        Raises:
            OverloadedError: It would not, however small it is.
        """
        refusal = self._pending.find_refusal(waited_s)
        if refusal is not None:
            self._refuse_unread(refusal, 0)

    def release_request(self, place: AdmittedRequest) -> None:
        """Gives back the place of an admitted OTLP request that was not consumed. Safe twice."""
        self._pending.remove(place)

    def refuse_late(self, place: AdmittedRequest) -> None:
        """Refuses an admitted OTLP request whose turn to be parsed did not come in time; else does nothing.

        Raises:
            OverloadedError: It did not.
        """
        refusal = self._pending.find_late_refusal(place)
        if refusal is not None:
            self.release_request(place)
            self._refuse_unread(refusal, place.sent_bytes)

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
            OverloadedError: There is no place, no room for its points, or its turn did not come in time; decided
                before parsing.
            MalformedError: `body` is not a request of this signal.
            BodyTooLargeError: It would take too much memory once it is parsed, as none of an exporter does.
        """
        place = place or self.admit_request(len(body))
        self._pending.resize(place, len(body))
        request = _PendingRequest(signal, body, body_format, place, Future(), hash_body(body))
        request.result.set_running_or_notify_cancel()  # so that nobody can cancel it while it is being stored
        earlier = self._recent.find_request(request.digest) if signal == "metrics" else None
        if earlier is not None:
            self._share_answer(request.result, earlier)
            self.release_request(place)
            return request.result
        codec = CODECS[signal]
        decoded: DecodedRequest | None = None
        try:
            with self._decoders, self._meter.measure():
                self.refuse_late(place)
                if signal == "metrics" and not self._has_room():
                    self._refuse_unread(self._pending.refuse_points(place), place.sent_bytes)
                max_wait_s = STORE_WITHIN_S - self._pending.measure_wait_s(place)  # however long decoding takes
                message = self._parse_request(request)
                decoded = self._decode_request(codec, message)
        except BaseException:
            self.release_request(place)  # whatever happened, or every later request would wait behind it
            raise
        if decoded is None:
            self._handle_fault(request, codec.count(message))
        elif not decoded.items:
            self._record_success(request, decoded, {})
        else:
            self._submit_points(request, decoded, max_wait_s)
        return request.result

    def _refuse_unread(self, refusal: RequestRefusal, read_bytes: int) -> NoReturn:
        self.count_unread(refusal.reason, refusal.explanation, read_bytes)
        raise OverloadedError(
            f"{refusal.explanation} Send the request again later.", retry_after_s=refusal.retry_after_s
        )

    def _parse_request(self, request: _PendingRequest) -> Any:
        try:
            return parse_request(request.signal, request.body, request.body_format, max_bytes=self._max_parsed_bytes)
        except MalformedError as error:
            self.count_malformed(str(error))
            raise

    def _decode_request(self, codec: SignalCodec, message: Any) -> DecodedRequest | None:
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

    def _submit_points(self, request: _PendingRequest, decoded: DecodedRequest, max_wait_s: float) -> None:
        def settle(delivery: Future[Rejections]) -> None:
            """Settles a request by the outcome of its delivery. Runs on: the thread that ended the delivery."""
            self._settle_request(request, decoded, _run_delivery_step(delivery.result))

        if request.signal == "metrics":
            self._recent.begin_request(request.digest, decoded.points, request.result)
        started = _run_delivery_step(lambda: self._deliver(decoded.items, max_wait_s))
        if isinstance(started, Future):
            started.add_done_callback(settle)
        else:
            self._settle_request(request, decoded, started)

    def _settle_request(
        self, request: _PendingRequest, decoded: DecodedRequest, outcome: Rejections | Exception
    ) -> None:
        if isinstance(outcome, RetryableError):
            self._refuse_request(request, decoded.points, outcome)
        elif isinstance(outcome, StoreError):
            message = "The processor cannot store its state now; send the request again."
            self._refuse_request(request, decoded.points, UnavailableError(message, retry_after_s=self.retry_after_s))
        elif isinstance(outcome, Exception):
            self._handle_fault(request, decoded.points)
        else:
            self._record_success(request, decoded, outcome)

    def _record_success(self, request: _PendingRequest, decoded: DecodedRequest, rejections: Rejections) -> None:
        rejected = Counter(decoded.faults)
        rejected.update(rejections)
        counts = PointOutcomeCounts(
            accepted=decoded.accepted - sum(rejections.values()),
            ignored=decoded.ignored,
            loop_dropped=decoded.loop_dropped,
            unused=decoded.unused,
            rejected=rejected,
            uncounted=rejections,
        )
        answer = ExportResult(rejected=sum(rejected.values()), message=_list_rejections(rejected))
        self._accounts.add_stored(request.signal, counts)
        self._recent.store_result(request.digest, request.result, counts, answer)
        self._answer_request(request, answer)

    def _share_answer(self, result: Future[ExportResult], earlier: RecentRequest) -> None:
        """Gives a repeated request the answer of the earlier one with the same bytes, as soon as that one is stored."""

        def settle(first: Future[ExportResult] | None) -> None:
            """Answers the repeated request. Runs on: the thread that ended the first request, or this one."""
            error = first.exception() if first is not None else None
            counts, answer = earlier.counts, earlier.answer
            if error is not None or counts is None or answer is None:
                self._accounts.add_refused(earlier.points)
                message = "The processor failed to take the request; send it again."
                result.set_exception(error or UnavailableError(message, retry_after_s=self.retry_after_s))
                return
            self._accounts.add_stored("metrics", counts)
            self._count_repeated({**counts.uncounted, "duplicate": counts.accepted})
            result.set_result(answer)

        first = earlier.result
        if first is None:
            settle(None)
        else:
            first.add_done_callback(settle)

    def _refuse_request(self, request: _PendingRequest, points: int, error: Exception) -> None:
        self._accounts.add_refused(points)
        self._recent.forget_request(request.digest, request.result)
        self._answer_request(request, error)

    def _handle_fault(self, request: _PendingRequest, points: int) -> None:
        """Handles an internal error: a request may be sent again the first time, and then is a dead letter."""
        if not self._recent.note_failure(request.digest):
            error = "The processor failed to take the request; send it again."
            self._refuse_request(request, points, UnavailableError(error, retry_after_s=self.retry_after_s))
            return
        self._accounts.add_dead_letter(request.signal, points)
        with guard("receive.dead_letter"):
            if self._dead_letters is not None:
                self._dead_letters.write(
                    request.body, name=f"{request.signal}-{request.digest.hex()}", suffix=_SUFFIXES[request.body_format]
                )
        self._recent.forget_request(request.digest, request.result)
        message = "The processor failed twice to take the request and rejected it; do not send it again."
        self._answer_request(request, ExportResult(rejected=points, message=message))

    def _answer_request(self, request: _PendingRequest, result: ExportResult | Exception) -> None:
        self._pending.complete(request.place)
        if isinstance(result, ExportResult):
            request.result.set_result(result)
        else:
            request.result.set_exception(result)


def _run_delivery_step(step: Callable[[], T]) -> T | Exception:
    """Runs one step of delivering a request; returns its result, the reason to refuse the request, or `_FAULT`."""
    outcome: T | Exception = _FAULT
    with guard("receive.deliver"):
        try:
            outcome = step()
        except (RetryableError, StoreError) as error:
            outcome = error.with_traceback(None)  # whose frames hold this one, and this one the error
    return outcome


def _list_rejections(faults: Mapping[str, int]) -> str:
    """Lists for a sender why data points were rejected, the most frequent reason first; empty if none were."""
    ranked = sorted(faults.items(), key=lambda fault: (-fault[1], fault[0]))
    return ", ".join(f"{reason}: {count}" for reason, count in ranked)
