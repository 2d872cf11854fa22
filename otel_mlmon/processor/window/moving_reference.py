"""Builds references that move with time: of the last days, or of the same hour of the week in earlier weeks.

A stream's first reference gives the bins, and they stay. What it counts is kept by the hour, and a reference is made of
the hours of `rolling` that end `lag` before the present epoch. Epochs are as long as `lag` and begin at its multiples
in Unix time, so a reference stands for one epoch, holds nothing that is less than `lag` older than the panes it judges,
and is the same after a restart. Until those hours hold the values that learning requires, the first reference goes on.

**Hour of the week.** Evidence is gathered against one reference; one that changed every hour would begin it anew every
hour. So the counts are brought to the reference instead. With r the shares over all hours and s those of this hour of
the week, a maximal coupling keeps a value of bin k with probability min(1, r_k/s_k) and puts it otherwise into bin j in
proportion to (r_j - s_j)⁺. It takes s to r; and since no Markov kernel widens total variation, what was within the
tolerance of s is within the tolerance of r, and independent values stay independent: what holds for the evidence holds
on. A move costs the evidence what the coupling blurs, which is the cycle's own size. The draws are seeded by stream and
time, so a pane is counted the same whenever it is counted.
An hour's shares are shrunk to r by `SHRINKAGE` pseudo-observations, so an hour that was seldom seen is taken as it is.
N, which the evidence takes for what is not known of the reference, is the harmonic mean of those that hours have,
weighted by their traffic.

Source: Lindvall, Lectures on the Coupling Method, 1992 (maximal coupling); Cover & Thomas (data processing inequality).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.processor.window.reference import MovingReferenceSettings
from otel_mlmon.processor.window.window import HistogramBins, PaneCounts, ReferenceCounts, ReferenceOrigin
from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.types import Counts, Floats

HOUR_NS: Final = 3_600_000_000_000
WEEK_HOURS: Final = 168
EPOCH_HOUR_OF_WEEK: Final = 72
"""The Unix epoch was a Thursday: its first hour is the 73rd of the week."""

SHRINKAGE: Final = 200.0


class EpochReference(NamedTuple):
    """The reference that a moving reference is for one epoch of time."""

    epoch: int
    reference: ReferenceCounts | None
    """None while the hours are too few."""
    hours: Mapping[int, Floats]
    """Shares by hour of the week; empty if all hours are alike."""


@dataclass(slots=True, kw_only=True)
class MovingReference:
    """The moving reference of one stream, which is built from the stored counts of its hours.

    Memory: a count vector an hour of `rolling` + 2 `lag`.
    """

    settings: MovingReferenceSettings
    name: str
    """The names of model and stream, which seed the random draws."""
    min_values: int
    """The smallest number of values of a reference."""
    hours: dict[int, PaneCounts] = field(default_factory=dict)
    """Counts by hour since the Unix epoch."""
    epoch_reference: EpochReference | None = None

    def add(self, pane: PaneCounts) -> None:
        """Adds the counts of a pane to the hour that it is in."""
        hour = compute_epoch_hour(pane.end_ns)
        if hour in self.hours:
            self.hours[hour] = self.hours[hour].merge(pane)
            return
        oldest = hour - self.settings.retained_hours
        self.hours = {key: counts for key, counts in self.hours.items() if key >= oldest}
        self.hours[hour] = pane

    def clear(self) -> None:
        """Removes the counts of all hours, as their bins are no longer those of the reference."""
        self.hours, self.epoch_reference = {}, None

    def find_reference(self, end_ns: int, bins: HistogramBins) -> ReferenceCounts | None:
        """Returns the reference of the epoch that `end_ns` is in; None during the first epoch."""
        lag_ns = self.settings.lag_hours * HOUR_NS
        epoch = (end_ns - 1) // lag_ns
        if self.epoch_reference is None or self.epoch_reference.epoch != epoch:
            self.epoch_reference = self._build_epoch_reference(epoch, bins)
        return self.epoch_reference.reference

    def adjust_counts(self, end_ns: int, counts: Counts) -> Counts:
        """Adjusts a pane's counts, shape (K,), to those of an average hour of the week, with the same sum."""
        if self.epoch_reference is None or self.epoch_reference.reference is None:
            return counts
        shares = self.epoch_reference.hours.get(compute_hour_of_week(compute_epoch_hour(end_ns)))
        if shares is None:
            return counts
        reference = self.epoch_reference.reference.counts / self.epoch_reference.reference.total
        seed = hashlib.blake2b(f"{self.name}\0{end_ns}".encode(), digest_size=16).digest()
        return sample_coupled_counts(counts, shares, reference, np.random.default_rng(int.from_bytes(seed, "little")))

    def _build_epoch_reference(self, epoch: int, bins: HistogramBins) -> EpochReference:
        end = (epoch - 1) * self.settings.lag_hours
        epoch_hours = {hour: self.hours[hour] for hour in self.hours if end - self.settings.rolling_hours <= hour < end}
        total = sum(int(hour.counts.sum()) for hour in epoch_hours.values())
        is_week_complete = end - min(epoch_hours, default=end) >= WEEK_HOURS
        if not total or total < self.min_values or (self.settings.hour_of_week and not is_week_complete):
            return EpochReference(epoch, None, {})
        counts = np.sum([hour.counts for hour in epoch_hours.values()], axis=0)
        moments = Moments(
            count=sum(hour.number_count for hour in epoch_hours.values()),
            exact_sum=sum((hour.exact_sum for hour in epoch_hours.values()), ExactSum()),
        )
        hours: dict[int, Floats] = {}
        origin: ReferenceOrigin = "rolling"
        if self.settings.hour_of_week:
            hours, effective = _compute_weekly_shares(epoch_hours, counts / total)
            counts, origin = np.rint(counts * (effective / total)).astype(np.int64), "hour_of_week"
        reference = ReferenceCounts(bins=bins, counts=counts, mean=moments.mean, origin=origin)
        return EpochReference(epoch, reference if reference.total else None, hours)


def compute_epoch_hour(end_ns: int) -> int:
    """Returns the hour, counted from the Unix epoch, of a pane that ends at `end_ns`."""
    return (end_ns - 1) // HOUR_NS


def compute_hour_of_week(hour: int) -> int:
    """Returns the hour of the week of an hour counted from the Unix epoch; 0 is Monday, 00:00 to 01:00 UTC."""
    return (hour + EPOCH_HOUR_OF_WEEK) % WEEK_HOURS


def sample_coupled_counts(counts: Counts, before: Floats, after: Floats, rng: np.random.Generator) -> Counts:
    """Draws counts with shares `after` from counts with shares `before`, changing as few values as possible.

    Args:
        counts: Of values with shares `before`.
        before: Shares above 0 that sum to 1.
        after: Shares that sum to 1.
        rng: The source of the draws.
    """
    gains = np.maximum(after - before, 0.0)
    if not gains.sum():
        return counts
    leaving = rng.binomial(counts, np.clip(1.0 - after / before, 0.0, 1.0))
    arriving = rng.multinomial(int(leaving.sum()), gains / gains.sum())
    moved: Counts = counts - leaving + arriving
    return moved


def _compute_weekly_shares(epoch_hours: Mapping[int, PaneCounts], overall: Floats) -> tuple[dict[int, Floats], float]:
    """Computes shares by hour of the week, shrunk to `overall`, and the average number of values an hour."""
    totals: dict[int, Counts] = {}
    for number, hour in epoch_hours.items():
        key = compute_hour_of_week(number)
        totals[key] = totals[key] + hour.counts if key in totals else hour.counts
    # An empty bin would have no way back: half a value over all bins is spread.
    floor = (overall + 0.5 / overall.size / SHRINKAGE) / (1.0 + 0.5 / SHRINKAGE)
    shares = {key: (counts + SHRINKAGE * floor) / (counts.sum() + SHRINKAGE) for key, counts in totals.items()}
    traffic = np.array([counts.sum() for counts in totals.values()], dtype=np.float64)
    return shares, float(traffic.sum() / (traffic / (traffic + SHRINKAGE)).sum())
