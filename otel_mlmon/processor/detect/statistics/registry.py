"""The familiar statistics by name: what is reported beside the evidence, and what rules may be about."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from otel_mlmon.processor.detect.counts import Samples
from otel_mlmon.processor.detect.score import StatisticValues
from otel_mlmon.processor.detect.statistics.chi_squared import chi_squared
from otel_mlmon.processor.detect.statistics.cramers_v import cramers_v
from otel_mlmon.processor.detect.statistics.g_test import g_test
from otel_mlmon.processor.detect.statistics.hellinger import hellinger
from otel_mlmon.processor.detect.statistics.jensen_shannon import jensen_shannon
from otel_mlmon.processor.detect.statistics.kolmogorov_smirnov import kolmogorov_smirnov
from otel_mlmon.processor.detect.statistics.l_infinity import l_infinity
from otel_mlmon.processor.detect.statistics.psi import psi
from otel_mlmon.processor.detect.statistics.total_variation import total_variation
from otel_mlmon.processor.detect.statistics.wasserstein import wasserstein


class Statistic(Protocol):
    """One familiar statistic: a pure function of two samples over the same bins, a stream in each row."""

    def __call__(self, samples: Samples, /) -> StatisticValues:
        """Compare them, row by row."""


STATISTICS: Final[Mapping[str, Statistic]] = MappingProxyType(
    {
        "psi": psi,
        "chi_squared": chi_squared,
        "g_test": g_test,
        "jensen_shannon": jensen_shannon,
        "hellinger": hellinger,
        "total_variation": total_variation,
        "l_infinity": l_infinity,
        "cramers_v": cramers_v,
        "wasserstein": wasserstein,
        "kolmogorov_smirnov": kolmogorov_smirnov,
    }
)
"""Every statistic; the value of `ml.drift.statistic` is its name."""

NEEDS_ORDER: Final = frozenset({"wasserstein", "kolmogorov_smirnov"})
"""Those that mean nothing where the bins are not ordered, and are not reported there."""
