"""Which loads are told, and each session once: when it is created, else at its first call that is read."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from otel_mlmon.instrumentation.decode.model_identity import Model
from otel_mlmon.instrumentation.decode.model_loading import Loaded, model_of, read_load
from otel_mlmon.instrumentation.runtime.call import Load, SessionInfo

MAX_SESSIONS: Final = 1024
"""Sessions remembered, and loads that wait, at most; of a forgotten one that runs again is told twice."""

Timed = tuple[Model, float, str | None]
"""Model, seconds, error type of one that was not loaded."""


class Announcer:
    """Takes loads from the host's threads over, and gives them to metrics and to events.

    Runs on: `take`, `see` and `timed` on one thread at a time; `announcements` likewise, beside them.

    Args:
        noted: Where the host's threads put loads.
        is_suppressed: Whether the host had switched instrumentation off in a context; such a load is not told.
        version_of: What the developer says of the version of the model of a name; empty if nothing.
    """

    def __init__(
        self,
        noted: deque[Load],
        *,
        is_suppressed: Callable[[object], bool],
        version_of: Callable[[str], str],
    ) -> None:
        self._noted = noted
        self._is_suppressed = is_suppressed
        self._version_of = version_of
        self._known: dict[SessionInfo, None] = {}
        self._untimed: deque[Load] = deque(maxlen=MAX_SESSIONS)
        self._unsent: deque[Load] = deque(maxlen=MAX_SESSIONS)

    def take(self) -> None:
        """Take over what was noted; to be done before the calls that followed it are read."""
        for load in [self._noted.popleft() for _ in range(len(self._noted))]:
            if not self._is_suppressed(load.context):
                self._untimed.append(load)
                self._announce(load)

    def see(self, session: SessionInfo) -> None:
        """A call of this session was read: tell of it unless it was told when it was created.

        It was created before the instrumentation, before a fork, or while instrumentation was suppressed.
        """
        if session not in self._known:
            self._announce(Load(session, session.path, time.perf_counter_ns(), None))

    def timed(self) -> list[Timed]:
        """The loads taken over since the last time whose duration is known."""
        loads = [self._untimed.popleft() for _ in range(len(self._untimed))]
        return [
            (model_of(load, version_of=self._version_of), load.duration_s, load.error_type)
            for load in loads
            if load.duration_s is not None
        ]

    def announcements(self) -> Iterator[Loaded]:
        """What is to be told, each once; reads files."""
        while self._unsent:
            yield read_load(self._unsent.popleft(), version_of=self._version_of)

    def _announce(self, load: Load) -> None:
        if load.session is not None:
            if len(self._known) >= MAX_SESSIONS:
                del self._known[next(iter(self._known))]
            self._known[load.session] = None
        self._unsent.append(load)
