"""The Protocol of a drift statistic, which each file of this folder implements, and so may any package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Holds the values of one statistic for many streams at once: arrays of shape (S,), or scalars for one stream."""

    value: Floats
    p_value: Floats | None = None
    """In [0, 1]; None if the statistic has none."""
    noise: Floats | None = None
    """The mean of the value without drift at these sample sizes, 0 or above; None if it is not known."""


class Statistic(Protocol):
    """Compares two samples over the same bins; a pure function of the counts, one stream a row."""

    @property
    def needs_ordered_bins(self) -> bool:
        """Whether it is meaningful for ordered bins only, and so not reported for classes."""

    @property
    def has_p_value(self) -> bool:
        """Whether it is a test with a p-value, on which a rule `p_below` may be set."""

    def measure(self, samples: Samples, /) -> Measurement:
        """Measures each row by itself: no value may depend on the other rows."""

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns how many values a window of K bins must hold before a rule `above: threshold` may judge it."""
