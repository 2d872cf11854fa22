"""The bounded queue of inference calls between the application's threads and the worker thread, and that thread.

The queue takes no lock: a signal handler may run a model while the thread below it stands inside `offer`. `list.extend`
with a tuple, a slice, its deletion and `next(itertools.count())` are single operations of the interpreter, and of its
free-threaded builds too, which lock the list for each of them. Likewise the thread is woken through a `SimpleQueue`,
whose `put` may interrupt another `put` in the same thread. Source: Python documentation, queue.SimpleQueue.put.

One thread at a time has the interpreter, and one that works without a pause keeps the others waiting, 5 ms by default
before it is asked to stop. Ours asks nobody to wait that long: it gives way between steps of some 0.1 ms.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from otel_mlmon.guard import guard

NAME: Final = "otel_mlmon"

PAUSE_S: Final = 0.0002
"""Longer than a thread takes to wake. With `time.sleep(0)`, 0.06 ms on Linux, the one that waited was often too late,
and waited for several steps: the slowest of 40,000 calls took 4 ms instead of 0.6."""

UNWEIGHED_SHARE: Final = 1 / 8
"""Share of the bytes of a queue up to which its records are not weighed again: half of what wakes the thread."""


class LockFreeCounter:
    """A counter that any thread may increment without a lock, and one thread at a time may read."""

    __slots__ = ("_count", "_reads")

    def __init__(self) -> None:
        self._count = itertools.count()
        self._reads = 0

    def increment(self) -> None:
        """Increments the counter by one."""
        next(self._count)

    def read_count(self) -> int:
        """Returns the value of the lock-free counter."""
        value = next(self._count) - self._reads
        self._reads += 1
        return value


class CallQueue:
    """A bounded first-in-first-out queue of inference calls.

    Flat, since a tuple that waits is one more object for the garbage collector to look at.

    Bound: at most `max_records`. Those that came through `offer` weigh at most `max_bytes` together, or are one;
    threads that append at the same moment may each exceed it by one record. A runtime that extends `queue` itself does
    so only while it is so short that even the largest of its small records would weigh no more than that again.

    The weight needs no lock either: `offer` adds to one total, and `take` sets another to what is no longer there: all
    of it where nothing stays; else, where an eighth of the bytes may be taken, by weighing the records that stay, once
    as many were taken. So what two threads that add at once may lose is corrected soon.

    Runs on: `offer` and `drop` on any thread, `take` and `dropped` on one at a time.

    Args:
        fields: How many fields a record has.
        max_records: Records held at most, above 0.
        max_bytes: Bytes held at most, see above.
        attend: Called when the queue was empty (False), or is long or a quarter of its bytes heavy (True).
        weigh: Estimates the bytes of a record from its fields.
    """

    def __init__(
        self,
        *,
        fields: int,
        max_records: int,
        max_bytes: int,
        attend: Callable[[bool], None],
        weigh: Callable[[Sequence[Any]], int],
    ) -> None:
        self.queue: list[Any] = []
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.high_water = max(1, min(4096, max_records // 2))
        self._fields = fields
        self._attend = attend
        self._weigh = weigh
        self._drops: dict[str, LockFreeCounter] = {}
        self._full_reason = "buffer_full"
        self._offered_bytes = 0
        self._taken_bytes = 0
        self._unweighed_fields = 0

    def __len__(self) -> int:
        return len(self.queue) // self._fields

    def is_nearly_full(self) -> bool:
        """Whether the queue is so full that inference calls may soon be dropped."""
        return len(self) >= self.high_water

    def offer(self, record: Sequence[Any], size_bytes: int) -> None:
        """Queues an inference call, or drops and counts it if there is no room."""
        length = len(self.queue) // self._fields
        weight_bytes = self._offered_bytes - self._taken_bytes + size_bytes
        if length >= self.max_records or (length and weight_bytes > self.max_bytes):
            self.drop(self._full_reason)
        else:
            self.queue.extend(record)
            self._offered_bytes += size_bytes
        is_long = length >= self.high_water or weight_bytes > self.max_bytes // 4
        if is_long or not length:
            self._attend(is_long)

    def drop(self, reason: str) -> None:
        """Counts an inference call that is not queued, by the reason."""
        self._drops.setdefault(reason, LockFreeCounter()).increment()

    def take_calls(self, limit: int) -> list[Any]:
        """Removes the oldest inference calls, at most `limit`, and returns their fields one call after the other."""
        # Others only add at the end, so the same fields are copied and deleted.
        offered_bytes = self._offered_bytes
        end = limit * self._fields
        fields = self.queue[:end]
        del self.queue[: len(fields)]
        self._update_queue_bytes(fields, offered_bytes)
        return fields

    def take_calls_at(self, positions: Sequence[int]) -> list[Any]:
        """Removes the calls at the given positions, increasing, and returns their fields one call after the other."""
        offered_bytes = self._offered_bytes
        fields: list[Any] = []
        for position in positions:
            fields += self.queue[position * self._fields : (position + 1) * self._fields]
        for position in reversed(positions):
            del self.queue[position * self._fields : (position + 1) * self._fields]
        self._update_queue_bytes(fields, offered_bytes)
        return fields

    def _update_queue_bytes(self, fields: Sequence[Any], offered_bytes: int) -> None:
        # Weighed again once as many were taken as stay, so that a record is weighed twice at most, however long the
        # queue; until then the weight is an upper bound, and as long as it is small a good one.
        self._unweighed_fields += len(fields)
        is_heavy = offered_bytes - self._taken_bytes > self.max_bytes * UNWEIGHED_SHARE
        if self._unweighed_fields >= len(self.queue) and (is_heavy or not self.queue):
            stay = self.queue[:]
            starts = range(0, len(stay), self._fields)
            self._taken_bytes = offered_bytes - sum(self._weigh(stay[start : start + self._fields]) for start in starts)
            self._unweighed_fields = 0

    def read_drop_counts(self) -> Mapping[str, int]:
        """Returns how many inference calls were dropped so far, by reason."""
        return {reason: counter.read_count() for reason, counter in list(self._drops.items())}

    def close(self) -> None:
        """Makes the queue drop and count every later inference call, since no worker will read it."""
        self.max_records, self._full_reason = 0, "shut_down"

    def reset(self) -> None:
        """Empties the queue in a forked child; references to the queue stay valid."""
        self.queue.clear()
        self._drops.clear()
        self._offered_bytes = self._taken_bytes = self._unweighed_fields = 0


class WorkerThread:
    """A background thread that calls a function at regular times, or sooner when it is woken.

    Runs on: `wake_for_call` on any thread, never waiting; `stop_thread` on any other than the worker's own.

    Args:
        work: One round; keeps its own faults.
        interval_s: Between rounds, above 0.
    """

    def __init__(self, *, work: Callable[[], None], interval_s: float) -> None:
        self._work = work
        self._interval_s = interval_s
        self.reset_thread()

    def reset_thread(self) -> None:
        """Sets the state of a worker that was never started, in a forked child, which has no such thread."""
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """Whether the worker thread is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the code runs on the worker thread."""
        return self._thread is threading.current_thread()

    def wake_for_call(self, is_urgent: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Starts the worker thread at the first call, and wakes it if the call is urgent."""
        if self._thread is None and not self._is_stopping and self._starting.acquire(blocking=False):
            # Never released: the first caller starts it, and a process that cannot start it is not asked again.
            # Guarded: the record that this is for waits already, and is read by the next collection or flush.
            with guard("worker"):
                thread = threading.Thread(target=self._run_thread, name=NAME, daemon=True)
                thread.start()
                self._thread = thread
        if is_urgent and self._wake.empty():
            self._wake.put(None)

    def wake_thread(self) -> bool:
        """Wakes the worker thread; returns whether it is running."""
        self.wake_for_call(is_urgent=True)
        return self.is_alive

    def stop_thread(self, timeout_s: float) -> bool:
        """Ends the worker thread after its current round; returns whether it ended in time."""
        self._is_stopping = True
        self._wake.put(None)
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run_thread(self) -> None:
        wake = self._wake
        while not self._is_stopping:
            self._work()
            with suppress(Empty):
                wake.get(timeout=self._interval_s)


def yield_interpreter() -> None:
    """Lets another thread that waits for the interpreter run first; takes 0.26 ms on Linux, and hardly any CPU."""
    time.sleep(PAUSE_S)


def make_interpreter_yield(is_late: Callable[[], bool]) -> Callable[[], None]:
    """Makes a function that lets other threads run first, except while time is short."""

    def give_way_in_time() -> None:
        if not is_late():
            yield_interpreter()

    return give_way_in_time
