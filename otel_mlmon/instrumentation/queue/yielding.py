"""Let the host's threads go first.

One thread at a time has the interpreter, and one that works without a pause keeps the others waiting, 5 ms by default
before it is asked to stop. Ours asks nobody to wait that long: it gives way between steps of some 0.1 ms.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PAUSE_S: Final = 0.0002
"""Longer than a thread takes to wake. With `time.sleep(0)`, 0.06 ms on Linux, the one that waited was often too late,
and waited for several steps: the slowest of 40,000 calls took 4 ms instead of 0.6."""


def give_way() -> None:
    """Let a thread that waits for the interpreter have it. Takes 0.26 ms on Linux, and no CPU to speak of."""
    time.sleep(PAUSE_S)


def give_way_unless(is_late: Callable[[], bool]) -> Callable[[], None]:
    """A function that gives way, but for when `is_late` says that there is no time to."""

    def give_way_in_time() -> None:
        if not is_late():
            give_way()

    return give_way_in_time
