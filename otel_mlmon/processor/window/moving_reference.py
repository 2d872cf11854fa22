"""References of time that moves: the last days, or the same hour of the weeks before; both of stored hours.

A stream's first reference gives the bins, and they stay. What it counts is kept by the hour, and a reference is made of
the hours of `rolling` that end `lag` before the present epoch. Epochs are as long as `lag` and begin at its multiples
in Unix time, so a reference stands for one epoch, holds nothing that is less than `lag` older than what it judges, and
is the same after a restart. Until those hours hold what learning asks for, the first reference goes on.

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

from otel_mlmon.processor.window.settings import HistorySettings
from otel_mlmon.processor.window.window import Bins, Origin, Reference
from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.types import Counts, Floats

HOUR_NS: Final = 3_600_000_000_000
WEEK_HOURS: Final = 168
EPOCH_HOUR_OF_WEEK: Final = 72
"""The Unix epoch was a Thursday: its first hour is the 73rd of the week."""

SHRINKAGE: Final = 200.0


class Hour(NamedTuple):
    """What a stream counted in one hour."""

    counts: Counts
    """Shape (K,)."""
    numbers: int
    exact_sum: int
    """Of the numbers, as `Moments` has it."""


class Season(NamedTuple):
    """A reference for one epoch."""

    epoch: int
    reference: Reference | None
    """None while the hours are too few."""
    hours: Mapping[int, Floats]
    """Shares by hour of the week; empty if all hours are alike."""


@dataclass(slots=True, kw_only=True)
class History:
    """The hours of one stream.

    Memory: a count vector an hour of `rolling` + 2 `lag`.
    """

    settings: HistorySettings
    name: str
    """Of model and stream: what the draws are seeded by."""
    learn: int
    """Values that a reference is made of at least."""
    hours: dict[int, Hour] = field(default_factory=dict)
    """By hours since the Unix epoch."""
    season: Season | None = None

    def add(self, end_ns: int, counts: Counts, numbers: int, exact_sum: int) -> int:
        """Count a pane, as it was seen; its hour."""
        hour = (end_ns - 1) // HOUR_NS
        known = self.hours.get(hour)
        if known is not None:
            counts, numbers, exact_sum = known.counts + counts, known.numbers + numbers, known.exact_sum + exact_sum
        else:
            oldest = hour - self.settings.kept_hours
            self.hours = {key: value for key, value in self.hours.items() if key >= oldest}
        self.hours[hour] = Hour(counts, numbers, exact_sum)
        return hour

    def clear(self) -> None:
        """Forget all hours: their bins are no longer those of the reference."""
        self.hours, self.season = {}, None

    def reference(self, end_ns: int, bins: Bins) -> Reference | None:
        """The reference of the epoch that `end_ns` is in; None while the first one goes on."""
        lag_ns = self.settings.lag_hours * HOUR_NS
        epoch = (end_ns - 1) // lag_ns
        if self.season is None or self.season.epoch != epoch:
            self.season = self._season(epoch, bins)
        return self.season.reference

    def adjusted(self, end_ns: int, counts: Counts) -> Counts:
        """A pane's counts, shape (K,), as they would be at no hour in particular; the sum stays."""
        if self.season is None or self.season.reference is None:
            return counts
        shares = self.season.hours.get(hour_of_week((end_ns - 1) // HOUR_NS))
        if shares is None:
            return counts
        reference = self.season.reference.counts / self.season.reference.total
        seed = hashlib.blake2b(f"{self.name}\0{end_ns}".encode(), digest_size=16).digest()
        return coupled(counts, shares, reference, np.random.default_rng(int.from_bytes(seed, "little")))

    def _season(self, epoch: int, bins: Bins) -> Season:
        end = (epoch - 1) * self.settings.lag_hours
        chosen = {hour: self.hours[hour] for hour in self.hours if end - self.settings.rolling_hours <= hour < end}
        total = sum(int(hour.counts.sum()) for hour in chosen.values())
        weeks_seen = end - min(chosen, default=end) >= WEEK_HOURS
        if not total or total < self.learn or (self.settings.hour_of_week and not weeks_seen):
            return Season(epoch, None, {})
        counts = np.sum([hour.counts for hour in chosen.values()], axis=0)
        moments = Moments(
            count=sum(hour.numbers for hour in chosen.values()),
            exact_sum=ExactSum(sum(hour.exact_sum for hour in chosen.values())),
        )
        hours: dict[int, Floats] = {}
        origin: Origin = "rolling"
        if self.settings.hour_of_week:
            hours, known = _by_hour_of_week(chosen, counts / total)
            counts, origin = np.rint(counts * (known / total)).astype(np.int64), "hour_of_week"
        reference = Reference(bins=bins, counts=counts, mean=moments.mean, origin=origin)
        return Season(epoch, reference if reference.total else None, hours)


def hour_of_week(hour: int) -> int:
    """0 is the hour from Monday 00:00 UTC on."""
    return (hour + EPOCH_HOUR_OF_WEEK) % WEEK_HOURS


def coupled(counts: Counts, before: Floats, after: Floats, rng: np.random.Generator) -> Counts:
    """Counts of values with shares `before`, shape (K,) each, as those of values with shares `after`.

    Args:
        counts: What was seen.
        before: Shares above 0 that sum to 1.
        after: Shares that sum to 1.
        rng: What the draws are from.
    """
    gains = np.maximum(after - before, 0.0)
    if not gains.sum():
        return counts
    leaving = rng.binomial(counts, np.clip(1.0 - after / before, 0.0, 1.0))
    arriving = rng.multinomial(int(leaving.sum()), gains / gains.sum())
    moved: Counts = counts - leaving + arriving
    return moved


def _by_hour_of_week(chosen: Mapping[int, Hour], overall: Floats) -> tuple[dict[int, Floats], float]:
    """Shares by hour of the week, shrunk to `overall`; and the N of an hour, on average over the traffic."""
    totals: dict[int, Counts] = {}
    for number, hour in chosen.items():
        key = hour_of_week(number)
        totals[key] = totals[key] + hour.counts if key in totals else hour.counts
    # An empty bin would have no way back: half a value over all bins is spread.
    floor = (overall + 0.5 / overall.size / SHRINKAGE) / (1.0 + 0.5 / SHRINKAGE)
    shares = {key: (counts + SHRINKAGE * floor) / (counts.sum() + SHRINKAGE) for key, counts in totals.items()}
    traffic = np.array([counts.sum() for counts in totals.values()], dtype=np.float64)
    return shares, float(traffic.sum() / (traffic / (traffic + SHRINKAGE)).sum())
