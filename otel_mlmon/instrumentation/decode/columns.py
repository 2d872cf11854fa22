"""Copied tensors of many calls as one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.decode.batch import Items, PackedTensor, each
from otel_mlmon.instrumentation.runtime.call import Item, Tensor


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


def column(tensor: Tensor, items: Items, *, width: int = 0) -> Column:
    """`items` of a tensor laid out as `rows` or `maps`, one a call; those of another width than the first are left.

    Args:
        tensor: The tensor.
        items: Its copies.
        width: Which width is kept, instead of the first's; 0 for the first's.
    """
    dtype = np.dtype(tensor.dtype)
    found = _whole(dtype, row_bytes(tensor), items) if isinstance(items, PackedTensor) else _alike(dtype, items, width)
    return found or _mixed(dtype, tensor, each(items), width)


def row_bytes(tensor: Tensor) -> int:
    """Bytes of one row of the plan's shape."""
    return _product(tensor.row_shape or ()) * np.dtype(tensor.dtype).itemsize


def _product(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def _whole(dtype: np.dtype[Any], row_bytes: int, items: PackedTensor) -> Column | None:
    """None if an item is not of whole rows: onnxruntime only warns of an output of another shape than declared."""
    if not row_bytes:
        return None
    sizes = items.lengths // row_bytes
    if (sizes * row_bytes != items.lengths).any():
        return None
    calls = np.arange(len(sizes), dtype=np.int64)
    return Column(
        rows=np.frombuffer(items.data, dtype=dtype).reshape(-1, row_bytes // dtype.itemsize),
        calls=calls if (sizes == 1).all() else np.repeat(calls, sizes),
        sizes=sizes,
    )


def _alike(dtype: np.dtype[Any], items: Sequence[Item], kept: int) -> Column | None:
    """Items of one shape of which equally much was copied, as of calls of one batch size; None of others."""
    if set(map(type, items)) != {tuple}:
        return None
    shapes, parts = zip(*items, strict=True)
    if len(set(shapes)) > 1 or set(map(type, parts)) != {bytes} or len(set(map(len, parts))) > 1:
        return None
    width = _product(shapes[0][1:])
    row_bytes = width * dtype.itemsize
    if not row_bytes or not parts[0] or len(parts[0]) % row_bytes or kept not in {0, width}:
        return None
    return Column(
        rows=np.frombuffer(b"".join(parts), dtype=dtype).reshape(-1, width),
        calls=np.repeat(np.arange(len(items), dtype=np.int64), len(parts[0]) // row_bytes),
        sizes=np.full(len(items), shapes[0][0], dtype=np.int64),
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
