"""Builds the alternatives that evidence of drift bets on: a dictionary of simple drifts, and some learned from counts.

1. A fixed dictionary of simple alternatives to the reference, each a bet of its own against every law in the ball

An alternative (U, D, θ) states that mass went from the bins D to the bins U and that the other bins are as they were.
Within total variation d of the reference r the bins U hold at most A = r(U) + d and the bins D at least B = r(D) - d;
the bet is that between the two the odds are e^θ times as large:

    L = e^θ Z on U, Z on D, 1 elsewhere, with Z = (A + B) / (A e^θ + B).

E_p[L] = 1 + p(U)(e^θ Z - 1) - p(D)(1 - Z) grows with p(U) and falls with p(D), so over the ball it is largest at
p(U) = A, p(D) = B, where it is 1: an e-value for one item, and for a pane Π L^c in which every item may have a law
of its own within the ball. For one-sided evidence U is a run of bins from the end that mass may not move to; the
larger null set bounds p(U) by the same A.

The pairs are: one bin against all others, both ways; the bins up to an edge against those beyond it, both ways (a
shift of ordered bins); and, up to `MAX_BINS_OF_PAIRS` bins, each bin against each other bin. Four tilts θ each, a
factor of three apart: a bet wins (2x - x²) of what could be won, x the tilt over the true one, so between two of them
at least three quarters are won.

A plug-in must first learn where mass went, and Dirichlet's prior pays (K - 1)/2 · ln n for not knowing it, in every
pane anew: ten nats of the fourteen that a pane of 1,000 items brings at a total variation of .10. The dictionary is
paid once, ln of its size, and what a bet has won is carried from pane to pane.

Source: Huber, A robust version of the probability ratio test, 1965 (the least favourable pair A, B); Shin, Ramdas and
Rinaldo, E-detectors, NEJSDS 2024 (mixtures of baseline detectors).

2. The likelihood ratios of the components that learn their alternative: the plug-ins and universal inference.

A plug-in bets by the law it estimates from past counts, q = (h + 20 r) / (Σh + 20), h the exponentially weighted
counts of one half-life. Universal inference bets by the Dirichlet(½) mixture of all laws on the pane alone, which is
the likelihood of its own shares less a regret. Against the same null both need the projection of 3.

Source: Robbins and Siegmund, 1974 (plug-in martingales); Krichevsky and Trofimov, 1981 (the Dirichlet(½) mixture and
its regret); Lindon and Malek, arXiv 2011.03567; Wasserman, Ramdas and Balakrishnan, Universal inference, PNAS 2020.

3. Likelihood ratios against a composite null around a reference, by the reverse information projection.

For an alternative q, a null set P of distributions and p* the member of P that is nearest to q (the reverse
information projection), L = q / p* is an e-value for one item: E_p[L] <= 1 for every p in P, with equality
somewhere. The same p* has the largest likelihood in P of data whose shares are q. So one function of q serves
the plug-in bets and the universal inference alike.

Two null sets:

- `compute_two_sided_ratios`: P = {p : TV(p, r) <= d}. L = clip(q/r, b, a), where sum over q/r > a of (q/a - r) = d
  and sum over q/r < b of (r - q/b) = d; L = 1 where TV(q, r) <= d.
- `compute_one_sided_ratios`: P = {p : some p0 of that ball lies no further along the bins than p}, that is every p
  whose cumulative sums stay under those of `find_lowest_distribution(r, d)`, g. L is the slope of the least concave
  majorant of the points (G_k, Q_k), the antitone regression of q/g with weights g. It falls from bin to bin, so a
  move of any size towards the higher bins gives no evidence.

The result of a row is the same to the last bit whatever the other rows are: sums run over the last axis only, and
nothing is left to BLAS.

Source: Huber, A robust version of the probability ratio test, 1965 (the clipped ratio); Saha and Ramdas,
arXiv 2408.14015 (it is the projection); Barlow and Brunk, The isotonic regression problem and its dual, 1972
(the maximum likelihood under a stochastic order).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from scipy.special import gammaln, xlogy

from otel_mlmon.types import Bools, Floats, Indices

Direction = Literal["both", "up", "down"]
"""Which moves of mass are drift: any, towards the last bins only, or towards the first bins only."""

TILTS: Final = np.array([0.04, 0.12, 0.36, 1.08])
"""θ, in nats of log odds."""

MAX_BINS_OF_PAIRS: Final = 10
"""With more bins there is no bet on each pair of them: K² bets cost time, and few are ever right."""


class DriftAlternatives:
    """The dictionary of simple drifts: mass that moves from one set of bins to another, by several strengths.

    Args:
        bins: K.
        direction: Which moves are drift.
    """

    def __init__(self, bins: int, direction: Direction) -> None:
        pairs = _list_set_pairs(bins, direction)
        self.gain_sets: Bools = np.array([gain for gain, _ in pairs], dtype=bool).reshape(-1, bins)
        """U, shape (M, K)."""
        self.loss_sets: Bools = np.array([loss for _, loss in pairs], dtype=bool).reshape(-1, bins)
        """D, shape (M, K)."""
        self._gain_index: Indices = np.array([_find_set_position(bins_) for bins_ in self.gain_sets], dtype=np.intp)
        self._loss_index: Indices = np.array([_find_set_position(bins_) for bins_ in self.loss_sets], dtype=np.intp)

    @property
    def alternative_count(self) -> int:
        """The number of bets in the dictionary: M pairs of sets of bins, with every strength."""
        return len(self.gain_sets) * TILTS.size

    def log_factors(
        self, pane: Floats, bounds: tuple[Floats, Floats], idle_log_factors: Floats, *, out: Floats
    ) -> None:
        """Computes the log of every bet's gain or loss on a pane: c (ln Z + θ) over U and c ln Z over D.

        Args:
            pane: Counts, shape (S, K).
            bounds: A and B by set, as `compute_bin_set_bounds` has them.
            idle_log_factors: 0 or below, shape (S,): the factor of a bet whose D the ball can empty.
            out: Receives them, shape (S, T·M): every pair with the first tilt, with the second, …
        """
        counts = compute_bin_set_sums(pane)
        gain, loss = counts.take(self._gain_index, -1), counts.take(self._loss_index, -1)
        upper, lower = bounds
        share = _compute_gain_share(upper.take(self._gain_index, -1), lower.take(self._loss_index, -1))
        moved, is_open = gain + loss, share > 0.0
        is_all_open = is_open.all()
        # One tilt after the other: arrays of all of them would not stay in the processor's cache.
        for index, tilt in enumerate(TILTS.tolist()):
            # -ln Z, as ln((A e^θ + B)/(A + B)).
            cost = share * math.expm1(tilt)
            cost += 1.0
            np.log(cost, out=cost)
            cost *= moved
            reward = gain * tilt
            factors = out[:, index * len(self.gain_sets) : (index + 1) * len(self.gain_sets)]
            np.subtract(reward, cost, out=factors)
            if not is_all_open:
                np.copyto(factors, idle_log_factors[:, None], where=~is_open)

    def log_ratios(self, bets: Indices, bounds: tuple[Floats, Floats]) -> Floats:
        """Computes the log-likelihood ratio of one bet a row, shape (S, K), where `bets` are their positions.

        `bets` index the last axis of `log_factors`.
        """
        tilt, pair = np.divmod(bets, len(self.gain_sets))
        rows = np.arange(len(bets))
        upper, lower = bounds
        share = _compute_gain_share(upper[rows, self._gain_index[pair]], lower[rows, self._loss_index[pair]])
        log_z = -np.log(share * np.expm1(TILTS[tilt]) + 1.0)[:, None]
        ratios: Floats = self.gain_sets[pair] * (TILTS[tilt, None] + log_z) + self.loss_sets[pair] * log_z
        return ratios


@lru_cache(maxsize=256)
def build_alternatives(bins: int, direction: Direction) -> DriftAlternatives:
    """Returns the dictionary of simple drifts for a number of bins and a direction, built once."""
    return DriftAlternatives(bins, direction)


def compute_bin_set_sums(rows: Floats) -> Floats:
    """Sums each row over every set of bins that a simple drift may move mass from or to, shape (S, 4K).

    The sets are each bin, all bins but it, the first bins up to it, and all bins beyond it.
    """
    total = rows.sum(-1, keepdims=True)
    cumulative = np.add.accumulate(rows, -1)
    return np.concatenate([rows, total - rows, cumulative, np.maximum(total - cumulative, 0.0)], axis=-1)


def _list_set_pairs(bins: int, direction: Direction) -> list[tuple[Bools, Bools]]:
    positions = np.arange(bins)
    runs = [positions < edge for edge in range(1, bins)]
    if direction == "down":
        return [(run, ~run) for run in runs]
    if direction == "up":
        return [(~run, run) for run in runs]
    single = [positions == position for position in range(bins)] if bins > 2 else []
    # The first and the last bin are runs already.
    sets = runs + single[1:-1]
    pairs = [pair for bins_ in sets for pair in ((bins_, ~bins_), (~bins_, bins_))]
    if 2 < bins <= MAX_BINS_OF_PAIRS:
        pairs += [(gain, loss) for gain in single for loss in single if gain is not loss]
    return pairs


def compute_bin_set_bounds(highest: Floats, lowest: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Returns the largest and the smallest mass that each set of bins may have without drift, shape (S, 4K).

    They are A and B; B is infinite where the null can empty the set.

    Args:
        highest: The largest `compute_bin_set_sums` of any reference, shape (S, 4K).
        lowest: The smallest.
        radius: d, shape (S,); may be infinite.
    """
    d = np.minimum(radius, 2.0)[:, None]
    lower = lowest - d
    return highest + d, np.where(lower > 0.0, lower, np.inf)


def _compute_gain_share(upper: Floats, lower: Floats) -> Floats:
    """Computes A/(A + B), from which a bet's norm Z = 1/(1 + (e^θ - 1) A/(A + B)) follows; 0 where it cannot gain."""
    return upper / (upper + lower)


def _find_set_position(bins_: Bools) -> int:
    """Returns the position of a set of bins in `compute_bin_set_sums`."""
    bins, size = bins_.size, int(bins_.sum())
    if size == 1:
        return int(bins_.argmax())
    if size == bins - 1:
        return bins + int(bins_.argmin())
    return 2 * bins + size - 1 if bins_[0] else 3 * bins + (bins - size) - 1


def compute_two_sided_ratios(alternatives: Floats, reference: Floats, radius: Floats) -> Floats:
    """Computes likelihood ratios of alternatives against all distributions within a distance of the reference.

    Args:
        alternatives: Shape (S, m, K), each row 0 or above, sums to 1.
        reference: Shape (S, K), every share above 0, sums to 1.
        radius: d, 0 or above, shape (S,); at 1 and above L is 1.

    Returns:
        Shape (S, m, K), 0 or above.
    """
    difference = alternatives - reference[:, None]
    # While all is well most alternatives are within the ball: only the others are sorted.
    outside = np.flatnonzero(np.abs(difference, out=difference).sum(-1) > 2.0 * radius[:, None])
    stream = outside // alternatives.shape[1]
    rows = alternatives.reshape(-1, alternatives.shape[-1])
    ratios = np.ones(rows.shape)
    ratios[outside] = _compute_clipped_ratios(
        rows.take(outside, 0), reference.take(stream, 0), radius.take(stream)[:, None]
    )
    return ratios.reshape(alternatives.shape)


def _compute_clipped_ratios(alternatives: Floats, reference: Floats, radius: Floats) -> Floats:
    """Computes likelihood ratios clip(q/r, b, a) of alternatives outside the ball; shapes (n, K), (n, K), (n, 1).

    a = max over S of q(S)/(r(S)+d) and b = min over S with r(S) > d of q(S)/(r(S)-d), exactly. Either is reached by
    a set of the largest or smallest ratios, so cumulative sums in the order of the ratio find it.
    """
    ratios = alternatives / reference
    # Indices into the flat arrays: a third of the time of `take_along_axis`.
    order = ratios.argsort(-1)
    order += np.arange(0, ratios.size, ratios.shape[-1])[:, None]
    q, r = alternatives.take(order), reference.take(order)
    remainder = np.add.accumulate(r, -1) - radius
    # A set whose mass is not above the radius can be emptied: it bounds nothing.
    is_bounding = remainder > 0.0
    lower = np.divide(np.add.accumulate(q, -1), remainder, out=np.ones(q.shape), where=is_bounding)
    upper = np.add.accumulate(q[:, ::-1], -1) / (np.add.accumulate(r[:, ::-1], -1) + radius)
    b = np.minimum(lower.min(-1, keepdims=True), 1.0)
    a = np.maximum(upper.max(-1, keepdims=True), 1.0)
    clipped: Floats = np.minimum(np.maximum(ratios, b), a)
    return clipped


def find_lowest_distribution(reference: Floats, radius: Floats) -> Floats:
    """Returns the stochastically lowest distribution within a total variation of the reference, shape (S, K).

    It is the reference with `radius` of mass moved from the last bins to the first.

    Every p with TV(p, r) <= d has cumulative sums of at most min(1, R_k + d), which are those of g.
    """
    tail_sums = np.minimum(np.add.accumulate(reference[:, ::-1], -1)[:, ::-1], 1.0)
    lowest_tails = np.maximum(tail_sums - radius[:, None], 0.0)
    lowest_tails[:, 0] = 1.0
    lowest = lowest_tails.copy()
    lowest[:, :-1] -= lowest_tails[:, 1:]
    return lowest


def compute_one_sided_ratios(alternatives: Floats, lowest: Floats) -> Floats:
    """Computes likelihood ratios of alternatives against all distributions stochastically not below `lowest`.

    Args:
        alternatives: Shape (S, m, K), each row 0 or above, sums to 1.
        lowest: Shape (S, K), from `find_lowest_distribution`; its first share is above 0.

    Returns:
        Shape (S, m, K), 0 or above.
    """
    is_lower = np.add.accumulate(alternatives, -1) > np.add.accumulate(lowest, -1)[:, None]
    # All sums end at 1, so the last bin says nothing.
    stream, alternative = np.nonzero(is_lower[..., :-1].any(-1))
    ratios = np.ones(alternatives.shape)
    ratios[stream, alternative] = _compute_antitone_slopes(alternatives[stream, alternative], lowest[stream])
    return ratios


def _compute_antitone_slopes(alternatives: Floats, lowest: Floats) -> Floats:
    """Computes the slopes of the antitone regression of alternatives on `lowest`, row by row, shapes (n, K).

    In its closed form, min over s <= k of max over t >= k of Q(s..t) / G(s..t): K² numbers a row, which bins in an
    order are few enough for.
    """
    masses, weights = _sum_bin_runs(alternatives), _sum_bin_runs(lowest)
    # A run without weight pools with the bins before it: never the smallest.
    means = np.divide(masses, weights, out=np.full(masses.shape, np.inf), where=weights > 0.0)
    is_run = np.tri(alternatives.shape[-1], dtype=bool).T
    largest = np.maximum.accumulate(np.where(is_run, means, 0.0)[..., ::-1], -1)[..., ::-1]
    slopes: Floats = np.where(is_run, largest, np.inf).min(-2)
    return slopes


def _sum_bin_runs(rows: Floats) -> Floats:
    """Sums each row over every run of bins s..t, at [n, s, t]; meaningless for t < s."""
    cumulative = np.add.accumulate(rows, -1)
    preceding = cumulative - rows
    sums: Floats = cumulative[:, None, :] - preceding[:, :, None]
    return sums


HALF_LIVES_ITEMS: Final = (100.0, 1_000.0, 10_000.0)
"""Half-lives of the past counts, in items: one plug-in each."""

PSEUDO_COUNTS: Final = 20.0
"""The weight of the reference in each plug-in, in items."""

PLUG_INS: Final = len(HALF_LIVES_ITEMS)

_DECAY: Final = -1.0 / np.array(HALF_LIVES_ITEMS)[:, None]
_MIN_RATIO: Final = 1e-300


def compute_log_likelihood_ratios(
    history: Floats,
    pane_shares: Floats,
    shares: Floats,
    radius: Floats,
    direction: Direction,
    expected: Floats | None = None,
) -> Floats:
    """Computes the log-likelihood ratios, against no drift, of past counts and of the pane's own shares.

    Args:
        history: Exponentially weighted counts by half-life, shape (S, 3, K).
        pane_shares: Shape (S, K).
        shares: Of the reference, shape (S, K).
        radius: d, shape (S,).
        direction: Which moves are drift.
        expected: The counts that were to be expected by half-life, shape (S, 3, K); NaN where the reference was always
            the same, None where all were.

    Returns:
        Shape (S, 4, K).
    """
    alternatives = np.empty((len(shares), PLUG_INS + 1, shares.shape[-1]))
    prior = PSEUDO_COUNTS * shares[:, None]
    smoothed = history + prior
    if expected is not None:
        # What was seen over what was to be expected then: a cycle of the reference does not blur it.
        factors = shares[:, None] / (expected + prior)
        smoothed *= np.where(np.isnan(factors), 1.0, factors)
    alternatives[:, :PLUG_INS] = smoothed / smoothed.sum(-1, keepdims=True)
    alternatives[:, PLUG_INS] = pane_shares
    if direction == "both":
        ratios = compute_two_sided_ratios(alternatives, shares, radius)
    elif direction == "down":
        ratios = compute_one_sided_ratios(alternatives, find_lowest_distribution(shares, radius))
    else:
        mirrored = np.ascontiguousarray(alternatives[..., ::-1])
        ratios = compute_one_sided_ratios(mirrored, find_lowest_distribution(shares[:, ::-1], radius))[..., ::-1]
    return np.log(np.maximum(ratios, _MIN_RATIO))


def add_pane_evidence(history: Floats, panes: Floats, items: Floats) -> Floats:
    """Adds panes to exponentially weighted past counts of three half-lives, shape (S, 3, K)."""
    decayed: Floats = history * np.exp2(_DECAY * items[:, None, None])
    return decayed + panes[:, None]


def compute_dirichlet_regret(panes: Floats, shares: Floats, items: Floats) -> Floats:
    """Computes by how many nats the Dirichlet(½) marginal likelihood of counts is below their largest likelihood.

    It is 0 or above.

    Σ c ln(c/n) - ln Γ(c + ½) + K ln Γ(½) - ln Γ(K/2) + ln Γ(n + K/2), shape (S,).
    """
    bins = panes.shape[-1]
    shortfall = (xlogy(panes, shares) - gammaln(panes + 0.5)).sum(-1)
    constant = bins * math.lgamma(0.5) - math.lgamma(bins / 2.0)
    return np.asarray(shortfall + constant + gammaln(items + bins / 2.0))
