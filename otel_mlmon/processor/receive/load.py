"""Measures how fast requests are processed, so that admission can refuse by waiting time instead of by size.

The work of a request is decoding it and adding its points to the state, on several threads that share one interpreter.
The rate is the bytes of the requests that were worked off per second in which any thread worked: it holds for an idle
processor, which works now and then, as for a full one, and it counts what other programs of the machine take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

REQUEST_BYTES: Final = 4096
"""What a request costs besides its bytes, as bytes: small ones are not cheaper than that."""

INITIAL_BYTES_PER_S: Final = 1_000_000.0
"""The rate that is assumed before any is measured: about 10,000 points a second."""

_INITIAL_S: Final = 0.1
"""The weight of the assumption, as seconds of measured work."""

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
        """Measures the time inside as time of processing; overlapping work of several threads counts once."""
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
        """Records that a request of this size is processed."""
        with self._lock:
            self._note_time()
            self._bytes += size_bytes + REQUEST_BYTES
            if self._busy_s > _MEMORY_S:
                self._busy_s /= 2
                self._bytes /= 2

    def estimate_s(self, requests: int, size_bytes: int) -> float:
        """Estimates the seconds that it takes to process some requests of this size in total."""
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
