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


def column(tensor: Tensor, items: Sequence[Item]) -> Column:
    """`items` of a tensor laid out as `rows` or `maps`, one a call; those of another width than the first are left."""
    dtype = np.dtype(tensor.dtype)
    if tensor.row_shape is not None and set(map(type, items)) == {bytes}:
        return _uniform(dtype, int(np.prod(tensor.row_shape, dtype=np.int64)), items)  # type: ignore[arg-type]
    return _mixed(dtype, tensor, items)


def _uniform(dtype: np.dtype[Any], width: int, items: Sequence[bytes]) -> Column:
    row_bytes = width * dtype.itemsize
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    sizes = lengths // row_bytes if row_bytes else np.zeros(len(items), dtype=np.int64)
    return Column(
        rows=np.frombuffer(b"".join(items), dtype=dtype).reshape(-1, width) if width else np.zeros((0, 0), dtype),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), sizes),
        sizes=sizes,
    )


def _mixed(dtype: np.dtype[Any], tensor: Tensor, items: Sequence[Item]) -> Column:
    sizes = np.zeros(len(items), dtype=np.int64)
    parts: list[NDArray[Any]] = []
    calls: list[NDArray[np.int64]] = []
    static = -1 if tensor.row_shape is None else int(np.prod(tensor.row_shape, dtype=np.int64))
    for position, item in enumerate(items):
        if item is None:
            continue
        if isinstance(item, bytes):
            width, data = static, item
            sizes[position] = len(item) // (width * dtype.itemsize) if width else 0
        else:
            shape, copied = item
            sizes[position] = shape[0]
            width = int(np.prod(shape[1:], dtype=np.int64))
            data = copied if isinstance(copied, bytes) else b""
        if not data or not width or (parts and parts[0].shape[1] != width):
            continue
        part = np.frombuffer(data, dtype=dtype).reshape(-1, width)
        parts.append(part)
        calls.append(np.full(len(part), position, dtype=np.int64))
    empty = np.zeros((0, max(static, 0)), dtype=dtype)
    return Column(
        rows=np.concatenate(parts) if parts else empty,
        calls=np.concatenate(calls) if calls else np.zeros(0, dtype=np.int64),
        sizes=sizes,
    )
