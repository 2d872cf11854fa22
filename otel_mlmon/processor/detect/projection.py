"""Likelihood ratios against a composite null around a reference, by the reverse information projection.

For an alternative q, a null set P of distributions and p* the member of P that is nearest to q (the reverse
information projection), L = q / p* is an e-value for one item: E_p[L] <= 1 for every p in P, with equality
somewhere. The same p* has the largest likelihood in P of data whose shares are q. So one function of q serves
the plug-in bets and the universal inference alike.

Two null sets:

- `two_sided`: P = {p : TV(p, r) <= d}. L = clip(q/r, b, a), where sum over q/r > a of (q/a - r) = d and
  sum over q/r < b of (r - q/b) = d; L = 1 where TV(q, r) <= d.
- `one_sided`: P = {p : some p0 of that ball lies no further along the bins than p}, that is every p whose
  cumulative sums stay under those of `lowest_member(r, d)`, g. L is the slope of the least concave majorant of the
  points (G_k, Q_k), the antitone regression of q/g with weights g. It falls from bin to bin, so a move of any size
  towards the higher bins gives no evidence.

The result of a row is the same to the last bit whatever the other rows are: sums run over the last axis only, and
nothing is left to BLAS.

Source: Huber, A robust version of the probability ratio test, 1965 (the clipped ratio); Saha and Ramdas,
arXiv 2408.14015 (it is the projection); Barlow and Brunk, The isotonic regression problem and its dual, 1972
(the maximum likelihood under a stochastic order).
"""

from __future__ import annotations

import numpy as np

from otel_mlmon.types import Floats


def two_sided(alternatives: Floats, reference: Floats, radius: Floats) -> Floats:
    """Computes L of each alternative against the ball of total variation `radius` around `reference`.

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
    ratios[outside] = _clipped_ratios(rows.take(outside, 0), reference.take(stream, 0), radius.take(stream)[:, None])
    return ratios.reshape(alternatives.shape)


def _clipped_ratios(alternatives: Floats, reference: Floats, radius: Floats) -> Floats:
    """Computes clip(q/r, b, a) of alternatives outside the ball, row by row; shapes (n, K), (n, K), (n, 1).

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


def lowest_member(reference: Floats, radius: Floats) -> Floats:
    """Returns the ball's lowest member g, shape (S, K): `radius` of mass moved from the last bins to the first.

    Every p with TV(p, r) <= d has cumulative sums of at most min(1, R_k + d), which are those of g.
    """
    tail_sums = np.minimum(np.add.accumulate(reference[:, ::-1], -1)[:, ::-1], 1.0)
    lowest_tails = np.maximum(tail_sums - radius[:, None], 0.0)
    lowest_tails[:, 0] = 1.0
    lowest = lowest_tails.copy()
    lowest[:, :-1] -= lowest_tails[:, 1:]
    return lowest


def one_sided(alternatives: Floats, lowest: Floats) -> Floats:
    """Computes L of each alternative against everything that lies no lower than `lowest`; it falls from bin to bin.

    Args:
        alternatives: Shape (S, m, K), each row 0 or above, sums to 1.
        lowest: Shape (S, K), from `lowest_member`; its first share is above 0.

    Returns:
        Shape (S, m, K), 0 or above.
    """
    is_lower = np.add.accumulate(alternatives, -1) > np.add.accumulate(lowest, -1)[:, None]
    # All sums end at 1, so the last bin says nothing.
    stream, alternative = np.nonzero(is_lower[..., :-1].any(-1))
    ratios = np.ones(alternatives.shape)
    ratios[stream, alternative] = _antitone_slopes(alternatives[stream, alternative], lowest[stream])
    return ratios


def _antitone_slopes(alternatives: Floats, lowest: Floats) -> Floats:
    """Computes the antitone regression row by row, shapes (n, K).

    In its closed form, min over s <= k of max over t >= k of Q(s..t) / G(s..t): K² numbers a row, which bins in an
    order are few enough for.
    """
    masses, weights = _run_sums(alternatives), _run_sums(lowest)
    # A run without weight pools with the bins before it: never the smallest.
    means = np.divide(masses, weights, out=np.full(masses.shape, np.inf), where=weights > 0.0)
    is_run = np.tri(alternatives.shape[-1], dtype=bool).T
    largest = np.maximum.accumulate(np.where(is_run, means, 0.0)[..., ::-1], -1)[..., ::-1]
    slopes: Floats = np.where(is_run, largest, np.inf).min(-2)
    return slopes


def _run_sums(rows: Floats) -> Floats:
    """Sums each row over the bins s..t, at [n, s, t]; meaningless for t < s."""
    cumulative = np.add.accumulate(rows, -1)
    preceding = cumulative - rows
    sums: Floats = cumulative[:, None, :] - preceding[:, :, None]
    return sums
