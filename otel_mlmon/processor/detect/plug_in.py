"""The likelihood ratios of the components that learn their alternative: the plug-ins and universal inference.

A plug-in bets by the law it estimates from past counts, q = (h + 20 r) / (Σh + 20), h the exponentially weighted
counts of one half-life. Universal inference bets by the Dirichlet(½) mixture of all laws on the pane alone, which is
the likelihood of its own shares less a regret. Against the same null both need the projection of `projection.py`.

Source: Robbins and Siegmund, 1974 (plug-in martingales); Krichevsky and Trofimov, 1981 (the Dirichlet(½) mixture and
its regret); Lindon and Malek, arXiv 2011.03567; Wasserman, Ramdas and Balakrishnan, Universal inference, PNAS 2020.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy.special import gammaln, xlogy

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.projection import lowest_member, one_sided, two_sided
from otel_mlmon.types import Floats

HALF_LIVES_ITEMS: Final = (100.0, 1_000.0, 10_000.0)
"""Half-lives of the past counts, in items: one plug-in each."""

PSEUDO_COUNTS: Final = 20.0
"""The weight of the reference in each plug-in, in items."""

PLUG_INS: Final = len(HALF_LIVES_ITEMS)

_DECAY: Final = -1.0 / np.array(HALF_LIVES_ITEMS)[:, None]
_MIN_RATIO: Final = 1e-300


def log_likelihood_ratios(
    history: Floats, pane_shares: Floats, shares: Floats, radius: Floats, direction: Direction
) -> Floats:
    """Computes ln L of each plug-in and, last, of the pane's own shares.

    Args:
        history: Exponentially weighted counts by half-life, shape (S, 3, K).
        pane_shares: Shape (S, K).
        shares: Of the reference, shape (S, K).
        radius: d, shape (S,).
        direction: Which moves are drift.

    Returns:
        Shape (S, 4, K).
    """
    alternatives = np.empty((len(shares), PLUG_INS + 1, shares.shape[-1]))
    smoothed = history + PSEUDO_COUNTS * shares[:, None]
    alternatives[:, :PLUG_INS] = smoothed / smoothed.sum(-1, keepdims=True)
    alternatives[:, PLUG_INS] = pane_shares
    if direction == "both":
        ratios = two_sided(alternatives, shares, radius)
    elif direction == "down":
        ratios = one_sided(alternatives, lowest_member(shares, radius))
    else:
        mirrored = np.ascontiguousarray(alternatives[..., ::-1])
        ratios = one_sided(mirrored, lowest_member(shares[:, ::-1], radius))[..., ::-1]
    return np.log(np.maximum(ratios, _MIN_RATIO))


def add_pane(history: Floats, panes: Floats, items: Floats) -> Floats:
    """Returns the exponentially weighted counts after panes of shape (S, K) of so many items."""
    decayed: Floats = history * np.exp2(_DECAY * items[:, None, None])
    return decayed + panes[:, None]


def dirichlet_regret(panes: Floats, shares: Floats, items: Floats) -> Floats:
    """Computes by how many nats the Dirichlet(½) marginal likelihood is below the largest one; 0 or above.

    Σ c ln(c/n) - ln Γ(c + ½) + K ln Γ(½) - ln Γ(K/2) + ln Γ(n + K/2), shape (S,).
    """
    bins = panes.shape[-1]
    shortfall = (xlogy(panes, shares) - gammaln(panes + 0.5)).sum(-1)
    constant = bins * math.lgamma(0.5) - math.lgamma(bins / 2.0)
    return np.asarray(shortfall + constant + gammaln(items + bins / 2.0))
