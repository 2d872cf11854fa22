"""The registry of drift statistics, which are reported beside the evidence and may be used in alert rules.

A package adds one by an entry point that names an object which implements `Statistic`:

    [project.entry-points."otel_mlmon.statistics"]
    mine = "my_package.mine:MINE"
"""

from __future__ import annotations

from typing import Final

from otel_mlmon.processor.detect.statistics.statistic import Statistic
from otel_mlmon.registry import PluginRegistry

_FOLDER: Final = "otel_mlmon.processor.detect.statistics"

STATISTICS: Final[PluginRegistry[Statistic]] = PluginRegistry(
    "otel_mlmon.statistics",
    {
        "psi": f"{_FOLDER}.psi:PSI",
        "chi_squared": f"{_FOLDER}.chi_squared:CHI_SQUARED",
        "g_test": f"{_FOLDER}.g_test:G_TEST",
        "jensen_shannon": f"{_FOLDER}.jensen_shannon:JENSEN_SHANNON",
        "hellinger": f"{_FOLDER}.hellinger:HELLINGER",
        "total_variation": f"{_FOLDER}.total_variation:TOTAL_VARIATION",
        "l_infinity": f"{_FOLDER}.l_infinity:L_INFINITY",
        "cramers_v": f"{_FOLDER}.cramers_v:CRAMERS_V",
        "wasserstein": f"{_FOLDER}.wasserstein:WASSERSTEIN",
        "kolmogorov_smirnov": f"{_FOLDER}.kolmogorov_smirnov:KOLMOGOROV_SMIRNOV",
    },
)
"""Every statistic by name; the value of `ml.drift.statistic` is its name."""
