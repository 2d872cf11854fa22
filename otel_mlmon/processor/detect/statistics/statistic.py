"""Defines the Protocol of a drift statistic, which each module of this folder implements, and so may any package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.types import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The values of one drift statistic for many streams: arrays of shape (S,), or scalars for one stream."""

    value: Floats
    p_value: Floats | None = None
    """In [0, 1]; None if the statistic has none."""
    noise: Floats | None = None
    """The mean of the value without drift at these sample sizes, 0 or above; None if it is not known."""


class Statistic(Protocol):
    """A drift statistic: compares two samples over the same bins, one stream a row; a pure function of counts."""

    @property
    def needs_ordered_bins(self) -> bool:
        """Whether the statistic is meaningful for ordered bins only, and so not reported for classes."""

    @property
    def has_p_value(self) -> bool:
        """Whether the statistic has a p-value, on which an alert rule `p_below` may be set."""

    def measure(self, samples: Samples, /) -> Measurement:
        """Computes the statistic of each row by itself: no value may depend on the other rows."""

    def min_count(self, *, bins: int, threshold: float) -> int:
        """Returns the number of values that a window of K bins needs before a rule `above: threshold` judges it."""
