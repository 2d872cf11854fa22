"""The bounded queue between the host's threads and ours.

No lock: a signal handler may run a model while the thread below it stands inside `offer`. `list.extend` with a tuple,
a slice, its deletion and `next(itertools.count())` are single operations of the interpreter, and of its free-threaded
builds too, which lock the list for each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class LockFreeCounter:
    """A count that any thread may raise without a lock, and one thread at a time may read."""

    __slots__ = ("_count", "_reads")

    def __init__(self) -> None:
        self._count = itertools.count()
        self._reads = 0

    def add(self) -> None:
        """Counts one more."""
        next(self._count)

    def value(self) -> int:
        """Reads the count; reading counts too, and is taken off again."""
        value = next(self._count) - self._reads
        self._reads += 1
        return value


class CallQueue:
    """Holds records, first in first out, each as a fixed number of fields in one flat list.

    Flat, since a tuple that waits is one more object for the garbage collector to look at.

    Bound: a record is taken in as the n-th only if n < `max_records` and n · its bytes <= `max_bytes`. Since positions
    only shrink, all records together weigh at most `max_bytes` · (1 + 1/2 + … + 1/max_records), and threads that append
    at the same moment may each exceed it by one record.

    Runs on: `offer` and `drop` on any thread, `take` and `dropped` on one at a time.

    Args:
        fields: How many fields a record has.
        max_records: Records held at most, above 0.
        max_bytes: Bytes held at most, see above.
        attend: Called when the queue was empty (False), or is long or a quarter of its bytes heavy (True).
    """

    def __init__(self, *, fields: int, max_records: int, max_bytes: int, attend: Callable[[bool], None]) -> None:
        self.queue: list[Any] = []
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.high_water = max(1, min(4096, max_records // 2))
        self._fields = fields
        self._attend = attend
        self._drops: dict[str, LockFreeCounter] = {}
        self._full_reason = "buffer_full"

    def __len__(self) -> int:
        return len(self.queue) // self._fields

    def is_long(self) -> bool:
        """Whether so much waits that some of it may soon be dropped."""
        return len(self) >= self.high_water

    def offer(self, record: Sequence[Any], size_bytes: int) -> None:
        """Takes `record` in, or drops and counts it."""
        length = len(self.queue) // self._fields
        if length >= self.max_records or length * size_bytes > self.max_bytes:
            self.drop(self._full_reason)
        else:
            self.queue.extend(record)
        is_long = length >= self.high_water or length * size_bytes > self.max_bytes // 4
        if is_long or not length:
            self._attend(is_long)

    def drop(self, reason: str) -> None:
        """Counts a record that is not taken in."""
        self._drops.setdefault(reason, LockFreeCounter()).add()

    def take(self, limit: int) -> list[Any]:
        """Removes the oldest records, at most `limit`, and gives their fields, one record after the other."""
        # Others only add at the end, so the same fields are copied and deleted.
        end = limit * self._fields
        fields = self.queue[:end]
        del self.queue[: len(fields)]
        return fields

    def dropped(self) -> Mapping[str, int]:
        """Counts the records dropped so far, by reason."""
        return {reason: counter.value() for reason, counter in list(self._drops.items())}

    def close(self) -> None:
        """Drops and counts what comes from now on, since nobody takes it."""
        self.max_records, self._full_reason = 0, "shut_down"

    def reset(self) -> None:
        """Forgets everything, for a forked child; whoever holds the queue keeps it."""
        self.queue.clear()
        self._drops.clear()
