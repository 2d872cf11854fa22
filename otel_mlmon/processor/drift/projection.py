"""Likelihood ratios against everything near a reference, and the largest likelihood there.

For an alternative q, a null set P of distributions and p* the member of P that is nearest to q (the reverse
information projection), L = q / p* is an e-value for one item: E_p[L] <= 1 for every p in P, with equality
somewhere. The same p* has the largest likelihood in P of data whose shares are q. So one function of q serves
the plug-in bets and the universal inference alike.

Two null sets:

- `two_sided`: P = {p : TV(p, r) <= d}. L = clip(q/r, b, a), where sum over q/r > a of (q/a - r) = d and
  sum over q/r < b of (r - q/b) = d; L = 1 where TV(q, r) <= d.
- `one_sided`: P = {p : some p0 of that ball lies no further along the bins than p}, that is every p whose
  cumulative sums stay under those of `lowest_of(r, d)`, the ball's lowest member g. L is the slope of the
  least concave majorant of the points (G_k, Q_k), the antitone regression of q/g with weights g. It falls
  from bin to bin, so a move of any size towards the higher bins gives no evidence.

All functions take any number of rows before the last axis. A row's result is the same to the last bit whatever
the other rows are: sums run over the last axis only, and nothing is left to BLAS.

Source: Huber, A robust version of the probability ratio test, 1965 (the clipped ratio); Saha and Ramdas,
arXiv 2408.14015 (it is the projection); Barlow and Brunk, The isotonic regression problem and its dual, 1972
(the maximum likelihood under a stochastic order).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]


def clip_levels(ratios: Shares, alternatives: Shares, reference: Shares, radius: Shares) -> tuple[Shares, Shares]:
    """The levels b in [0, 1] and a in [1, ∞) that `two_sided` clips at, exactly.

    a = max over S of q(S)/(r(S)+d) and b = min over S with r(S) > d of q(S)/(r(S)-d). Either is reached by a
    set of the largest or smallest ratios, so cumulative sums in the order of the ratio find it.

    Args:
        ratios: Shape (..., m, K): alternatives / reference.
        alternatives: Shape (..., m, K), each row sums to 1.
        reference: Shape (..., K), every share above 0, sums to 1.
        radius: d, 0 or above, shape (...).

    Returns:
        b and a, each of shape (..., m, 1).
    """
    # Indices into the flat arrays: a third of the time of `take_along_axis`.
    bins = ratios.shape[-1]
    order = ratios.argsort(-1)
    streams = np.arange(reference.size // bins).reshape(*reference.shape[:-1], 1, 1)
    rows = np.arange(ratios.size // bins).reshape(*ratios.shape[:-1], 1)
    q = alternatives.ravel().take(order + rows * bins)
    r = reference.ravel().take(order + streams * bins)
    d = radius[..., None, None]
    left = np.add.accumulate(r, -1) - d
    # A set that holds no more than the radius can be emptied: it bounds nothing.
    bounds = left > 0.0
    low = np.where(bounds, np.add.accumulate(q, -1), 1.0) / np.where(bounds, left, 1.0)
    high = np.add.accumulate(q[..., ::-1], -1) / (np.add.accumulate(r[..., ::-1], -1) + d)
    b = np.minimum(low.min(-1, keepdims=True), 1.0)
    a = np.maximum(high.max(-1, keepdims=True), 1.0)
    return b, a


def two_sided(alternatives: Shares, reference: Shares, radius: Shares) -> Shares:
    """L of each alternative against the ball of total variation `radius` around `reference`.

    Args:
        alternatives: Shape (..., m, K), each row 0 or above, sums to 1.
        reference: Shape (..., K), every share above 0, sums to 1.
        radius: d, 0 or above, shape (...); at 1 and above L is 1.

    Returns:
        Shape (..., m, K), 0 or above.
    """
    ratios = alternatives / reference[..., None, :]
    b, a = clip_levels(ratios, alternatives, reference, radius)
    return np.minimum(np.maximum(ratios, b), a)


def lowest_of(reference: Shares, radius: Shares) -> Shares:
    """The ball's lowest member g, shape (..., K): `radius` of mass moved from the last bins to the first.

    Every p with TV(p, r) <= d has cumulative sums of at most min(1, R_k + d), which are those of g.
    """
    from_above = np.minimum(np.add.accumulate(reference[..., ::-1], -1)[..., ::-1], 1.0)
    kept = np.maximum(from_above - radius[..., None], 0.0)
    kept[..., 0] = 1.0
    lowest = kept.copy()
    lowest[..., :-1] -= kept[..., 1:]
    return lowest


def one_sided(alternatives: Shares, lowest: Shares) -> Shares:
    """L of each alternative against all that lies no lower than `lowest`; falls from bin to bin.

    The antitone regression in its closed form, min over s <= k of max over t >= k of Q(s..t) / G(s..t): K² numbers
    a row, which bins in an order are few enough for.

    Args:
        alternatives: Shape (..., m, K), each row 0 or above, sums to 1.
        lowest: Shape (..., K), from `lowest_of`; its first share is above 0.

    Returns:
        Shape (..., m, K), 0 or above.
    """
    masses = _of_runs(alternatives)
    weights = _of_runs(lowest)[..., None, :, :]
    # A run without weight pools with the bins before it: never the smallest.
    means = np.divide(masses, weights, out=np.full(masses.shape, np.inf), where=weights > 0.0)
    bins = alternatives.shape[-1]
    is_run = np.tri(bins, dtype=bool).T
    largest = np.maximum.accumulate(np.where(is_run, means, 0.0)[..., ::-1], -1)[..., ::-1]
    slopes: Shares = np.where(is_run, largest, np.inf).min(-2)
    return slopes


def _of_runs(rows: Shares) -> Shares:
    """Sums over the bins s..t at [..., s, t]; for t < s nothing of meaning."""
    sums = np.add.accumulate(rows, -1)
    before = sums - rows
    difference: Shares = sums[..., None, :] - before[..., :, None]
    return difference
