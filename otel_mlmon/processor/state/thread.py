"""One thread that owns state: it takes what has arrived, applies it, and answers after one commit for all of it.

Group commit: whoever hands something in gets a future that is done when it is on disk. A fault of ours fails the one
item that met it; a commit that fails fails the items of its turn, whose senders try again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from typing import Final, Generic, Protocol, TypeVar

from otel_mlmon.errors import MlmonError, StoreError
from otel_mlmon.guard import guard

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

TICK_S: Final = 0.25
"""How long the owner waits for something to arrive before it looks at the clock again."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


class StateHandler(Protocol[T_contra]):
    """What is done with the state. Runs on: the owner's thread, all of it."""

    def open(self) -> None:
        """Load the state.

        Raises:
            MlmonError: It cannot be used.
        """

    def apply(self, item: T_contra, /) -> None:
        """Take in one item."""

    def advance(self) -> None:
        """Do what is due by the clock."""

    def commit(self) -> None:
        """Make everything since the last commit durable.

        Raises:
            StoreError: It is not; the next commit tries again.
        """

    def committed(self, *, is_busy: bool) -> None:
        """Tell others what is now durable; `is_busy` if anything was applied."""

    def close(self) -> None:
        """Release what `open` took."""


class StateThread(Generic[T]):
    """Runs `work` on a thread of its own.

    Args:
        work: What is done with the state.
        commit_interval_s: How long, after a first item has arrived, more are waited for.
        tick_s: How long a first one is waited for.
    """

    def __init__(self, work: StateHandler[T], *, commit_interval_s: float, tick_s: float = TICK_S) -> None:
        self._work = work
        self._commit_interval_s = commit_interval_s
        self._tick_s = tick_s
        self._queue: queue.SimpleQueue[tuple[T, Future[None]] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="otel_mlmon-state", daemon=True)

    def start(self) -> None:
        """Load the state and begin; waits until it is loaded.

        Raises:
            MlmonError: The state cannot be used.
        """
        self._thread.start()
        self._opened.result()

    def submit(self, item: T) -> Future[None]:
        """Hand in an item; the future is done after its commit.

        Runs on: any thread; does not wait.
        """
        done: Future[None] = Future()
        if self._stopping.is_set():
            done.set_exception(StoreError("the processor is stopping"))
        else:
            self._queue.put((item, done))
        return done

    @property
    def is_ready(self) -> bool:
        """Whether the state is loaded and items are taken."""
        return self._opened.done() and self._thread.is_alive() and not self._stopping.is_set()

    def shutdown(self, timeout_s: float) -> bool:
        """Apply and commit what has arrived, then stop; whether that was done in time.

        Safe before `start`, and twice.
        """
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work.open()
            self._opened.set_result(None)
        except MlmonError as error:
            self._opened.set_exception(error)
            return
        finally:
            if not self._opened.done():  # whatever else it was goes on to the thread's excepthook
                self._opened.set_exception(StoreError("the state could not be loaded"))
        try:
            while not self._stopping.is_set():
                self._turn(self._gather())
            self._turn(self._rest())
        finally:
            self._work.close()
            for _, done in self._rest():  # handed in between the last turn and now
                done.set_exception(StoreError("the processor is stopping"))

    def _gather(self) -> list[tuple[T, Future[None]]]:
        """What has arrived: waits a tick for the first, then a commit interval for more."""
        gathered: list[tuple[T, Future[None]]] = []
        ends_s = time.monotonic() + self._tick_s
        while (left_s := ends_s - time.monotonic()) > 0:
            try:
                entry = self._queue.get(timeout=left_s)
            except queue.Empty:
                break
            if entry is None:
                break
            if not gathered:
                ends_s = time.monotonic() + self._commit_interval_s
            gathered.append(entry)
        return gathered

    def _rest(self) -> list[tuple[T, Future[None]]]:
        rest = []
        while not self._queue.empty():
            entry = self._queue.get()
            rest += [] if entry is None else [entry]
        return rest

    def _turn(self, entries: list[tuple[T, Future[None]]]) -> None:
        waiting = [done for item, done in entries if self._apply(item, done)]
        with guard("advance"):
            self._work.advance()
        fault: StoreError | None = StoreError("the state could not be committed")
        with guard("commit"):
            fault = self._commit()
        for done in waiting:
            if fault is None:
                done.set_result(None)
            else:
                done.set_exception(fault)
        if fault is None:
            with guard("committed"):
                self._work.committed(is_busy=bool(waiting))

    def _commit(self) -> StoreError | None:
        """Commit; what the disk had against it."""
        try:
            self._work.commit()
        except StoreError as error:
            _LOG.error("The state could not be committed; senders are told to try again: %s", error)
            return error
        return None

    def _apply(self, item: T, done: Future[None]) -> bool:
        is_applied = False
        with guard("apply"):
            self._work.apply(item)
            is_applied = True
        if not is_applied:
            done.set_exception(StoreError("the request could not be applied"))
        return is_applied
