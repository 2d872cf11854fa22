"""Count, exact sum and extremes of a set of numbers.

Floating-point addition is not associative, so two processors that add the same numbers in another order would differ
in the last bit. Every finite float is an integer multiple of 2^-1074, so the sum is kept as that integer: exact, and the
same in any order. Source: IEEE 754-2019, binary64 (smallest subnormal 2^-1074).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

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
            return math.copysign(math.inf, self.exact_sum)

    @property
    def mean(self) -> float:
        """The mean; NaN of no numbers."""
        if not self.count:
            return math.nan
        try:
            return self.exact_sum / (self.count << _UNIT_BITS)
        except OverflowError:
            return math.copysign(math.inf, self.exact_sum)

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
