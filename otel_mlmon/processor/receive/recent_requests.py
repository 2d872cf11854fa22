"""Remembers metrics requests for some minutes, so that one that comes again byte for byte is not worked off twice.

A sender whose answer was lost, or came after its patience had ended, sends the same request again. The points alone
would tell for a while only, since of each series the last few are known; and a point that is older, and counted, would
be rejected as one that overlaps. So the requests themselves are remembered, by a hash of their bytes. One that is still
in progress shares its answer with the one that comes again. One of which the windows rejected points is looked at anew,
since it may be sent again on purpose, after a limit was raised; so are all after a restart.

The time is above that for which senders try again: the Collector's exporters for 5 minutes, SDKs for one.
Source: opentelemetry-collector, exporter/exporterhelper, `retry_on_failure.max_elapsed_time`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from otel_mlmon.processor.receive.outcomes import ExportResult, PointOutcomeCounts

REMEMBERED_S: Final = 600.0

MAX_REQUESTS: Final = 2**15
"""Remembered requests, some 600 bytes each; beyond that the oldest is forgotten."""

MAX_SHARED_S: Final = 60.0
"""A request that is in progress for longer shares its answer with no other: a fault of ours may have kept it."""

MAX_FAILURES: Final = 1024
"""Remembered requests that failed by a fault of ours."""


@dataclass(slots=True, eq=False)
class RecentRequest:
    """A metrics request that is in progress, or was stored of late."""

    points: int
    began_s: float
    result: Future[ExportResult] | None
    """Its answer, while it is in progress."""
    counts: PointOutcomeCounts | None = None
    """Its points by outcome; None until they are stored."""
    answer: ExportResult | None = None
    """The answer that it got; None until then."""


class RecentRequests:
    """The metrics requests of the last minutes, by a hash of their bytes.

    Runs on: any thread. Its lock guards two dictionaries.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: OrderedDict[bytes, RecentRequest] = OrderedDict()
        """The oldest first."""
        self._failures: OrderedDict[bytes, None] = OrderedDict()

    def find_request(self, digest: bytes) -> RecentRequest | None:
        """Returns the recent request with this hash if it is stored or may still be; None if it must be worked off."""
        with self._lock:
            request = self._requests.get(digest)
            if request is None:
                return None
            age_s = self._clock() - request.began_s
            return request if age_s <= (MAX_SHARED_S if request.result is not None else REMEMBERED_S) else None

    def begin_request(self, digest: bytes, points: int, result: Future[ExportResult]) -> None:
        """Records that the points of a request are handed on to be stored, under the hash of its bytes."""
        now_s = self._clock()
        with self._lock:
            self._requests.pop(digest, None)
            self._requests[digest] = RecentRequest(points, now_s, result)
            while len(self._requests) > MAX_REQUESTS or self._find_oldest_s() < now_s - REMEMBERED_S:
                self._requests.popitem(last=False)

    def store_result(
        self, digest: bytes, result: Future[ExportResult], counts: PointOutcomeCounts, answer: ExportResult
    ) -> None:
        """Records that a request is stored; must be called before the future `result` of the request is done."""
        with self._lock:
            self._failures.pop(digest, None)
            request = self._requests.get(digest)
            if request is None or request.result is not result:
                return
            request.counts, request.answer = counts, answer
            if counts.uncounted:
                del self._requests[digest]
            else:
                request.result = None

    def forget_request(self, digest: bytes, result: Future[ExportResult]) -> None:
        """Forgets a request that was not stored, so that it is worked off when it comes again."""
        with self._lock:
            request = self._requests.get(digest)
            if request is not None and request.result is result:
                del self._requests[digest]

    def note_failure(self, digest: bytes) -> bool:
        """Records that a request failed by a fault of the processor; returns whether it had failed before."""
        with self._lock:
            if digest in self._failures:
                del self._failures[digest]
                return True
            self._failures[digest] = None
            if len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)
            return False

    def _find_oldest_s(self) -> float:
        return next(iter(self._requests.values())).began_s


def hash_body(body: bytes) -> bytes:
    """Returns the hash of a request's bytes, by which the request is recognised, 16 bytes."""
    return hashlib.blake2b(body, digest_size=16).digest()
