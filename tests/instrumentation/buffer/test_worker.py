from __future__ import annotations

import threading

from otel_mlmon.instrumentation.buffer.worker import Worker


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
