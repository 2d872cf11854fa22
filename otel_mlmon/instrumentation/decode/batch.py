"""Takes batches of inference calls out of the queue, joins the copies of each tensor, and counts rows.

Calls are taken a few at a time, since this work holds the interpreter. They are freed at once, and the application's
threads may run in between.
"""

from __future__ import annotations

import collections
import itertools
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.runtime.call import FIELDS, Call, CallTuple, Item, Plan, Side, Tensor
from otel_mlmon.types import Ints

CHUNK_CALLS: Final = 16_384
"""Calls decoded at a time at most: the more, the larger numpy's share, which does not hold the interpreter."""

PIECE_CALLS: Final = 256
"""Calls taken at a time: some 0.15 ms of work, half of it whatever their number."""

_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})

_CONTEXT: Final = Call._fields.index("context")

CallColumns: TypeAlias = "Sequence[list[Any]]"
"""Calls by field: one list a field of `Call`, in order."""


class PackedTensor(NamedTuple):
    """Holds the complete copies of one tensor at n inference calls, as bytes one after the other."""

    data: bytes
    """The copies, one after the other."""
    lengths: Ints
    """Shape (n,): bytes of each copy."""


Items: TypeAlias = "PackedTensor | Sequence[Item]"
"""The copies of one tensor, one a call."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallBatch:
    """Holds n inference calls of one model session, field by field, in the order of the queue."""

    plan: Plan
    started_ns: Ints
    """Start of each call on the clock of `time.perf_counter_ns`, shape (n,)."""
    ended_ns: Ints
    contexts: Sequence[object]
    """The OpenTelemetry context of each call, None where there was none."""
    errors: Sequence[str | None]
    """The class of each call's exception."""
    inputs: Sequence[Items]
    """The copies of the inputs, one item a tensor of the plan."""
    outputs: Sequence[Items]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorRows:
    """Holds the copied rows of one tensor over a batch of inference calls, and the number of rows of each call."""

    rows: NDArray[Any]
    """Shape (m, k): one row a prediction or sample."""
    calls: Ints
    """Shape (m,): the call that a row belongs to, not decreasing."""
    sizes: Ints
    """Shape (n,): rows of each call, copied or not; 0 if unknown."""
    is_ragged: bool = False
    """Whether rows of another width were left out."""


class _InputAxisLengths(NamedTuple):
    """Holds the lengths, call by call, of those axes of an input along which its samples may lie."""

    lengths: tuple[Ints, ...]
    """The axes that may be that of the samples, shape (n,) each; 0 where a length is unknown."""
    has_samples: bool
    """Whether there may be an axis of samples: it is no single vector, and no single image."""


class SampleSizes:
    """Tells how many samples each inference call of a batch was given, from the shapes of its inputs.

    Args:
        tensors: The inputs that were copied.
        items: Their copies.
    """

    def __init__(self, tensors: Sequence[Tensor], items: Sequence[Items]) -> None:
        self._inputs = list(zip(tensors, items, strict=True))
        self._axes: list[_InputAxisLengths] = []

    def has_row_per_sample(self, sizes: Ints) -> bool | None:
        """Returns whether an output has one row for each input sample; None if the inputs do not tell.

        Calls without rows are not asked: an output that was not copied has none either.
        """
        has_rows = sizes > 0
        is_known, has_samples = False, False
        for position in range(len(self._inputs)):
            axes = self._find_input_axes(position)
            for lengths in axes.lengths:
                if lengths.any():
                    if not (has_rows & (lengths != sizes)).any():
                        return True
                    is_known, has_samples = True, has_samples or axes.has_samples
        if not is_known:
            return None
        # One row a call is one of a single vector or image, which has no axis of samples.
        return not has_samples and bool((sizes <= 1).all())

    def fill_unknown_sizes(self, sizes: Ints) -> Ints:
        """Fills in unknown (zero) batch sizes, shape (n,), with the length of the inputs' first axis."""
        for position in range(len(self._inputs)):
            if sizes.all():
                break
            sizes = np.where(sizes > 0, sizes, self._find_input_axes(position).lengths[0])
        return sizes

    def _find_input_axes(self, position: int) -> _InputAxisLengths:
        while len(self._axes) <= position:
            self._axes.append(_read_input_axes(*self._inputs[len(self._axes)]))
        return self._axes[position]


def take_call_batches(
    take: Callable[[int], list[Any]],
    limit: int,
    *,
    is_suppressed: Callable[[object], bool],
    pause: Callable[[], object],
) -> tuple[list[CallBatch], int]:
    """Takes the oldest inference calls out of the queue, at most `limit`, as one batch for each session plan.

    Runs on: one thread at a time.

    Args:
        take: Takes the fields of at most so many calls, one call after the other.
        limit: Above 0.
        is_suppressed: Whether the application had suppressed instrumentation in a context.
        pause: Called after each piece: lets the application's threads run first.

    Returns:
        The batches, and the number of suppressed calls, which are in none.
    """
    builders: dict[Plan, _CallBatchBuilder] = collections.defaultdict(_CallBatchBuilder)
    suppressed = 0
    for first in range(0, limit, PIECE_CALLS):
        size = min(PIECE_CALLS, limit - first)
        fields = take(size)
        calls = len(fields) // FIELDS
        columns = _drop_suppressed_calls([fields[position::FIELDS] for position in range(FIELDS)], is_suppressed)
        suppressed += calls - len(columns[0])
        for plan, plan_columns in _group_by_plan(columns):
            builders[plan].add_calls(plan_columns)
        if calls < size:
            break
        del fields, columns
        pause()
    return [builder.build_batch(plan) for plan, builder in builders.items()], suppressed


def split_copies_by_call(items: Items) -> Sequence[Item]:
    """Splits the copies of a tensor over a batch into one item for each inference call."""
    if not isinstance(items, PackedTensor):
        return items
    ends = np.cumsum(items.lengths).tolist()
    return [items.data[start:end] for start, end in itertools.pairwise([0, *ends])]


def join_tensor_rows(tensor: Tensor, items: Items, *, width: int = 0) -> TensorRows:
    """Joins the copied rows of a tensor over a batch of inference calls into one array.

    Args:
        tensor: The tensor.
        items: Its copies.
        width: The width to join instead of the first row's; 0 for the first's.
    """
    dtype = np.dtype(tensor.dtype)
    rows = (
        _join_packed_rows(tensor, items) if isinstance(items, PackedTensor) else _join_equal_rows(dtype, items, width)
    )
    return rows or _join_ragged_rows(dtype, tensor, split_copies_by_call(items), width)


def compute_batch_sizes(tensor: Tensor, items: Items) -> Ints:
    """Returns the length of a tensor's first axis at each inference call; 0 if unknown."""
    if isinstance(items, PackedTensor):
        return items.lengths // max(compute_row_bytes(tensor), 1)
    if tensor.layout == "none":
        return np.zeros(len(items), dtype=np.int64)
    size_bytes = max(compute_row_bytes(tensor), 1) if tensor.dtype else 1
    sizes = [
        (item[0][0] if item[0] else 0) if type(item) is tuple else len(item) // size_bytes if item is not None else 0
        for item in items
    ]
    return np.array(sizes, dtype=np.int64)


def compute_row_bytes(tensor: Tensor) -> int:
    """Computes how many bytes one row of a tensor takes."""
    return math.prod(tensor.row_shape or ()) * np.dtype(tensor.dtype).itemsize


def _read_input_axes(tensor: Tensor, items: Items) -> _InputAxisLengths:
    first = compute_batch_sizes(tensor, items)
    if isinstance(items, PackedTensor):
        return _InputAxisLengths((first,), has_samples=tensor.row_shape != ())
    shape = next((item[0] for item in items if type(item) is tuple), None)
    rank = len(shape) if shape is not None else 1 + len(tensor.row_shape or ())
    if rank != 3 or shape is None:
        return _InputAxisLengths((first,), has_samples=rank > 1)
    # Of (time, samples, features) the second axis is that of the samples.
    seconds = [item[0][1] if type(item) is tuple and len(item[0]) == 3 else 0 for item in items]
    is_image = bool(_IMAGE_CHANNELS & {shape[0], shape[2]}) and min(shape[1], max(shape[0], shape[2])) > 4
    return _InputAxisLengths((first, np.array(seconds, dtype=np.int64)), has_samples=not is_image)


class _CallBatchBuilder:
    """Collects the inference calls of one session plan, to build a batch of them."""

    def __init__(self) -> None:
        self._started = array("q")
        self._ended = array("q")
        self._contexts: list[object] = []
        self._errors: list[str | None] = []
        self._inputs = _TensorCopyBuilder()
        self._outputs = _TensorCopyBuilder()

    def add_calls(self, columns: CallColumns) -> None:
        _, started, ended, contexts, inputs, outputs, errors = columns
        self._started.fromlist(started)  # a third of the time of `extend`
        self._ended.fromlist(ended)
        self._contexts.extend(contexts)
        self._errors.extend(errors)
        self._inputs.add_copies(inputs)
        self._outputs.add_copies(outputs)

    def build_batch(self, plan: Plan) -> CallBatch:
        return CallBatch(
            plan=plan,
            started_ns=np.frombuffer(self._started, dtype=np.int64),
            ended_ns=np.frombuffer(self._ended, dtype=np.int64),
            contexts=self._contexts,
            errors=self._errors,
            inputs=self._inputs.build_tensor_copies(len(plan.inputs)),
            outputs=self._outputs.build_tensor_copies(len(plan.outputs)),
        )


class _TensorCopyBuilder:
    """Collects the copied inputs, or outputs, of inference calls: as packed bytes as long as that is possible."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._lengths = array("q")
        self._sides: list[Side] = []

    def add_copies(self, sides: Sequence[Side]) -> None:
        if not self._sides and set(map(type, sides)) == {bytes}:
            self._packed.append(b"".join(sides))  # type: ignore[arg-type]
            self._lengths.fromlist(list(map(len, sides)))
            return
        if self._packed:
            self._sides, self._packed = list(split_copies_by_call(self._pack_tensor())), []  # type: ignore[arg-type]
        self._sides.extend(sides)

    def build_tensor_copies(self, tensors: int) -> list[Items]:
        if not self._sides:
            return [self._pack_tensor()]
        return [_list_tensor_copies(self._sides, position) for position in range(tensors)]

    def _pack_tensor(self) -> PackedTensor:
        return PackedTensor(b"".join(self._packed), np.frombuffer(self._lengths, dtype=np.int64))


def _list_tensor_copies(sides: Sequence[Side], position: int) -> Sequence[Item]:
    """Returns each inference call's copy of the tensor at one position; None for a call that failed."""
    return [side if type(side) is bytes else (side[position] if side else None) for side in sides]  # type: ignore[misc]


def _drop_suppressed_calls(columns: CallColumns, is_suppressed: Callable[[object], bool]) -> CallColumns:
    # Most calls have no context at all, or one that many share.
    contexts = columns[_CONTEXT]
    if not any(contexts):
        return columns
    distinct = {id(context): context for context in contexts}
    suppressed = {key for key, context in distinct.items() if is_suppressed(context)}
    if not suppressed:
        return columns
    is_wanted = [id(context) not in suppressed for context in contexts]
    return [list(itertools.compress(column, is_wanted)) for column in columns]


def _group_by_plan(columns: CallColumns) -> Iterator[tuple[Plan, CallColumns]]:
    plans = columns[0]
    if len(set(plans)) == 1:  # the common case, in one step
        yield plans[0], columns
        return
    groups: dict[Plan, list[CallTuple]] = {}
    for call in zip(*columns, strict=True):
        groups.setdefault(call[0], []).append(call)
    for plan, group in groups.items():
        yield plan, list(map(list, zip(*group, strict=True)))


def _join_packed_rows(tensor: Tensor, items: PackedTensor) -> TensorRows | None:
    """Joins the packed copies of a tensor; None if their bytes do not divide into rows of the declared shape."""
    size_bytes, dtype = compute_row_bytes(tensor), np.dtype(tensor.dtype)
    if not size_bytes:
        return None
    sizes = items.lengths // size_bytes
    if (sizes * size_bytes != items.lengths).any():
        return None
    calls = np.arange(len(sizes), dtype=np.int64)
    return TensorRows(
        rows=np.frombuffer(items.data, dtype=dtype).reshape(-1, size_bytes // dtype.itemsize),
        calls=calls if (sizes == 1).all() else np.repeat(calls, sizes),
        sizes=sizes,
    )


def _join_equal_rows(dtype: np.dtype[Any], items: Sequence[Item], wanted_width: int) -> TensorRows | None:
    """Joins copies of a tensor that all have one shape, as at calls of one batch size; None for others."""
    if set(map(type, items)) != {tuple}:
        return None
    shapes, parts = zip(*items, strict=True)
    if len(set(shapes)) > 1 or set(map(type, parts)) != {bytes} or len(set(map(len, parts))) > 1:
        return None
    width = math.prod(shapes[0][1:])
    size_bytes = width * dtype.itemsize
    if not size_bytes or not parts[0] or len(parts[0]) % size_bytes or wanted_width not in {0, width}:
        return None
    return TensorRows(
        rows=np.frombuffer(b"".join(parts), dtype=dtype).reshape(-1, width),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), len(parts[0]) // size_bytes),
        sizes=np.full(len(items), shapes[0][0], dtype=np.int64),
    )


def _join_ragged_rows(dtype: np.dtype[Any], tensor: Tensor, items: Sequence[Item], wanted_width: int) -> TensorRows:
    declared_width = -1 if tensor.row_shape is None else math.prod(tensor.row_shape)
    sizes = [0] * len(items)
    copied_rows = [0] * len(items)
    parts: list[bytes] = []
    is_ragged = False
    for call, item in enumerate(items):
        if item is None:
            continue
        width, data = (declared_width, item) if isinstance(item, bytes) else (math.prod(item[0][1:]), item[1])
        size_bytes = max(width, 0) * dtype.itemsize
        if not isinstance(data, bytes) or not size_bytes:
            data = b""
        if data and len(data) % size_bytes:
            is_ragged = True
            continue
        sizes[call] = item[0][0] if isinstance(item, tuple) else len(data) // max(size_bytes, 1)
        if not data:
            continue
        wanted_width = wanted_width or width
        if width != wanted_width:
            is_ragged = True
            continue
        parts.append(data)
        copied_rows[call] = len(data) // size_bytes
    return TensorRows(
        rows=np.frombuffer(b"".join(parts), dtype=dtype).reshape(-1, wanted_width)
        if parts
        else np.zeros((0, max(wanted_width, declared_width, 0)), dtype=dtype),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), copied_rows),
        sizes=np.array(sizes, dtype=np.int64),
        is_ragged=is_ragged,
    )
