"""The count, the exact sum, the minimum and the maximum of a set of numbers.

Floating-point addition is not associative: two processors that add the same numbers in another order
would differ in the last bit. Every finite float is an integer multiple of 2^-1074, so the sum is kept as
that integer: exact, and the same in any order. Source: IEEE 754-2019, binary64 (smallest subnormal
2^-1074).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_UNIT_BITS: Final = 1074
_HALF_BITS: Final = 26
_PIECE: Final = 1 << 20
MANY: Final = 64
"""Arrays of at least this many values are summed by array arithmetic, which is faster from there on."""


class ExactSum(int):
    """A sum of floats without rounding errors, stored as a whole number of units of 2^-1074.

    A type of its own, so that the repository can distinguish it from a number that fits into 64 bits.
    """

    __slots__ = ()

    def __add__(self, other: int, /) -> ExactSum:
        """Adds another sum of floats, without rounding."""
        return ExactSum(int.__add__(self, other))

    __radd__ = __add__

    def __sub__(self, other: int, /) -> ExactSum:
        """Subtracts another sum of floats, without rounding."""
        return ExactSum(int.__sub__(self, other))


def convert_to_exact_units(value: float) -> int:
    """Converts a float to a whole number of units of 2^-1074, the smallest float, which is exact.

    Raises:
        ValueError: `value` is NaN or infinite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no exact sum")
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT_BITS - (denominator.bit_length() - 1))


def list_exact_units(values: NDArray[np.float64]) -> list[int]:
    """Returns each value, shape (n,), in units of 2^-1074; 0 for one that is NaN or infinite."""
    mantissa, exponent = np.frexp(np.where(np.isfinite(values), values, 0.0))
    integers, shifts = np.ldexp(mantissa, 53).astype(np.int64).tolist(), (exponent + (_UNIT_BITS - 53)).tolist()
    # Of subnormal numbers the last bits of the 53 are zeros.
    return [
        integer << shift if shift >= 0 else integer >> -shift for integer, shift in zip(integers, shifts, strict=True)
    ]


def sum_exactly(values: NDArray[np.float64]) -> int:
    """Sums finite floats, shape (n,), without rounding, in units of 2^-1074.

    A float is a whole number of 53 bits times a power of two. Whole numbers of the same power are added in two
    halves of 27 and 26 bits, so that the sum of 2^20 of them stays below 2^53 and is exact in a float.
    """
    total = 0
    for start in range(0, values.size, _PIECE):
        mantissa, exponent = np.frexp(values[start : start + _PIECE])
        integers = np.ldexp(mantissa, 53).astype(np.int64)
        lowest = int(exponent.min())
        upper = np.bincount(exponent - lowest, weights=integers >> _HALF_BITS)
        lower = np.bincount(exponent - lowest, weights=integers & ((1 << _HALF_BITS) - 1))
        for step, (high, low) in enumerate(zip(upper.tolist(), lower.tolist(), strict=True)):
            units, shift = (int(high) << _HALF_BITS) + int(low), lowest + step - 53 + _UNIT_BITS
            # Of subnormal numbers the last bits of the 53 are zeros.
            total += units << shift if shift >= 0 else units >> -shift
    return total


def format_exact_sum(units: int) -> str:
    """Formats an exact sum, in units of 2^-1074, as a hexadecimal floating-point literal such as `0x3p-1`."""
    if not units:
        return "0x0p+0"
    shift = (units & -units).bit_length() - 1
    return f"{units >> shift:#x}p{shift - _UNIT_BITS:+d}"


def parse_exact_sum(text: str) -> int:
    """Parses an exact sum from the hexadecimal literal that `format_exact_sum` has made.

    Raises:
        ValueError: `text` is not such a literal, or beyond the range of sums.
    """
    mantissa, separator, exponent = text.partition("p")
    shift = int(exponent) + _UNIT_BITS if separator else -1
    # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
    if not 0 <= shift <= 4096:
        raise ValueError(f"{text!r} is not an exact sum")
    return int(mantissa, 16) << shift


_NO_SUM: Final = ExactSum(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Holds the count, the exact sum, the minimum and the maximum of a set of numbers.

    `minimum` is +inf and `maximum` is -inf if they are unknown or there are no numbers.
    """

    count: int = 0
    exact_sum: ExactSum = _NO_SUM
    """The sum in units of 2^-1074."""
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def from_total(cls, *, count: int, total: float, minimum: float = math.inf, maximum: float = -math.inf) -> Moments:
        """Builds the moments of numbers whose sum another program has computed; a sum that is not finite becomes 0."""
        return cls(
            count=count,
            exact_sum=ExactSum(convert_to_exact_units(total) if math.isfinite(total) else 0),
            minimum=minimum,
            maximum=maximum,
        )

    @classmethod
    def from_values(cls, values: Iterable[float] | NDArray[np.floating[Any]]) -> Moments:
        """Computes count, exact sum, minimum and maximum of finite numbers, shape (n,).

        Raises:
            ValueError: A number is NaN or infinite.
        """
        if isinstance(values, np.ndarray):
            array = values.astype(np.float64, copy=False)
            if array.size >= MANY:
                return cls._from_array(array)
            values = array.tolist()
        numbers = [float(value) for value in values]
        if not numbers:
            return cls()
        return cls(
            count=len(numbers),
            exact_sum=ExactSum(sum(map(convert_to_exact_units, numbers))),
            minimum=min(numbers),
            maximum=max(numbers),
        )

    @classmethod
    def _from_array(cls, values: NDArray[np.float64]) -> Moments:
        low, high = float(values.min()), float(values.max())
        for extreme in (low, high):
            convert_to_exact_units(extreme)  # which refuses what is not finite
        return cls(count=values.size, exact_sum=ExactSum(sum_exactly(values)), minimum=low, maximum=high)

    @property
    def sum(self) -> float:
        """The sum of the numbers as a float, rounded once; ±inf beyond the range of a float."""
        try:
            return self.exact_sum / (1 << _UNIT_BITS)
        except OverflowError:
            return math.inf if self.exact_sum > 0 else -math.inf

    @property
    def mean(self) -> float:
        """The mean of the numbers as a float, rounded once; NaN without numbers."""
        return compute_mean(self.exact_sum, self.count)

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of two sets of numbers together."""
        return Moments(
            count=self.count + other.count,
            exact_sum=self.exact_sum + other.exact_sum,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )

    @classmethod
    def merge_all(cls, parts: Sequence[Moments]) -> Moments:
        """Returns the moments of any number of sets of numbers together."""
        return cls(
            count=sum([part.count for part in parts]),
            exact_sum=ExactSum(sum([int(part.exact_sum) for part in parts])),
            minimum=min([part.minimum for part in parts], default=math.inf),
            maximum=max([part.maximum for part in parts], default=-math.inf),
        )

    def subtract(self, earlier: Moments) -> Moments:
        """Returns the count and sum of the numbers that were added since an earlier state of a running total.

        The extremes of the difference are unknown; those of the running total are kept as bounds.
        """
        return Moments(
            count=self.count - earlier.count,
            exact_sum=self.exact_sum - earlier.exact_sum,
            minimum=self.minimum,
            maximum=self.maximum,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns sum, minimum and maximum as a JSON object, without the count; null where an extreme is unknown."""
        return {
            "sum": format_exact_sum(self.exact_sum),
            "minimum": self.minimum if math.isfinite(self.minimum) else None,
            "maximum": self.maximum if math.isfinite(self.maximum) else None,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any], *, count: int) -> Moments:
        """Builds moments from the JSON object that their `to_dict` has made, and a count.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: The sum cannot be parsed.
        """
        minimum, maximum = document["minimum"], document["maximum"]
        return cls(
            count=count,
            exact_sum=ExactSum(parse_exact_sum(document["sum"])),
            minimum=math.inf if minimum is None else float(minimum),
            maximum=-math.inf if maximum is None else float(maximum),
        )


def compute_mean(units: int, count: int) -> float:
    """Computes the mean of numbers as a float, rounded once; NaN without numbers, ±inf beyond the range of a float.

    Args:
        units: Their exact sum, in units of 2^-1074.
        count: How many they are.
    """
    if not count:
        return math.nan
    try:
        return units / (count << _UNIT_BITS)
    except OverflowError:
        return math.inf if units > 0 else -math.inf
