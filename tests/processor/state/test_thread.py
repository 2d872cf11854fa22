from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from otel_mlmon.errors import ApplyError, OverloadedError, StoreError
from otel_mlmon.processor.state.config import StorageSection
from otel_mlmon.processor.state.thread import ClockWork, StateThread
from tests.support.processes import until

DEADLINE_S = 30.0


class Ledger:
    """Work that writes down what is done to it; faults are arguments."""

    def __init__(
        self,
        *,
        open_fault: Exception | None = None,
        commit_faults: int = 0,
        before_apply: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.did: list[str] = []
        self.threads: set[int] = set()
        self._open_fault = open_fault
        self._commit_faults = commit_faults
        self._before_apply = before_apply
        self._pending: list[int] = []
        self.durable: list[list[int]] = []
        self.closed = threading.Event()

    @property
    def durable_items(self) -> list[int]:
        """Every durable item, in order."""
        return [item for turn in self.durable for item in turn]

    def end_faults(self) -> None:
        """From now on every commit succeeds."""
        self._commit_faults = 0

    def open(self) -> None:
        if self._open_fault:
            raise self._open_fault
        self.did.append("open")

    def apply(self, item: int, /) -> int:
        self._before_apply(item)
        self.threads.add(threading.get_ident())
        self._pending.append(item)
        return -item

    def advance(self, max_s: float = math.inf, /) -> ClockWork:
        self.threads.add(threading.get_ident())
        return ClockWork()

    def commit(self) -> None:
        if self._commit_faults and self._pending:
            self._commit_faults -= 1
            raise StoreError("the disk is full")
        if self._pending:
            self.durable.append(self._pending)
            self._pending = []

    def publish(self, *, is_busy: bool) -> None:
        if is_busy:
            self.did.append("publish")

    def close(self) -> None:
        self.did.append("close")
        self.closed.set()


@contextmanager
def running(work: Ledger, *, commit_interval_s: float = 0.0) -> Iterator[StateThread[int, int]]:
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=commit_interval_s, tick_s=0.01)
    owner.start()
    try:
        yield owner
    finally:
        assert owner.shutdown(DEADLINE_S)


def test_an_item_is_answered_after_its_commit() -> None:
    work = Ledger()
    with running(work) as owner:
        assert owner.submit(7).result(DEADLINE_S) == -7
        assert work.durable == [[7]]
        states = [owner.is_ready]
    states.append(owner.is_ready)
    assert states == [True, False]
    assert work.did[0] == "open"
    assert work.did[-1] == "close"


def test_an_answer_does_not_wait_for_a_pause_of_those_that_come_after() -> None:
    """Group commit waits for more items once, for the interval after the first, and not anew after each."""
    work = Ledger()
    interval_s = StorageSection().commit_interval_s
    with running(work, commit_interval_s=interval_s) as owner:
        first, ends_s, later = owner.submit(0), time.monotonic() + DEADLINE_S, 0
        while not first.done() and time.monotonic() < ends_s:
            later += 1
            owner.submit(later)
            threading.Event().wait(interval_s / 10)  # always another one before the interval is over
        assert first.done()
    assert work.durable_items == list(range(later + 1))
    assert interval_s <= 0.2


def test_items_that_arrive_together_are_one_commit() -> None:
    held, arrived = threading.Event(), threading.Event()

    def hold(item: int) -> None:
        if item == 0:
            arrived.set()
            assert held.wait(DEADLINE_S)

    work = Ledger(before_apply=hold)
    with running(work, commit_interval_s=0.05) as owner:
        first = owner.submit(0)
        assert arrived.wait(DEADLINE_S)
        later = [owner.submit(item) for item in range(1, 50)]
        held.set()
        for done in (first, *later):
            done.result(DEADLINE_S)
    assert work.durable_items == list(range(50))
    assert len(work.durable) <= 3


def test_all_work_is_done_on_one_thread_and_it_is_not_the_callers() -> None:
    work = Ledger()
    with running(work) as owner:
        for item in range(20):
            owner.submit(item).result(DEADLINE_S)
    assert len(work.threads) == 1
    assert threading.get_ident() not in work.threads


def test_a_state_that_cannot_be_used_is_the_starters_error() -> None:
    owner: StateThread[int, int] = StateThread(Ledger(open_fault=StoreError("it is of version 9")), commit_interval_s=0)
    with pytest.raises(StoreError, match="it is of version 9"):
        owner.start()
    assert not owner.is_ready
    assert owner.shutdown(DEADLINE_S)


def test_until_a_commit_succeeds_items_are_refused_and_the_thread_is_not_ready() -> None:
    work = Ledger(commit_faults=20)
    with running(work) as owner:
        with pytest.raises(StoreError, match="the disk is full"):
            owner.submit(1).result(DEADLINE_S)
        was_ready = owner.is_ready
        until(lambda: owner.is_ready, what="a commit succeeds")
        owner.submit(2).result(DEADLINE_S)
    assert (was_ready, work.durable_items) == (False, [1, 2])


def test_items_that_come_while_nothing_can_be_stored_are_not_applied() -> None:
    work = Ledger(commit_faults=10**9)
    with running(work) as owner:
        for item in range(1, 4):
            with pytest.raises(StoreError, match="the disk is full"):
                owner.submit(item).result(DEADLINE_S)
        work.end_faults()
        until(lambda: owner.is_ready, what="a commit succeeds")
        owner.submit(4).result(DEADLINE_S)
    assert work.durable_items == [1, 4]


@pytest.mark.guarded
def test_a_fault_of_ours_fails_one_item_and_not_its_neighbours() -> None:
    def refuse(item: int) -> None:
        if item == 13:
            raise RuntimeError("a bug")

    work = Ledger(before_apply=refuse)
    with running(work) as owner:
        with pytest.raises(ApplyError, match="could not be applied"):
            owner.submit(13).result(DEADLINE_S)
        owner.submit(14).result(DEADLINE_S)
    assert work.durable_items == [14]


def test_what_has_arrived_is_committed_at_shutdown_and_what_comes_after_is_refused() -> None:
    work = Ledger()
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=0.5, tick_s=0.01)
    owner.start()
    arrived = [owner.submit(item) for item in range(10)]
    assert owner.shutdown(DEADLINE_S)
    assert owner.shutdown(DEADLINE_S)
    for done in arrived:
        done.result(0)
    assert work.durable_items == list(range(10))
    with pytest.raises(StoreError, match="stopping"):
        owner.submit(11).result(0)


def test_shutdown_before_start_is_harmless() -> None:
    assert StateThread(Ledger(), commit_interval_s=0).shutdown(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_in_loading_does_not_leave_the_starter_waiting() -> None:
    owner: StateThread[int, int] = StateThread(Ledger(open_fault=RuntimeError("a bug")), commit_interval_s=0)
    with pytest.raises(StoreError, match="could not be loaded"):
        owner.start()


@pytest.mark.parametrize(("overhead_s", "most"), [(0.0, 2), (0.4, 3)])
def test_commits_come_in_between_where_more_waits_than_is_applied_in_time(overhead_s: float, most: int) -> None:
    now_s, measured_s = 0.0, 0.0

    class SlowLedger(Ledger):
        def apply(self, item: int, /) -> int:
            nonlocal now_s
            now_s += 0.15
            return super().apply(item)

        def publish(self, *, is_busy: bool) -> None:
            nonlocal now_s
            now_s += overhead_s if is_busy else 0.0

    @contextmanager
    def measure() -> Iterator[None]:
        nonlocal measured_s
        begins_s = now_s
        yield
        measured_s += now_s - begins_s

    work = SlowLedger()
    owner: StateThread[int, int] = StateThread(
        work, commit_interval_s=1.0, tick_s=0.01, measure=measure, min_apply_s=0.2, clock=lambda: now_s
    )
    pending = [owner.submit(item) for item in range(12)]
    owner.start()
    assert [future.result(DEADLINE_S) for future in pending] == [-item for item in range(12)]
    assert owner.shutdown(DEADLINE_S)
    assert work.durable_items == list(range(12))
    assert max(map(len, work.durable)) == most
    assert measured_s == pytest.approx(now_s)


def test_an_item_comes_between_the_parts_of_long_work_and_no_tick_does() -> None:
    class LateLedger(Ledger):
        parts = 0

        def advance(self, max_s: float = math.inf, /) -> ClockWork:
            self.did.append(f"part {self.parts} for {max_s:g} s")
            if self.parts == 3:
                self.future = owner.submit(7)
            self.parts -= self.parts > 0
            return ClockWork(is_incomplete=self.parts > 0)

    work = LateLedger()
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=0.0, tick_s=DEADLINE_S * 2)
    work.parts = 3  # the first part begins when an item has come: the tick is longer than the test may take
    owner.start()
    try:
        assert owner.submit(6).result(DEADLINE_S) == -6
        until(lambda: work.parts == 0, what="all parts are done")
        assert work.future.result(DEADLINE_S) == -7
        assert work.durable == [[6], [7]]
        assert [step for step in work.did if step.startswith("part")] == [
            "part 3 for 0.05 s",
            "part 2 for 0.05 s",
            "part 1 for 0.05 s",
        ]
    finally:
        assert owner.shutdown(DEADLINE_S)


def test_an_answer_does_not_wait_for_the_panes_that_close_after_its_item() -> None:
    class WaitingLedger(Ledger):
        future: Future[int] | None = None

        def apply(self, item: int, /) -> int:
            may_apply.wait(DEADLINE_S)
            return super().apply(item)

        def advance(self, max_s: float = math.inf, /) -> ClockWork:
            answers.extend([] if self.future is None else [self.future.done()])
            return super().advance(max_s)

    answers, may_apply = list[bool](), threading.Event()
    work = WaitingLedger()
    with running(work) as owner:
        work.future = owner.submit(7)
        may_apply.set()
        assert work.future.result(DEADLINE_S) == -7
        until(lambda: bool(answers), what="panes are closed")
    assert set(answers) == {True}


@pytest.mark.parametrize("is_ending", [False, True])
def test_what_the_clock_changes_is_stored_and_published_without_another_tick(is_ending: bool) -> None:
    """An alert waits for no other item, and what is raised in the last moment is handed on before the thread ends."""

    class AlertLedger(Ledger):
        def advance(self, max_s: float = math.inf, /) -> ClockWork:
            if 7 not in self.durable_items or 8 in self.durable_items + self._pending:
                return ClockWork()
            if is_ending:
                ending.start()
                until(owner._stop.is_set, what="the thread is asked to end")
            self._pending.append(8)
            return ClockWork(is_unsaved=True)

        def publish(self, *, is_busy: bool) -> None:
            self.did.append(f"publish {self.durable_items}")

    work = AlertLedger()
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=0.0, tick_s=DEADLINE_S * 2)
    ending = threading.Thread(target=owner.shutdown, args=(DEADLINE_S,))
    owner.start()
    assert owner.submit(7).result(DEADLINE_S) == -7
    until(lambda: "publish [7, 8]" in work.did, what="it is published")
    assert owner.shutdown(DEADLINE_S)
    assert work.did[:3] == ["open", "publish [7]", "publish [7, 8]"]
    assert work.did[-1] == "close"
    if is_ending:
        ending.join(DEADLINE_S)


def test_panes_are_closed_for_as_long_as_items_were_applied_between_two_bounds() -> None:
    now_s, parts = 0.0, list[float]()

    def apply(item: int) -> None:
        nonlocal now_s
        now_s += item / 1000

    class SlowLedger(Ledger):
        def advance(self, max_s: float = math.inf, /) -> ClockWork:
            parts.append(max_s)
            return ClockWork()

    owner: StateThread[int, int] = StateThread(
        SlowLedger(before_apply=apply), commit_interval_s=0.0, tick_s=DEADLINE_S * 2, clock=lambda: now_s
    )
    owner.start()
    for duration_ms in (20, 125, 900):
        assert owner.submit(duration_ms).result(DEADLINE_S) == -duration_ms
    assert owner.shutdown(DEADLINE_S)
    assert parts[:3] == pytest.approx([0.05, 0.125, 0.2])
    assert set(parts[3:]) == {0.05}


def test_what_the_handler_has_no_room_for_is_refused_and_the_others_of_its_batch_are_stored() -> None:
    def refuse(item: int) -> None:
        if item == 1:
            raise OverloadedError("full", retry_after_s=3.0)

    work = Ledger(before_apply=refuse)
    with running(work) as owner:
        pending = [owner.submit(item) for item in range(3)]
        assert [pending[0].result(DEADLINE_S), pending[2].result(DEADLINE_S)] == [0, -2]
        error = pending[1].exception(DEADLINE_S)
    assert isinstance(error, OverloadedError)
    assert (error.retry_after_s, work.durable_items) == (3.0, [0, 2])


def test_what_waited_for_longer_than_its_sender_is_refused_and_what_has_no_limit_is_not() -> None:
    now_s = 0.0

    def wait(item: int) -> None:
        nonlocal now_s
        now_s += 3.0 if item == 0 else 0.0

    work = Ledger(before_apply=wait)
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=0.0, tick_s=0.01, clock=lambda: now_s)
    pending = [owner.submit(0, max_wait_s=2.0), owner.submit(1, max_wait_s=2.0), owner.submit(2)]
    owner.start()
    assert [pending[0].result(DEADLINE_S), pending[2].result(DEADLINE_S)] == [0, -2]
    with pytest.raises(OverloadedError, match="more work than it can do") as refusal:
        pending[1].result(DEADLINE_S)
    assert refusal.value.retry_after_s == 1.0
    assert owner.shutdown(DEADLINE_S)
    assert work.durable_items == [0, 2]


@pytest.mark.parametrize(("commit_s", "applied"), [(0.5, [0, 1, 2]), (1.1, [0, 1]), (60.0, [0, 1])])
def test_what_would_be_stored_too_late_is_refused_before_it_is(commit_s: float, applied: list[int]) -> None:
    now_s = began_s = 100.0
    has_begun, may_end = threading.Event(), threading.Event()

    class SlowLedger(Ledger):
        def commit(self) -> None:
            nonlocal now_s
            if self._pending == [0]:
                has_begun.set()
                assert may_end.wait(DEADLINE_S)
                now_s = began_s + commit_s
            super().commit()

    work = SlowLedger()
    owner: StateThread[int, int] = StateThread(work, commit_interval_s=0.0, tick_s=0.01, clock=lambda: now_s)
    pending = [owner.submit(0, max_wait_s=4.0)]
    owner.start()
    assert has_begun.wait(DEADLINE_S)
    for item, waited_s in ((1, 1.9), (2, 2.1)):
        now_s = began_s + commit_s - waited_s
        pending.append(owner.submit(item, max_wait_s=4.0))
    may_end.set()
    assert owner.shutdown(DEADLINE_S)
    assert work.durable_items == applied
    assert [item for item, future in enumerate(pending) if future.exception(DEADLINE_S) is None] == applied


def test_where_nothing_could_be_loaded_everything_is_refused_at_once() -> None:
    owner: StateThread[int, int] = StateThread(Ledger(open_fault=StoreError("locked")), commit_interval_s=0.0)
    queued = owner.submit(1)
    with pytest.raises(StoreError, match="locked"):
        owner.start()
    assert isinstance(queued.exception(DEADLINE_S), StoreError)
    assert isinstance(owner.submit(2).exception(DEADLINE_S), StoreError)
    assert not owner.is_ready
    assert owner.shutdown(DEADLINE_S)


def test_whatever_is_submitted_while_the_thread_ends_is_answered() -> None:
    for _ in range(20):
        owner: StateThread[int, int] = StateThread(Ledger(), commit_interval_s=0.0, tick_s=0.01)
        owner.start()
        futures: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()
        sender = threading.Thread(target=submit_many, args=(owner, futures))
        sender.start()
        outcomes = [futures.get(timeout=DEADLINE_S).exception(DEADLINE_S)]
        assert owner.shutdown(DEADLINE_S)
        sender.join(DEADLINE_S)
        while not futures.empty():
            outcomes.append(futures.get().exception(DEADLINE_S))
        assert len(outcomes) == 300
        assert {type(outcome) for outcome in outcomes} <= {type(None), StoreError}


def submit_many(owner: StateThread[int, int], futures: queue.SimpleQueue[Future[int]]) -> None:
    for number in range(300):
        futures.put(owner.submit(number))
