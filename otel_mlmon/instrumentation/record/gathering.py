"""Out of the buffer: calls of many sessions as one batch a plan.

A few at a time, since all of it is the interpreter's work; the calls themselves are freed at once, and the host's
threads are let in between.
"""

from __future__ import annotations

import collections
import operator
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.call.call import CallTuple, Item, Plan, Record, Side
from otel_mlmon.instrumentation.call.packing import Forms, Packed
from otel_mlmon.instrumentation.record.batch import Batch, Items, Whole, each
from otel_mlmon.yielding import give_way

PIECE: Final = 256
"""Calls taken at a time: some 0.05 ms if they are packed."""

_CONTEXT_OF: Final = operator.itemgetter(3)


class Gathered(NamedTuple):
    """What came out of the buffer."""

    batches: Sequence[Batch]
    suppressed: int
    """Calls that the host asked to leave alone."""


def gather(
    take: Callable[[int], Sequence[Record]], limit: int, *, forms: Forms, is_suppressed: Callable[[object], bool]
) -> Gathered:
    """The next calls, at most `limit`.

    Runs on: one thread at a time.

    Args:
        take: Gives the oldest calls, at most so many.
        limit: Above 0.
        forms: Of the packed ones; forgotten when nothing waits that may need them.
        is_suppressed: Whether the host had switched instrumentation off in a context.
    """
    found: dict[Plan, _Growing] = collections.defaultdict(_Growing)
    suppressed, gone = 0, forms.gone()
    for first in range(0, limit, PIECE):
        asked = min(PIECE, limit - first)
        calls = take(asked)
        packed, apart = _parted(calls)
        for plan, alike in forms.unpack(packed):
            found[plan].add_packed(alike)
        kept = _wanted(apart, is_suppressed)
        suppressed += len(apart) - len(kept)
        for plan, group in _by_plan(kept):
            found[plan].add(group)
        if len(calls) < asked:
            forms.forget(gone)
            break
        del calls, packed, apart, kept
        give_way()
    return Gathered([growing.batch(plan) for plan, growing in found.items()], suppressed)


class _Growing:
    """A batch that is being gathered."""

    def __init__(self) -> None:
        self._started = array("q")
        self._ended = array("q")
        self._contexts: list[object] = []
        self._errors: list[str | None] = []
        self._inputs = _Copies()
        self._outputs = _Copies()

    def add(self, calls: Sequence[CallTuple]) -> None:
        # Transposed in one step of C: a record has the fields of `Call`, in its order.
        _, started, ended, contexts, given, made, errors = zip(*calls, strict=True)
        self._started.extend(started)
        self._ended.extend(ended)
        self._contexts.extend(contexts)
        self._errors.extend(errors)
        self._inputs.add(given)
        self._outputs.add(made)

    def add_packed(self, calls: Packed) -> None:
        self._started.frombytes(calls["started_ns"].tobytes())
        self._ended.frombytes(calls["ended_ns"].tobytes())
        nothing = [None] * len(calls)
        self._contexts.extend(nothing)
        self._errors.extend(nothing)
        self._inputs.add_whole(calls["given"])
        self._outputs.add_whole(calls["made"])

    def batch(self, plan: Plan) -> Batch:
        return Batch(
            plan=plan,
            started_ns=np.frombuffer(self._started, dtype=np.int64),
            ended_ns=np.frombuffer(self._ended, dtype=np.int64),
            contexts=self._contexts,
            errors=self._errors,
            inputs=self._inputs.columns(len(plan.inputs)),
            outputs=self._outputs.columns(len(plan.outputs)),
        )


class _Copies:
    """One side of many calls: joined as long as every one of them is the bytes of one tensor."""

    def __init__(self) -> None:
        self._joined: list[bytes] = []
        self._lengths = array("q")
        self._apart: list[Side] = []

    def add(self, sides: Sequence[Side]) -> None:
        if not self._apart and set(map(type, sides)) == {bytes}:
            self._join(b"".join(sides), array("q", map(len, sides)))  # type: ignore[arg-type]
            return
        if self._joined:
            self._apart, self._joined = list(each(self._whole())), []  # type: ignore[arg-type]
        self._apart.extend(sides)

    def add_whole(self, sides: NDArray[np.void]) -> None:
        """Shape (n,), each of equally many bytes."""
        data, length = sides.tobytes(), sides.itemsize
        if self._apart:
            self._apart.extend(data[start : start + length] for start in range(0, len(data), length))
        else:
            self._join(data, array("q", [length]) * len(sides))

    def _join(self, data: bytes, lengths: array[int]) -> None:
        self._joined.append(data)
        self._lengths.extend(lengths)

    def columns(self, tensors: int) -> list[Items]:
        if not self._apart:
            return [self._whole()]
        return [_column(self._apart, at) for at in range(tensors)]

    def _whole(self) -> Whole:
        return Whole(b"".join(self._joined), np.frombuffer(self._lengths, dtype=np.int64))


def _column(sides: Sequence[Side], position: int) -> Sequence[Item]:
    """Of each call, the item of the tensor at `position`; None of a call that failed."""
    return [side if type(side) is bytes else (side[position] if side else None) for side in sides]  # type: ignore[misc]


def _parted(calls: Sequence[Record]) -> tuple[Sequence[bytes], Sequence[CallTuple]]:
    """The packed ones and the others; in one step where all are packed, as they mostly are."""
    if set(map(type, calls)) == {bytes}:
        return calls, ()  # type: ignore[return-value]
    return [call for call in calls if isinstance(call, bytes)], [call for call in calls if isinstance(call, tuple)]


def _by_plan(calls: Sequence[CallTuple]) -> Iterator[tuple[Plan, Sequence[CallTuple]]]:
    groups: dict[int, list[CallTuple]] = {}
    for call in calls:
        groups.setdefault(id(call[0]), []).append(call)
    for group in groups.values():
        yield group[0][0].item(), group


def _wanted(calls: Sequence[CallTuple], is_suppressed: Callable[[object], bool]) -> Sequence[CallTuple]:
    """Those that the host did not ask to leave alone; most have no context at all."""
    if not any(map(_CONTEXT_OF, calls)):
        return calls
    return [call for call in calls if call[3] is None or not is_suppressed(call[3])]
