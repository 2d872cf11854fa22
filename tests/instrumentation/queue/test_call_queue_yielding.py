from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from otel_mlmon.instrumentation.queue.call_queue import make_interpreter_yield


@pytest.fixture
def _nobody_is_asked_to_stop() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_nobody_is_asked_to_stop")
def test_a_thread_that_waits_for_the_interpreter_gets_it_unless_there_is_no_time() -> None:
    came: list[int] = []
    gate = threading.Lock()
    gate.acquire()

    def other() -> None:
        with gate:
            came.append(1)

    thread = threading.Thread(target=other)
    thread.start()
    gate.release()  # from here on it waits for the interpreter only
    late = make_interpreter_yield(lambda: True)
    for _ in range(1000):
        late()
    assert came == []
    in_time = make_interpreter_yield(lambda: False)
    for _ in range(10_000):
        if came:
            break
        in_time()
    assert came == [1]
    thread.join(10.0)
