"""Bounds the OTLP requests in progress by the time until they are answered, their bytes and their number.

The work of a request is decoding it and adding its points to the state, on several threads that share one interpreter.
The rate is the bytes of the requests that were worked off per second in which any thread worked: it holds for an idle
processor, which works now and then, as for a full one, and it counts what other programs of the machine take. The
estimate is held against what each request took until its answer, from its arrival in the kernel on: by how much those
of late took longer is added to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from otel_mlmon.processor.receive.outcomes import RefusalReason

MAX_PENDING_BYTES: Final = 256 * 2**20
MAX_PENDING_REQUESTS: Final = 256
MAX_QUEUE_S: Final = 2.0
"""Exporters give up after 5 s or 10 s: what waits longer is worked off for nobody, and sent again."""

ADMIT_WITHIN_S: Final = 3.0
"""A request is admitted where it is going to be answered so soon after its arrival."""

STORE_WITHIN_S: Final = 3.5
"""A request that cannot be stored so soon after its arrival is refused, as long as nothing of it is stored."""

ANSWER_WITHIN_S: Final = 4.5
"""A request is answered so soon after its arrival, whatever holds up its points: before its sender has gone."""

RETRY_AFTER_S: Final = 1.0
MAX_RETRY_AFTER_S: Final = 30.0

REQUEST_BYTES: Final = 4096
"""The cost of a request besides its bytes, as bytes: small ones are not cheaper than that."""

INITIAL_BYTES_PER_S: Final = 1_000_000.0
"""The rate that is assumed before any is measured: about 10,000 points a second."""

_INITIAL_S: Final = 0.1
"""The weight of the assumption, as seconds of measured work."""

_DELAY_WEIGHT: Final = 0.1
"""The weight of the latest request in the average by which answers come later than estimated."""

_MEMORY_S: Final = 4.0
"""After so many seconds of work what was measured before counts half."""


class WorkTimeMeter:
    """Measures how many bytes of requests are processed a second, and estimates how long more of them will take.

    Runs on: any thread. Its lock guards a few numbers.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._threads = 0
        self._began_s = 0.0
        self._busy_s = _INITIAL_S
        self._bytes = INITIAL_BYTES_PER_S * _INITIAL_S

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Counts the time inside the `with` as processing time; overlapping work of several threads counts once."""
        with self._lock:
            self._note_time()
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._note_time()
                self._threads -= 1

    def complete(self, size_bytes: int) -> None:
        """Records that a request of `size_bytes` bytes is processed."""
        with self._lock:
            self._note_time()
            self._bytes += size_bytes + REQUEST_BYTES
            if self._busy_s > _MEMORY_S:
                self._busy_s /= 2
                self._bytes /= 2

    def estimate_s(self, requests: int, size_bytes: int) -> float:
        """Estimates the seconds that it takes to process a number of requests of `size_bytes` bytes together."""
        with self._lock:
            return (size_bytes + requests * REQUEST_BYTES) * self._busy_s / self._bytes

    def _note_time(self) -> None:
        now_s = self._clock()
        if self._threads:
            self._busy_s += now_s - self._began_s
        self._began_s = now_s


class ReturnSchedule:
    """Spaces out when refused requests come again: one after the other, at the rate at which they are worked off.

    Were all asked to come again in a second, refusing them would soon take the time of the work.

    Runs on: any thread, one at a time.

    Args:
        max_delay_s: The longest delay, in seconds; beyond it requests come again together.
        clock: Seconds, monotonic.
    """

    def __init__(self, *, max_delay_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_delay_s = max_delay_s
        self._clock = clock
        self._last_s = 0.0

    def add(self, cost_s: float, *, min_delay_s: float) -> float:
        """Adds a refused request that takes `cost_s` seconds to process; returns the delay to ask for, in seconds."""
        now_s = self._clock()
        self._last_s = min(max(self._last_s + cost_s, now_s + min_delay_s), now_s + self._max_delay_s)
        return self._last_s - now_s


@dataclass(slots=True, kw_only=True, eq=False)
class AdmittedRequest:
    """The place that an admitted OTLP request takes among those in progress, with its size."""

    size_bytes: int
    """The size after decompression, estimated before it."""
    sent_bytes: int
    """The size of the body as it was read."""
    arrived_s: float
    """When it arrived, by the clock of the requests in progress."""
    expected_s: float
    """The time until its answer, as it was estimated when it was admitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefusal:
    """The reason for which an OTLP request finds no room, and the delay before its next attempt."""

    reason: RefusalReason
    explanation: str
    """One sentence."""
    retry_after_s: float


class PendingRequests:
    """The OTLP requests that are not answered yet.

    Runs on: any thread. Its lock guards a few numbers.

    Args:
        max_bytes: The limit on all of them together. A request finds room above it where no other is pending.
        max_queue_s: The limit on the time that they take, in seconds, by the rate at which those before them were
            worked off, and on the time for which the oldest has waited. Likewise where no other is pending.
        retry_after_s: The shortest delay that senders are asked for before they try again, in seconds.
        meter: Measures that rate.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_PENDING_BYTES,
        max_queue_s: float = MAX_QUEUE_S,
        retry_after_s: float = RETRY_AFTER_S,
        meter: WorkTimeMeter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes: int = max_bytes
        self.retry_after_s: float = retry_after_s
        self._max_queue_s = max_queue_s
        self._meter = meter
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[int, AdmittedRequest] = {}
        """The oldest first."""
        self._size_bytes = 0
        self._delay_s = 0.0
        """By how much answers of late came later than estimated."""
        self._returns = ReturnSchedule(max_delay_s=max(MAX_RETRY_AFTER_S, retry_after_s), clock=clock)

    @property
    def size_bytes(self) -> int:
        """The number of bytes of all requests in progress."""
        return self._size_bytes

    @property
    def queue_s(self) -> float:
        """The estimated seconds that the requests in progress will take."""
        with self._lock:
            return self._meter.estimate_s(len(self._places), self._size_bytes)

    @property
    def is_crowded(self) -> bool:
        """Whether more than one request is in progress."""
        return len(self._places) > 1

    def add(self, size_bytes: int, *, sent_bytes: int, waited_s: float) -> AdmittedRequest | RequestRefusal:
        """Adds a request that arrived `waited_s` seconds ago, or says why it is refused."""
        with self._lock:
            refusal = self._check_room(size_bytes, waited_s)
            if refusal is not None:
                return refusal
            self._size_bytes += size_bytes
            place = AdmittedRequest(
                size_bytes=size_bytes,
                sent_bytes=sent_bytes,
                arrived_s=self._clock() - waited_s,
                expected_s=waited_s + self._meter.estimate_s(len(self._places) + 1, self._size_bytes),
            )
            self._places[id(place)] = place
            return place

    def find_refusal(self, waited_s: float) -> RequestRefusal | None:
        """Returns why even the smallest request that arrived `waited_s` seconds ago is refused; None if it is not."""
        with self._lock:
            return self._check_room(0, waited_s)

    def find_late_refusal(self, place: AdmittedRequest) -> RequestRefusal | None:
        """Returns why an admitted request is refused whose turn did not come in time; None if it did."""
        if self._clock() - place.arrived_s <= self._max_queue_s:
            return None
        with self._lock:
            explanation = f"The processor could not begin with it within {self._max_queue_s:g} s."
            return self._build_refusal("queue", explanation, place.size_bytes, 0.0)

    def refuse_points(self, place: AdmittedRequest) -> RequestRefusal:
        """Builds the refusal of an admitted request whose points find no room in the state."""
        with self._lock:
            explanation = "Too many points wait until their pane closes."
            return self._build_refusal("pending_points", explanation, place.size_bytes, 0.0)

    def resize(self, place: AdmittedRequest, size_bytes: int) -> None:
        """Replaces the estimated size of an admitted request."""
        with self._lock:
            self._size_bytes += size_bytes - place.size_bytes
            place.size_bytes = size_bytes

    def complete(self, place: AdmittedRequest) -> None:
        """Gives back the place of a request that is answered now, and learns how much later than expected that is.

        The difference is bounded by the time that a request may take at all, so that one long pause is soon forgotten.
        """
        with self._lock:
            delay_s = min(max(self._clock() - place.arrived_s - place.expected_s, 0.0), STORE_WITHIN_S)
            self._delay_s += _DELAY_WEIGHT * (delay_s - self._delay_s)
            self._meter.complete(place.size_bytes)
        self.remove(place)

    def remove(self, place: AdmittedRequest) -> None:
        """Gives back the place of a request in progress. Safe twice."""
        with self._lock:
            if self._places.pop(id(place), None) is not None:
                self._size_bytes -= place.size_bytes

    def measure_wait_s(self, place: AdmittedRequest) -> float:
        """Returns for how long an admitted request has waited, in seconds."""
        return self._clock() - place.arrived_s

    def _check_room(self, size_bytes: int, waited_s: float) -> RequestRefusal | None:
        """Finds why a request of this size has no room; None if it has. Called under the lock."""
        if not self._places:
            return None
        if self._size_bytes + size_bytes > self.max_bytes:
            return self._build_refusal("memory", "The processor works on too many bytes at a time.", size_bytes, 0.0)
        queue_s = self._meter.estimate_s(len(self._places) + 1, self._size_bytes + size_bytes)
        oldest_s = self._clock() - next(iter(self._places.values())).arrived_s
        answer_s = waited_s + queue_s + self._delay_s
        if max(queue_s, oldest_s) > self._max_queue_s or answer_s > ADMIT_WITHIN_S:
            explanation = f"The processor has more than {self._max_queue_s:g} s of work before it."
            return self._build_refusal("queue", explanation, size_bytes, queue_s - self._max_queue_s)
        if len(self._places) >= MAX_PENDING_REQUESTS:
            explanation = f"The processor works on {MAX_PENDING_REQUESTS} requests already."
            return self._build_refusal("queue", explanation, size_bytes, 0.0)
        return None

    def _build_refusal(
        self, reason: RefusalReason, explanation: str, size_bytes: int, delay_s: float
    ) -> RequestRefusal:
        """Builds a refusal with the delay before the next attempt. Called under the lock."""
        cost_s = self._meter.estimate_s(1, size_bytes)
        retry_after_s = self._returns.add(cost_s, min_delay_s=max(delay_s, self.retry_after_s))
        return RequestRefusal(reason=reason, explanation=explanation, retry_after_s=retry_after_s)
