"""A clock that does not run back when the machine's is set back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_STEP_NS: Final = 60_000_000_000
"""A step forward by more than this takes back what a step back was corrected by."""


class SteadyClock:
    """Reads a clock, and goes on from the latest time where that is set back.

    A correction of the machine's clock must not change what is judged: data seems to come from the future, nothing
    seems to be silent. The time since the last reading is all that a step back costs; a later step forward ends it.

    Runs on: one thread.

    Args:
        clock_ns: Unix nanoseconds.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._last_ns = 0
        self._offset_ns = 0
        """By how much it is ahead of the clock that it reads."""

    def __call__(self) -> int:
        """Returns Unix nanoseconds, never fewer than the last time."""
        now_ns = self._clock_ns() + self._offset_ns
        step_ns = now_ns - self._last_ns
        if step_ns < 0:
            self._offset_ns -= step_ns
            now_ns = self._last_ns
        elif self._offset_ns and step_ns > MAX_STEP_NS:
            returned_ns = min(self._offset_ns, step_ns)
            self._offset_ns -= returned_ns
            now_ns -= returned_ns
        self._last_ns = now_ns
        return now_ns
