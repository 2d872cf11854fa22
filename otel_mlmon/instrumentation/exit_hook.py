"""Runs a function at the end of a process, however the process was started and ends.

The interpreter's own end runs `atexit`. Children of multiprocessing and of billiard, Celery's fork of it, may end by
`os._exit` without it, and run the finalizers of their package's `util` module instead; those registered before a child
started are forgotten there. Source: CPython, multiprocessing/process.py, `BaseProcess._bootstrap`; forkserver.py.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from otel_mlmon.guard import guard

EXIT_PRIORITY: Final = -100
"""Priority among the finalizers of multiprocessing: after those of others, and after the process's own children."""

_PACKAGES: Final = ("multiprocessing", "billiard")


class ExitHook:
    """Runs a function at the end of this process, before the interpreter exits.

    Not where a process ends by `os._exit` of its own or by a signal: there no hook runs.

    Args:
        work: Run at the end; its argument is whether `atexit` will not run, so that nobody flushes after it.
    """

    def __init__(self, work: Callable[[bool], None]) -> None:
        self._work = work
        self._finalizers: dict[str, Any] = {}
        atexit.register(self._run_at_exit)
        # A child of `forkserver` or `spawn` that imports its main module just now becomes a child only after it.
        self._follow_child_processes()
        for package in _PACKAGES:
            process = sys.modules.get(f"{package}.process")
            parent = getattr(process, "parent_process", lambda: None)
            if parent() is not None:
                self._register_finalizer(package)

    def register_again(self) -> None:
        """Registers the exit hook's function again, so that it runs before functions that were registered since."""
        atexit.unregister(self._run_at_exit)
        atexit.register(self._run_at_exit)

    def register_after_fork(self) -> None:
        """Registers the exit hook's function in a forked child process, where multiprocessing has removed it."""
        self._finalizers.clear()
        self._follow_child_processes()

    def unregister(self) -> None:
        """Unregisters the exit hook's function, so that it does not run at the end of the process."""
        atexit.unregister(self._run_at_exit)
        self._work = _do_nothing
        for finalizer in self._finalizers.values():
            finalizer.cancel()

    def _follow_child_processes(self) -> None:
        for package in _PACKAGES:
            util = sys.modules.get(f"{package}.util")
            if util is not None:
                util.register_after_fork(self, ExitHook._register_all_finalizers)

    def _register_all_finalizers(self) -> None:
        for package in _PACKAGES:
            self._register_finalizer(package)

    def _register_finalizer(self, package: str) -> None:
        util = sys.modules.get(f"{package}.util")
        if util is not None and package not in self._finalizers:
            pid = os.getpid()
            self._finalizers[package] = util.Finalize(None, self._run_at_child_exit, (pid,), exitpriority=EXIT_PRIORITY)

    def _run_at_exit(self) -> None:
        self._run_function_once(is_abrupt=False)

    def _run_at_child_exit(self, pid: int) -> None:
        if pid != os.getpid():
            return
        with guard("shutdown"):
            # What multiprocessing does next: threads that are no daemons may still run models.
            getattr(threading, "_shutdown", _do_nothing)()
        self._run_function_once(is_abrupt=True)

    def _run_function_once(self, *, is_abrupt: bool) -> None:
        """Runs the exit hook's function once at the end of the process, even if signals arrive meanwhile.

        A handler that exits while the process ends (gunicorn's, at a second signal) interrupts the waiting, not the
        work, and takes effect once that is done; Ctrl-C ends the waiting.
        """
        turn, done = threading.Lock(), threading.Event()

        def run() -> None:
            if turn.acquire(blocking=False):  # whoever comes first
                try:
                    self._work(is_abrupt)
                finally:
                    done.set()

        thread = threading.Thread(target=run, name="otel_mlmon-exit", daemon=True)
        try:
            try:
                thread.start()
            except RuntimeError:  # from Python 3.12 on no thread starts when the interpreter ends
                run()
            done.wait()
        except SystemExit:  # also while the thread starts
            run()
            done.wait()
            raise


def _do_nothing(*_: object) -> None:
    """Does nothing at the end of the process, in place of a function that was unregistered."""
