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

Source: Huber, A robust version of the probability ratio test, 1965 (the clipped ratio); Saha and Ramdas,
arXiv 2408.14015 (it is the projection); Barlow and Brunk, The isotonic regression problem and its dual, 1972
(the maximum likelihood under a stochastic order).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]


def clip_levels(ratios: Shares, alternatives: Shares, reference: Shares, radius: float) -> tuple[Shares, Shares]:
    """The levels b in [0, 1] and a in [1, ∞) that `two_sided` clips at, exactly.

    a = max over S of q(S)/(r(S)+d) and b = min over S with r(S) > d of q(S)/(r(S)-d). Either is reached by a
    set of the largest or smallest ratios, so cumulative sums in the order of the ratio find it.

    Args:
        ratios: Shape (m, K): alternatives / reference.
        alternatives: Shape (m, K), each row sums to 1.
        reference: Shape (K,), every share above 0, sums to 1.
        radius: d, 0 or above.

    Returns:
        b and a, each of shape (m, 1).
    """
    order = ratios.argsort(-1)
    q = alternatives[np.arange(len(alternatives))[:, None], order]
    r = reference[order]
    left = np.add.accumulate(r, -1) - radius
    # A set that holds no more than the radius can be emptied: it bounds nothing.
    bounds = left > 0.0
    low = np.where(bounds, np.add.accumulate(q, -1), 1.0) / np.where(bounds, left, 1.0)
    high = np.add.accumulate(q[:, ::-1], -1) / (np.add.accumulate(r[:, ::-1], -1) + radius)
    b = np.minimum.reduce(low, -1, keepdims=True, initial=1.0)
    a = np.maximum.reduce(high, -1, keepdims=True, initial=1.0)
    return b, a


def two_sided(alternatives: Shares, reference: Shares, radius: float) -> Shares:
    """L of each alternative against the ball of total variation `radius` around `reference`.

    Args:
        alternatives: Shape (m, K), each row 0 or above, sums to 1.
        reference: Shape (K,), every share above 0, sums to 1.
        radius: d, 0 or above; at 1 and above L is 1.

    Returns:
        Shape (m, K), 0 or above.
    """
    ratios = alternatives / reference
    b, a = clip_levels(ratios, alternatives, reference, radius)
    return np.minimum(np.maximum(ratios, b), a)


def lowest_of(reference: Shares, radius: float) -> Shares:
    """The ball's lowest member g, shape (K,): `radius` of mass moved from the last bins to the first.

    Every p with TV(p, r) <= d has cumulative sums of at most min(1, R_k + d), which are those of g.
    """
    from_above = np.minimum(reference[::-1].cumsum()[::-1], 1.0)
    kept = np.maximum(from_above - radius, 0.0)
    kept[0] = 1.0
    lowest: Shares = kept - np.append(kept[1:], 0.0)
    return lowest


def one_sided(alternatives: Shares, lowest: Shares) -> Shares:
    """L of each alternative against all that lies no lower than `lowest`; falls from bin to bin.

    Args:
        alternatives: Shape (m, K), each row 0 or above, sums to 1.
        lowest: Shape (K,), from `lowest_of`; its first share is above 0.

    Returns:
        Shape (m, K), 0 or above.
    """
    weights = lowest.tolist()
    slopes: Shares = np.array([_antitone(row, weights) for row in alternatives.tolist()])
    return slopes


def _antitone(masses: list[float], weights: list[float]) -> list[float]:
    """The non-increasing regression of masses/weights with these weights, by pooling adjacent violators.

    Ratios are compared by cross products, so a weight of 0 pools with the bin before it.
    """
    blocks: list[tuple[float, float, int]] = []
    for entry in zip(masses, weights, strict=True):
        mass, weight, size = *entry, 1
        while blocks and mass * blocks[-1][1] >= blocks[-1][0] * weight:
            before = blocks.pop()
            mass, weight, size = mass + before[0], weight + before[1], size + before[2]
        blocks.append((mass, weight, size))
    slopes: list[float] = []
    for mass, weight, size in blocks:
        slopes += [mass / weight] * size
    return slopes
