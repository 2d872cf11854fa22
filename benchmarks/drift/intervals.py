"""Computes confidence intervals of shares."""

from __future__ import annotations

from scipy.special import betaincinv


def interval(hits: int, trials: int) -> str:
    """Returns Clopper and Pearson's 95 % interval of a share."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, 0.025))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 0.975))
    return f"{low:.2g}–{high:.2g}"


def share(hits: int, trials: int) -> str:
    """Formats a share with its interval."""
    return f"{hits / trials:.3g} ({interval(hits, trials)})"
