"""The formulas by which a design effect is estimated from the differences between blocks of items.

A level is a size of blocks. Its estimate x is the trimmed mean of its differences, divided by what the trimming leaves
of the mean of a chi-squared variable with ν = (Σλ)²/Σλ² degrees of freedom, λ the eigenvalues of diag(r) - r rᵀ.

From the smallest blocks to the largest, each level raises φ, beginning at 1, as far as its m differences show that it
is larger: an estimate of x times what the levels below it say counts with the probability that it is larger, from the
likelihood ratio exp(-h/2 (x - 1 - ln x)) of chi-squared with h = .8 ν m degrees of freedom, prior odds of 2/φ that it
is not (bursts mostly outlast small blocks), and a prior with the weight of one difference. Above the first level the
one below stands for 16 more differences. So independent items are at 1.0 to 1.1 while few differences are known, and
bursts at their φ.

An estimate from few differences may be half of the truth, and bets with counts over half of φ are false alarms. With a
variance estimated with h degrees of freedom, h/2 (e^(2E/h) - 1) nats are as rare as E nats are with the true one
(Student's t beside the normal law). So counts are divided by 1 + (φ - 1) (e^x - 1)/x with x = 2E/h and E = ln 10⁴:
the excess counts 1.8 times at 8 differences of four classes, and 1.07 times at 64. Without bursts nothing is lost.

Source: Satterthwaite, 1946 (the degrees of freedom); Kass and Wasserman, JASA 1995 (a prior worth one observation);
Tukey, 1962 (the trimmed mean).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy.special import gammainc, gammaincinv

from otel_mlmon.types import Floats, Ints

MIN_DIFFERENCES: Final = 8
"""A level has no estimate before it has this many differences."""

MAX_DIFFERENCES: Final = 64
"""How many of its latest differences a level remembers."""

TRIMMED_ONE_IN: Final = 8
"""One in so many differences begun is left out of the mean: the largest."""

PRIOR_DIFFERENCES: Final = 16
"""How many differences the level below stands for."""

EFFICIENCY: Final = 0.8
"""Degrees of freedom of a difference, over ν: less than 1, since neighbours share blocks and the largest are left out.

Measured: .71 to .88 with three bins or more, .59 to .72 with two."""

INDEPENDENCE_ODDS: Final = 2.0
"""Prior odds that items are independent; where φ is larger, over φ, that larger blocks show nothing new."""

CAUTION_NATS: Final = math.log(1e4)
"""The evidence E that must be no more frequent than if φ were known."""

AVERAGED: Final[Ints] = np.array([count - math.ceil(count / TRIMMED_ONE_IN) for count in range(MAX_DIFFERENCES + 1)])
"""How many differences are averaged, by how many there are."""


def compute_degrees_of_freedom(shares: Floats) -> float:
    """Computes ν of one difference, from the shares of the reference, shape (K,); 1 for a constant stream."""
    squares = float((shares**2).sum())
    cubes = float((shares**3).sum())
    trace_of_square = squares - 2.0 * cubes + squares**2
    return (1.0 - squares) ** 2 / trace_of_square if trace_of_square > 0.0 else 1.0


def compute_trimmed_divisors(freedom: Floats, counts: Ints) -> Floats:
    """Computes the divisors of trimmed means of differences.

    Args:
        freedom: ν of each, shape (S,).
        counts: How many differences there are, `MIN_DIFFERENCES` or more, shape (S,).
    """
    # The kth smallest of m is at about (k + 1/3)/m of the law; exact to 2 % of the mean from three bins on.
    averaged = AVERAGED[counts]
    divisors: Floats = averaged * compute_trimmed_chi_squared_mean(freedom, (averaged + 1.0 / 3.0) / counts)
    return divisors


def compute_trimmed_chi_squared_mean(freedom: Floats | float, share: Floats) -> Floats:
    """Computes the mean of the smallest `share` of a chi-squared variable over its degrees of freedom."""
    cut = gammaincinv(freedom / 2.0, share)
    mean: Floats = gammainc(freedom / 2.0 + 1.0, cut) / share
    return mean


def compute_trimmed_means(differences: Floats, counts: Ints, divisors: Floats) -> Floats:
    """Computes a robust estimate of the design effect from the differences at one block size, by row.

    Args:
        differences: Shape (S, `MAX_DIFFERENCES`); infinite where there is none.
        counts: How many there are, `MIN_DIFFERENCES` or more, shape (S,); S ≥ 1.
        divisors: `compute_trimmed_divisors` of each row for so many, shape (S,).
    """
    averaged = AVERAGED[counts]
    most = int(averaged.max())
    # Rows of this array are added one after the other, and of a single column they would not be: so it has one more.
    columns = np.zeros((most, len(counts) + 1))
    columns[:, :-1] = np.sort(differences, -1)[:, :most].T
    if int(averaged.min()) < most:
        columns[:, :-1][np.arange(most)[:, None] >= averaged] = 0.0
    means: Floats = np.add.reduce(columns, 0)[:-1] / divisors
    return means


def compute_level_coefficients(counts: Ints, freedom: Floats) -> Floats:
    """Computes the weights with which `combine_levels` uses each block size, from its number of differences.

    Args:
        counts: Shape (S, L).
        freedom: ν, shape (S,).

    Returns:
        Shape (S, 4, L): the level's own share of its estimate, h/2, the prior odds, and (e^x - 1)/x.
    """
    has_estimate = counts >= MIN_DIFFERENCES
    has_lower = np.zeros(has_estimate.shape, dtype=bool)
    np.logical_or.accumulate(has_estimate[:, :-1], -1, out=has_lower[:, 1:])
    differences = np.maximum(counts + PRIOR_DIFFERENCES * has_lower, 1)
    level_freedom = EFFICIENCY * freedom[:, None] * differences
    exponent = 2.0 * CAUTION_NATS / level_freedom
    coefficients = np.empty((len(counts), 4, counts.shape[1]))
    # The level below stands for the differences that are not this one's own.
    coefficients[:, 0] = np.where(has_estimate, counts / differences, 0.0)
    coefficients[:, 1] = 0.5 * level_freedom
    coefficients[:, 2] = np.where(has_estimate, INDEPENDENCE_ODDS * np.sqrt(level_freedom), np.inf)
    coefficients[:, 3] = np.expm1(exponent) / exponent
    return coefficients


def combine_levels(estimates: Floats, coefficients: Floats) -> tuple[Floats, Floats]:
    """Combines the design effects of all block sizes into φ, and into the divisor of the counts.

    Args:
        estimates: Shape (S, L); a level without one is left out by its coefficients.
        coefficients: From `compute_level_coefficients`, shape (S, 4, L).

    Returns:
        φ and the divisor, each of shape (S,) and 1 or above.
    """
    own_share, half_freedom, odds, caution = coefficients.transpose(1, 2, 0)
    level_excess = estimates.T - 1.0
    excess, cautious_excess = np.zeros(level_excess.shape[1]), np.zeros(level_excess.shape[1])
    for level in np.flatnonzero(own_share.any(-1)).tolist():
        rise = own_share[level] * (level_excess[level] - excess)
        cautious_rise = (excess + rise) * caution[level]
        np.maximum(rise, 0.0, out=rise)
        effect = excess + 1.0
        ratio = rise / effect
        # 1 / (1 + odds/φ √h exp(-h/2 (x - 1 - ln x))), x = 1 + ratio, is the probability that φ is larger.
        against = np.log1p(ratio) - ratio
        against *= half_freedom[level]
        np.exp(against, out=against)
        against *= odds[level]
        against /= effect
        against += 1.0
        cautious_rise -= cautious_excess
        cautious_excess += np.maximum(cautious_rise, 0.0) / against
        excess += rise / against
    return 1.0 + excess, 1.0 + cautious_excess
