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

from otel_mlmon.processor.detect.arrays import Place, Rows, in_one_piece
from otel_mlmon.types import Floats, Indices

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
_REPEATED_FROM: Final = (*BLOCK_SIZES[1:], math.inf)
"""By level, the size from which a block would only repeat at the next level what it says here."""
_AGE: Final = np.arange(MAX_DIFFERENCES, 0, -1)
"""Place of a difference counted from the latest, which is 1."""

_KEPT: Final = np.array([count - math.ceil(count / LEFT_OUT) for count in range(MAX_DIFFERENCES + 1)])
"""How many differences are averaged, by how many there are."""


class DesignEffects:
    """φ of many streams of K bins, from their past.

    Memory: 70 numbers and two count vectors a level and stream.

    A block is kept as its K counts, its items n, and n again: in the mean of the blocks before, these become
    Σ w c, Σ w n and Σ w² n, w the weights that fade, and (Σ w² n)/(Σ w n)² is 1/n' of that mean.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._fading = np.array([FADING] * (bins + 1) + [FADING**2])
        self._rows = Rows(
            freedom=((), np.float64),
            trimmed=((MAX_DIFFERENCES + 1,), np.float64),
            long_run=((bins + 1,), np.float64),
            items=((), np.float64),
            blocks=((_LEVELS, bins + 2), np.float64),
            previous=((_LEVELS, bins + 2), np.float64),
            differences=((_LEVELS, MAX_DIFFERENCES), np.float64),
            known=((_LEVELS,), np.int64),
            unsettled=((_LEVELS,), np.int64),
            estimates=((_LEVELS,), np.float64),
            knowledge=((4, _LEVELS), np.float64),
            likely=((), np.float64),
            value=((), np.float64),
            is_known=((), np.bool_),
        )

    @property
    def value(self) -> Floats:
        """What counts are divided by, by row: φ and what is to be added for not knowing it well, 1 or above."""
        return self._rows["value"]

    @property
    def likely(self) -> Floats:
        """φ by row, 1 or above, never above `value`."""
        return self._rows["likely"]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """By row: whether enough has been seen to count with `value`; stays so."""
        return self._rows["is_known"]

    @property
    def estimates(self) -> Floats:
        """φ as each level has it, shape (rows, 6); NaN while it has too few differences."""
        return np.where(self._rows["known"] >= MIN_DIFFERENCES, self._rows["estimates"], np.nan)

    def start(self, row: int, reference: Floats) -> None:
        """Begin anew in `row`, with shares of shape (K,), above 0, that sum to 1."""
        self._rows.clear(row)
        squares = float((reference**2).sum())
        cubes = float((reference**3).sum())
        trace_of_square = squares - 2.0 * cubes + squares**2
        freedom = (1.0 - squares) ** 2 / trace_of_square if trace_of_square > 0.0 else 1.0
        self._rows["freedom"][row] = freedom
        self._rows["trimmed"][row] = _KEPT * _trimmed_away(freedom)
        self._rows["long_run"][row, :-1] = reference * PRIOR_ITEMS
        self._rows["long_run"][row, -1] = PRIOR_ITEMS
        # What is not known is never among the smallest.
        self._rows["differences"][row] = np.inf
        self._rows["likely"][row] = self._rows["value"][row] = 1.0

    def add(self, rows: Indices, counts: Floats, items: Floats) -> None:
        """Take in one pane of each of `rows`: counts of shape (S, K) and their sums, above 0."""
        data, at = self._rows, in_one_piece(rows)
        block = np.empty((len(rows), self._bins + 2))
        block[:, : self._bins] = counts
        block[:, self._bins :] = items[:, None]
        data["items"][at] += items
        data["long_run"][at] *= np.exp2(items / -MEMORY_ITEMS)[:, None]
        data["long_run"][at] += block[:, :-1]
        self._fill(rows, at, block)
        if not data["is_known"][at].all():
            young = rows[~data["is_known"][at] & (data["items"][at] >= CALIBRATION_ITEMS)]
            data["is_known"][young] = self._are_settled(young)

    def follow(self, rows: Indices, is_still: NDArray[np.bool_], has_turned: NDArray[np.bool_]) -> None:
        """Forget what straddles the begin or the end of a drift: no burst, but two laws.

        Args:
            rows: Those that `add` was called with, or more.
            is_still: Whether all that was added so far, since it last turned, is of one law.
            has_turned: Whether a drift began or ended since it was last still.
        """
        data = self._rows
        for row in rows[has_turned] if has_turned.any() else ():
            known, unsettled = data["known"][row], data["unsettled"][row]
            # A level goes on to say something: without it bursts would be thought gone.
            gone = np.minimum(unsettled, np.where(known >= MIN_DIFFERENCES, known - MIN_DIFFERENCES, known))
            for level in np.flatnonzero(gone):
                rest = data["differences"][row, level, : -gone[level]]
                data["differences"][row, level] = np.concatenate([np.full(gone[level], np.inf), rest])
            data["known"][row] = known - gone
            data["blocks"][row] = data["previous"][row] = 0.0
            self._estimate_all(row)
        data["unsettled"][rows[is_still | has_turned]] = 0

    def go_on(self, row: int, before: DesignEffects, before_row: int) -> None:
        """Know in `row` what was known over other bins of the same stream: φ is of the items, so differences hold."""
        for name in ("items", "is_known", "differences", "known", "unsettled"):
            self._rows[name][row] = before._rows[name][before_row]
        self._estimate_all(row)

    def to_state(self, row: int) -> dict[str, Any]:
        """As JSON has it."""
        data = self._rows
        known = data["known"][row].tolist()
        blocks, previous = data["blocks"][row], data["previous"][row]
        return {
            "items": float(data["items"][row]),
            "is_known": bool(data["is_known"][row]),
            "long_run": [data["long_run"][row, :-1].tolist(), float(data["long_run"][row, -1])],
            "blocks": [blocks[:, :-2].tolist(), blocks[:, -2].tolist()],
            "previous": [previous[:, :-2].tolist(), previous[:, -2].tolist(), previous[:, -1].tolist()],
            "unsettled": data["unsettled"][row].tolist(),
            "differences": [
                level[MAX_DIFFERENCES - count :].tolist()
                for level, count in zip(data["differences"][row], known, strict=True)
            ],
        }

    def restore(self, row: int, reference: Floats, state: dict[str, Any]) -> None:
        """Put what `to_state` gave into `row`, with the same reference."""
        self.start(row, reference)
        data = self._rows
        data["items"][row] = state["items"]
        data["is_known"][row] = state["is_known"]
        data["long_run"][row, :-1], data["long_run"][row, -1] = state["long_run"]
        blocks, previous = data["blocks"][row], data["previous"][row]
        blocks[:, :-2], blocks[:, -2] = state["blocks"]
        blocks[:, -1] = blocks[:, -2]
        previous[:, :-2], previous[:, -2], previous[:, -1] = state["previous"]
        data["unsettled"][row] = state["unsettled"]
        for level, differences in enumerate(state["differences"]):
            data["known"][row, level] = len(differences)
            data["differences"][row, level, MAX_DIFFERENCES - len(differences) :] = differences
        self._estimate_all(row)

    def _fill(self, rows: Indices, at: Place, block: Floats) -> None:
        """Add to the blocks of each level what the level below it was full with, the panes at the lowest."""
        blocks, grown, concluded = self._rows["blocks"], False, rows[:0]
        lowest = self._first_level(at, float(block[:, -1].min()))
        for level in range(lowest, _LEVELS):
            block = blocks[at, level] + block
            is_full = block[:, -1] >= BLOCK_SIZES[level]
            blocks[at, level] = np.where(is_full[:, None], 0.0, block)
            if not is_full.all():
                at = rows = rows[is_full]
                block = block[is_full]
            if not rows.size:
                break
            if level == lowest:
                concluded = rows
            grown |= self._compare(rows, at, level, block)
        if grown:
            self._weigh(concluded)
        if concluded.size:
            self._conclude(in_one_piece(concluded))

    def _first_level(self, at: Place, least_items: float) -> int:
        """The lowest level that panes of so many items do not just pass through."""
        level = 0
        while least_items >= _REPEATED_FROM[level]:
            level += 1
        data = self._rows
        return 0 if data["blocks"][at, :level, -1].any() or data["previous"][at, :level, -1].any() else level

    def _compare(self, rows: Indices, at: Place, level: int, block: Floats) -> bool:
        """Take a full block of each row, at `at`; true where any row has more differences to those before now."""
        before = self._rows["previous"][at, level]
        is_own = block[:, -1] < _REPEATED_FROM[level]
        is_pair = is_own & (before[:, -1] > 0.0)
        grown = False
        if is_pair.all():
            grown = self._differ(rows, at, level, block, before)
        elif is_pair.any():
            grown = self._differ(rows[is_pair], rows[is_pair], level, block[is_pair], before[is_pair])
        mean = before * self._fading
        mean += block
        mean[~is_own] = 0.0
        self._rows["previous"][at, level] = mean
        return grown

    def _differ(self, rows: Indices, at: Place, level: int, block: Floats, before: Floats) -> bool:
        """Remember the differences of blocks to those before; true where any row has more of them now."""
        data = self._rows
        items, before_items = block[:, -2:-1], before[:, -2:-1]
        difference = block[:, :-2] / items
        difference -= before[:, :-2] / before_items
        difference *= difference
        shares = data["long_run"][at, :-1] / data["long_run"][at, -1:]
        shares *= shares
        expected = (1.0 / items + before[:, -1:] / (before_items * before_items))[:, 0]
        expected *= 1.0 - np.add.reduce(shares, -1)
        # With all mass in one bin nothing can vary.
        latest = np.zeros(len(rows))
        np.divide(np.add.reduce(difference, -1), expected, out=latest, where=expected > 0.0)
        data["differences"][at, level, :-1] = data["differences"][at, level, 1:]
        data["differences"][at, level, -1] = latest
        data["unsettled"][at, level] += 1
        known = data["known"][at, level]
        grown = bool(known.min() < MAX_DIFFERENCES)
        if grown:
            data["known"][at, level] = np.minimum(known + 1, MAX_DIFFERENCES)
        self._estimate(rows, at, level)
        return grown

    def _estimate_all(self, row: int) -> None:
        """After what is known has been changed."""
        rows = np.array([row])
        for level in range(_LEVELS):
            self._estimate(rows, rows, level)
        self._weigh(rows)
        self._conclude(rows)

    def _estimate(self, rows: Indices, at: Place, level: int) -> None:
        data = self._rows
        known = data["known"][at, level]
        is_enough = known >= MIN_DIFFERENCES
        if not is_enough.all():
            at = rows = rows[is_enough]
            known = known[is_enough]
        if not rows.size:
            return
        recent = np.sort(data["differences"][at, level], -1)
        np.add.accumulate(recent, -1, out=recent)
        data["estimates"][at, level] = recent[np.arange(len(rows)), _KEPT[known] - 1] / data["trimmed"][rows, known]

    def _weigh(self, at: Place) -> None:
        """What follows for each level from how many differences are known, and not from what they are."""
        data = self._rows
        known = data["known"][at]
        is_there = known >= MIN_DIFFERENCES
        has_below = np.zeros(is_there.shape, dtype=bool)
        np.logical_or.accumulate(is_there[:, :-1], -1, out=has_below[:, 1:])
        differences = np.maximum(known + PRIOR_DIFFERENCES * has_below, 1)
        freedom = EFFICIENCY * data["freedom"][at, None] * differences
        doubt = 2.0 * DOUBT_NATS / freedom
        knowledge = data["knowledge"]
        # The level below stands for the differences that are not this one's own.
        knowledge[at, 0] = np.where(is_there, known / differences, 0.0)
        knowledge[at, 1] = 0.5 * freedom
        knowledge[at, 2] = np.where(is_there, ODDS * np.sqrt(freedom), np.inf)
        knowledge[at, 3] = np.expm1(doubt) / doubt

    def _conclude(self, at: Place) -> None:
        """From the smallest blocks to the largest, each as far as it is above those before."""
        data = self._rows
        share, half_freedom, odds, caution = data["knowledge"][at].transpose(1, 2, 0)
        excess = data["estimates"][at].T - 1.0
        # φ - 1, and M (φ - 1), which is what is added for not knowing φ well besides.
        likely, cautious = np.zeros(excess.shape[1]), np.zeros(excess.shape[1])
        for level in np.flatnonzero(share.any(-1)).tolist():
            more = share[level] * (excess[level] - likely)
            doubtful = (likely + more) * caution[level]
            np.maximum(more, 0.0, out=more)
            effect = likely + 1.0
            ratio = more / effect
            # 1 / (1 + ODDS/φ √h exp(-h/2 (x - 1 - ln x))), x = 1 + ratio, is the probability that φ is larger.
            against = np.log1p(ratio) - ratio
            against *= half_freedom[level]
            np.exp(against, out=against)
            against *= odds[level]
            against /= effect
            against += 1.0
            doubtful -= cautious
            cautious += np.maximum(doubtful, 0.0) / against
            likely += more / against
        data["likely"][at] = 1.0 + likely
        data["value"][at] = 1.0 + cautious

    def _are_settled(self, rows: Indices) -> NDArray[np.bool_]:
        """Whether the items seen are enough for the largest plain mean, which no burst can hide from."""
        data = self._rows
        known = data["known"][rows]
        sums = np.where(known[..., None] >= _AGE, data["differences"][rows], 0.0).sum(-1)
        is_told = (known >= MIN_DIFFERENCES) & (EFFICIENCY * data["freedom"][rows, None] * known >= MIN_FREEDOM)
        means = np.where(is_told, sums / np.maximum(known, 1), -np.inf).max(-1)
        settled: NDArray[np.bool_] = np.isfinite(means) & (data["items"][rows] >= MIN_EFFECTIVE_ITEMS * means)
        return settled


def trimmed_mean_of_chi_squared(freedom: float, kept: Floats) -> Floats:
    """The mean of the smallest shares `kept`, in (0, 1), of a chi-squared variable over its degrees of freedom."""
    cut = gammaincinv(freedom / 2.0, kept)
    mean: Floats = gammainc(freedom / 2.0 + 1.0, cut) / kept
    return mean


def _trimmed_away(freedom: float) -> Floats:
    """What the trimming leaves of the mean, by how many differences there are; from `MIN_DIFFERENCES` on of meaning."""
    counts = np.maximum(np.arange(MAX_DIFFERENCES + 1), MIN_DIFFERENCES)
    # The kth smallest of m is at about (k + 1/3)/m of the law; exact to 2 % of the mean from three bins on.
    return trimmed_mean_of_chi_squared(freedom, (_KEPT[counts] + 1.0 / 3.0) / counts)
