"""Out of the buffer: calls of many sessions as one batch a plan.

A few at a time, since all of it is the interpreter's work; the calls themselves are freed at once, and the host's
threads are let in between.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.instrumentation.call.call import CallTuple, Item, Plan, Side
from otel_mlmon.instrumentation.record.batch import Batch, Items, Whole, each
from otel_mlmon.yielding import give_way

PIECE: Final = 128
"""Calls taken at a time: some 0.05 ms."""

_CELL_OF: Final = operator.itemgetter(0)
_CONTEXT_OF: Final = operator.itemgetter(3)


class Gathered(NamedTuple):
    """What came out of the buffer."""

    batches: Sequence[Batch]
    suppressed: int
    """Calls that the host asked to leave alone."""


def gather(
    take: Callable[[int], Sequence[CallTuple]], limit: int, *, is_suppressed: Callable[[object], bool]
) -> Gathered:
    """The next calls, at most `limit`.

    Runs on: one thread at a time.

    Args:
        take: Gives the oldest calls, at most so many.
        limit: Above 0.
        is_suppressed: Whether the host had switched instrumentation off in a context.
    """
    found: dict[Plan, _Growing] = {}
    suppressed = 0
    for first in range(0, limit, PIECE):
        calls = take(min(PIECE, limit - first))
        kept = _wanted(calls, is_suppressed)
        suppressed += len(calls) - len(kept)
        for plan, group in _by_plan(kept):
            if plan not in found:
                found[plan] = _Growing(plan)
            found[plan].add(group)
        if len(calls) < PIECE:
            break
        del calls, kept
        give_way()
    return Gathered([growing.batch() for growing in found.values()], suppressed)


class _Growing:
    """A batch that is being gathered."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
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

    def batch(self) -> Batch:
        plan = self._plan
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
            self._joined.append(b"".join(sides))  # type: ignore[arg-type]
            self._lengths.extend(map(len, sides))
            return
        if self._joined:
            self._apart, self._joined = list(each(self._whole())), []  # type: ignore[arg-type]
        self._apart.extend(sides)

    def columns(self, tensors: int) -> list[Items]:
        if not self._apart:
            return [self._whole()]
        return [_column(self._apart, at) for at in range(tensors)]

    def _whole(self) -> Whole:
        return Whole(b"".join(self._joined), np.frombuffer(self._lengths, dtype=np.int64))


def _column(sides: Sequence[Side], position: int) -> Sequence[Item]:
    """Of each call, the item of the tensor at `position`; None of a call that failed."""
    return [side if type(side) is bytes else (side[position] if side else None) for side in sides]  # type: ignore[misc]


def _by_plan(calls: Sequence[CallTuple]) -> list[tuple[Plan, Sequence[CallTuple]]]:
    """In one step where all are of one plan, as they mostly are."""
    cells = set(map(id, map(_CELL_OF, calls)))
    if len(cells) == 1:
        return [(calls[0][0].item(), calls)]
    runs = [list(run) for _, run in itertools.groupby(calls, key=lambda call: id(call[0]))]
    return [(run[0][0].item(), run) for run in runs]


def _wanted(calls: Sequence[CallTuple], is_suppressed: Callable[[object], bool]) -> Sequence[CallTuple]:
    """Those that the host did not ask to leave alone; most have no context at all."""
    if not any(map(_CONTEXT_OF, calls)):
        return calls
    return [call for call in calls if call[3] is None or not is_suppressed(call[3])]
