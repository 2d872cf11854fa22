"""The guard that keeps errors of otel_mlmon from the host: the one place that catches `Exception`.

Every entry of our code on a thread of the host, and every unit of work on our own, runs inside the guard of its stage.
The host's own call is never inside one. A guard catches `Exception` only: `KeyboardInterrupt` and `SystemExit` are the
host's. A stage that fails 100 times in a minute is switched off, so a broken stage costs its host nothing more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

from otel_mlmon.internal_events import JOURNAL, EventJournal, StageFailed

FAILURE_LIMIT: Final = 100
"""Errors within `FAILURE_PERIOD_S` that switch a stage off."""

FAILURE_PERIOD_S: Final = 60.0


class Guard:
    """Catches the errors of one stage of otel_mlmon, counts them, and switches the stage off after too many.

    Runs on: any thread, the host's too.

    Args:
        stage: The name that the count and the log line carry.
        journal: Counts and logs the errors.
        clock: Seconds, monotonic.
    """

    __slots__ = ("_clock", "_failed_at", "_journal", "is_open", "stage")

    def __init__(
        self, stage: str, *, journal: EventJournal = JOURNAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stage = stage
        self._journal = journal
        self._clock = clock
        self._failed_at: deque[float] = deque(maxlen=FAILURE_LIMIT)
        self.is_open: bool = False
        """Whether the stage is switched off, like an open circuit breaker; callers check it, `with` does not."""

    def __enter__(self) -> None:
        """Enters a block of code whose errors the guard catches."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Catches an `Exception` that the guarded block of code raised; lets everything else pass."""
        return error is not None and self.swallow(error)

    def swallow(self, error: BaseException) -> bool:
        """Counts a caught `Exception` and returns True; returns False for any other error, which the caller re-raises.

        For code too hot for a context manager: `except BaseException as error: if not stage.swallow(error): raise`.
        """
        if not isinstance(error, Exception):
            return False
        now_s = self._clock()
        self._failed_at.append(now_s)
        if len(self._failed_at) == FAILURE_LIMIT and now_s - self._failed_at[0] <= FAILURE_PERIOD_S:
            self.is_open = True
        self._journal.emit_event(
            StageFailed(
                stage=self.stage,
                error_type=type(error).__qualname__,
                function=_find_raising_function(error),
                is_switched_off=self.is_open,
            )
        )
        return True

    def reset_stage(self) -> None:
        """Switches the guarded stage of otel_mlmon on again, and forgets its errors."""
        self._failed_at.clear()
        self.is_open = False


_GUARDS: Final[dict[str, Guard]] = {}


def guard(stage: str) -> Guard:
    """Returns the one guard that this process has for a stage of otel_mlmon."""
    existing = _GUARDS.get(stage)
    return existing if existing is not None else _GUARDS.setdefault(stage, Guard(stage))


def list_guards() -> tuple[Guard, ...]:
    """Returns the guards of all stages that were used so far."""
    return tuple(_GUARDS.values())


def _find_raising_function(error: Exception) -> str:
    """Returns the name of the function that raised an error, but not its message, which may carry the host's data."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    code = traceback.tb_frame.f_code
    return str(getattr(code, "co_qualname", code.co_name))  # co_qualname is there since Python 3.11
