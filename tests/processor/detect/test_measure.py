from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.detect.counts import Samples, build_samples
from otel_mlmon.processor.detect.measure import measure_windows
from otel_mlmon.processor.detect.score import Statistics
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.detect.statistics.statistic import Measurement
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts

CLASSES = ReferenceCounts(
    bins=HistogramBins(names=("a", "b", "c", "d"), is_ordered=False), counts=np.array([4_000, 3_000, 2_000, 1_000])
)
RANGES = ReferenceCounts(
    bins=HistogramBins(names=("low", "middle", "high", "top"), is_ordered=True), counts=CLASSES.counts
)
FEW = ReferenceCounts(bins=HistogramBins(names=("x", "y"), is_ordered=False), counts=np.array([70, 30]))
COUNTS = np.array([20, 40, 60, 80])


def faults() -> int:
    totals = JOURNAL.read_totals(semconv.FAILURES.name)
    return sum(count for attributes, count in totals.items() if ("stage", "drift") in attributes)


@pytest.mark.parametrize("reference", [CLASSES, RANGES])
def test_every_statistic_that_means_something_for_the_bins(reference: ReferenceCounts) -> None:
    rows = {}
    for name, statistic in STATISTICS.load_all_plugins().items():
        if reference.bins.is_ordered or not statistic.needs_ordered_bins:
            measurement = statistic.measure(build_samples(reference.counts, COUNTS))
            p_value, noise = (
                None if number is None else float(number) for number in (measurement.p_value, measurement.noise)
            )
            rows[name] = (float(measurement.value), p_value, noise)
    assert measure_windows([(reference, COUNTS)], STATISTICS.load_all_plugins()) == [Statistics.from_rows(rows)]


def test_together_is_one_by_one() -> None:
    windows = [(CLASSES, COUNTS), (FEW, np.array([1, 9])), (RANGES, COUNTS[::-1]), (CLASSES, COUNTS * 3)]
    alone = [measure_windows([window], STATISTICS.load_all_plugins())[0] for window in windows]
    assert measure_windows(windows, STATISTICS.load_all_plugins()) == alone
    assert measure_windows([], STATISTICS.load_all_plugins()) == []


@pytest.mark.guarded
@pytest.mark.parametrize("bad", [np.array([1, 2]), np.array([1, 2, 3, -1])], ids=["other bins", "negative"])
def test_a_bad_window_has_no_statistics_and_its_neighbours_have_theirs(bad: Any) -> None:
    before = faults()
    results = measure_windows([(CLASSES, COUNTS), (CLASSES, bad), (CLASSES, COUNTS * 2)], STATISTICS.load_all_plugins())
    assert faults() == before + 1
    alone = [measure_windows([(CLASSES, COUNTS * factor)], STATISTICS.load_all_plugins())[0] for factor in (1, 2)]
    assert results == [alone[0], Statistics(), alone[1]]
    assert measure_windows([(CLASSES, bad)], STATISTICS.load_all_plugins()) == [Statistics()]


class Broken:
    """A statistic that raises, or returns what is no column."""

    needs_ordered_bins = False
    has_p_value = False

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def measure(self, _samples: Samples, /) -> Measurement:
        if self.value is None:
            raise ZeroDivisionError
        return Measurement(value=self.value)

    def min_count(self, *, bins: int, threshold: float) -> int:
        return bins + round(threshold)


@pytest.mark.guarded
@pytest.mark.parametrize("value", [None, np.float64(1.0), np.zeros(2), np.zeros((1, 1))])
def test_a_bad_statistic_takes_nothing_with_it(value: Any) -> None:
    before = faults()
    (statistics,) = measure_windows(
        [(CLASSES, COUNTS)], {"broken": Broken(value), "psi": STATISTICS.load_plugin("psi")}
    )
    assert faults() == before + 1
    assert statistics.names == ("psi",)


def test_no_statistics_are_none() -> None:
    assert measure_windows([(CLASSES, COUNTS)], {}) == [Statistics()]
