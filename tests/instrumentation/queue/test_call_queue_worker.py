from __future__ import annotations

import threading

import pytest

from otel_mlmon import semconv
from otel_mlmon.instrumentation.queue.call_queue import WorkerThread
from otel_mlmon.internal_events import JOURNAL


def test_starts_at_the_first_record_and_works_when_woken() -> None:
    rounds: list[str] = []
    worked = threading.Semaphore(0)

    def work() -> None:
        rounds.append(threading.current_thread().name)
        worked.release()

    worker = WorkerThread(work=work, interval_s=60.0)
    before = worker.is_alive
    worker.wake_for_call(False)
    assert worked.acquire(timeout=5)
    worker.wake_for_call(True)
    assert worked.acquire(timeout=5)
    assert worker.is_alive
    assert worker.stop_thread(5.0)
    assert (rounds, before, worker.is_alive) == (["otel_mlmon", "otel_mlmon"], False, False)
    worker.wake_for_call(True)
    assert not worker.is_alive


def test_many_first_records_start_one_thread() -> None:
    threads: set[threading.Thread] = set()
    worker = WorkerThread(work=lambda: threads.add(threading.current_thread()), interval_s=60.0)
    callers = [threading.Thread(target=worker.wake_for_call, args=(True,)) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert worker.stop_thread(5.0)
    assert len(threads) == 1


@pytest.mark.guarded
def test_a_thread_that_cannot_be_started_is_a_counted_fault_and_not_the_callers() -> None:
    worker = WorkerThread(work=lambda: None, interval_s=60.0)
    threading.stack_size(1 << 46)  # more than there is to address
    try:
        worker.wake_for_call(True)
    finally:
        threading.stack_size(0)
    worker.wake_for_call(True)
    assert not worker.is_alive
    assert JOURNAL.read_totals(semconv.FAILURES.name) == {(("error.type", "RuntimeError"), ("stage", "worker")): 1}
    assert worker.stop_thread(5.0)
