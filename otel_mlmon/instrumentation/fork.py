"""A fork of the host's, which copies one thread and the locks of all.

While another thread of ours imports a module, the child inherits that module half made and its lock held for ever: its
own import of it would never end. So a fork waits for the round under way, with a limit.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

WAIT_S: Final = 5.0
"""How long a fork waits at most: milliseconds, but for the first round, which may import the exporters."""


class Forks:
    """Holds a lock around every fork, and calls back in the child.

    Runs on: the thread that forks.

    Args:
        lock: The lock to hold; asked for each time, since the child makes another.
        in_child: A bound method, referred to weakly.
    """

    def __init__(self, *, lock: Callable[[], Any], in_child: Callable[[], None]) -> None:
        self._lock = lock
        self._in_child = weakref.WeakMethod(in_child)
        self._holder: int | None = None
        if hasattr(os, "register_at_fork"):
            mine = (self._before, self._after_in_parent, self._after_in_child)
            before, after, child = map(weakref.WeakMethod, mine)
            os.register_at_fork(
                before=lambda: (found := before()) and found(),
                after_in_parent=lambda: (found := after()) and found(),
                after_in_child=lambda: (found := child()) and found(),
            )

    def _before(self) -> None:
        if self._lock().acquire(timeout=WAIT_S):
            self._holder = threading.get_ident()

    def _after_in_parent(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = None
            self._lock().release()

    def _after_in_child(self) -> None:
        # The thread has the same number here, and holds nothing.
        self._holder = None
        if (in_child := self._in_child()) is not None:
            in_child()
