"""Thresholds on the familiar statistics, for who wants a rule such as `psi > 0.2`.

They judge the rolling window pane after pane and carry no promise about false alarms: that is what the evidence is
for. What they do promise is not to judge noise. A fixed threshold is passed by chance alone where the window is small,
so each has a smallest n: where, without drift, the value is on average half of the threshold at most (of PSI, which is
a square, a quarter) and over it in no more than one window of twenty; of p-values, five values a bin. Below it the
answer is `too few values`.

With K bins, threshold t, and a reference that is much larger than the window, the means without drift are: PSI
(K-1)/n; Hellinger √((K-1)/8n) and Jensen-Shannon √((K-1)/8n ln 2) at most; total variation at most √((K-1)/2πn);
L∞ and Kolmogorov-Smirnov at most 1/√n; Wasserstein at most 0.4 (K-1)/√n; Cramér's V, whose bias is taken off, at most
√((K-1)/n).
Source: Yurdakul, 2018 (PSI); Cochran, 1954 (five a bin); the others by the same second-order expansion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from otel_mlmon.processor.detect.score import Statistics, ThresholdVerdict
from otel_mlmon.processor.detect.statistics.psi import smallest_count as smallest_count_of_psi

MIN_EXPECTED: Final = 5
"""What a bin must hold on average before a p-value is believed."""

_SMALLEST: Final[Mapping[str, Callable[[int, float], float]]] = {
    "psi": lambda bins, bound: smallest_count_of_psi(bins=bins, threshold=bound),
    "jensen_shannon": lambda bins, bound: (bins - 1) / (2.0 * math.log(2.0) * bound**2),
    "hellinger": lambda bins, bound: (bins - 1) / (2.0 * bound**2),
    "total_variation": lambda bins, bound: (bins - 1) / bound**2,
    "l_infinity": lambda _, bound: 4.0 / bound**2,
    "kolmogorov_smirnov": lambda _, bound: 4.0 / bound**2,
    "wasserstein": lambda bins, bound: ((bins - 1) / bound) ** 2,
    "cramers_v": lambda bins, bound: 4.0 * (bins - 1) / bound**2,
}
"""From K and the threshold; of a statistic that is not here, `MIN_EXPECTED` a bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A rule about one statistic. Of `above` and `p_below` one is given."""

    statistic: str
    stream: str = "*"
    """Which streams, as in `input.*`."""
    above: float | None = None
    """The value must not be above this; above 0."""
    p_below: float | None = None
    """The p-value must not be below this; in (0, 1)."""

    def is_about(self, stream: str) -> bool:
        """Whether `stream` is judged by it."""
        return fnmatchcase(stream, self.stream)

    def smallest_count(self, bins: int) -> int:
        """The n below which it does not judge."""
        smallest = _SMALLEST.get(self.statistic)
        if self.above is None or smallest is None:
            return MIN_EXPECTED * bins
        return math.ceil(smallest(bins, self.above))

    def judge(self, statistics: Statistics, *, count: int, bins: int) -> ThresholdVerdict | None:
        """What it says of a window of `count` values in K bins; None if there is no such statistic of the stream."""
        found = statistics.get(self.statistic)
        value = None if found is None else found.value if self.above is not None else found.p_value
        if value is None:
            return None
        needs = self.smallest_count(bins)
        bound = self.above if self.above is not None else self.p_below or 0.0
        is_breached = value > bound if self.above is not None else value < bound
        return ThresholdVerdict(
            statistic=self.statistic,
            is_p_value=self.above is None,
            value=value,
            bound=bound,
            needs=needs,
            verdict="too few values" if count < needs else "breached" if is_breached else "ok",
        )
