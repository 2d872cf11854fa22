"""Measures rolling windows by the drift statistics that people know, those of many streams at once.

The evidence needs none of them. Where a rule sets a threshold on one, a window is measured when it is evaluated; of all
others only the window that is published is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.arrays import STAGE, stack_counts
from otel_mlmon.processor.detect.counts import samples_of
from otel_mlmon.processor.detect.score import Statistics
from otel_mlmon.processor.detect.statistics.statistic import Measurement, Statistic
from otel_mlmon.processor.window.window import Reference
from otel_mlmon.types import Counts, Floats

_GUARD: Final = guard(STAGE)


def measure_windows(
    windows: Sequence[tuple[Reference, Counts]], statistics: Mapping[str, Statistic]
) -> list[Statistics]:
    """Measures the counts of each window, shape (K,), against its reference; one that fails has no statistics.

    No result depends on the other windows.
    """
    results = [Statistics()] * len(windows)
    groups: dict[tuple[int, bool], list[int]] = {}
    for position, (reference, _) in enumerate(windows):
        groups.setdefault((reference.counts.size, reference.bins.is_ordered), []).append(position)
    for (bins, is_ordered), positions in groups.items():
        indices, current = stack_counts("rolling window", [windows[position][1] for position in positions], bins)
        good = [positions[index] for index in indices.tolist()]
        references = np.array([windows[position][0].counts for position in good]).reshape(-1, bins)
        for position, result in zip(
            good, _measure(references, current, statistics, is_ordered=is_ordered), strict=True
        ):
            results[position] = result
    return results


def _measure(
    references: NDArray[Any], current: NDArray[Any], statistics: Mapping[str, Statistic], *, is_ordered: bool
) -> Iterable[Statistics]:
    """Yields the statistics row by row."""
    samples = samples_of(references, current)
    measurements: dict[str, Measurement] = {}
    for name, statistic in statistics.items():
        with _GUARD:
            if is_ordered or not statistic.needs_ordered_bins:
                measurements[name] = _check_measurement(name, statistic.measure(samples), len(current))
    names, columns = tuple(measurements), measurements.values()
    rows = zip(
        _transpose([column.value for column in columns], len(current)),
        _transpose([column.p_value for column in columns], len(current)),
        _transpose([column.noise for column in columns], len(current)),
        strict=True,
    )
    for values, p_values, noises in rows:
        yield Statistics(names=names, values=values, p_values=p_values, noises=noises)


def _check_measurement(name: str, measurement: Measurement, rows: int) -> Measurement:
    for column in (measurement.value, measurement.p_value, measurement.noise):
        if column is not None and column.shape != (rows,):
            raise ValueError(f"statistic {name} returned shape {column.shape} for {rows} streams")
    return measurement


def _transpose(columns: Sequence[Floats | None], rows: int) -> Iterable[tuple[Any, ...]]:
    """Turns columns into rows, with None where there is no column."""
    numbers = [repeat(None, rows) if column is None else column.tolist() for column in columns]
    return zip(*numbers, strict=True) if numbers else repeat((), rows)
