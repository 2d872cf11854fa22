"""Traffic with days and weeks: the classes of all predictions of many streams, day by day and pane by pane.

Each stream has shares, a phase of the day and a first day of its own, so that no result is one of a Monday at
midnight. The load goes up and down by 60 % a day. Nothing drifts unless a `Shift` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import t as student

from otel_mlmon.processor.detect.state import DAY_NS
from otel_mlmon.types import Bools, Counts, Floats

Rng = np.random.Generator

MONDAY: Final = 20_451
"""A Monday of 2026, in days since 1970."""
LOAD_SWING: Final = 0.6
"""By how much of its mean the load of an hour differs at most."""
MIN_SHARE: Final = 0.04
BATCH_HOUR: Final = 2.0
BATCH_HOURS: Final = 0.5
BATCH_SHARE: Final = 0.43
"""Items of the nightly batch over those of an hour of the other traffic."""
ZIPF_CLASSES: Final = 1_000
TAIL_BINS: Final = 12
BURST_SHARE: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Moves a share of the traffic from the most frequent class to the least frequent one, from some time on."""

    total_variation: Floats | float
    """Of all streams, or of each, shape (S, 1)."""
    from_day: Floats | float
    """The time in days; of all streams, or of each, shape (S, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a simulation."""

    streams: int
    days: int
    pane_s: float
    items_a_day: float
    seed: int
    shift: Shift | None = None

    @property
    def panes(self) -> int:
        """Panes in a day."""
        return round(86_400.0 / self.pane_s)


@dataclass(slots=True, kw_only=True)
class Traffic:
    """The state of one simulation, from which a kind of traffic draws a day."""

    plan: Plan
    rng: Rng
    shares: Floats
    """Long-run shares, shape (S, K)."""
    phases: Floats
    """Shape (S,), in days."""
    weekdays: Counts
    """The weekday of the first day, 0 for a Monday, shape (S,)."""
    level: Floats
    """The present value of an autoregressive move, shape (S,)."""

    def times(self) -> Floats:
        """Returns the middles of the panes in days, shape (P,)."""
        return (np.arange(self.plan.panes) + 0.5) / self.plan.panes

    def clock(self, jitter_minutes: float = 20.0) -> Floats:
        """Returns the time of each stream's own cycle in days, shape (S, P), with the jitter of this day."""
        jitter = self.rng.uniform(-jitter_minutes, jitter_minutes, self.phases.size) / 1_440.0
        clock: Floats = self.times()[None] + (self.phases + jitter)[:, None]
        return clock

    def load(self) -> Floats:
        """Returns the expected number of items by pane, shape (S, P)."""
        swing = 1.0 + LOAD_SWING * np.sin(2.0 * math.pi * (self.times()[None] + self.phases[:, None]))
        load: Floats = self.plan.items_a_day / self.plan.panes * swing
        return load

    def is_weekend(self, day: int) -> Bools:
        """Whether the day is of a weekend, shape (S,)."""
        weekend: Bools = (self.weekdays + day) % 7 >= 5
        return weekend

    def shares_at(self, day: int, moved: Floats | float = 0.0) -> Floats:
        """Returns the shares of each pane with `moved` of the traffic gone from the first class to the second."""
        size = (self.plan.streams, self.plan.panes)
        amount = np.broadcast_to(np.asarray(moved, dtype=np.float64), size)
        amount = np.clip(amount, 0.005 - self.shares[:, 1:2], self.shares[:, :1] - 0.005)
        shares = np.repeat(self.shares[:, None], self.plan.panes, axis=1)
        shares[..., 0] -= amount
        shares[..., 1] += amount
        shift = self.plan.shift
        if shift is not None:
            streams, sources, targets = np.arange(size[0]), self.shares.argmax(-1), self.shares.argmin(-1)
            has_shifted = (day + self.times())[None] >= shift.from_day
            gone = np.where(has_shifted, np.minimum(shift.total_variation, shares[streams, :, sources] - 0.005), 0.0)
            shares[streams, :, sources] -= gone
            shares[streams, :, targets] += gone
        return shares

    def draw(self, day: int, moved: Floats | float = 0.0, load: Floats | None = None) -> Counts:
        """Draws independent items."""
        shares = self.shares_at(day, moved)
        items = self.rng.poisson(self.load() if load is None else load)
        return np.asarray(self.rng.multinomial(items, shares), dtype=np.int64)


DrawDay = Callable[[Traffic, int], Counts]
"""From the state of a simulation and the number of the day: counts of shape (S, P, K)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of traffic."""

    name: str
    draw: DrawDay
    shares: Callable[[Rng, int], Floats]
    """From a generator and the number of streams: shares of shape (S, K)."""
    settled_after_days: int = 3
    """From when on a false alarm counts: before, a stream is to say that it is weak."""


def draw_days(kind: Kind, plan: Plan) -> Iterator[Counts]:
    """Yields the counts of each day, shape (S, P, K)."""
    traffic = start_traffic(kind, plan)
    for day in range(plan.days):
        yield kind.draw(traffic, day)


def start_traffic(kind: Kind, plan: Plan) -> Traffic:
    """Draws what stays the same in one simulation."""
    rng = np.random.default_rng([plan.seed, sum(kind.name.encode())])
    return Traffic(
        plan=plan,
        rng=rng,
        shares=kind.shares(rng, plan.streams),
        phases=rng.random(plan.streams),
        weekdays=(np.arange(plan.streams) + plan.seed) % 7,
        level=np.zeros(plan.streams),
    )


def first_day_ns(traffic: Traffic) -> Counts:
    """Returns when the first day of each stream begins, Unix nanoseconds, shape (S,)."""
    start: Counts = (MONDAY + traffic.weekdays) * DAY_NS
    return start


def four_classes(rng: Rng, streams: int) -> Floats:
    """Draws shares of four classes, none of them rare."""
    shares = np.maximum(rng.dirichlet(np.full(4, 4.0), streams), MIN_SHARE)
    result: Floats = shares / shares.sum(-1, keepdims=True)
    return result


def _rare_pair(_rng: Rng, streams: int) -> Floats:
    return np.tile([0.999, 0.001], (streams, 1))


def _rare_class(_rng: Rng, streams: int) -> Floats:
    return np.tile([0.5, 0.3, 0.2 - BURST_SHARE, BURST_SHARE], (streams, 1))


def _zipf(_rng: Rng, streams: int) -> Floats:
    shares = 1.0 / np.arange(1, ZIPF_CLASSES + 1)
    return np.tile(shares / shares.sum(), (streams, 1))


def _tail_bins(rng: Rng, streams: int) -> Floats:
    """Shares of the bins between the quantiles of 5,000 values of Student's t with 1.5 degrees of freedom."""
    rows = []
    for _ in range(streams):
        values = np.sort(student.rvs(1.5, size=5_000, random_state=rng))
        edges = np.quantile(values, np.linspace(0.0, 1.0, TAIL_BINS - 1))
        rows.append(np.diff(student.cdf(edges, 1.5), prepend=0.0, append=1.0))
    return np.array(rows)


def independent(traffic: Traffic, day: int) -> Counts:
    """Items that have nothing to do with each other."""
    return traffic.draw(day)


def daily(amplitude: float) -> DrawDay:
    """A sine of one day, of an amplitude and a phase that vary from day to day."""

    def draw(traffic: Traffic, day: int) -> Counts:
        scale = amplitude * traffic.rng.uniform(0.8, 1.2, (traffic.plan.streams, 1))
        return traffic.draw(day, scale * np.sin(2.0 * math.pi * traffic.clock()))

    return draw


def square(amplitude: float) -> DrawDay:
    """Two levels a day."""

    def draw(traffic: Traffic, day: int) -> Counts:
        time = traffic.clock() % 1.0
        return traffic.draw(day, np.where((time > 0.35) & (time < 0.75), amplitude, -amplitude))

    return draw


def week(
    moves: tuple[float, ...],
    cycle: float = 0.0,
    *,
    zone_hours: float = 0.0,
    summer: tuple[int, int] = (0, 0),
    holidays: tuple[int, ...] = (),
) -> DrawDay:
    """Another mix by the weekday of a local clock, beside a daily cycle of the same clock.

    Args:
        moves: What is moved on each weekday from Monday to Sunday.
        cycle: The amplitude of the daily cycle.
        zone_hours: By how much the clock is ahead of UTC.
        summer: The days from which on and before which the clock is an hour further ahead.
        holidays: Days that are as Sundays.
    """

    def draw(traffic: Traffic, day: int) -> Counts:
        ahead_hours = zone_hours + (1.0 if summer[0] <= day < summer[1] else 0.0)
        local_days = (day + traffic.times() + ahead_hours / 24.0)[None]
        numbers = np.floor(local_days).astype(int)
        weekdays = np.where(np.isin(numbers, holidays), 6, (traffic.weekdays[:, None] + numbers) % 7)
        jitter_days = traffic.rng.uniform(-20.0, 20.0, (traffic.phases.size, 1)) / 1_440.0
        wave = np.sin(2.0 * math.pi * (local_days + traffic.phases[:, None] + jitter_days))
        return traffic.draw(day, np.array(moves)[weekdays] + cycle * wave)

    return draw


def rest(move: float, *weekdays: int) -> tuple[float, ...]:
    """Returns the moves of a week with some days of rest, 0 for a Monday."""
    return tuple(move if weekday in weekdays else 0.0 for weekday in range(7))


def autoregressive(hours: float, deviation: float) -> DrawDay:
    """Shares that wander with a memory of some hours."""

    def draw(traffic: Traffic, day: int) -> Counts:
        memory = math.exp(-24.0 / (hours * traffic.plan.panes))
        noise = traffic.rng.normal(
            0.0, deviation * math.sqrt(1.0 - memory**2), (traffic.plan.panes, traffic.level.size)
        )
        moved = np.empty_like(noise)
        for pane in range(traffic.plan.panes):
            traffic.level = memory * traffic.level + noise[pane]
            moved[pane] = traffic.level
        return traffic.draw(day, moved.T)

    return draw


def uneven(traffic: Traffic, day: int) -> Counts:
    """A load that is a hundred times as large in the busiest hour as in the quietest."""
    shape = 100.0 ** (0.5 + 0.5 * np.sin(2.0 * math.pi * traffic.clock(0.0)))
    return traffic.draw(day, load=traffic.plan.items_a_day / traffic.plan.panes * shape / shape.mean(-1, keepdims=True))


def batch(*, least: float, most: float, jitter_minutes: float) -> DrawDay:
    """Half an hour at night of items from elsewhere, beside the other traffic."""

    def draw(traffic: Traffic, day: int) -> Counts:
        plan, rng = traffic.plan, traffic.rng
        pane_hours = plan.pane_s / 3_600.0
        items = plan.items_a_day / 24.0 * BATCH_SHARE * rng.uniform(least, most, (plan.streams, 1))
        start = BATCH_HOUR + rng.uniform(-jitter_minutes, jitter_minutes, (plan.streams, 1)) / 60.0
        begin = np.arange(plan.panes)[None] * pane_hours
        overlap = np.minimum(begin + pane_hours, start + BATCH_HOURS) - np.maximum(begin, start)
        inside = np.clip(overlap, 0.0, None) / BATCH_HOURS
        other = np.repeat(np.roll(traffic.shares, 2, axis=1)[:, None], plan.panes, axis=1)
        counts: Counts = traffic.draw(day) + rng.multinomial(rng.poisson(items * inside), other)
        return counts

    return draw


def sticky(mean_run: int) -> DrawDay:
    """Items in runs of one class, of geometric length."""

    def draw(traffic: Traffic, day: int) -> Counts:
        plan, rng = traffic.plan, traffic.rng
        items = rng.poisson(traffic.load())
        classes = traffic.shares.shape[1]
        result = np.empty((plan.streams, plan.panes, classes), dtype=np.int64)
        for stream, (sizes, shares) in enumerate(zip(items, traffic.shares_at(day), strict=True)):
            total = int(sizes.sum())
            runs = int(total / mean_run + 8.0 * math.sqrt(total / mean_run)) + 50
            chance, lengths = rng.random(runs), rng.geometric(1.0 / mean_run, runs)
            panes = np.arange(plan.panes).repeat(sizes)
            begins = panes[np.minimum(np.cumsum(lengths) - lengths, total - 1)]
            classes_below = (chance[:, None] >= np.cumsum(shares, -1)[begins, :-1]).sum(-1)
            place = panes * classes + classes_below.repeat(lengths)[:total]
            result[stream] = np.bincount(place, minlength=plan.panes * classes).reshape(plan.panes, -1)
        return result

    return draw


def weekly_burst(traffic: Traffic, day: int) -> Counts:
    """Once a week, in ten minutes, thirty items of a rare class."""
    counts = traffic.draw(day)
    panes = max(1, round(600.0 / traffic.plan.pane_s))
    start = traffic.plan.panes // 2
    for stream in np.flatnonzero((traffic.weekdays + day) % 7 == 2):
        places = start + traffic.rng.integers(0, panes, 30)
        np.add.at(counts[stream, :, -1], places, 1)
    return counts


KINDS: Final = tuple(
    Kind(name=name, draw=draw, shares=shares, settled_after_days=days)
    for name, draw, shares, days in (
        ("independent", independent, four_classes, 3),
        ("runs of 5", sticky(5), four_classes, 3),
        ("runs of 20", sticky(20), four_classes, 3),
        ("runs of 200", sticky(200), four_classes, 3),
        ("daily ±.03", daily(0.03), four_classes, 3),
        ("daily ±.05", daily(0.05), four_classes, 3),
        ("daily ±.10", daily(0.10), four_classes, 3),
        ("square ±.05", square(0.05), four_classes, 3),
        ("weekend .06", week(rest(0.06, 5, 6)), four_classes, 14),
        ("weekend .06 and daily ±.06", week(rest(0.06, 5, 6), 0.06), four_classes, 14),
        ("weekend .06 in Sydney", week(rest(0.06, 5, 6), zone_hours=10.0), four_classes, 14),
        ("weekend .06 in India", week(rest(0.06, 5, 6), 0.05, zone_hours=5.5), four_classes, 14),
        ("weekend .06 in California", week(rest(0.06, 5, 6), 0.05, zone_hours=-8.0), four_classes, 14),
        ("Friday and Saturday .06", week(rest(0.06, 4, 5)), four_classes, 14),
        ("Sunday and Monday .06", week(rest(0.06, 6, 0)), four_classes, 14),
        ("Wednesday .06 and Sunday .06", week(rest(0.06, 2, 6)), four_classes, 14),
        ("Saturday .06, Sunday .12", week((0.0, 0.0, 0.0, 0.0, 0.0, 0.06, 0.12), 0.05), four_classes, 14),
        (
            "weekend .06 and daily ±.10, summer time",
            week(rest(0.06, 5, 6), 0.10, zone_hours=1.0, summer=(17, 100)),
            four_classes,
            14,
        ),
        ("weekend .06, two holidays", week(rest(0.06, 5, 6), holidays=(10, 22)), four_classes, 14),
        ("AR 6 h, sd .015", autoregressive(6.0, 0.015), four_classes, 3),
        ("AR 24 h, sd .02", autoregressive(24.0, 0.02), four_classes, 3),
        ("load 1:100", uneven, four_classes, 3),
        ("nightly batch", batch(least=0.8, most=1.2, jitter_minutes=10.0), four_classes, 3),
        ("nightly batch of 0 to 2 times its size", batch(least=0.0, most=2.0, jitter_minutes=30.0), four_classes, 10),
        ("99.9 to .1", independent, _rare_pair, 3),
        ("1,000 Zipf classes", independent, _zipf, 3),
        ("heavy tails", independent, _tail_bins, 3),
        ("weekly burst of a rare class", weekly_burst, _rare_class, 3),
    )
)
"""Every kind of quiet traffic of the acceptance table."""
