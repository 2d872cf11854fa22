"""Packs many whole numbers, or many exact sums, side by side into the narrowest bytes that hold them.

Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.types import Counts

PackedInts = tuple[str, bytes]
"""The narrowest type that holds all of some numbers of 0 and above, and their bytes."""

MAX_SUM_BYTES: Final = 16
"""Sums that differ so much that each would take more bytes have an exponent each."""

_WIDTHS: Final = ((1 << 8, "|u1"), (1 << 16, "<u2"), (1 << 32, "<u4"))


class PackedSums(NamedTuple):
    """Exact sums, packed for storage: whole numbers side by side, each times a power of two of 2^-1074."""

    shifts: tuple[int, ...]
    """The exponents of the powers: one for all sums, or one for each."""
    width: int
    """The bytes of each number, little-endian and signed."""
    numbers: bytes


def pack_ints(values: Counts) -> PackedInts:
    """Packs whole numbers of 0 and above, shape (n,), into the narrowest integer type that holds all of them."""
    largest = int(values.max()) if values.size else 0
    width = next((width for limit, width in _WIDTHS if largest < limit), "<i8")
    return width, values.astype(width).tobytes()


def pack_sums(sums: Sequence[int]) -> PackedSums:
    """Packs exact sums, in units of 2^-1074."""
    bits = reduce(or_, sums, 0)
    shifts: tuple[int, ...] = (max((bits & -bits).bit_length() - 1, 0),)
    numbers = [units >> shifts[0] for units in sums]
    width = _find_byte_width(numbers)
    if width > MAX_SUM_BYTES:
        shifts = tuple(max((units & -units).bit_length() - 1, 0) for units in sums)
        numbers = [units >> shift for units, shift in zip(sums, shifts, strict=True)]
        width = _find_byte_width(numbers)
    if width <= 8:
        return PackedSums(shifts, 8, np.array(numbers, dtype="<i8").tobytes())
    return PackedSums(shifts, width, b"".join([number.to_bytes(width, "little", signed=True) for number in numbers]))


def unpack_sums(packed: PackedSums, count: int) -> list[int]:
    """Unpacks exact sums, in units of 2^-1074.

    Raises:
        ValueError: They are not `count`, or beyond the range of sums.
    """
    shifts, width, blob = packed
    if width < 1 or len(blob) != count * width or len(shifts) not in (1, count):
        raise ValueError(f"{len(blob)} bytes for {count} sums of {width}")
    # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
    if not all(0 <= shift <= 4096 for shift in shifts):
        raise ValueError("a sum is beyond the range of floats")
    if width == 8:
        numbers: list[int] = np.frombuffer(blob, dtype="<i8").tolist()
    else:
        ends = range(width, len(blob) + 1, width)
        numbers = [int.from_bytes(blob[end - width : end], "little", signed=True) for end in ends]
    if len(shifts) == 1:
        (shift,) = shifts
        return [number << shift for number in numbers]
    return [number << shift for number, shift in zip(numbers, shifts, strict=True)]


def _find_byte_width(numbers: Sequence[int]) -> int:
    """Returns how many bytes the largest of some numbers takes with its sign."""
    return max(max(numbers, default=0), -min(numbers, default=0)).bit_length() // 8 + 1


def unpack_ints(packed: PackedInts) -> Counts:
    """Unpacks whole numbers that `pack_ints` packed, shape (n,), int64.

    Raises:
        ValueError: They are of no type that is written, or not whole.
    """
    width, blob = packed
    if width not in {width for _, width in _WIDTHS} | {"<i8"}:
        raise ValueError(f"numbers of type {width!r}")
    return np.frombuffer(blob, dtype=width).astype(np.int64)
