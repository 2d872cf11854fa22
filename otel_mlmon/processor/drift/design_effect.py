"""The design effect φ: by how much the shares of a stream vary more than those of independent items would.

Items come in bursts (sessions, video frames, batches). n items of design effect φ tell as much as n/φ
independent ones, so the evidence counts in those. φ is found from the live counts themselves: for a block of
n items with shares s after blocks whose fading mean of n' items has shares s', and long-run shares p,

    |s - s'|² / ((1/n + 1/n') Σ p_k (1 - p_k))

is φ on average. Each block counts half as much in the mean as the one after it, so differences hardly see a slow
drift; an eighth of them, the largest, is left out, and those that straddle the begin or the end of an alarm are
forgotten, so neither does an abrupt one count. What the trimming takes away without any burst is known from the
chi-squared law with ν = (Σλ)²/Σλ² degrees of freedom, λ the eigenvalues of diag(r) - r rᵀ, and is given back.

Bursts longer than a block hide from it, so blocks of 50·4^j items are tried. From the smallest to the largest, each
level raises φ, beginning at 1, as far as its m differences show that it is larger: an estimate of x times what the
levels below it say counts with the probability that it is, from the likelihood ratio exp(-h/2 (x - 1 - ln x)) of
chi-squared with h = .8 ν m degrees of freedom, prior odds of 2/φ that it is not (bursts mostly outlast small blocks),
and a prior with the weight of one difference. Above the first level the one below stands for 16 more differences. So
independent items are at 1.0 to 1.1 while few differences are known, and bursts at their φ.

An estimate from few differences may be half of the truth, and bets with counts over half of φ are false alarms. By
a variance estimated with h degrees of freedom, h/2 (e^(2E/h) - 1) nats are as rare as E nats are by the true one
(Student's t beside the normal law). So counts are divided by 1 + (φ - 1) (e^x - 1)/x with x = 2E/h and E = ln 10⁴:
the excess counts 1.8 times at 8 differences of four classes, and 1.07 times at 64. Where nothing bursts, nothing is
lost by it.

Many streams are kept together, one a row, and taken in together; a row's φ does not depend on the others.

Source: Kish, Survey Sampling, 1965 (design effect); von Neumann, The mean square successive difference, 1941;
Satterthwaite, 1946 (the degrees of freedom); Kass and Wasserman, JASA 1995 (a prior worth one observation).
Choice: with one block before instead of the fading mean, and a quarter left out, as many differences know a third less.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from otel_mlmon.processor.drift.rows import Rows

BLOCK_SIZES: Final = tuple(50 * 4**level for level in range(6))
"""Items a block holds at least, by level: 50 … 51,200."""

MIN_DIFFERENCES: Final = 8
"""A level says nothing before it has this many."""

MIN_FREEDOM: Final = 15.0
"""φ is not believed before a level's differences have as many degrees of freedom: of two bins 19, of four 8."""

MAX_DIFFERENCES: Final = 64
"""The latest that a level remembers."""

CALIBRATION_ITEMS: Final = 1_000
"""Items before φ is believed, and a level with enough differences besides."""

PRIOR_DIFFERENCES: Final = 16
"""How many differences the level below stands for."""

MIN_EFFECTIVE_ITEMS: Final = 200.0
"""φ is not believed either before items/φ has reached this: with long bursts 1,000 items are few."""

PRIOR_ITEMS: Final = 20.0
"""What the reference weighs in the long-run shares p."""

MEMORY_ITEMS: Final = 10_000.0
"""Half-life of the long-run shares p."""

LEFT_OUT: Final = 8
"""One in so many differences begun is left out: the largest."""

FADING: Final = 0.5
"""What a block counts in the mean of those before, of what the one after it does."""

EFFICIENCY: Final = 0.8
"""What a difference knows, of ν independent squares: less, since neighbours share blocks and the largest are left out.

Measured: .71 to .88 with three bins or more, .59 to .72 with two."""

ODDS: Final = 2.0
"""Prior odds that items are independent; where φ is larger, over φ, that larger blocks show nothing new."""

DOUBT_NATS: Final = math.log(1e4)
"""The evidence E that must be no more frequent than if φ were known."""

_LEVELS: Final = len(BLOCK_SIZES)
_AGE: Final = np.arange(MAX_DIFFERENCES, 0, -1)
"""Place of a difference counted from the latest, which is 1."""

_KEPT: Final = np.array([count - math.ceil(count / LEFT_OUT) for count in range(MAX_DIFFERENCES + 1)])
"""How many differences are averaged, by how many there are."""

Index = NDArray[np.intp]
Numbers = NDArray[np.float64]


class DesignEffects:
    """φ of many streams of K bins, from their past.

    Memory: 64 numbers and two count vectors a level and stream.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._rows = Rows(
            freedom=((), np.float64),
            trimmed_away=((MAX_DIFFERENCES + 1,), np.float64),
            long_run=((bins,), np.float64),
            long_run_items=((), np.float64),
            items=((), np.float64),
            blocks=((_LEVELS, bins), np.float64),
            block_items=((_LEVELS,), np.float64),
            previous=((_LEVELS, bins), np.float64),
            previous_items=((_LEVELS,), np.float64),
            previous_squares=((_LEVELS,), np.float64),
            differences=((_LEVELS, MAX_DIFFERENCES), np.float64),
            known=((_LEVELS,), np.int64),
            unsettled=((_LEVELS,), np.int64),
            estimates=((_LEVELS,), np.float64),
            likely=((), np.float64),
            value=((), np.float64),
            is_known=((), np.bool_),
        )

    @property
    def value(self) -> Numbers:
        """What counts are divided by, by row: φ and what is to be added for not knowing it well, 1 or above."""
        return self._rows["value"]

    @property
    def likely(self) -> Numbers:
        """φ by row, 1 or above, never above `value`."""
        return self._rows["likely"]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """By row: whether enough has been seen to count with `value`; stays so."""
        return self._rows["is_known"]

    @property
    def estimates(self) -> Numbers:
        """φ as each level has it, shape (rows, 6); NaN while it has too few differences."""
        return self._rows["estimates"]

    def start(self, row: int, reference: Numbers) -> None:
        """Begin anew in `row`, with shares of shape (K,), above 0, that sum to 1."""
        self._rows.clear(row)
        squares = float((reference**2).sum())
        cubes = float((reference**3).sum())
        trace_of_square = squares - 2.0 * cubes + squares**2
        freedom = (1.0 - squares) ** 2 / trace_of_square if trace_of_square > 0.0 else 1.0
        self._rows["freedom"][row] = freedom
        self._rows["trimmed_away"][row] = _trimmed_away(freedom)
        self._rows["long_run"][row] = reference * PRIOR_ITEMS
        self._rows["long_run_items"][row] = PRIOR_ITEMS
        self._rows["estimates"][row] = np.nan
        self._rows["likely"][row] = self._rows["value"][row] = 1.0

    def add(self, rows: Index, counts: Numbers, items: Numbers) -> None:
        """Take in one pane of each of `rows`: counts of shape (S, K) and their sums, above 0."""
        data = self._rows
        data["items"][rows] += items
        decay = np.exp2(-items / MEMORY_ITEMS)
        data["long_run"][rows] = data["long_run"][rows] * decay[:, None] + counts
        data["long_run_items"][rows] = data["long_run_items"][rows] * decay + items
        changed = np.zeros(len(rows), dtype=bool)
        at, block, block_items = np.arange(len(rows)), counts, items
        for level in range(self._first_level(rows, float(items.min())), _LEVELS):
            size = BLOCK_SIZES[level]
            row = rows[at]
            block = data["blocks"][row, level] + block
            block_items = data["block_items"][row, level] + block_items
            is_full = block_items >= size
            if is_full.all():
                data["blocks"][row, level] = 0.0
                data["block_items"][row, level] = 0.0
            else:
                data["blocks"][row, level] = np.where(is_full[:, None], 0.0, block)
                data["block_items"][row, level] = np.where(is_full, 0.0, block_items)
                at, block, block_items = at[is_full], block[is_full], block_items[is_full]
            if not at.size:
                break
            changed[at[self._compare(rows[at], level, block, block_items)]] = True
        if changed.any():
            self._conclude(rows[changed])
        young = rows[~data["is_known"][rows] & (data["items"][rows] >= CALIBRATION_ITEMS)]
        if young.size:
            data["is_known"][young] = self._are_settled(young)

    def follow(self, rows: Index, is_still: NDArray[np.bool_], has_turned: NDArray[np.bool_]) -> None:
        """Forget what straddles the begin or the end of a drift: no burst, but two laws.

        Args:
            rows: Those that `add` was called with, or more.
            is_still: Whether all that was added so far, since it last turned, is of one law.
            has_turned: Whether a drift began or ended since it was last still.
        """
        data = self._rows
        for row in rows[has_turned]:
            known, unsettled = data["known"][row], data["unsettled"][row]
            # A level goes on to say something: without it bursts would be thought gone.
            gone = np.minimum(unsettled, np.where(known >= MIN_DIFFERENCES, known - MIN_DIFFERENCES, known))
            for level in np.flatnonzero(gone):
                data["differences"][row, level] = np.roll(data["differences"][row, level], gone[level])
            data["known"][row] = known - gone
            data["blocks"][row] = data["block_items"][row] = data["previous_items"][row] = 0.0
            self._estimate_all(np.array([row]))
        data["unsettled"][rows[is_still | has_turned]] = 0

    def go_on(self, row: int, before: DesignEffects, before_row: int) -> None:
        """Know in `row` what was known over other bins of the same stream: φ is of the items, so differences hold."""
        for name in ("items", "is_known", "differences", "known", "unsettled"):
            self._rows[name][row] = before._rows[name][before_row]
        self._estimate_all(np.array([row]))

    def to_state(self, row: int) -> dict[str, Any]:
        """As JSON has it."""
        data = self._rows
        known = data["known"][row].tolist()
        # Of a level without a previous block, what is left of an older one has no meaning.
        previous_items = data["previous_items"][row]
        is_there = previous_items > 0.0
        previous = np.where(is_there[:, None], data["previous"][row], 0.0)
        previous_squares = np.where(is_there, data["previous_squares"][row], 0.0)
        return {
            "items": float(data["items"][row]),
            "is_known": bool(data["is_known"][row]),
            "long_run": [data["long_run"][row].tolist(), float(data["long_run_items"][row])],
            "blocks": [data["blocks"][row].tolist(), data["block_items"][row].tolist()],
            "previous": [previous.tolist(), previous_items.tolist(), previous_squares.tolist()],
            "unsettled": data["unsettled"][row].tolist(),
            "differences": [
                level[MAX_DIFFERENCES - count :].tolist()
                for level, count in zip(data["differences"][row], known, strict=True)
            ],
        }

    def restore(self, row: int, reference: Numbers, state: dict[str, Any]) -> None:
        """Put what `to_state` gave into `row`, with the same reference."""
        self.start(row, reference)
        data = self._rows
        data["items"][row] = state["items"]
        data["is_known"][row] = state["is_known"]
        data["long_run"][row], data["long_run_items"][row] = state["long_run"]
        data["blocks"][row], data["block_items"][row] = state["blocks"]
        data["previous"][row], data["previous_items"][row], data["previous_squares"][row] = state["previous"]
        data["unsettled"][row] = state["unsettled"]
        for level, differences in enumerate(state["differences"]):
            data["known"][row, level] = len(differences)
            data["differences"][row, level, MAX_DIFFERENCES - len(differences) :] = differences
        self._estimate_all(np.array([row]))

    def _first_level(self, rows: Index, least_items: float) -> int:
        """The lowest level that panes of so many items do not just pass through."""
        level = 0
        while level + 1 < _LEVELS and least_items >= BLOCK_SIZES[level + 1]:
            level += 1
        data = self._rows
        is_held = data["block_items"][rows, :level].any() or data["previous_items"][rows, :level].any()
        return 0 if is_held else level

    def _compare(self, rows: Index, level: int, block: Numbers, items: Numbers) -> NDArray[np.bool_]:
        """Take a full block of each row; true where it made a difference to those before known."""
        data = self._rows
        # A block that is large enough for the next level would only repeat there what it says here.
        is_own: NDArray[np.bool_] = (
            items < BLOCK_SIZES[level + 1] if level + 1 < _LEVELS else np.ones(len(rows), dtype=bool)
        )
        before_items = data["previous_items"][rows, level]
        faded = np.where(before_items > 0.0, FADING, 0.0)
        data["previous_items"][rows, level] = np.where(is_own, before_items * faded + items, 0.0)
        if not is_own.any():
            return is_own
        before, squares = data["previous"][rows, level], data["previous_squares"][rows, level]
        data["previous"][rows, level] = before * faded[:, None] + block
        data["previous_squares"][rows, level] = squares * faded**2 + items
        is_pair: NDArray[np.bool_] = is_own & (before_items > 0.0)
        if not is_pair.all():
            rows, block, items = rows[is_pair], block[is_pair], items[is_pair]
            before, before_items, squares = before[is_pair], before_items[is_pair], squares[is_pair]
        if not rows.size:
            return is_pair
        difference = block / items[:, None] - before / before_items[:, None]
        spread = 1.0 - (data["long_run"][rows] ** 2).sum(-1) / data["long_run_items"][rows] ** 2
        expected = (1.0 / items + squares / before_items**2) * spread
        # With all mass in one bin nothing can vary.
        is_varied = expected > 0.0
        latest = np.where(is_varied, (difference**2).sum(-1) / np.where(is_varied, expected, 1.0), 0.0)
        held = data["differences"][rows, level]
        data["differences"][rows, level] = np.concatenate([held[:, 1:], latest[:, None]], axis=-1)
        data["known"][rows, level] = np.minimum(data["known"][rows, level] + 1, MAX_DIFFERENCES)
        data["unsettled"][rows, level] += 1
        self._estimate(rows, level)
        return is_pair

    def _estimate_all(self, rows: Index) -> None:
        """After what is known has been changed."""
        for level in range(_LEVELS):
            self._estimate(rows, level)
        self._conclude(rows)

    def _estimate(self, rows: Index, level: int) -> None:
        data = self._rows
        usable = data["known"][rows, level]
        is_enough = usable >= MIN_DIFFERENCES
        if not is_enough.all():
            rows, usable = rows[is_enough], usable[is_enough]
        if not rows.size:
            return
        kept = _KEPT[usable]
        recent = np.where(usable[:, None] >= _AGE, data["differences"][rows, level], np.inf)
        recent.sort(-1)
        smallest = np.add.accumulate(recent, -1)[np.arange(len(rows)), kept - 1]
        data["estimates"][rows, level] = smallest / kept / data["trimmed_away"][rows, usable]

    def _conclude(self, rows: Index) -> None:
        """From the smallest blocks to the largest, each as far as it is above those before."""
        data = self._rows
        estimates, known = data["estimates"][rows], data["known"][rows]
        is_there = ~np.isnan(estimates)
        likely, value = np.ones(len(rows)), np.ones(len(rows))
        has_below = np.zeros(len(rows), dtype=bool)
        for level in np.flatnonzero(is_there.any(0)):
            differences = known[:, level] + np.where(has_below, PRIOR_DIFFERENCES, 0)
            has_below |= is_there[:, level]
            estimate = np.where(is_there[:, level], estimates[:, level], likely)
            # The level below stands for the differences that are not this one's own.
            estimate = likely + known[:, level] / np.maximum(differences, 1) * (estimate - likely)
            freedom = EFFICIENCY * data["freedom"][rows] * np.maximum(differences, 1)
            ratio = np.maximum(estimate / likely, 1.0)
            against = ODDS / likely * np.sqrt(freedom) * np.exp(-0.5 * freedom * (ratio - 1.0 - np.log(ratio)))
            weight = np.where(is_there[:, level], 1.0 / (1.0 + against), 0.0)
            doubt = 2.0 * DOUBT_NATS / freedom
            cautious = 1.0 + np.maximum(estimate - 1.0, 0.0) * np.expm1(doubt) / doubt
            value += np.maximum(cautious - value, 0.0) * weight
            likely += np.maximum(estimate - likely, 0.0) * weight
        data["likely"][rows] = likely
        data["value"][rows] = value

    def _are_settled(self, rows: Index) -> NDArray[np.bool_]:
        """Whether the items seen are enough for the largest plain mean, which no burst can hide from."""
        data = self._rows
        known = data["known"][rows]
        sums = data["differences"][rows].sum(-1)
        is_told = (known >= MIN_DIFFERENCES) & (EFFICIENCY * data["freedom"][rows, None] * known >= MIN_FREEDOM)
        means = np.where(is_told, sums / np.maximum(known, 1), -np.inf).max(-1)
        settled: NDArray[np.bool_] = np.isfinite(means) & (data["items"][rows] >= MIN_EFFECTIVE_ITEMS * means)
        return settled


def trimmed_mean_of_chi_squared(freedom: float, kept: Numbers) -> Numbers:
    """The mean of the smallest shares `kept`, in (0, 1), of a chi-squared variable over its degrees of freedom."""
    cut = gammaincinv(freedom / 2.0, kept)
    mean: Numbers = gammainc(freedom / 2.0 + 1.0, cut) / kept
    return mean


def _trimmed_away(freedom: float) -> Numbers:
    """What the trimming leaves of the mean, by how many differences there are; from `MIN_DIFFERENCES` on of meaning."""
    counts = np.maximum(np.arange(MAX_DIFFERENCES + 1), MIN_DIFFERENCES)
    # The kth smallest of m is at about (k + 1/3)/m of the law; exact to 2 % of the mean from three bins on.
    return trimmed_mean_of_chi_squared(freedom, (_KEPT[counts] + 1.0 / 3.0) / counts)
