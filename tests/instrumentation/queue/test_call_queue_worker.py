from __future__ import annotations

import threading

import pytest

from otel_mlmon import semconv
from otel_mlmon.instrumentation.queue.call_queue import Worker
from otel_mlmon.internal_events import JOURNAL


def test_starts_at_the_first_record_and_works_when_woken() -> None:
    rounds: list[str] = []
    worked = threading.Semaphore(0)

    def work() -> None:
        rounds.append(threading.current_thread().name)
        worked.release()

    worker = Worker(work=work, interval_s=60.0)
    before = worker.is_alive
    worker.attend(False)
    assert worked.acquire(timeout=5)
    worker.attend(True)
    assert worked.acquire(timeout=5)
    assert worker.is_alive
    assert worker.stop(5.0)
    assert (rounds, before, worker.is_alive) == (["otel_mlmon", "otel_mlmon"], False, False)
    worker.attend(True)
    assert not worker.is_alive


def test_many_first_records_start_one_thread() -> None:
    threads: set[threading.Thread] = set()
    worker = Worker(work=lambda: threads.add(threading.current_thread()), interval_s=60.0)
    callers = [threading.Thread(target=worker.attend, args=(True,)) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert worker.stop(5.0)
    assert len(threads) == 1


@pytest.mark.guarded
def test_a_thread_that_cannot_be_started_is_a_counted_fault_and_not_the_callers() -> None:
    worker = Worker(work=lambda: None, interval_s=60.0)
    threading.stack_size(1 << 46)  # more than there is to address
    try:
        worker.attend(True)
    finally:
        threading.stack_size(0)
    worker.attend(True)
    assert not worker.is_alive
    assert JOURNAL.totals(semconv.FAILURES.name) == {(("error.type", "RuntimeError"), ("stage", "worker")): 1}
    assert worker.stop(5.0)
