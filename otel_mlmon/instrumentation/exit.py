"""The end of a process: `atexit`, and in the children of multiprocessing, which end without it, that module's own.

A child that multiprocessing forks ends by `os._exit`, after the finalizers of `multiprocessing.util`; those registered
before it started are forgotten. Source: CPython, multiprocessing/process.py, `BaseProcess._bootstrap`.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any, Final

LAST: Final = -100
"""After the finalizers of others, and after children of its own have ended."""


class AtExit:
    """Does `work` at the end of this process, however multiprocessing started it.

    Not where a process ends by `os._exit` or a signal: there nobody is asked.

    Args:
        work: Done at the end; may be done twice.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._finalizer: Any = None
        atexit.register(work)
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            self._finalize()

    def after_fork(self) -> None:
        """In a forked child, before multiprocessing, if it forked, has cleared what it inherited."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, AtExit._finalize)

    def cancel(self) -> None:
        """Do nothing at the end."""
        atexit.unregister(self._work)
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _finalize(self) -> None:
        from multiprocessing.util import Finalize

        self._finalizer = Finalize(None, self._work, exitpriority=LAST)
