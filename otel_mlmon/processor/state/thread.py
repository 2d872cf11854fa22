"""Runs the thread that owns the processor's state: applies items in batches, and answers each batch after one commit.

Group commit: the caller of `submit` gets a future that is done when its item is durable. An internal error fails the
one item that raised it; a commit that fails fails the items of its batch and those that come until one succeeds, whose
senders try again. Where more waits than can be applied at once, a commit comes in between, so that the first are not
answered as late as the last; what would be durable later than its sender waits is refused instead of applied. Likewise
panes are closed for a short time only before the next items are applied; items do not wait for those that close after
they were applied: the next commit stores these.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from otel_mlmon.errors import ApplyError, MlmonError, OverloadedError, RetryableError, StoreError
from otel_mlmon.guard import guard

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

TICK_S: Final = 0.25
"""How long the thread waits for a first item before it advances the clock."""

MIN_APPLY_S: Final = 0.2
"""How long items are applied at least before those so far are committed and answered; it is longer where what comes
between, closing panes, commit and publishing, takes longer, so that at least half of the time goes into items."""

MAX_ADVANCE_S: Final = 0.05
"""How long panes are closed at a time while items may wait for their answer; where items were applied for longer, as
long as that, `MIN_APPLY_S` at most, so that under load the panes do not fall behind the items."""

_OVERHEAD_SHARE: Final = 0.8
"""Share of a batch's overhead that the next one is taken to have at least: some close panes, and others do not."""

RETRY_AFTER_S: Final = 1.0
"""When the sender of an item that waited too long may send it again."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


class ClockWork(NamedTuple):
    """The outcome of the work on the state that depends on the clock."""

    is_incomplete: bool = False
    """Whether some of it is left for the next call."""
    is_unsaved: bool = False
    """Whether it changed what is to be committed at once, such as alerts."""


class StateHandler(Protocol[T_contra, R_co]):
    """Loads, changes and commits the processor's state. Runs on: the state thread, all of it."""

    def open(self) -> None:
        """Loads the processor's state from the store.

        Raises:
            MlmonError: It cannot be used.
        """

    def apply(self, item: T_contra, /) -> R_co:
        """Applies one item to the state, and returns its outcome, which its sender gets after the commit.

        Raises:
            RetryableError: There is no room for it now; nothing of it was applied.
        """

    def advance(self, max_s: float = math.inf, /) -> ClockWork:
        """Does the work on the state that depends on the clock, such as closing time windows.

        Stops after `max_s` seconds, or somewhat later, and leaves the rest for the next call.
        """

    def commit(self) -> None:
        """Makes all changes to the state since the last commit durable.

        Raises:
            StoreError: They are not durable; the next commit tries again.
        """

    def publish(self, *, is_busy: bool) -> None:
        """Publishes the committed state; `is_busy` if items were applied since the last call."""

    def close(self) -> None:
        """Closes the state store."""


class _QueuedItem(NamedTuple, Generic[T, R]):
    """An item that waits to be applied to the state."""

    item: T
    future: Future[R]
    queued_s: float
    """By the thread's clock."""
    max_wait_s: float


class StateThread(Generic[T, R]):
    """The one thread that owns the processor's state, and runs a handler on it.

    Args:
        handler: Owns the state.
        commit_interval_s: How long more items are waited for after the first.
        tick_s: How long a first item is waited for.
        measure: Measures the time in its context as work on the items: all of it, from applying to publishing.
        min_apply_s: How long items are applied at least before a commit comes in between.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        handler: StateHandler[T, R],
        *,
        commit_interval_s: float,
        tick_s: float = TICK_S,
        measure: Callable[[], AbstractContextManager[None]] = nullcontext,
        min_apply_s: float = MIN_APPLY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure
        self._min_apply_s = min_apply_s
        self._clock = clock
        self._clock_work = ClockWork()
        """The outcome of the last work that depended on the clock, which the next commit stores."""
        self._overhead_s = 0.0
        """How long batches of late took besides applying their items, by the longest."""
        self._handler = handler
        self._commit_interval_s = commit_interval_s
        self._tick_s = tick_s
        self._queue: queue.SimpleQueue[_QueuedItem[T, R] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._gate = threading.Lock()
        """Held for an instant, so that nothing is queued after the thread has looked for the last time."""
        self._is_closed = False
        """Whether the thread takes nothing from the queue any more."""
        self._load: Future[None] = Future()
        self._failure: StoreError | None = None
        """Why the last commit failed; None if it succeeded."""
        self._thread = threading.Thread(target=self._run_thread, name="otel_mlmon-state", daemon=True)

    def start(self) -> None:
        """Starts the state thread, and waits until the state is loaded.

        Raises:
            MlmonError: The state cannot be used.
        """
        self._thread.start()
        self._load.result()

    def submit(self, item: T, *, max_wait_s: float = math.inf) -> Future[R]:
        """Queues an item for the state thread; returns a future of the handler's result, done after the commit.

        It ends with `StoreError` if the state could not be stored, with `ApplyError` if the item could not be applied,
        with the handler's `RetryableError` if that had no room for it, and with `OverloadedError` if it was not going
        to be durable within `max_wait_s` seconds, by what the last commit took; never one that has waited for less than
        half of `max_wait_s`, however long commits take.

        Runs on: any thread; does not wait.
        """
        future: Future[R] = Future()
        with self._gate:
            is_accepted = not self._stop.is_set() and not self._is_closed
            if is_accepted:
                self._queue.put(_QueuedItem(item, future, self._clock(), max_wait_s))
        if not is_accepted:
            reason = "the processor is stopping" if self._stop.is_set() else "the state is not loaded"
            future.set_exception(StoreError(reason))
        return future

    @property
    def is_ready(self) -> bool:
        """Whether the state is loaded, can be stored, and items are accepted."""
        is_running = self._load.done() and not self._is_closed and not self._stop.is_set()
        return is_running and self._failure is None

    def shutdown(self, timeout_s: float) -> bool:
        """Applies and commits the queued items, then stops the state thread; returns whether it ended in time.

        Safe before `start`, and twice.
        """
        self._stop.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run_thread(self) -> None:
        try:
            if self._open_state():
                self._run_batches()
        finally:
            with self._gate:
                self._is_closed = True
            for entry in self._drain_queue():  # submitted since the last batch
                entry.future.set_exception(StoreError("the processor is stopping"))

    def _open_state(self) -> bool:
        """Loads the state by the handler; returns whether that succeeded."""
        try:
            self._handler.open()
            self._load.set_result(None)
        except MlmonError as error:
            self._load.set_exception(error)
        finally:
            if not self._load.done():  # any other exception goes on to the thread's excepthook
                self._load.set_exception(StoreError("the state could not be loaded"))
        return self._load.exception() is None

    def _run_batches(self) -> None:
        try:
            while not self._stop.is_set():
                self._process_batch(self._drain_queue() if any(self._clock_work) else self._wait_for_batch())
            self._process_batch(self._drain_queue())
            if self._clock_work.is_unsaved:
                self._process_batch([])
        finally:
            self._handler.close()

    def _wait_for_batch(self) -> list[_QueuedItem[T, R]]:
        """Waits one tick for the first item to apply, then one commit interval for more."""
        batch: list[_QueuedItem[T, R]] = []
        deadline_s = time.monotonic() + self._tick_s
        while (timeout_s := deadline_s - time.monotonic()) > 0:
            try:
                entry = self._queue.get(timeout=timeout_s)
            except queue.Empty:
                break
            if entry is None:
                break
            if not batch:
                deadline_s = time.monotonic() + self._commit_interval_s
            batch.append(entry)
        return batch

    def _drain_queue(self) -> list[_QueuedItem[T, R]]:
        batch = []
        while not self._queue.empty():
            entry = self._queue.get()
            batch += [] if entry is None else [entry]
        return batch

    def _process_batch(self, batch: list[_QueuedItem[T, R]]) -> None:
        """Applies a batch of items, which may be empty, with as many commits as it takes to answer in time."""
        waiting = deque(batch)
        is_work = bool(waiting) or any(self._clock_work)
        with self._measure() if is_work and self._failure is None else nullcontext():
            self._process_batch_part(waiting)
            while waiting:
                self._process_batch_part(waiting)

    def _process_batch_part(self, waiting: deque[_QueuedItem[T, R]]) -> None:
        """Applies queued items for a while, commits, answers, publishes, and then does some work of the clock.

        After a failed commit it refuses all items.
        """
        applied: list[tuple[Future[R], R]] = []
        refusal = self._failure
        starts_s = self._clock()
        ends_s = starts_s + max(self._min_apply_s, self._overhead_s)
        while waiting and (refusal is not None or not applied or self._clock() < ends_s):
            entry = waiting.popleft()
            if refusal is None:
                applied += [(entry.future, result) for result in self._apply_item(entry, ends_s)]
            else:
                entry.future.set_exception(refusal)
        began_s = self._clock()
        failure: StoreError | None = StoreError("the state could not be committed")
        with guard("commit"):
            failure = self._commit_state()
        if failure is None and refusal is not None:
            _LOG.warning("The state is stored again, and requests are accepted.")
        self._failure = failure
        for future, result in applied:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        if failure is None:
            with guard("publish"):
                self._handler.publish(is_busy=bool(applied) or self._clock_work.is_incomplete)
        self._clock_work = ClockWork()
        with guard("advance"):
            self._clock_work = self._handler.advance(max(MAX_ADVANCE_S, min(began_s - starts_s, self._min_apply_s)))
        self._overhead_s = max(self._clock() - began_s, _OVERHEAD_SHARE * self._overhead_s)

    def _commit_state(self) -> StoreError | None:
        """Commits the state, and returns the error if that failed."""
        try:
            self._handler.commit()
        except StoreError as error:
            if self._failure is None:
                _LOG.error(
                    "The state was not stored, so requests are answered with 503 until it is, and senders send them "
                    "again; check storage.path: %s",
                    error,
                )
            return error
        return None

    def _apply_item(self, entry: _QueuedItem[T, R], ends_s: float) -> list[R]:
        """Applies one item to the state; returns its outcome in a list, an empty one if it was not applied.

        Args:
            entry: The item.
            ends_s: Until when more items may be applied before the commit.
        """
        now_s = self._clock()
        waited_s = now_s - entry.queued_s
        remaining_s = max(ends_s - now_s, 0.0) + self._overhead_s
        if waited_s + min(remaining_s, entry.max_wait_s / 2) > entry.max_wait_s:
            message = "The processor has more work than it can do in time."
            entry.future.set_exception(OverloadedError(message, retry_after_s=RETRY_AFTER_S))
            return []
        with guard("apply"):
            try:
                return [self._handler.apply(entry.item)]
            except RetryableError as error:
                entry.future.set_exception(error.with_traceback(None))  # whose frames hold the item and the future
                return []
        entry.future.set_exception(ApplyError("the request could not be applied"))
        return []
