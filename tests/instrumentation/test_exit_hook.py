from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.instrumentation.exit_hook import ExitHook


def note(path: Path, is_abrupt: bool) -> None:
    path.write_text(str(is_abrupt))


def child(path: str) -> None:
    ExitHook(lambda is_abrupt: note(Path(path), is_abrupt))


def idle() -> None:
    """Nothing: what was registered before the fork is done at the end."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("is_inherited", [False, True])
def test_a_child_of_multiprocessing_that_ends_without_atexit_is_asked_too(tmp_path: Path, is_inherited: bool) -> None:
    path = tmp_path / "ended"
    context: Any = multiprocessing.get_context("fork")
    if is_inherited:
        parent = os.getpid()
        hook = ExitHook(lambda is_abrupt: None if os.getpid() == parent else note(path, is_abrupt))
        os.register_at_fork(after_in_child=hook.register_after_fork)
        process = context.Process(target=idle)
    else:
        process = context.Process(target=child, args=(str(path),))
    process.start()
    process.join()
    assert (process.exitcode, path.read_text()) == (0, "True")
    if is_inherited:
        hook.unregister()


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signals of POSIX")
def test_a_signal_handler_that_exits_while_the_process_ends_waits_for_the_work() -> None:
    program = (
        "import os, signal, sys, threading\n"
        "from otel_mlmon.instrumentation.exit_hook import ExitHook\n"
        "def work(is_abrupt):\n"
        "    print('work', is_abrupt, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    handled.wait(30)\n"
        "    print('done', flush=True)\n"
        "def handle(number, frame):\n"  # as gunicorn's workers do
        "    handled.set()\n"
        "    sys.exit(0)\n"
        "handled = threading.Event()\n"
        "signal.signal(signal.SIGTERM, handle)\n"
        "hook = ExitHook(work)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["work False", "done"]
