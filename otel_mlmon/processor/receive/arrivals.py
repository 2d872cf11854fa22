"""Bounds how many request bodies of unknown size are received at a time, as over gRPC.

Each may be as large as the largest request, so only so many arrive as have room together; the others wait unread in
their connections, where HTTP/2 holds them back. A body that arrives slowly while others wait is given up, so that a few
senders who send nothing do not keep everybody else out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _BodyArrival:
    """A request body that is being received."""

    began_s: float
    give_up: Callable[[], object]
    is_given_up: bool = False


class ArrivingBodies:
    """A limit on the number of request bodies that are received at a time.

    Runs on: any thread; each waits for `patience_s` at most.

    Args:
        limit: How many bodies arrive at a time, above 0.
        patience_s: How long a body waits for its turn, and how long it may take while others wait, in seconds.
        clock: Seconds, monotonic.
    """

    def __init__(self, limit: int, *, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._patience_s = patience_s
        self._clock = clock
        self._changed = threading.Condition()
        self._arrivals: list[_BodyArrival] = []
        """The oldest first."""

    @contextmanager
    def await_turn(self, give_up: Callable[[], object]) -> Iterator[bool]:
        """Waits for the turn of a request body, to be received inside the `with`; gives False if it came too late.

        Args:
            give_up: Ends the receiving from another thread; returns at once.
        """
        arrival = self._begin_arrival(give_up)
        try:
            yield arrival is not None
        finally:
            if arrival is not None:
                with self._changed:
                    self._arrivals.remove(arrival)
                    self._changed.notify()

    def _begin_arrival(self, give_up: Callable[[], object]) -> _BodyArrival | None:
        ends_s = self._clock() + self._patience_s
        with self._changed:
            while len(self._arrivals) >= self._limit:
                now_s = self._clock()
                if now_s >= ends_s:
                    return None
                self._changed.wait(max(0.0, min(ends_s, self._end_slow_arrivals(now_s)) - now_s))
            arrival = _BodyArrival(self._clock(), give_up)
            self._arrivals.append(arrival)
            return arrival

    def _end_slow_arrivals(self, now_s: float) -> float:
        """Gives up request bodies that arrive too slowly; returns when to look again. Called under the lock."""
        for arrival in self._arrivals:
            if arrival.began_s + self._patience_s > now_s:
                return arrival.began_s + self._patience_s
            if not arrival.is_given_up:
                arrival.is_given_up = True
                arrival.give_up()
        return now_s + self._patience_s
