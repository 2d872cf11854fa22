"""Packs many whole numbers, or many exact sums, side by side into the narrowest bytes that hold them.

Unpacked, each is bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Counts

PackedInts = tuple[str, bytes]
"""The narrowest type that holds all of some numbers of 0 and above, and their bytes."""

MAX_SUM_BYTES: Final = 16
"""Sums that differ so much that each would take more bytes have an exponent each."""

_WIDTHS: Final = ((1 << 8, "|u1"), (1 << 16, "<u2"), (1 << 32, "<u4"))
_MAX_INT64: Final = 2**63 - 1


class PackedSums(NamedTuple):
    """Exact sums, packed for storage: whole numbers side by side, each times a power of two of 2^-1074."""

    shifts: tuple[int, ...]
    """The exponents of the powers: one for all sums, or one for each."""
    width: int
    """The bytes of each number, little-endian and signed."""
    numbers: bytes


class ScaledSums(NamedTuple):
    """Exact sums in little room: an array of whole numbers, all times the same power of two of 2^-1074."""

    numbers: NDArray[Any]
    """Any shape; int64, or Python's integers where one of them has more bits."""
    shift: int
    """The exponent of the power."""

    def list_units(self) -> list[int]:
        """Lists the sums in units of 2^-1074, of one dimension."""
        return [number << self.shift for number in self.numbers.tolist()]

    @classmethod
    def concatenate(cls, parts: Sequence[ScaledSums]) -> ScaledSums:
        """Puts sums of shape (P, S) one below the other, all of them over the smallest of their powers."""
        shift = min((part.shift for part in parts if part.numbers.any()), default=0)
        return cls(np.concatenate([_multiply_by_power(part.numbers, part.shift - shift) for part in parts]), shift)

    def add_rows(self) -> list[int]:
        """Adds the rows of sums of shape (P, S); returns S sums in units of 2^-1074."""
        numbers = self.numbers
        if _find_largest(numbers) * len(numbers) > _MAX_INT64:
            numbers = numbers.astype(np.object_)
        return [number << self.shift for number in numbers.sum(axis=0).tolist()]


def pack_ints(values: Counts) -> PackedInts:
    """Packs whole numbers of 0 and above, shape (n,), into the narrowest integer type that holds all of them."""
    largest = int(values.max()) if values.size else 0
    width = next((width for limit, width in _WIDTHS if largest < limit), "<i8")
    return width, values.astype(width).tobytes()


def scale_sums(sums: Sequence[int]) -> ScaledSums:
    """Returns exact sums, in units of 2^-1074, without the zeros at the end that all of them have."""
    numbers, shift = _scale_numbers(sums)
    return ScaledSums(_build_array(numbers), shift)


def pack_sums(sums: Sequence[int]) -> PackedSums:
    """Packs exact sums, in units of 2^-1074."""
    numbers, shift = _scale_numbers(sums)
    shifts: tuple[int, ...] = (shift,)
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
    return view_sums(packed, count).list_units()


def view_sums(packed: PackedSums, count: int) -> ScaledSums:
    """Unpacks exact sums as they are packed, shape (count,): where each takes 8 bytes, without a copy.

    Raises:
        ValueError: They are not `count`, or beyond the range of sums.
    """
    shifts, width, blob = packed
    if width < 1 or len(blob) != count * width or len(shifts) not in (1, count):
        raise ValueError(f"{len(blob)} bytes for {count} sums of {width}")
    # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
    if not all(0 <= shift <= 4096 for shift in shifts):
        raise ValueError("a sum is beyond the range of floats")
    if width == 8 and len(shifts) == 1:
        return ScaledSums(np.frombuffer(blob, dtype="<i8"), shifts[0])
    ends = range(width, len(blob) + 1, width)
    numbers = [int.from_bytes(blob[end - width : end], "little", signed=True) for end in ends]
    if len(shifts) == 1:
        return ScaledSums(np.array(numbers, dtype=np.object_), shifts[0])
    units = [number << shift for number, shift in zip(numbers, shifts, strict=True)]
    return ScaledSums(np.array(units, dtype=np.object_), 0)


def _scale_numbers(sums: Sequence[int]) -> tuple[list[int], int]:
    """Returns sums as whole numbers times a power of two, the largest that divides all of them; and its exponent."""
    bits = reduce(or_, sums, 0)
    shift = max((bits & -bits).bit_length() - 1, 0)
    return [units >> shift for units in sums], shift


def _multiply_by_power(numbers: NDArray[Any], exponent: int) -> NDArray[Any]:
    """Multiplies whole numbers by 2^`exponent`; returns Python's integers where int64 does not hold the products."""
    largest = _find_largest(numbers)
    if not exponent or not largest:
        return numbers
    if largest << exponent > _MAX_INT64:
        numbers = numbers.astype(np.object_)
    return numbers * (1 << exponent)


def _find_largest(numbers: NDArray[Any]) -> int:
    """Returns the largest magnitude among whole numbers."""
    return max(int(numbers.max(initial=0)), -int(numbers.min(initial=0)))


def _build_array(numbers: Sequence[int]) -> NDArray[Any]:
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError:
        return np.array(numbers, dtype=np.object_)


def _find_byte_width(numbers: Sequence[int]) -> int:
    """Returns how many bytes the largest of some numbers takes with its sign."""
    return max(max(numbers, default=0), -min(numbers, default=0)).bit_length() // 8 + 1


def unpack_ints(packed: PackedInts) -> Counts:
    """Unpacks whole numbers that `pack_ints` packed, shape (n,), int64.

    Raises:
        ValueError: They are of no type that is written, or not whole.
    """
    return view_ints(packed).astype(np.int64)


def view_ints(packed: PackedInts) -> NDArray[Any]:
    """Returns whole numbers that `pack_ints` packed, shape (n,), in the type that they are packed in, without a copy.

    Raises:
        ValueError: They are of no type that is written, or not whole.
    """
    width, blob = packed
    if width not in {width for _, width in _WIDTHS} | {"<i8"}:
        raise ValueError(f"numbers of type {width!r}")
    return np.frombuffer(blob, dtype=width)
