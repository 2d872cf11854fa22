"""What every test has: a clean environment, a journal of its own, guards that raise, and no thread left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

# onnxruntime sends telemetry of its own and writes a database from its first import on.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Each worker of pytest-xdist is a process: threads of BLAS beside them wait for each other and make tests slower.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from otel_mlmon import semconv
from otel_mlmon.guard import Guard, list_guards
from otel_mlmon.internal_events import JOURNAL

THREAD_DEADLINE_S = 5.0

# A machine under load takes longer than 200 ms for any example.
settings.register_profile("any_load", deadline=None)
# New examples are looked for by whoever works on the code: a release is checked with the same examples each time.
settings.register_profile("same_examples", deadline=None, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "any_load"))


def pytest_collection_finish() -> None:
    """Lets the garbage collector pass over what is imported by now: it stays, and takes half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _guards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test on an error of ours, unless it is marked `guarded`; the journal has those of other threads."""
    JOURNAL.reset_totals()
    for stage in list_guards():
        stage.reset_stage()
    is_guarded = request.node.get_closest_marker("guarded") is not None
    if not is_guarded:
        swallow = Guard.swallow

        def swallow_and_raise(stage: Guard, error: BaseException) -> bool:
            if swallow(stage, error):
                raise error
            return False

        monkeypatch.setattr(Guard, "swallow", swallow_and_raise)
    yield
    failures = JOURNAL.read_totals(semconv.FAILURES.name)
    JOURNAL.reset_totals()
    if not is_guarded:
        assert failures == {}


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + THREAD_DEADLINE_S
    for thread in _left(before):
        thread.join(max(0.0, deadline_s - time.monotonic()))
    assert [thread.name for thread in _left(before) if thread.is_alive()] == []


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads started since; a dummy stands for one of onnxruntime's own, which nobody can join."""
    dummy = threading._DummyThread
    return [thread for thread in threading.enumerate() if thread not in before and not isinstance(thread, dummy)]
