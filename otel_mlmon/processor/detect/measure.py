"""Computes the published measures of streams: familiar drift statistics, and the smallest drift that would be found.

The evidence needs none of them. Where a rule sets a threshold on one, a window is measured when it is evaluated; of all
others only the window that is published is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.alternatives import MAX_BINS_OF_PAIRS, Direction
from otel_mlmon.processor.detect.arrays import STAGE, RowArrays, stack_counts
from otel_mlmon.processor.detect.bets import DayHypothesis, SlotTable
from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.detectable import (
    NATS_PER_BIN,
    DetectableShift,
    DetectionSetting,
    compute_detectable_shares,
    compute_detectable_shifts,
    find_weakness_reasons,
)
from otel_mlmon.processor.detect.evidence import CALIBRATING, EvidenceBank
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.rare_bins import RareLimits
from otel_mlmon.processor.detect.score import Statistics
from otel_mlmon.processor.detect.state import DAY_NS
from otel_mlmon.processor.detect.statistics.statistic import Measurement, Statistic
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey
from otel_mlmon.types import Counts, Floats, Indices, ModelKey

_GUARD: Final = guard(STAGE)


def measure_windows(
    windows: Sequence[tuple[ReferenceCounts, Counts]], statistics: Mapping[str, Statistic]
) -> list[Statistics]:
    """Computes the drift statistics of each window, counts of shape (K,), against its reference.

    One that fails has no statistics.

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
            good, _measure_statistics(references, current, statistics, is_ordered=is_ordered), strict=True
        ):
            results[position] = result
    return results


def _measure_statistics(
    references: NDArray[Any], current: NDArray[Any], statistics: Mapping[str, Statistic], *, is_ordered: bool
) -> Iterable[Statistics]:
    """Yields the drift statistics of many streams, one stream a row."""
    samples = build_samples(references, current)
    measurements: dict[str, Measurement] = {}
    for name, statistic in statistics.items():
        with _GUARD:
            if is_ordered or not statistic.needs_ordered_bins:
                measurements[name] = _check_measurement(name, statistic.measure(samples), len(current))
    names, columns = tuple(measurements), measurements.values()
    rows = zip(
        _transpose_columns([column.value for column in columns], len(current)),
        _transpose_columns([column.p_value for column in columns], len(current)),
        _transpose_columns([column.noise for column in columns], len(current)),
        strict=True,
    )
    for values, p_values, noises in rows:
        yield Statistics(names=names, values=values, p_values=p_values, noises=noises)


def _check_measurement(name: str, measurement: Measurement, rows: int) -> Measurement:
    for column in (measurement.value, measurement.p_value, measurement.noise):
        if column is not None and column.shape != (rows,):
            raise ValueError(f"statistic {name} returned shape {column.shape} for {rows} streams")
    return measurement


def _transpose_columns(columns: Sequence[Floats | None], rows: int) -> Iterable[tuple[Any, ...]]:
    """Turns columns of numbers into rows, with None for a column that is missing."""
    numbers = [repeat(None, rows) if column is None else column.tolist() for column in columns]
    return zip(*numbers, strict=True) if numbers else repeat((), rows)


def list_contributions(bank: EvidenceBank, rows: Indices) -> list[tuple[float, ...]]:
    """Lists how much each bin of some streams added to the evidence; zeros of those without any, nearly all."""
    contributions = [(0.0,) * bank.bins] * len(rows)
    for place in np.flatnonzero(bank.log_e[rows] > 0.0).tolist():
        contributions[place] = tuple(bank.column("contributions")[rows[place]].tolist())
    return contributions


def measure_calibration(bank: EvidenceBank, rows: Indices) -> list[float]:
    """Measures how far the estimation of design effects is for some streams, [0, 1]; 1 where it is complete."""
    is_open = bank.status[rows] == CALIBRATING
    ratios = np.ones(len(rows))
    if is_open.any():
        ratios[is_open] = bank.effects.measure_progress(rows[is_open])
    return ratios.tolist()


SLACK: Final = 0.02
"""Traffic, design effect and alarm line are taken on a grid of ratios as far apart, so that small changes change
nothing."""
YOUNG_SLACK: Final = 0.2
"""That of the traffic of a stream younger than an hour, of which each pane makes another day."""


INPUTS: Final = 5
"""How many numbers a detectable shift is computed from: design effect, traffic, day, holiday or not, alarm line."""

BankKey = tuple[int, Direction]
"""The number of bins and the direction, which all streams of one bank share."""


@dataclass(slots=True, kw_only=True)
class StreamEntry:
    """The place of one stream's evidence, with the reference, tolerance and direction that it is against."""

    bank: BankKey
    row: int
    bin_names: tuple[str, ...]
    tolerance: float
    reference_counts: tuple[float, ...]
    reference: ReferenceCounts | None = None
    """The reference object that last compared equal: most panes come with the same one."""

    def is_about_reference(self, reference: ReferenceCounts, policy: DetectionPolicy) -> bool:
        """Returns whether a stream's evidence is against this very reference, tolerance and direction."""
        if self.tolerance != policy.tolerance or self.bank[1] != policy.direction:
            return False
        if self.reference is not reference:
            if self.bin_names != reference.bins.names or self.reference_counts != tuple(reference.counts.tolist()):
                return False
            self.reference = reference
        return True

    def is_rebinned(self, reference: ReferenceCounts, policy: DetectionPolicy) -> bool:
        """Returns whether a reference holds the same values in other bins, and is judged the same way."""
        return (
            self.tolerance == policy.tolerance
            and self.bank[1] == policy.direction
            and reference.bins.is_ordered
            and self.bin_names != reference.bins.names
            and int(sum(self.reference_counts)) == reference.total
        )


class StreamRow(NamedTuple):
    """One stream in a bank of evidence, with what its detectable shift depends on."""

    row: int
    maximum: float
    """The largest detectable shift that is not weak."""
    day: DayHypothesis | None
    """The distributions that are no drift on a day like the present one; None for those of the reference."""
    is_budget: bool
    """Whether its reference is an allowance, which is known exactly."""


@dataclass(slots=True)
class BankPlaces:
    """The streams in one bank of evidence, with what the last detectable shift of each was computed from."""

    streams: dict[int, StreamKey] = field(default_factory=dict)
    """By row of the bank."""
    rows: dict[ModelKey, dict[int, None]] = field(default_factory=dict)
    """The rows of each model version."""
    inputs: RowArrays = field(default_factory=lambda: RowArrays(numbers=((INPUTS,), np.float64)))
    """By row; NaN where no shift was computed yet."""
    indices: dict[ModelKey, Indices] = field(default_factory=dict)
    """`rows` as arrays, once they were asked for."""

    def add(self, stream: StreamKey, row: int) -> None:
        """Adds a stream in a row of the bank."""
        self.streams[row] = stream
        self.rows.setdefault(stream.model, {})[row] = None
        self.indices.pop(stream.model, None)
        self.inputs.clear(row)
        self.inputs["numbers"][row] = np.nan

    def remove(self, row: int) -> None:
        """Removes the stream in a row of the bank."""
        model = self.streams.pop(row).model
        rows = self.rows[model]
        del rows[row]
        if not rows:
            del self.rows[model]
        self.indices.pop(model, None)

    def find_rows(self, models: Iterable[ModelKey]) -> Indices:
        """Returns the rows of the bank that streams of some model versions are in, shape (S,)."""
        parts = [np.zeros(0, dtype=np.intp)]
        for model in models:
            if model in self.rows:
                if model not in self.indices:
                    self.indices[model] = np.array(list(self.rows[model]), dtype=np.intp)
                parts.append(self.indices[model])
        return np.concatenate(parts)


class DetectableShifts:
    """The last computed detectable shift of each stream with evidence.

    It is measured anew on another day, where that is found to be a holiday, and where traffic, design effect or alarm
    line changed by more than `SLACK`; so it follows from the present alone, and is the same after a restart, once a
    pane is judged.
    """

    def __init__(self) -> None:
        self._places: dict[BankKey, BankPlaces] = {}
        self._measured: dict[ModelKey, dict[str, DetectableShift]] = {}

    def find(self, stream: StreamKey) -> DetectableShift | None:
        """Returns the last computed detectable shift of a stream; None if it was never computed."""
        return self._measured.get(stream.model, {}).get(stream.stream)

    def add(self, stream: StreamKey, bank: BankKey, row: int) -> None:
        """Adds a stream whose evidence is in a row of a bank."""
        self._places.setdefault(bank, BankPlaces()).add(stream, row)

    def remove(self, stream: StreamKey, bank: BankKey, row: int) -> None:
        """Forgets a stream, whose evidence was in a row of a bank."""
        self._places[bank].remove(row)
        shifts = self._measured.get(stream.model, {})
        if shifts.pop(stream.stream, None) is not None and not shifts:
            del self._measured[stream.model]

    def measure(
        self,
        models: Collection[ModelKey],
        banks: Mapping[BankKey, EvidenceBank],
        build_row: Callable[[StreamKey], StreamRow | None],
        holidays: Mapping[BankKey, Sequence[int]],
        log_alarm_line: float,
        *,
        is_over: bool,
    ) -> dict[ModelKey, dict[str, DetectableShift]]:
        """Returns how small a drift of each stream would be found within a day, computed anew where needed.

        Args:
            models: The model versions whose streams are asked for.
            banks: All banks.
            build_row: Returns what else the result of a stream depends on; None of one whose reference is not known.
            holidays: The rows of each bank whose present day is as another day of the week.
            log_alarm_line: ln of the evidence that is an alarm.
            is_over: As `DailyTraffic.items_per_day` has it.
        """
        log_alarm_line = math.exp(round(math.log(log_alarm_line) / SLACK) * SLACK)
        for key, places in self._places.items():
            rows, bank = places.find_rows(models), banks[key]
            if not rows.size:
                continue
            with _GUARD:
                effect, items = _measure_value_supply(bank, rows, is_over=is_over)
                numbers = np.zeros((rows.size, INPUTS))
                numbers[:, 0], numbers[:, 1], numbers[:, 2] = effect, items, bank.column("last_ns")[rows] // DAY_NS
                numbers[:, 3] = np.isin(rows, holidays[key]) if key in holidays else False
                numbers[:, 4] = log_alarm_line
                is_changed = (numbers != places.inputs["numbers"][rows]).any(-1)
                built = [build_row(places.streams[row]) for row in rows[is_changed].tolist()]
                changed = [row for row in built if row is not None]
                results = measure_detectable(bank, changed, log_alarm_line, is_over=is_over)
                for row, result in zip(changed, results, strict=True):
                    stream = places.streams[row.row]
                    self._measured.setdefault(stream.model, {})[stream.stream] = result
                is_changed[is_changed] = [row is not None for row in built]
                places.inputs["numbers"][rows[is_changed]] = numbers[is_changed]
        return {model: dict(self._measured[model]) for model in models if model in self._measured}


def measure_detectable(
    bank: EvidenceBank, streams: Sequence[StreamRow], log_alarm_line: float, *, is_over: bool
) -> list[DetectableShift]:
    """Computes how small a drift of each stream would be found within a day.

    Args:
        bank: The bank.
        streams: Its streams.
        log_alarm_line: ln of the evidence that is an alarm.
        is_over: As `DailyTraffic.items_per_day` has it.
    """
    if not streams:
        return []
    rows = np.array([stream.row for stream in streams], dtype=np.intp)
    setting, limits = _build_detection_setting(
        bank, rows, [stream.day for stream in streams], log_alarm_line, is_over=is_over
    )
    shifts = compute_detectable_shifts(setting)
    ratios = new_shares = np.full(rows.size, np.nan)
    rare = None if bank.rare is None else bank.rare.find_share_limits(rows, setting.effect, limits, log_alarm_line)
    if rare is not None:
        ratios, new_shares = compute_detectable_shares(rare, setting)
    is_budget = np.array([stream.is_budget for stream in streams])
    weaknesses = find_weakness_reasons(
        shifts,
        setting,
        np.array([stream.maximum for stream in streams]),
        is_one_value=~is_budget & ((bank.column("reference")[rows] > 0.0).sum(-1) <= 1),
        days=[None if stream.day is None else stream.day.weakness for stream in streams],
    )
    amplitudes = np.array([np.nan if stream.day is None else stream.day.amplitude for stream in streams])
    maxima = np.array([stream.maximum for stream in streams])
    numbers = (shifts, ratios, new_shares, setting.items, amplitudes, maxima)
    columns = (*(column.tolist() for column in numbers), weaknesses)
    return [DetectableShift(*values) for values in zip(*columns, strict=True)]


def _build_detection_setting(
    bank: EvidenceBank, rows: Indices, days: Sequence[DayHypothesis | None], log_alarm_line: float, *, is_over: bool
) -> tuple[DetectionSetting, RareLimits | None]:
    log_line = log_alarm_line - bank.least_log_weight
    effect, items = _measure_value_supply(bank, rows, is_over=is_over)
    setting = DetectionSetting(
        share=bank.column("even_share")[rows],
        tolerance=bank.column("tolerance")[rows],
        variance=bank.column("variance")[rows],
        size=bank.column("total")[rows],
        effect=effect,
        items=items,
        log_line=np.full(rows.size, log_line + NATS_PER_BIN * max(0, bank.bins - MAX_BINS_OF_PAIRS)),
    )
    table = SlotTable(bank.bins)
    table.write(rows.tolist(), [day and day.null for day in days])
    slots = table.stack(rows, bank.column)
    if slots is None:
        return setting, None
    cycled = setting._replace(
        tolerance=setting.tolerance + slots.forgiven + slots.width,
        variance=slots.variance * np.maximum(1.0, slots.effect / effect),
        size=np.array([day.size if day else size for day, size in zip(days, setting.size, strict=True)]),
    )
    highest, lowest = slots.highest[:, : bank.bins], slots.lowest[:, : bank.bins]
    return cycled, RareLimits(highest, lowest, slots.size, slots.forgiven, slots.has_cycle)


def _measure_value_supply(bank: EvidenceBank, rows: Indices, *, is_over: bool) -> tuple[Floats, Floats]:
    """Returns φ and the values a day of some streams, on the grid of `SLACK`, shape (S,) each."""
    effect, items = bank.effects.divisor[rows], bank.traffic.items_per_day(rows, is_over=is_over)
    slack = SLACK if is_over else np.where(bank.traffic.is_young(rows), YOUNG_SLACK, SLACK)
    return np.exp(np.rint(np.log(effect) / SLACK) * SLACK), np.expm1(np.rint(np.log1p(items) / slack) * slack)
