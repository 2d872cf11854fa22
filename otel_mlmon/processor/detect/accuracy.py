"""Estimates the accuracy of unlabelled predictions in a window, from their confidences and a calibration.

With n_b of n predictions in confidence bin b, and r_b of t_b right there on labelled data, the share that is right in a
bin is θ_b ~ Beta(r_b + ½ + c_b, t_b - r_b + 1½ - c_b): Jeffreys' prior, and one pseudo-observation that the model is as
right as it says, c_b being the middle of the bin. How many of the n_b are right is then beta-binomial. Over the bins

    E = Σ n_b m_b / n        V = Σ (φ n_b E[θ_b (1 - θ_b)] + n_b² Var θ_b) / n²        m_b = E θ_b

the first term being due to a finite window, the second to a finite calibration. φ, the design effect, is by how much
right answers that come in bursts vary more than independent ones. Three errors are added that the bins alone hide:

- The prior may be wrong in the same direction in all bins: a model that is too sure is so everywhere. A prior of
  weight 2 moves m_b by up to 2 / (t_b + 2) of its own error, of standard deviation √(c_b (1 - c_b) / 3). These are
  added up over the bins before they are squared, not after.
- Confidence moves inside a bin too. If the window's density over the calibration's is e^(gx) within a bin of width 1/K,
  its mean confidence there lies g / 12K² higher, g being the slope of ln(n_b / t_b) from bin to bin. Accuracy is taken
  to rise with it as where the logit of one is that of the other and a constant, by m_b (1 - m_b) / c_b (1 - c_b) times
  that, and never by more. E moves by the mean of these over the window, and 1.5 times the mean of their sizes is the
  standard error of it.
- Inputs move inside a bin and leave its confidence as it is: other inputs of the same confidence are right more or less
  often. If the density of inputs over that of the calibration has variance w² within bins and the correlation ρ with
  being right, accuracy moves by ρ w √(m_b (1 - m_b)): as the sampling error of 1/(ρw)² predictions. So no window is
  taken to say more than `SHIFTED_ITEMS` independent predictions would, however many it has.

The interval is that of the beta distribution of mean E and variance V, which stays in [0, 1] and is skewed as a share
near 1 is, and half a prediction more on either side, since a count cannot lie between two. It is one for the share
that *is* right in this window, not for its mean.

Assumption: a prediction of a given confidence is as often right as it was on the labelled data. That holds when
inputs move among what the model knows (covariate shift); it fails when the meaning of inputs changes.
Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (binned calibration); Garg et al., arXiv 2201.04234
(accuracy from confidences, and that no such method can hold without an assumption); Johnson, Kotz & Kemp, Univariate
Discrete Distributions (beta-binomial).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betaincinv

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.types import Counts, Floats

LEVEL: Final = 0.95
"""The probability with which the interval contains the accuracy of the window."""

JEFFREYS: Final = 0.5
"""Pseudo-observations of each outcome in a bin, besides the one of the model's own confidence."""

PRIOR: Final = 2.0 * JEFFREYS + 1.0
"""Pseudo-observations in a bin."""

SHIFT_ERROR: Final = 1.5
"""The standard error of a correction for confidence that moved inside its bin, over the correction."""

MAX_SHIFT: Final = 0.5
"""By how much of the width of a bin its mean confidence can move: the mean of a bin lies within it."""

SHIFTED_ITEMS: Final = 400.0
"""Independent predictions whose sampling error is as large as what a shift inside the bins moves: ρw = .05.

Chosen on three tables (titanic, californian houses, employment in Massachusetts); measured on others, see decision 17.
"""

MIN_SUPPORT: Final = 10
"""Labelled predictions from which on a bin counts as supported by data rather than by the prior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyEstimate:
    """The estimated accuracy of a window's predictions and its interval, [0, 1] each."""

    estimated: float
    low: float
    high: float
    """Ends of the interval of level `LEVEL`."""
    sampling_deviation: float
    """The standard deviation that is due to the finite window alone, φ included: it changes from window to window,
    whereas the rest of the interval does not."""
    n: int
    """Predictions in the window."""
    supported_ratio: float
    """Share of them in bins with `MIN_SUPPORT` labelled predictions or more; of the others the prior decides."""


def estimate_accuracy(
    right: Counts, total: Counts, window: Counts, *, design_effect: float = 1.0
) -> AccuracyEstimate | None:
    """Estimates the accuracy of a window's predictions from their counts by confidence and a calibration.

    Counts have the shape (K,) each, over equal bins of confidence in [0, 1].

    Returns None for an empty window, or if no label is known.

    Args:
        right: Correct labelled predictions by bin.
        total: Labelled predictions by bin.
        window: Predictions of the window by bin.
        design_effect: φ of the window, 1 or above.

    Raises:
        BinMismatchError: The shapes differ.
    """
    if not right.shape == total.shape == window.shape:
        raise BinMismatchError(f"{total.size} bins of calibration against {window.size} of a window")
    n = int(window.sum())
    if not n or not total.any():
        return None
    middles = (np.arange(total.size) + 0.5) / total.size
    weights = total + PRIOR
    means = (right + JEFFREYS + middles) / weights
    calibration_variance = means * (1.0 - means) / (weights + 1.0)
    binomial_variance = means * (1.0 - means) - calibration_variance  # E θ(1-θ) = m(1-m) - Var θ
    prior_error = PRIOR / weights * np.sqrt(middles * (1.0 - middles) / 3.0)
    shifts = _compute_accuracy_shifts(total, window, means)
    mean = float(window @ (means + shifts)) / n
    hidden_variance = float(window @ prior_error) ** 2 + SHIFT_ERROR**2 * float(window @ np.abs(shifts)) ** 2
    hidden_variance += float(window @ (means * (1.0 - means))) * n / SHIFTED_ITEMS
    hidden_variance += float(window.astype(np.float64) ** 2 @ calibration_variance)
    sampling_variance = float(window @ binomial_variance) * design_effect
    variance = (sampling_variance + hidden_variance) / n**2
    # A share cannot vary more than a coin that shows 1 with this mean.
    variance = min(variance, mean * (1.0 - mean) * (1.0 - 1e-9))
    size = mean * (1.0 - mean) / variance - 1.0
    tail = (1.0 - LEVEL) / 2.0
    low, high = (float(betaincinv(mean * size, (1.0 - mean) * size, q)) for q in (tail, 1.0 - tail))
    half = 0.5 / n
    return AccuracyEstimate(
        estimated=mean,
        low=max(0.0, min(low, mean) - half),
        high=min(1.0, max(high, mean) + half),
        sampling_deviation=math.sqrt(sampling_variance) / n,
        n=n,
        supported_ratio=int(window[total >= MIN_SUPPORT].sum()) / n,
    )


def find_lowest_tolerated_accuracy(labelled: float, lowest: float | None, max_drop: float | None) -> float:
    """Returns the lowest accuracy of a model that is tolerated, the stricter of two bounds.

    Args:
        labelled: The accuracy on labelled data.
        lowest: The lowest accuracy; None for any.
        max_drop: By how much it may be below that of the labelled data; None for any.
    """
    return max(lowest or 0.0, labelled - (1.0 if max_drop is None else max_drop))


def _compute_accuracy_shifts(total: Counts, window: Counts, means: Floats) -> Floats:
    """Computes how much higher the accuracy in each bin is because confidences moved up inside the bin."""
    bins = total.size
    if bins < 2:
        return np.zeros(bins)
    middles = (np.arange(bins) + 0.5) / bins
    # One prediction is added to each bin of either: an empty bin has no slope.
    log_ratio = np.log1p(window) - np.log1p(total * (window.sum() / total.sum()))
    confidence_shifts = np.clip(np.gradient(log_ratio) / (12.0 * bins), -MAX_SHIFT / bins, MAX_SHIFT / bins)
    slopes = np.minimum(means * (1.0 - means) / (middles * (1.0 - middles)), 1.0)
    shifts: Floats = np.clip(slopes * confidence_shifts, -means / 2.0, (1.0 - means) / 2.0)
    return shifts
