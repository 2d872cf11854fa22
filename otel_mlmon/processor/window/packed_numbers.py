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


class PackedSums(NamedTuple):
    """Exact sums, packed for storage: whole numbers side by side, each times a power of two of 2^-1074."""

    shifts: tuple[int, ...]
    """The exponents of the powers: one for all sums, or one for each."""
    width: int
    """The bytes of each number, little-endian and signed."""
    numbers: bytes


class ScaledSums(NamedTuple):
    """Exact sums in little room: whole numbers side by side, all times the same power of two of 2^-1074."""

    numbers: NDArray[np.uint8]
    """The bytes of each number in the last axis, a multiple of 4: little-endian, two's complement."""
    shift: int
    """The exponent of the power."""

    def list_units(self) -> list[int]:
        """Lists sums of shape (n,) in units of 2^-1074."""
        return [number << self.shift for number in _read_numbers(self.numbers.tobytes(), self.numbers.shape[-1])]

    def add_rows(self) -> list[int]:
        """Adds the rows of sums of shape (P, S) up, P below 2^31; returns S sums in units of 2^-1074.

        Four bytes of all numbers at a time: of each sum the highest four have the sign, the others none.
        """
        numbers = np.ascontiguousarray(self.numbers)
        low = numbers.view("<u4")[..., :-1].sum(axis=0, dtype=np.int64)
        units: list[int] = numbers.view("<i4")[..., -1].sum(axis=0, dtype=np.int64).tolist()
        for digits in reversed(low.T.tolist()):
            units = [(number << 32) + digit for number, digit in zip(units, digits, strict=True)]
        return [number << self.shift for number in units]


def pack_ints(values: Counts) -> PackedInts:
    """Packs whole numbers of 0 and above, shape (n,), into the narrowest integer type that holds all of them."""
    largest = int(values.max()) if values.size else 0
    width = next((width for limit, width in _WIDTHS if largest < limit), "<i8")
    return width, values.astype(width).tobytes()


def scale_sums(sums: Sequence[int]) -> ScaledSums:
    """Returns exact sums, in units of 2^-1074, without the zeros at the end that all of them have."""
    numbers, shift = _scale_numbers(sums)
    width = max(-(-_find_byte_width(numbers) // 4) * 4, 8)
    return ScaledSums(np.frombuffer(_write_numbers(numbers, width), dtype=np.uint8).reshape(-1, width), shift)


def pack_sums(sums: Sequence[int]) -> PackedSums:
    """Packs exact sums, in units of 2^-1074."""
    numbers, shift = _scale_numbers(sums)
    shifts: tuple[int, ...] = (shift,)
    width = _find_byte_width(numbers)
    if width > MAX_SUM_BYTES:
        shifts = tuple(max((units & -units).bit_length() - 1, 0) for units in sums)
        numbers = [units >> shift for units, shift in zip(sums, shifts, strict=True)]
        width = _find_byte_width(numbers)
    width = max(width, 8)
    return PackedSums(shifts, width, _write_numbers(numbers, width))


def unpack_sums(packed: PackedSums, count: int) -> list[int]:
    """Unpacks exact sums, in units of 2^-1074.

    Raises:
        ValueError: They are not `count`, or beyond the range of sums.
    """
    return view_sums(packed, count).list_units()


def view_sums(packed: PackedSums, count: int) -> ScaledSums:
    """Unpacks exact sums to an array, shape (count,): where each takes 8 bytes, without a copy.

    Raises:
        ValueError: They are not `count`, or beyond the range of sums.
    """
    shifts, width, blob = packed
    if width < 1 or not shifts or len(blob) != count * width or len(shifts) not in (1, count):
        raise ValueError(f"{len(blob)} bytes for {count} sums of {width}")
    # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
    if not all(0 <= shift <= 4096 for shift in shifts):
        raise ValueError("a sum is beyond the range of floats")
    if len(shifts) > 1:
        return scale_sums([number << shift for number, shift in zip(_read_numbers(blob, width), shifts, strict=True)])
    numbers = np.frombuffer(blob, dtype=np.uint8).reshape(count, width)
    if width % 4:
        signs = np.where(numbers[:, -1:] & 128, np.uint8(255), np.uint8(0))
        numbers = np.concatenate((numbers, np.repeat(signs, -width % 4, axis=1)), axis=1)
    return ScaledSums(numbers, shifts[0])


def _scale_numbers(sums: Sequence[int]) -> tuple[list[int], int]:
    """Returns sums as whole numbers times a power of two, the largest that divides all of them; and its exponent."""
    bits = reduce(or_, sums, 0)
    shift = max((bits & -bits).bit_length() - 1, 0)
    return [units >> shift for units in sums], shift


def _read_numbers(blob: bytes, width: int) -> list[int]:
    """Reads whole numbers of so many bytes each."""
    if width == 8:
        numbers: list[int] = np.frombuffer(blob, dtype="<i8").tolist()
        return numbers
    ends = range(width, len(blob) + 1, width)
    return [int.from_bytes(blob[end - width : end], "little", signed=True) for end in ends]


def _write_numbers(numbers: Sequence[int], width: int) -> bytes:
    """Returns whole numbers as so many bytes each."""
    if width == 8:
        return np.array(numbers, dtype="<i8").tobytes()
    return b"".join([number.to_bytes(width, "little", signed=True) for number in numbers])


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
