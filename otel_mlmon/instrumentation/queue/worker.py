"""The one daemon thread behind, started at the first record, and how it lets the host's threads go first.

It is woken through a `SimpleQueue`, whose `put` may interrupt another `put` in the same thread: a signal handler that
runs a model never meets a lock held below it. Source: Python documentation, queue.SimpleQueue.put.

One thread at a time has the interpreter, and one that works without a pause keeps the others waiting, 5 ms by default
before it is asked to stop. Ours asks nobody to wait that long: it gives way between steps of some 0.1 ms.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from otel_mlmon.guard import guard

NAME: Final = "otel_mlmon"

PAUSE_S: Final = 0.0002
"""Longer than a thread takes to wake. With `time.sleep(0)`, 0.06 ms on Linux, the one that waited was often too late,
and waited for several steps: the slowest of 40,000 calls took 4 ms instead of 0.6."""


class Worker:
    """Does `work` at once, then every `interval_s`, or sooner when woken.

    Runs on: `attend` on any thread, never waiting; `stop` on any other than the worker's own.

    Args:
        work: One round; keeps its own faults.
        interval_s: Between rounds, above 0.
    """

    def __init__(self, *, work: Callable[[], None], interval_s: float) -> None:
        self._work = work
        self._interval_s = interval_s
        self.reset()

    def reset(self) -> None:
        """Starts over as if never started: in a forked child the thread is gone and its locks may be held for ever."""
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def attend(self, is_urgent: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Starts the thread for the first record, and wakes it if the record is urgent."""
        if self._thread is None and not self._is_stopping and self._starting.acquire(blocking=False):
            # Never released: the first caller starts it, and a process that cannot start it is not asked again.
            # Guarded: the record that this is for waits already, and is read by the next collection or flush.
            with guard("worker"):
                thread = threading.Thread(target=self._run, name=NAME, daemon=True)
                thread.start()
                self._thread = thread
        if is_urgent and self._wake.empty():
            self._wake.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the round it is in; whether it ended in time."""
        self._is_stopping = True
        self._wake.put(None)
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self) -> None:
        wake = self._wake
        while not self._is_stopping:
            self._work()
            with suppress(Empty):
                wake.get(timeout=self._interval_s)


def give_way() -> None:
    """Lets a thread that waits for the interpreter have it. Takes 0.26 ms on Linux, and no CPU to speak of."""
    time.sleep(PAUSE_S)


def give_way_unless(is_late: Callable[[], bool]) -> Callable[[], None]:
    """Makes a function that gives way, but not while `is_late` says that there is no time to."""

    def give_way_in_time() -> None:
        if not is_late():
            give_way()

    return give_way_in_time
