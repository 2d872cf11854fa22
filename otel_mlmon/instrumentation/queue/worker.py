"""The one daemon thread behind, started at the first record.

It is woken through a `SimpleQueue`, whose `put` may interrupt another `put` in the same thread: a signal handler that
runs a model never meets a lock held below it. Source: Python documentation, queue.SimpleQueue.put.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from otel_mlmon.guard import guard

NAME: Final = "otel_mlmon"


class Worker:
    """Calls `work` at once, then every `interval_s`, or sooner when woken.

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
        """As if never started: for a forked child, where the thread is gone and its locks may be held for ever."""
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def attend(self, is_urgent: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """There are records: start the thread if nobody did, and wake it if it is urgent."""
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
        """End the thread after the round it is in; whether it ended in time."""
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
