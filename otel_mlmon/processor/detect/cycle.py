"""The daily cycle of a stream: what its shares are at each time of the day, on weekdays and at weekends.

What repeats every day is neither drift nor bursts. Taken for bursts it makes φ, and with it what is forgiven, so large
that nothing is found any more. So the counts of whole days (UTC) are kept by slot of the day, and from the third day on
panes are judged against their own time of the day:

- The reference of slot s is r_s = (c_s + 200 p)/(n_s + 200), c_s its counts on all accepted days of that kind, p the
  shares of all of them. Slots are as narrow as the traffic of seven days allows: of 15 minutes where each has 3,000 φ
  items, else of an hour, with neighbours weighing e^(-1/2), e^-2 where even those have fewer.
- The null is the hull of the balls around the slots half an hour before, now and half an hour after, so that a cycle
  whose phase wanders is no drift. The distance to these widens the ball of the components that learn.
- What is not known of r_s is counted with the larger of φ and of the variance between days over that of independent
  items, hour by hour. φ itself is estimated on what the cycle leaves, counts less n (r_s - p).
- A slot that is restless from day to day (a nightly batch of another size each night) forgives
  ρ_s = 1.5 √((w_s - med w)/2) more where w_s, its variance between days beyond sampling, is above the median by 6
  robust standard deviations; what is near it, half an hour or one of wider slots, is included.
- While whole days of both kinds do not differ (F(1, D - 2) of their shares, p < .01) all of them make one model.
- A kind of day of which two are not known yet is judged by the other kind, .13 more is forgiven, and φ learns nothing.
- Before that, panes are judged by the reference without hours. It says nothing of other hours than its own, so .03 more
  is forgiven for each hour since the first pane, .13 at most. Where two days hold fewer than 1,000 φ items nothing can
  be said of their hours: there the reference without hours stays, and nothing more is forgiven.

A day is accepted only if it was whole (with items in three quarters of the slots that the fullest day before had; the
first day with any) and no evidence in it reached half of the alarm line; the first two, which were
judged by a reference without hours, also if their shares are within .15 of that. Five weekdays and two days of weekends
are, and then nothing changes any more: it never follows what it judges.

A reference that was not learned here, such as one of training data, has no hours. Then the cycle is laid around it:
r_s is its shares times r_s/p, normalised.

Measured, rivals and what they lost: docs/decisions.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.processor.detect.alternatives import set_sums
from otel_mlmon.processor.detect.bets import DayNull, SlotNull, compute_reference_variance
from otel_mlmon.processor.detect.cycle_statistics import (
    HOURS,
    QUARTERS,
    are_kinds_different,
    estimate_cell_effect,
    find_restless_slots,
    measure_daily_cycle,
)
from otel_mlmon.processor.detect.state import CycleDay, CycleState
from otel_mlmon.types import Floats, Ints

DAY_NS: Final = 86_400_000_000_000

MIN_DAYS: Final = 2
"""Whole days of a kind that must be known."""

MIN_FULL_SHARE: Final = 0.75
"""The share of the slots of the fullest day that a whole day has items in."""

MAX_DAYS: Final = (5, 2)
"""Days of each kind, weekdays and weekends, that are accepted; then the cycle is frozen."""

MIN_SLOT_ITEMS: Final = 3_000.0
"""Items over φ that a slot has in seven days."""

SHRINKAGE: Final = 200.0
"""The weight of all slots together in each of them, in items."""

FORGIVEN_UNKNOWN: Final = 0.13
"""What is forgiven beside the tolerance on a kind of day of which two are not known yet."""

FORGIVEN_INHERITED: Final = 0.03
"""What is forgiven beside the tolerance while the cycle is that of the version before."""

FORGIVEN_PER_HOUR: Final = 0.03
"""What is forgiven beside the tolerance for each hour since the first pane, while no cycle is known."""

MIN_KIND_ITEMS: Final = 1_000.0
"""Items over φ that the days of a kind have together."""

NEAR_REFERENCE: Final = 0.15
"""The total variation that the first days may be away from the reference without hours."""

_HULL_NS: Final = 1_800_000_000_000
_EPOCH_WEEKDAY: Final = 3
"""1 January 1970 was a Thursday."""


def start_cycle(start_ns: int, bins: tuple[str, ...]) -> CycleState:
    """Returns the state of the cycle of a stream whose first pane begins at `start_ns`."""
    today = np.zeros((QUARTERS, len(bins)), dtype=np.int64)
    return CycleState(bins=bins, first_ns=start_ns, day=start_ns // DAY_NS, today=today)


class KindModel(NamedTuple):
    """The shares of one kind of day by slot."""

    shares: Floats
    """Shape (slots, K)."""
    sizes: Floats
    """N by slot, shape (slots,)."""
    effect: float
    amplitude: float
    """Of the daily cycle; NaN where there is none."""


class DailyCycle:
    """Learns the cycle of one stream, and says what is no drift at a time of the day.

    Args:
        state: What was stored.
        reference: Shares of the reference without hours, shape (K,), above 0.
        reference_count: N of it.
        is_learned: Whether it was learned from the same traffic. The cycle is laid around any other.
        reference_ns: When it was begun to be learned, Unix nanoseconds; 0 if that is not known.
    """

    def __init__(
        self,
        state: CycleState,
        *,
        reference: Floats,
        reference_count: int,
        is_learned: bool,
        reference_ns: int = 0,
    ) -> None:
        self.state = state
        self._reference = reference
        self._reference_count = reference_count
        self._is_learned = is_learned
        self._reference_ns = reference_ns
        self._inherited_kinds: frozenset[int] = frozenset()
        self._models: dict[int, KindModel] = {}
        self._forgiven: Floats = np.zeros(0)
        self._null: tuple[tuple[int, ...], SlotNull] | None = None
        self._days: dict[int, DayNull | None] = {}
        """By kind."""
        self._fit()

    @property
    def is_known(self) -> bool:
        """Whether two whole days of a kind are known, of this version or of the version before."""
        return bool(self._models)

    @property
    def _is_own(self) -> bool:
        """Whether two whole days of a kind are known of this version."""
        return len(self._models) > len(self._inherited_kinds)

    def advance(self, start_ns: int, effect: float) -> bool:
        """Goes on to the day of a pane that starts at `start_ns`; returns whether a cycle is known for the first time.

        Args:
            start_ns: Unix nanoseconds.
            effect: φ of the stream.
        """
        state, day = self.state, start_ns // DAY_NS
        if day <= state.day:
            return False
        was_known, was_own = self.is_known, self._is_own
        kind = _kind_of(state.day)
        number = sum(day.kind == kind for day in state.days)
        is_whole = state.first_ns <= state.day * DAY_NS and self._is_full_day()
        is_accepted = state.is_quiet or (not was_known and self._is_near_reference())
        state.effect = effect
        state.whole_days += is_whole
        self._days.clear()
        if is_whole and is_accepted and number < MAX_DAYS[kind]:
            if not state.days and not state.inherited:
                self._choose_slots(effect)
            counts = state.today.reshape(state.slots, QUARTERS // state.slots, -1).sum(1)
            state.days.append(CycleDay(kind=kind, counts=counts))
            self._fit()
        state.day, state.is_quiet = day, True
        state.today = np.zeros_like(state.today)
        return self._is_own and not was_own

    def _is_full_day(self) -> bool:
        """Whether the day had items in most of the slots in which the fullest day before had any."""
        state = self.state
        slots = state.today.reshape(state.slots, QUARTERS // state.slots, -1).any(axis=(1, 2)).sum()
        most = max((day.counts.any(axis=1).sum() for day in state.days), default=1)
        return bool(slots >= MIN_FULL_SHARE * most)

    def add(self, start_ns: int, counts: Ints, *, is_quiet: bool) -> None:
        """Counts a pane of the present day, shape (K,)."""
        state = self.state
        if start_ns // DAY_NS == state.day:
            state.today[start_ns % DAY_NS * QUARTERS // DAY_NS] += counts
            state.is_quiet &= is_quiet

    def null(self, start_ns: int) -> SlotNull | None:
        """Returns what is no drift in a pane that starts at `start_ns`; None for what the reference alone has."""
        if not self._models:
            return self._build_early_null(start_ns)
        kind, slots = _kind_of(start_ns // DAY_NS), self.state.slots
        times_ns = (start_ns - _HULL_NS, start_ns, start_ns + _HULL_NS)
        places = tuple(time_ns % DAY_NS * slots // DAY_NS for time_ns in times_ns)
        key = (kind, *places)
        if self._null is None or self._null[0] != key:
            self._null = key, self._build_null(kind, list(places))
        return self._null[1]

    def day_null(self, start_ns: int) -> DayNull | None:
        """Returns what is no drift on the day of a pane that starts at `start_ns`, as the mean over its slots.

        While no cycle is known it is what will be forgiven within the day; None for what the reference alone has.
        """
        kind = _kind_of(start_ns // DAY_NS)
        if kind not in self._days:
            self._days[kind] = self._build_day_null(kind)
        return self._days[kind]

    def _build_day_null(self, kind: int) -> DayNull | None:
        if not self._models:
            if self._has_little_traffic:
                return None
            return DayNull(self._build_pooled_null(FORGIVEN_UNKNOWN), float(self._reference_count), is_known=False)
        is_known, slots = kind in self._models, self.state.slots
        model = self._models[kind if is_known else 1 - kind]
        reach = slots * _HULL_NS // DAY_NS or 1
        nulls = [
            self._build_null(kind, [(slot - reach) % slots, slot, (slot + reach) % slots]) for slot in range(slots)
        ]
        columns = SlotNull(*(np.mean(np.array(column), axis=0) for column in zip(*nulls, strict=True)))
        size = float(model.sizes.sum()) if self._is_learned else float(self._reference_count)
        return DayNull(columns._replace(is_known=is_known), size, is_known=is_known, amplitude=model.amplitude)

    def residuals(self) -> list[tuple[Ints, Floats]]:
        """Returns the counts of all slots of the accepted days, and what the other days of the kind let expect.

        The expectation is of independent items of the same number, scaled so that a difference varies as if the cycle
        were known.
        """
        pairs: list[tuple[Ints, Floats]] = []
        for kind in self._models.keys() - self._inherited_kinds:
            days = [day.counts for day in self.state.days if day.kind == kind]
            total = np.sum(days, axis=0)
            scale = np.sqrt((len(days) - 1) / len(days))
            for counts in days:
                others = (total - counts).astype(np.float64)
                pooled = (others.sum(0) + 0.5) / (others.sum() + others.shape[1] / 2.0)
                shares = (others + SHRINKAGE * pooled) / (others.sum(-1, keepdims=True) + SHRINKAGE)
                items = counts.sum(-1, keepdims=True)
                left = scale * (counts - items * shares)
                pairs += [(row, rest) for row, rest in zip(counts, left, strict=True) if row.any()]
        return pairs

    def _is_near_reference(self) -> bool:
        day = self.state.today.sum(0)
        distance = 0.5 * np.abs(day / day.sum() - self._reference).sum() if day.any() else 1.0
        return bool(distance <= NEAR_REFERENCE + np.sqrt(day.size / (4.0 * max(self._reference_count, 1))))

    def _choose_slots(self, effect: float) -> None:
        week = 7.0 * float(self.state.today.sum()) / max(effect, 1.0)
        self.state.slots = QUARTERS if week >= MIN_SLOT_ITEMS * QUARTERS else HOURS
        self.state.is_smoothed = week < MIN_SLOT_ITEMS * HOURS

    def _fit(self) -> None:
        """Makes the models of the kinds of day of which enough are known."""
        self._null = None
        self._days.clear()
        days = self.state.days
        counts = {kind: np.array([day.counts for day in days if day.kind == kind]) for kind in (0, 1)}
        self._models = {
            kind: self._fit_kind(table.astype(np.float64))
            for kind, table in counts.items()
            if len(table) >= MIN_DAYS and table.sum() >= MIN_KIND_ITEMS * self.state.effect
        }
        if len(self._models) == len(counts) and not are_kinds_different(*counts.values()):
            table = np.concatenate(list(counts.values())).astype(np.float64)
            self._models = dict.fromkeys(counts, self._fit_kind(table))
        self._inherit_models()
        if days and self._is_own:
            self._forgiven = find_restless_slots(np.array([day.counts for day in days], dtype=np.float64))

    def _inherit_models(self) -> None:
        """Makes models of the version before for the kinds of day of which too few are known."""
        days = self.state.inherited
        tables = {kind: [day.counts for day in days if day.kind == kind] for kind in {0, 1} - self._models.keys()}
        inherited = {
            kind: self._lay_around(np.array(table, dtype=np.float64))
            for kind, table in tables.items()
            if len(table) >= MIN_DAYS
        }
        self._inherited_kinds = frozenset(inherited)
        self._models |= inherited
        if inherited:
            self._forgiven = find_restless_slots(np.array([day.counts for day in days], dtype=np.float64))

    def _lay_around(self, table: Floats) -> KindModel:
        """Makes a model of the version before, shape (D, slots, K), laid around the reference of this one.

        The reference is of the hours in which it was learned; the cycle says what it would be at other times.
        """
        model = self._fit_kind(table)
        slots, first_ns = self.state.slots, self.state.first_ns
        shares = model.shares
        span_ns = first_ns - self._reference_ns
        if self._is_learned and self._reference_ns > 0 and span_ns < DAY_NS:
            times_ns = np.linspace(self._reference_ns, first_ns, QUARTERS).astype(np.int64)
            base = shares[times_ns % DAY_NS * slots // DAY_NS].mean(0)
        else:
            base = (shares * model.sizes[:, None]).sum(0) / model.sizes.sum()
        laid = shares / base * self._reference
        return model._replace(shares=laid / laid.sum(-1, keepdims=True))

    def _fit_kind(self, table: Floats) -> KindModel:
        """Makes a model of the counts of some days, shape (D, slots, K)."""
        counts = table.sum(0)
        pooled = (counts.sum(0) + 0.5) / (counts.sum() + counts.shape[1] / 2.0)
        items = counts.sum(-1)
        if self.state.is_smoothed:
            weights = np.zeros(counts.shape[0])
            weights[[0, 1, -1, 2, -2]] = np.exp([0.0, -0.5, -0.5, -2.0, -2.0])
            kernel = np.stack([np.roll(weights, slot) for slot in range(weights.size)])
            smooth = kernel @ counts
            effective = smooth.sum(-1) ** 2 / np.maximum(kernel**2 @ items, 1e-9)
            counts = smooth * (effective / np.maximum(smooth.sum(-1), 1e-9))[:, None]
            items = effective
        shares = (counts + SHRINKAGE * pooled) / (items[:, None] + SHRINKAGE)
        if not self._is_learned:
            shares = shares / pooled * self._reference
            shares /= shares.sum(-1, keepdims=True)
        return KindModel(shares, items + SHRINKAGE, estimate_cell_effect(table), measure_daily_cycle(table))

    def _build_early_null(self, start_ns: int) -> SlotNull | None:
        state = self.state
        quarters = (start_ns - state.first_ns) * QUARTERS // DAY_NS
        forgiven = min(FORGIVEN_UNKNOWN, FORGIVEN_PER_HOUR * quarters / 4.0)
        if self._has_little_traffic or forgiven <= 0.0:
            return None
        key = (-1, min(quarters, QUARTERS))
        if self._null is None or self._null[0] != key:
            self._null = key, self._build_pooled_null(forgiven)
        return self._null[1]

    @property
    def _has_little_traffic(self) -> bool:
        """Whether two days of a kind were whole, and hold too few items to say anything of hours."""
        kinds = [day.kind for day in self.state.days]
        return not self._models and max(map(kinds.count, kinds), default=0) >= MIN_DAYS

    def _build_pooled_null(self, forgiven: float) -> SlotNull:
        """Builds what is no drift while nothing is known of the hours."""
        shares, total = self._reference, float(self._reference_count)
        sums, variance = set_sums(shares[None])[0], compute_reference_variance(shares, total)
        return SlotNull(shares, sums, sums, 0.0, variance, total, 1.0, forgiven, is_known=True)

    def _build_null(self, kind: int, places: list[int]) -> SlotNull:
        is_known = kind in self._models
        kind = kind if is_known else 1 - kind
        model = self._models[kind]
        points = model.shares[places]
        sums = set_sums(points)
        size = float(model.sizes[places[1]])
        is_inherited = kind in self._inherited_kinds
        if not self._is_learned or is_inherited:
            size = 1.0 / (1.0 / size + 1.0 / max(self._reference_count, 1))
        shares = points[1]
        return SlotNull(
            shares=shares,
            highest=sums.max(0),
            lowest=sums.min(0),
            width=float(0.5 * np.abs(points - shares).sum(-1).max()),
            variance=compute_reference_variance(shares, size),
            size=size,
            effect=model.effect,
            forgiven=float(self._forgiven[places].max())
            + (FORGIVEN_UNKNOWN if not is_known else FORGIVEN_INHERITED if is_inherited else 0.0),
            is_known=is_known,
        )


def _kind_of(day: int) -> int:
    """Returns 1 for a Saturday or Sunday (UTC), 0 for another day, counted from 1970."""
    return int((day + _EPOCH_WEEKDAY) % 7 >= 5)
