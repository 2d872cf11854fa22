from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from otel_mlmon.yielding import give_way


@pytest.fixture
def _nobody_is_asked_to_stop() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_nobody_is_asked_to_stop")
def test_a_thread_that_waits_for_the_interpreter_gets_it() -> None:
    came: list[int] = []
    ready = threading.Event()

    def other() -> None:
        ready.set()
        came.append(1)

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait(10.0)
    for _ in range(10_000):
        if came:
            break
        give_way()
    assert came == [1]
    thread.join(10.0)
