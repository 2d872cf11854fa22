"""Count, exact sum and extremes of a set of numbers.

Floating-point addition is not associative, so two processors that add the same numbers in another order
would differ in the last bit. Every finite float is an integer multiple of 2^-1074, so the sum is kept as
that integer: exact, and the same in any order. Source: IEEE 754-2019, binary64 (smallest subnormal
2^-1074).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_UNIT_BITS: Final = 1074


def exact(value: float) -> int:
    """`value` in units of 2^-1074.

    Raises:
        ValueError: `value` is NaN or infinite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no exact sum")
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT_BITS - (denominator.bit_length() - 1))


def exact_text(units: int) -> str:
    """A whole number of units of 2^-1074 as an exact hexadecimal floating-point literal, such as `0x3p-1`."""
    if not units:
        return "0x0p+0"
    shift = (units & -units).bit_length() - 1
    return f"{units >> shift:#x}p{shift - _UNIT_BITS:+d}"


def from_exact_text(text: str) -> int:
    """The inverse of `exact_text`.

    Raises:
        ValueError: `text` is not such a literal, or of another range than sums have.
    """
    mantissa, found, exponent = text.partition("p")
    shift = int(exponent) + _UNIT_BITS if found else -1
    # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
    if not 0 <= shift <= 4096:
        raise ValueError(f"{text!r} is not an exact sum")
    return int(mantissa, 16) << shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """How many numbers, their sum, and their extremes.

    `minimum` is +inf and `maximum` is -inf where they are unknown or there are no numbers.
    """

    count: int = 0
    exact_sum: int = 0
    """In units of 2^-1074."""
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, *, count: int, total: float, minimum: float = math.inf, maximum: float = -math.inf) -> Moments:
        """From a sum that somebody else made; a sum that is not finite counts as 0."""
        return cls(
            count=count,
            exact_sum=exact(total) if math.isfinite(total) else 0,
            minimum=minimum,
            maximum=maximum,
        )

    @classmethod
    def of_values(cls, values: Iterable[float]) -> Moments:
        """From finite numbers."""
        numbers = [float(value) for value in values]
        if not numbers:
            return cls()
        return cls(
            count=len(numbers),
            exact_sum=sum(map(exact, numbers)),
            minimum=min(numbers),
            maximum=max(numbers),
        )

    @property
    def sum(self) -> float:
        """The sum, correctly rounded; ±inf beyond the range of a float."""
        try:
            return self.exact_sum / (1 << _UNIT_BITS)
        except OverflowError:
            return math.inf if self.exact_sum > 0 else -math.inf

    @property
    def mean(self) -> float:
        """The mean; NaN of no numbers."""
        if not self.count:
            return math.nan
        try:
            return self.exact_sum / (self.count << _UNIT_BITS)
        except OverflowError:
            return math.inf if self.exact_sum > 0 else -math.inf

    def merge(self, other: Moments) -> Moments:
        """Of both sets together."""
        return Moments(
            count=self.count + other.count,
            exact_sum=self.exact_sum + other.exact_sum,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )

    def since(self, earlier: Moments) -> Moments:
        """What was added after `earlier`, a former state of the same running total.

        The extremes of the difference are unknown; those of the running total are kept as bounds.
        """
        return Moments(
            count=self.count - earlier.count,
            exact_sum=self.exact_sum - earlier.exact_sum,
            minimum=self.minimum,
            maximum=self.maximum,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, without the count; `from_dict` is its inverse. Unknown extremes are null."""
        return {
            "sum": exact_text(self.exact_sum),
            "minimum": self.minimum if math.isfinite(self.minimum) else None,
            "maximum": self.maximum if math.isfinite(self.maximum) else None,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any], *, count: int) -> Moments:
        """From `to_dict`.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another type.
            ValueError: The sum is not one.
        """
        minimum, maximum = document["minimum"], document["maximum"]
        return cls(
            count=count,
            exact_sum=from_exact_text(document["sum"]),
            minimum=math.inf if minimum is None else float(minimum),
            maximum=-math.inf if maximum is None else float(maximum),
        )
