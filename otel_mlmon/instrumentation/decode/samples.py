"""Whether the rows of an output are one a sample: there are as many as the samples that came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.instrumentation.decode.batch import Items, PackedTensor, row_bytes
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import Ints

_IMAGE_CHANNELS: Final = frozenset({1, 3, 4})


class _InputAxes(NamedTuple):
    """Holds the lengths of the first axes of one input, call by call."""

    lengths: tuple[Ints, ...]
    """The axes that may be that of the samples, shape (n,) each; 0 where a length is unknown."""
    has_samples: bool
    """Whether there may be an axis of samples: it is no single vector, and no single image."""


class SampleSizes:
    """Knows how many samples each call of a batch was given, from the shapes of its inputs.

    Args:
        tensors: The inputs that were copied.
        items: Their copies.
    """

    def __init__(self, tensors: Sequence[Tensor], items: Sequence[Items]) -> None:
        self._inputs = list(zip(tensors, items, strict=True))
        self._axes: list[_InputAxes] = []

    def are_samples(self, sizes: Ints) -> bool | None:
        """Returns whether outputs of `sizes` rows, shape (n,), have one row a sample; None if no input says.

        Calls without rows are not asked: an output that was not copied has none either.
        """
        has_rows = sizes > 0
        is_known, has_samples = False, False
        for position in range(len(self._inputs)):
            axes = self._axes_of(position)
            for lengths in axes.lengths:
                if lengths.any():
                    if not (has_rows & (lengths != sizes)).any():
                        return True
                    is_known, has_samples = True, has_samples or axes.has_samples
        if not is_known:
            return None
        # One row a call is one of a single vector or image, which has no axis of samples.
        return not has_samples and bool((sizes <= 1).all())

    def fill(self, sizes: Ints) -> Ints:
        """Returns `sizes`, shape (n,), with the length of the inputs' first axis where they are 0."""
        for position in range(len(self._inputs)):
            if sizes.all():
                break
            sizes = np.where(sizes > 0, sizes, self._axes_of(position).lengths[0])
        return sizes

    def _axes_of(self, position: int) -> _InputAxes:
        while len(self._axes) <= position:
            self._axes.append(_read_axes(*self._inputs[len(self._axes)]))
        return self._axes[position]


def batch_sizes(tensor: Tensor, items: Items) -> Ints:
    """Returns the length of the first axis at each call; 0 if unknown."""
    if isinstance(items, PackedTensor):
        return items.lengths // max(row_bytes(tensor), 1)
    if tensor.layout == "none":
        return np.zeros(len(items), dtype=np.int64)
    size_bytes = max(row_bytes(tensor), 1) if tensor.dtype else 1
    sizes = [
        (item[0][0] if item[0] else 0) if type(item) is tuple else len(item) // size_bytes if item is not None else 0
        for item in items
    ]
    return np.array(sizes, dtype=np.int64)


def _read_axes(tensor: Tensor, items: Items) -> _InputAxes:
    first = batch_sizes(tensor, items)
    if isinstance(items, PackedTensor):
        return _InputAxes((first,), has_samples=tensor.row_shape != ())
    shape = next((item[0] for item in items if type(item) is tuple), None)
    rank = len(shape) if shape is not None else 1 + len(tensor.row_shape or ())
    if rank != 3 or shape is None:
        return _InputAxes((first,), has_samples=rank > 1)
    # Of (time, samples, features) the second axis is that of the samples.
    seconds = [item[0][1] if type(item) is tuple and len(item[0]) == 3 else 0 for item in items]
    is_image = bool(_IMAGE_CHANNELS & {shape[0], shape[2]}) and min(shape[1], max(shape[0], shape[2])) > 4
    return _InputAxes((first, np.array(seconds, dtype=np.int64)), has_samples=not is_image)
