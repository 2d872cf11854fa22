"""Out of the buffer: calls of many sessions as one batch a plan.

A few at a time, since all of it is the interpreter's work; the calls themselves are freed at once, and the host's
threads are let in between.
"""

from __future__ import annotations

import collections
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from otel_mlmon.instrumentation.decode.batch import Batch, Items, PackedTensor, each
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Item, Plan, Side

Columns: TypeAlias = "Sequence[Sequence[Any]]"
"""The fields of calls, each of all of them, in the order of `Call`."""

PIECE: Final = 128
"""Calls taken at a time: some 0.1 ms."""

_CONTEXTS: Final = 3


class Gathered(NamedTuple):
    """What came out of the buffer."""

    batches: Sequence[Batch]
    suppressed: int
    """Calls that the host asked to leave alone."""


def gather(
    take: Callable[[int], Sequence[Any]],
    limit: int,
    *,
    is_suppressed: Callable[[object], bool],
    pause: Callable[[], object],
) -> Gathered:
    """The next calls, at most `limit`.

    Runs on: one thread at a time.

    Args:
        take: Gives the fields of the oldest calls, at most so many, one call after the other.
        limit: Above 0.
        is_suppressed: Whether the host had switched instrumentation off in a context.
        pause: Called after each piece: lets the host's threads go first.
    """
    found: dict[Plan, _Growing] = collections.defaultdict(_Growing)
    suppressed = 0
    for first in range(0, limit, PIECE):
        asked = min(PIECE, limit - first)
        fields = take(asked)
        calls = len(fields) // FIELDS
        kept = _wanted([fields[at::FIELDS] for at in range(FIELDS)], is_suppressed)
        suppressed += calls - len(kept[0])
        for plan, columns in _by_plan(kept):
            found[plan].add(columns)
        if calls < asked:
            break
        del fields, kept
        pause()
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

    def add(self, columns: Columns) -> None:
        _, started, ended, contexts, given, made, errors = columns
        self._started.extend(started)
        self._ended.extend(ended)
        self._contexts.extend(contexts)
        self._errors.extend(errors)
        self._inputs.add(given)
        self._outputs.add(made)

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

    def _whole(self) -> PackedTensor:
        return PackedTensor(b"".join(self._joined), np.frombuffer(self._lengths, dtype=np.int64))


def _column(sides: Sequence[Side], position: int) -> Sequence[Item]:
    """Of each call, the item of the tensor at `position`; None of a call that failed."""
    return [side if type(side) is bytes else (side[position] if side else None) for side in sides]  # type: ignore[misc]


def _wanted(columns: Columns, is_suppressed: Callable[[object], bool]) -> Columns:
    """The calls that the host did not ask to leave alone; most have no context at all, or one that many share."""
    contexts = columns[_CONTEXTS]
    if not any(contexts):
        return columns
    distinct = {id(context): context for context in contexts}
    quiet = {key for key, context in distinct.items() if is_suppressed(context)}
    if not quiet:
        return columns
    kept = [id(context) not in quiet for context in contexts]
    return [list(itertools.compress(column, kept)) for column in columns]


def _by_plan(columns: Columns) -> Iterator[tuple[Plan, Columns]]:
    """In one step where all are of one plan, as they mostly are."""
    plans = columns[0]
    if len(set(plans)) == 1:
        yield plans[0], columns
        return
    groups: dict[Plan, list[CallTuple]] = {}
    for call in zip(*columns, strict=True):
        groups.setdefault(call[0], []).append(call)
    for plan, group in groups.items():
        yield plan, list(zip(*group, strict=True))
