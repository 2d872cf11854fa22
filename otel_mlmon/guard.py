"""Nothing of ours reaches the host: the one place that catches `Exception`.

Every entry of our code on somebody else's thread, and every unit of work on ours, runs inside the guard of its stage.
The host's own call is never inside one. A guard catches `Exception` only: `KeyboardInterrupt` and `SystemExit` are the
host's. A stage that fails 100 times in a minute is switched off, so a broken reader costs its host nothing more.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, ParamSpec

from otel_mlmon.internal_events import JOURNAL, Journal, StageFailed

P = ParamSpec("P")

FAILURE_LIMIT: Final = 100
FAILURE_PERIOD_S: Final = 60.0


class Guard:
    """Keeps the faults of one stage from its host, counts them, and switches the stage off when they do not end.

    Runs on: any thread, the host's too.

    Args:
        stage: The name that the count and the log line carry.
        journal: Where a fault is told.
        clock: Seconds, monotonic.
    """

    __slots__ = ("_clock", "_failed_at", "_journal", "is_open", "on_error", "stage")

    def __init__(self, stage: str, *, journal: Journal = JOURNAL, clock: Callable[[], float] = time.monotonic) -> None:
        self.stage = stage
        self._journal = journal
        self._clock = clock
        self._failed_at: deque[float] = deque(maxlen=FAILURE_LIMIT)
        self.is_open: bool = False
        """Whether the stage is switched off."""
        self.on_error: Callable[[Exception], None] | None = None
        """For tests: called with every fault before it is swallowed; may raise it."""

    def __enter__(self) -> None:
        """Nothing; a stage that is switched off is asked by `is_open`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallow an `Exception`; let everything else pass."""
        return error is not None and self.swallow(error)

    def swallow(self, error: BaseException) -> bool:
        """Whether `error` was an `Exception`, counted here and now gone; else the caller raises it on.

        For code too hot for a context manager: `except BaseException as error: if not stage.swallow(error): raise`.
        """
        if not isinstance(error, Exception):
            return False
        self._caught(error)
        return True

    def wrap(self, function: Callable[P, None]) -> Callable[P, None]:
        """`function` inside this guard; does nothing while the stage is switched off.

        Costs one call and no context manager, for the host's thread.
        """

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.is_open:
                return
            try:
                function(*args, **kwargs)
            except Exception as error:
                self._caught(error)

        return guarded

    def reset(self) -> None:
        """Switch the stage on again and forget its faults."""
        self._failed_at.clear()
        self.is_open = False

    def _caught(self, error: Exception) -> None:
        if self.on_error is not None:
            self.on_error(error)
        now = self._clock()
        self._failed_at.append(now)
        if len(self._failed_at) == FAILURE_LIMIT and now - self._failed_at[0] <= FAILURE_PERIOD_S:
            self.is_open = True
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        # The place, never the message: a message may carry the host's data.
        place = (
            f"{where.tb_frame.f_code.co_qualname}"
            if where and hasattr(where.tb_frame.f_code, "co_qualname")
            else (where.tb_frame.f_code.co_name if where else "")
        )
        self._journal.emit(
            StageFailed(stage=self.stage, error_type=type(error).__qualname__, detail=place, switched_off=self.is_open)
        )


_GUARDS: Final[dict[str, Guard]] = {}


def guard(stage: str) -> Guard:
    """The process's one guard of `stage`."""
    return _GUARDS.setdefault(stage, Guard(stage))


def guards() -> tuple[Guard, ...]:
    """Every guard asked for so far."""
    return tuple(_GUARDS.values())
