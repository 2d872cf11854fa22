from __future__ import annotations

import os
import threading

import pytest

from otel_mlmon.instrumentation.lifecycle import ForkHooks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process"),
]


class StateThread:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_child = False
        self.hooks = ForkHooks(lock=lambda: self.lock, in_child=self.renew)

    def renew(self) -> None:
        self.lock, self.in_child = threading.Lock(), True


def forked(owner: StateThread) -> int:
    """The child's exit code: 7 if it was called back and has a lock of its own."""
    child = os.fork()
    if child == 0:
        os._exit(7 if owner.in_child and owner.lock.acquire(blocking=False) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_waits_for_the_round_under_way_and_the_child_has_a_lock_of_its_own() -> None:
    owner = StateThread()
    is_held, may_end = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work() -> None:
        with owner.lock:
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
    assert owner.lock.acquire(blocking=False)


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_mlmon.instrumentation.lifecycle.FORK_WAIT_S", 0.01)
    owner = StateThread()
    with owner.lock:
        assert forked(owner) == 7
        assert owner.lock.locked()
    assert not owner.lock.locked()


def test_a_fork_in_a_child_lets_go_of_no_lock_that_somebody_else_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = StateThread()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("otel_mlmon.instrumentation.lifecycle.FORK_WAIT_S", 0.01)
        with owner.lock:  # as by another thread: this fork does not get it
            if os.fork() == 0:
                os._exit(0)
            os._exit(7 if owner.lock.locked() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
