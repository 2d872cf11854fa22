from __future__ import annotations

import os
import signal
import threading

import pytest

from otel_mlmon.instrumentation.lifecycle import ForkHooks
from otel_mlmon.instrumentation.pipeline import InstrumentationPipeline
from otel_mlmon.instrumentation.settings import InstrumentationSettings
from otel_mlmon.testing import capture

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process"),
]


class StateThread:
    def __init__(self, *, timeout_s: float = 5.0) -> None:
        self.lock, self.send_lock = threading.Lock(), threading.Lock()
        self.in_child = False
        self.timeout_s = timeout_s
        self.hooks = ForkHooks(
            list_locks=lambda: {self.lock: self.timeout_s, self.send_lock: self.timeout_s}, in_child=self.renew
        )

    def renew(self) -> None:
        self.lock, self.send_lock, self.in_child = threading.Lock(), threading.Lock(), True


def forked(owner: StateThread) -> int:
    """The child's exit code: 7 if it was called back and has a lock of its own."""
    child = os.fork()
    if child == 0:
        is_free = owner.lock.acquire(blocking=False) and owner.send_lock.acquire(blocking=False)
        os._exit(7 if owner.in_child and is_free else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["lock", "send_lock"])
def test_a_fork_waits_for_the_round_under_way_and_the_child_has_locks_of_its_own(name: str) -> None:
    owner = StateThread()
    is_held, may_end = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work() -> None:
        with getattr(owner, name):
            is_held.set()
            may_end.wait(5)
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    assert is_held.wait(5)
    threading.Timer(0.05, may_end.set).start()
    assert forked(owner) == 7
    assert ended == [True]
    thread.join()
    assert not owner.in_child
    assert not owner.lock.locked()
    assert not owner.send_lock.locked()


def test_a_fork_does_not_wait_for_ever() -> None:
    owner = StateThread(timeout_s=0.01)
    with owner.lock:
        assert forked(owner) == 7
        assert owner.lock.locked()
        assert not owner.send_lock.locked()
    assert not owner.lock.locked()


def test_a_fork_waits_longer_for_the_first_round_which_imports_the_exporters() -> None:
    pipeline = InstrumentationPipeline(InstrumentationSettings())
    try:
        assert pipeline.list_fork_locks()[pipeline.drain_lock] == 30.0
        pipeline.reset_after_fork()
        assert pipeline.list_fork_locks()[pipeline.drain_lock] == 30.0
    finally:
        pipeline.shutdown(5)
    with capture() as captured:  # its exporters are made
        assert captured.handle._running is not None
        pipeline = captured.handle._running.pipeline
        assert list(pipeline.list_fork_locks().values()) == [5.0, 1.0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_handler_that_raises_while_a_fork_waits_leaves_no_lock_behind() -> None:
    class StateLock:
        """A lock that a signal arrives at while it is waited for."""

        def acquire(self, *, timeout: float) -> bool:
            signal.raise_signal(signal.SIGUSR1)
            return False

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    owner = StateThread()
    lock, owner.send_lock = owner.lock, StateLock()  # type: ignore[assignment]
    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        child = os.fork()
        if child == 0:
            os._exit(7 if owner.in_child else 1)
    finally:
        signal.signal(signal.SIGUSR1, former)
        owner.send_lock = threading.Lock()  # the report of the exception may keep this owner for a while
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not lock.locked()


def test_a_fork_in_a_child_lets_go_of_no_lock_that_somebody_else_holds() -> None:
    owner = StateThread()
    child = os.fork()
    if child == 0:
        owner.timeout_s = 0.01
        with owner.lock:  # as by another thread: this fork does not get it
            if os.fork() == 0:
                os._exit(0)
            os._exit(7 if owner.lock.locked() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
