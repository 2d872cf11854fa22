from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.queue.call_queue import CallQueue, LockFreeCounter


def weigh(record: Sequence[Any]) -> int:
    """The first field of a record of these tests."""
    return int(record[0])


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(1, 500), max_size=200), limit=st.integers(1, 50), budget=st.integers(1, 5000))
def test_bounds_hold_and_every_record_is_taken_or_counted(sizes: list[int], limit: int, budget: int) -> None:
    ring = CallQueue(fields=2, max_records=limit, max_bytes=budget, attend=lambda _: None, weigh=weigh)
    for size in sizes:
        ring.offer((size, "x"), size)
        assert len(ring) <= limit
    held = ring.take_calls(10_000)[::2]
    assert sum(held) <= max(budget, sizes[0] if sizes else 0)
    assert len(held) + ring.read_drop_counts().get("buffer_full", 0) == len(sizes)
    assert ring.take_calls(1) == []


def test_attends_when_it_was_empty_and_when_it_is_long() -> None:
    seen: list[bool] = []
    ring = CallQueue(fields=2, max_records=4, max_bytes=1000, attend=seen.append, weigh=weigh)
    for record in range(5):
        ring.offer((record, "x"), 1)
    assert seen == [False, True, True, True]
    assert ring.take_calls(2) == [0, "x", 1, "x"]
    ring.reset()
    assert (len(ring), ring.read_drop_counts()) == (0, {})


def test_a_counter_loses_nothing_between_threads_and_reads() -> None:
    counter = LockFreeCounter()

    def work() -> None:
        for _ in range(2000):
            counter.increment()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert counter.read_count() <= 16_000
    for thread in threads:
        thread.join()
    assert (counter.read_count(), counter.read_count()) == (16_000, 16_000)


def test_attends_when_a_quarter_of_its_bytes_is_taken() -> None:
    seen: list[bool] = []
    ring = CallQueue(fields=2, max_records=1000, max_bytes=1000, attend=seen.append, weigh=weigh)
    for _ in range(4):
        ring.offer((100, "x"), 100)
    assert seen == [False, True, True]


def test_what_comes_after_the_end_is_dropped_and_counted() -> None:
    ring = CallQueue(fields=2, max_records=4, max_bytes=1000, attend=lambda _: None, weigh=weigh)
    ring.offer((1, "x"), 1)
    ring.close()
    ring.offer((2, "x"), 1)
    assert (ring.take_calls(9), ring.read_drop_counts()) == ([1, "x"], {"shut_down": 1})


@pytest.mark.parametrize(("max_records", "high_water"), [(1, 1), (3, 1), (8190, 4095), (8192, 4096), (20_000, 4096)])
def test_a_queue_is_long_at_its_high_water_mark(max_records: int, high_water: int) -> None:
    attended: list[bool] = []
    ring = CallQueue(fields=2, max_records=max_records, max_bytes=10**9, attend=attended.append, weigh=weigh)
    assert ring.high_water == high_water
    for record in range(high_water):
        assert not ring.is_nearly_full()
        ring.offer((record, "x"), 1)
    assert ring.is_nearly_full()
    assert attended == [False]
    ring.offer((high_water, "x"), 1)
    assert attended == [False, True]


@settings(deadline=None, max_examples=50)
@given(records=st.integers(0, 20_000), limits=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_records_are_taken_in_order_by_any_pieces(records: int, limits: list[int]) -> None:
    ring = CallQueue(fields=3, max_records=20_000, max_bytes=10**9, attend=lambda _: None, weigh=weigh)
    for record in range(records):
        ring.offer((record, "x", -record), 1)
    taken: list[int] = []
    for limit in itertools.cycle(limits):
        fields = ring.take_calls(limit)
        if not fields:
            break
        assert len(fields) == 3 * min(limit, records - len(taken))
        assert [-value for value in fields[2::3]] == fields[::3]
        taken += fields[::3]
    assert taken == list(range(records))
    assert len(ring) == 0


Step = tuple[str, int]


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.integers(1, 400)),
            st.tuples(st.just("append"), st.integers(1, 10)),
            st.tuples(st.just("take"), st.integers(1, 8)),
        ),
        max_size=80,
    )
)
def test_a_record_is_dropped_only_where_what_waits_weighs_too_much(steps: list[Step]) -> None:
    budget = 1000
    ring = CallQueue(fields=2, max_records=1000, max_bytes=budget, attend=lambda _: None, weigh=weigh)
    waiting: list[tuple[int, bool]] = []
    taken: list[tuple[int, bool]] = []  # and still in the sum
    dropped = 0
    for action, amount in steps:
        if action == "take":
            ring.take_calls(amount)
            taken += waiting[:amount]
            del waiting[:amount]
            weight = sum(size for size, is_weighed in taken + waiting if is_weighed)
            # What stays is weighed, however it came, where it may matter or costs nothing.
            if len(taken) >= len(waiting) and (weight > budget / 8 or not waiting):
                waiting, taken = [(size, True) for size, _ in waiting], []
        elif action == "append":
            ring.queue.extend((amount, "x"))
            waiting.append((amount, False))
        else:
            ring.offer((amount, "x"), amount)
            if waiting and sum(size for size, is_weighed in taken + waiting if is_weighed) + amount > budget:
                dropped += 1
            else:
                waiting.append((amount, True))
        assert ring.queue[::2] == [size for size, _ in waiting]
        assert ring.read_drop_counts().get("buffer_full", 0) == dropped


def test_a_heavy_record_waits_beside_many_light_ones() -> None:
    ring = CallQueue(fields=2, max_records=10_000, max_bytes=1_000_000, attend=lambda _: None, weigh=weigh)
    for size in [400] * 1500 + [60_000] * 6 + [400] * 100:
        ring.offer((size, "x"), size)
    assert (len(ring), ring.read_drop_counts()) == (1606, {})
    ring.offer((60_000, "x"), 60_000)
    assert ring.read_drop_counts() == {"buffer_full": 1}
    ring.take_calls(1550)
    ring.offer((60_000, "x"), 60_000)
    assert (len(ring), ring.read_drop_counts()) == (57, {"buffer_full": 1})


@pytest.mark.parametrize(("size", "weighed"), [(125, []), (126, [(6, "x"), (7, "x")])])
def test_what_stays_is_weighed_only_where_it_may_be_heavy(size: int, weighed: list[tuple[int, str]]) -> None:
    records: list[Sequence[Any]] = []

    def weigh_and_note(record: Sequence[Any]) -> int:
        records.append(tuple(record))
        return 1

    ring = CallQueue(fields=2, max_records=100, max_bytes=8 * 8 * 125, attend=lambda _: None, weigh=weigh_and_note)
    for record in range(8):
        ring.offer((record, "x"), size)
    ring.take_calls(3)
    ring.take_calls(3)
    assert records == weighed


def test_an_empty_queue_weighs_nothing() -> None:
    ring = CallQueue(fields=2, max_records=100, max_bytes=1000, attend=lambda _: None, weigh=weigh)
    for _ in range(100):  # a round of 100 bytes each: an eighth is never exceeded within one
        ring.offer((100, "x"), 100)
        ring.take_calls(10)
    ring.offer((1000, "x"), 1000)
    ring.offer((0, "x"), 0)
    assert (len(ring), ring.read_drop_counts()) == (2, {})
