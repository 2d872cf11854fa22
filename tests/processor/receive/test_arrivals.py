from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.arrivals import ArrivingBodies
from tests.support.processes import until

DEADLINE_S = 30.0


class Clock:
    """Seconds that pass when they are read."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


@contextmanager
def arriving(bodies: ArrivingBodies) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A body that arrives on a thread of its own until it may end, or is given up."""
    has_begun, may_end = threading.Event(), threading.Event()

    def receive() -> None:
        with bodies.await_turn(may_end.set) as is_its_turn:
            assert is_its_turn
            has_begun.set()
            assert may_end.wait(DEADLINE_S)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        assert has_begun.wait(DEADLINE_S)
        yield has_begun, may_end
    finally:
        may_end.set()
        thread.join(DEADLINE_S)


def test_one_over_the_limit_waits_for_its_turn() -> None:
    bodies = ArrivingBodies(2, patience_s=DEADLINE_S)
    turns: list[bool] = []

    def wait() -> None:
        with bodies.await_turn(lambda: None) as is_its_turn:
            turns.append(is_its_turn)

    with arriving(bodies) as (_, first_may_end), arriving(bodies):
        waiting = threading.Thread(target=wait)
        waiting.start()
        first_may_end.set()
        waiting.join(DEADLINE_S)
        assert turns == [True]


def test_whose_turn_does_not_come_is_refused_and_holds_nothing() -> None:
    bodies = ArrivingBodies(1, patience_s=10.0, clock=Clock(4.0))
    with arriving(bodies) as (_, may_end):
        may_end.clear()
        with bodies.await_turn(lambda: None) as is_its_turn:
            # By this clock its patience ends while the body before it has not come to an end.
            assert not is_its_turn or may_end.is_set()
    with bodies.await_turn(lambda: None) as is_its_turn:
        assert is_its_turn


def test_a_slow_body_is_given_up_once_and_only_where_another_waits() -> None:
    bodies = ArrivingBodies(1, patience_s=0.05)
    given_up: list[int] = []
    leave = threading.Event()

    def give_up() -> None:
        given_up.append(1)
        leave.set()

    def receive() -> None:
        with bodies.await_turn(give_up):
            assert leave.wait(DEADLINE_S)

    slow = threading.Thread(target=receive)
    slow.start()
    until(lambda: len(bodies._arrivals) == 1)
    assert not leave.wait(0.2)  # nobody waits
    turns = []

    def come() -> bool:
        with bodies.await_turn(lambda: None) as is_its_turn:
            turns.append(is_its_turn)
        return turns[-1]

    until(come)
    slow.join(DEADLINE_S)
    assert given_up == [1]


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(1, 3), senders=st.integers(1, 8))
def test_never_more_arrive_than_there_is_room_for(limit: int, senders: int) -> None:
    bodies = ArrivingBodies(limit, patience_s=DEADLINE_S)
    lock, present, most = threading.Lock(), 0, 0

    def come() -> None:
        nonlocal present, most
        with bodies.await_turn(lambda: None) as is_its_turn:
            assert is_its_turn
            with lock:
                present += 1
                most = max(most, present)
            with lock:
                present -= 1

    with ExitStack() as stack:
        for _ in range(senders):
            thread = threading.Thread(target=come)
            thread.start()
            stack.callback(thread.join, DEADLINE_S)
    assert (present, most <= limit, bodies._arrivals) == (0, True, [])
