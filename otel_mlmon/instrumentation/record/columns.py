"""Copied tensors of many calls as one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.call.call import Item, Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """The rows of one tensor over a batch of calls, as many of them as were copied."""

    rows: NDArray[Any]
    """Shape (m, k): one row a prediction or sample."""
    calls: NDArray[np.int64]
    """Shape (m,): which call a row belongs to, not decreasing."""
    sizes: NDArray[np.int64]
    """Shape (n,): rows of each call, copied or not; 0 if unknown."""
    is_mixed: bool = False
    """Whether rows of another width were left out."""


def column(tensor: Tensor, items: Sequence[Item], *, width: int = 0) -> Column:
    """`items` of a tensor laid out as `rows` or `maps`, one a call; those of another width than the first are left.

    Args:
        tensor: The tensor.
        items: Its copies.
        width: Which width is kept, instead of the first's; 0 for the first's.
    """
    dtype = np.dtype(tensor.dtype)
    if tensor.row_shape is not None and set(map(type, items)) == {bytes}:
        uniform = _uniform(dtype, _product(tensor.row_shape), items)  # type: ignore[arg-type]
        if uniform is not None:
            return uniform
    return _mixed(dtype, tensor, items, width)


def _product(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def _uniform(dtype: np.dtype[Any], width: int, items: Sequence[bytes]) -> Column | None:
    """None if an item is not of whole rows: onnxruntime only warns of an output of another shape than declared."""
    row_bytes = width * dtype.itemsize
    if not row_bytes:
        return None
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    sizes = lengths // row_bytes
    if (sizes * row_bytes != lengths).any():
        return None
    return Column(
        rows=np.frombuffer(b"".join(items), dtype=dtype).reshape(-1, width),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), sizes),
        sizes=sizes,
    )


def _mixed(dtype: np.dtype[Any], tensor: Tensor, items: Sequence[Item], kept: int) -> Column:
    static = -1 if tensor.row_shape is None else _product(tensor.row_shape)
    sizes = [0] * len(items)
    copied = [0] * len(items)
    parts: list[bytes] = []
    is_mixed = False
    for position, item in enumerate(items):
        if item is None:
            continue
        width, data = (static, item) if isinstance(item, bytes) else (_product(item[0][1:]), item[1])
        row_bytes = max(width, 0) * dtype.itemsize
        if not isinstance(data, bytes) or not row_bytes:
            data = b""
        if data and len(data) % row_bytes:
            is_mixed = True
            continue
        sizes[position] = item[0][0] if isinstance(item, tuple) else len(data) // max(row_bytes, 1)
        if not data:
            continue
        kept = kept or width
        if width != kept:
            is_mixed = True
            continue
        parts.append(data)
        copied[position] = len(data) // row_bytes
    return Column(
        rows=np.frombuffer(b"".join(parts), dtype=dtype).reshape(-1, kept)
        if parts
        else np.zeros((0, max(kept, static, 0)), dtype=dtype),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), copied),
        sizes=np.array(sizes, dtype=np.int64),
        is_mixed=is_mixed,
    )
