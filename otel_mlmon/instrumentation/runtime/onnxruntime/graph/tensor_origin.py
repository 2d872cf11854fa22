"""Describes how a tensor inside a model is computed, and how operators that change its shape affect that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_mlmon.instrumentation.runtime.model_graph import OutputRole


class TensorAxis(NamedTuple):
    """An axis of a tensor: counted from the front, or, if negative, from the back."""

    position: int
    rank: int | None = None
    """The tensor's number of axes; None if unknown."""

    def count_from_front(self) -> TensorAxis:
        """Returns the axis counted from the front, if the number of axes is known."""
        return self if self.rank is None or self.position >= 0 else TensorAxis(self.position + self.rank, self.rank)

    def is_at_position(self, position: int) -> bool | None:
        """Returns whether this is the axis at a position; None if that cannot be told."""
        if (self.position >= 0) == (position >= 0):
            return self.position == position
        return None if self.rank is None else self.position % self.rank == position % self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorOrigin:
    """Describes how a tensor inside a model is computed, for example as probabilities by a softmax."""

    role: OutputRole = "unknown"
    operator: str = ""
    axis: TensorAxis | None = None
    source_role: OutputRole = "unknown"
    is_partial: bool = False
    is_quantised: bool = False
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    """The number that an integer stands for is (integer - `zero_point`) · `scale`."""
    zero_point: int = 0
    tensors: frozenset[object] = frozenset()
    """The tensors that it was computed of without changing the order of the numbers in a row, itself included."""
    choices: frozenset[object] = frozenset()
    """For a label, and for the results of a TopK: the tensors that the choice was made of."""

    @property
    def has_class_scores(self) -> bool:
        """Whether the tensor holds probabilities or other scores of classes."""
        return self.role in SCORES

    def with_role(self, role: OutputRole, operator: str = "") -> TensorOrigin:
        """Returns the description of a tensor's origin with another role, such as `probabilities`."""
        return dataclasses.replace(self, role=role, operator=operator or self.operator)

    def with_axis(self, axis: TensorAxis | None) -> TensorOrigin:
        """Returns the description of a tensor's origin with the classes along another axis."""
        return dataclasses.replace(self, axis=axis)

    def without_axis(self, *, is_partial: bool = False) -> TensorOrigin:
        """Returns the description of the origin of a tensor whose classes no longer lie along one axis."""
        return dataclasses.replace(self, axis=None, is_partial=self.is_partial or is_partial)


UNKNOWN = TensorOrigin()

SCORES: Final[frozenset[OutputRole]] = frozenset({"probabilities", "log_probabilities", "class_scores"})

LIKELIHOODS: Final[frozenset[OutputRole]] = SCORES | {"sigmoid"}
"""The least of these is of no class that anything predicts."""

CHOICES: Final[frozenset[OutputRole]] = frozenset({"label", "top_k_labels"})


def transpose_origin(origin: TensorOrigin, order: Sequence[int] | None) -> TensorOrigin:
    """Returns how a transposed tensor is computed, whose axis i was axis `order[i]`; None reverses all."""
    if origin.axis is None:
        return origin
    if order is None:
        rank = origin.axis.rank
        order = tuple(reversed(range(rank))) if rank else None
    if order is None:
        return origin.without_axis()
    axis = TensorAxis(origin.axis.position, len(order)).count_from_front()
    return origin.with_axis(TensorAxis(order.index(axis.position), len(order)) if axis.position in order else None)


def squeeze_origin(origin: TensorOrigin, positions: Sequence[int] | None) -> TensorOrigin:
    """Returns how a tensor is computed whose axes of size 1 are removed; None if unknown which."""
    axis = origin.axis
    if axis is None:
        return origin
    if positions is None:
        # All of size 1 go: a last axis of classes is the last one still, unless there is only one class.
        return origin.with_axis(TensorAxis(-1)) if axis.is_at_position(-1) else origin.without_axis()
    if any(axis.is_at_position(position) for position in positions):
        return origin.without_axis()
    if axis.rank is not None:
        axis = axis.count_from_front()
        dropped = [position % axis.rank for position in positions]  # type: ignore[operator]
        before = sum(1 for position in dropped if position < axis.position)
        return origin.with_axis(TensorAxis(axis.position - before, axis.rank - len(dropped)))  # type: ignore[operator]
    if any((position < 0) != (axis.position < 0) for position in positions):
        return origin.without_axis()
    between = sum(1 for position in positions if (position > axis.position) == (axis.position < 0))
    return origin.with_axis(TensorAxis(axis.position + between if axis.position < 0 else axis.position - between))


def unsqueeze_origin(origin: TensorOrigin, positions: Sequence[int] | None) -> TensorOrigin:
    """Returns how a tensor is computed to which axes of size 1 are added at these positions."""
    axis = origin.axis
    if axis is None:
        return origin
    if positions is None:
        return origin.without_axis()
    if axis.rank is not None:
        rank = axis.rank + len(positions)
        added = {position % rank for position in positions}
        remaining = [position for position in range(rank) if position not in added]
        before = axis.count_from_front().position
        return origin.with_axis(TensorAxis(remaining[before], rank) if 0 <= before < len(remaining) else None)
    position = axis.position
    if any((added < 0) != (position < 0) for added in positions):
        return origin.without_axis()
    for place in sorted(positions, reverse=position < 0):
        if position < 0 and place >= position:
            position -= 1
        elif position >= 0 and place <= position:
            position += 1
    return origin.with_axis(TensorAxis(position))


def flatten_origin(origin: TensorOrigin, first: int) -> TensorOrigin:
    """Returns how a tensor is computed whose axes before `first`, and from there on, are joined."""
    axis = origin.axis
    if axis is None:
        return origin
    if axis.rank == 2 and first in {1, -1}:
        return origin
    # Axis 1 of (N, K, 1, 1) is axis 1 of (N, K); of (N, K, H, W) the classes are mixed up, which the values show.
    return origin.with_axis(TensorAxis(1, 2)) if first == 1 and axis.is_at_position(1) else origin.without_axis()


def reshape_origin(origin: TensorOrigin, shape: Sequence[int] | None) -> TensorOrigin:
    """Returns how a reshaped tensor is computed; None for an unknown shape."""
    axis = origin.axis
    if axis is None:
        return origin
    if shape is None:
        return origin.without_axis()
    rank = len(shape)
    classes = len(origin.labels)
    # The last axis stays the last one, unless it is joined with others, for which its size would have to be known.
    is_last = axis.is_at_position(-1) and shape[-1] != 1 and (not classes or shape[-1] in {classes, -1, 0})
    return origin.with_axis(TensorAxis(-1, rank).count_from_front()) if is_last else origin.without_axis()


def select_origin_along_axis(origin: TensorOrigin, position: int, *, drops_axis: bool) -> TensorOrigin:
    """Returns how a tensor is computed that has only a part of another one along an axis."""
    axis = origin.axis
    if axis is None:
        return origin
    is_same = axis.is_at_position(position)
    if is_same is None:
        return origin.without_axis(is_partial=True)
    if is_same:
        partial = dataclasses.replace(origin, is_partial=True, labels=())
        return partial.without_axis() if drops_axis else partial
    return squeeze_origin(origin, (position,)) if drops_axis else origin
