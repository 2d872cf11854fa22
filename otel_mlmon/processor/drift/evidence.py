"""The tolerant e-CUSUM: evidence that a stream has left its reference by more than is tolerated.

The reference counts R (N in total, K bins) give shares r_k = (R_k + ½)/(N + K/2). Within a total variation of
d = tolerance + sqrt(Kφ/4N) nothing is said: the first term is what the owner forgives, the second what a
finite reference does not know. φ is the design effect (`design_effect.py`); all counts c are taken as c/φ.

Four components bet against everything within d. Three know the past: their alternative q is the exponentially
weighted mean of the counts before this pane, with half-lives of 100, 1,000 and 10,000 items, shrunk to r with
20 pseudo-counts; their factor for a pane is Π L_k^c_k, L the likelihood ratio of `projection.py`. The fourth
knows the pane only: the Dirichlet(½) marginal likelihood of c over the largest likelihood of c within d
(universal inference), so that one large pane is enough. Each is a CUSUM of its own, W_j ← max(W_j, 1)·e_j,
and the evidence is W = mean of the W_j.

Without drift beyond d, W >= A comes on average no sooner than after A panes: each e_j is an e-value given the
past, so each W_j is an e-detector, and so is their mean. That is exact for independent items. For items in
bursts it is approximate, since φ is estimated; there it rests on simulations. An e-value may be replaced by any
smaller one, and that is used twice:

- W_j is capped at 100 times the alarm line, so that the end of a drift shows.
- A component whose alternative lies within d has L = 1 and would keep what it has won for ever. It halves it
  every 100 items instead.

One-sided evidence restricts what the null set allows, not what is counted: the ball is enlarged by everything
that lies on the other side of it, each L is the exact likelihood ratio against that larger set, and so still
an e-value. A move to the other side, however large, is part of what may be without drift.

Choice: half-lives in items and not in panes, and one CUSUM a component, make the delay in items nearly
independent of the size of the panes; averaging the factors before one CUSUM, or forgetting by panes, misses
everything at small panes.
Choice: √(K/4N) is the size of the reference's error to expect, not a bound on it. Where one reference has to
hold for a very long time, ask for a tolerance larger by √(ln(1/δ)/2N).

Source: Huber, A robust version of the probability ratio test, 1965; Saha and Ramdas, arXiv 2408.14015; Shin,
Ramdas and Rinaldo, E-detectors, NEJSDS; Lindon and Malek, arXiv 2011.03567 (the Dirichlet mixture);
Wasserman, Ramdas and Balakrishnan, Universal inference, PNAS 2020.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.drift.design_effect import DesignEffect
from otel_mlmon.processor.drift.projection import lowest_of, one_sided, two_sided

Direction = Literal["both", "up", "down"]
"""Which moves are drift: any, of mass towards the last bins, or of mass towards the first bins."""

HALF_LIVES_ITEMS: Final = (100.0, 1_000.0, 10_000.0)
PSEUDO_COUNTS: Final = 20.0

CAP: Final = 100.0
"""W_j stays at or below this many times the alarm line."""

RELEASE_NATS: Final = math.log(2.0) / 100.0
"""What a component with nothing to bet on loses of log W_j with each item."""

LARGEST_PANE_ITEMS: Final = 1e9
"""A larger pane counts as one of this size: beyond, float64 loses whole nats in ln Γ."""

_DECAY: Final = -1.0 / np.array(HALF_LIVES_ITEMS)[:, None]
_UNIVERSAL: Final = len(HALF_LIVES_ITEMS)
_SMALLEST: Final = 1e-300
_NOTHING: Final = 1e-12


class Evidence:
    """The evidence of one stream against one reference.

    Runs on: one thread at a time.

    Args:
        reference_counts: Shape (K,), 0 or above.
        tolerance: Total variation that is forgiven, [0, 1].
        direction: Which moves are drift.

    Raises:
        BinMismatchError: The reference is not one row of one or more counts.
        ValueError: A count is negative or not finite, or the tolerance is out of range.
    """

    def __init__(self, reference_counts: NDArray[Any], *, tolerance: float, direction: Direction = "both") -> None:
        self.reference_counts: NDArray[Any] = np.array(reference_counts)
        self.tolerance = tolerance
        self.direction: Direction = direction
        self.status: Literal["calibrating", "ok", "drift"] = "calibrating"
        """`calibrating` until φ is known; `drift` from the alarm line on, until W has fallen back to 1."""
        self.log_e: float = 0.0
        """ln W, 0 or above."""
        self.since_ns: int = 0
        """The onset: end of the last pane with W at 1, Unix nanoseconds; 0 before the first pane."""
        counts = _checked(self.reference_counts, self.reference_counts.shape)
        if not 0.0 <= tolerance <= 1.0:
            raise ValueError(f"a tolerance of {tolerance} is not in [0, 1]")
        bins = counts.size
        self._total = float(counts.sum())
        self._shares: NDArray[np.float64] = (counts + 0.5) / (self._total + bins / 2.0)
        self._effect = DesignEffect(self._shares)
        self._recent = np.zeros((_UNIVERSAL, bins))
        self._log_w = [0.0] * (_UNIVERSAL + 1)
        self._gains = np.zeros((_UNIVERSAL + 1, bins))

    @property
    def design_effect(self) -> float:
        """φ, 1 or above."""
        return self._effect.value

    @property
    def radius(self) -> float:
        """d, 0 or above; infinite for an empty reference."""
        if not self._total:
            return math.inf
        return self.tolerance + math.sqrt(self._shares.size * self.design_effect / (4.0 * self._total))

    @property
    def contributions(self) -> tuple[float, ...]:
        """Shape (K,): what each bin added since the onset to ln W of the component that leads, in nats.

        Their sum is ln W of that component but for the cap, what was released, and, of the universal
        component, the price of not having known the alternative.
        """
        return tuple(self._gains[self._log_w.index(max(self._log_w))].tolist())

    def update(self, counts: NDArray[Any], end_ns: int, log_alarm_line: float) -> None:
        """Take in one pane of any size.

        Args:
            counts: Shape (K,), 0 or above.
            end_ns: End of the pane, Unix nanoseconds.
            log_alarm_line: ln of the W that is an alarm.

        Raises:
            BinMismatchError: The shape is not the reference's.
            ValueError: A count is negative or not finite.
        """
        pane = _checked(counts, self._shares.shape)
        items = float(np.add.reduce(pane))
        if items and self._effect.is_known:
            # φ of the past alone: with this pane's own part in it, the factors would not be e-values.
            scale = max(self.design_effect, items / LARGEST_PANE_ITEMS)
            self._bet(pane / scale, items / scale, log_alarm_line)
            self._remember(pane / scale, items / scale)
        if items:
            self._effect.add(pane, items)
        self._conclude(end_ns, log_alarm_line)

    def over(self, reference_counts: NDArray[Any]) -> Evidence:
        """This evidence, going on over other bins of the same reference.

        What was won stays won: each factor was an e-value of its own pane. The bets begin anew, since what they know
        is counted in the former bins; φ is of the items and stays. Without this a feature that leaves its range, which
        brings coarser buckets, would blind its own stream at the very moment it drifts.

        Raises:
            BinMismatchError: The reference is not one row of one or more counts.
        """
        evidence = Evidence(reference_counts, tolerance=self.tolerance, direction=self.direction)
        evidence.status, evidence.log_e, evidence.since_ns = self.status, self.log_e, self.since_ns
        evidence._log_w = self._log_w.copy()
        evidence._effect = self._effect.over(evidence._shares)
        return evidence

    def to_state(self) -> dict[str, Any]:
        """Everything, as JSON has it; `from_state` restores it bit for bit."""
        return {
            "reference": self.reference_counts.tolist(),
            "tolerance": self.tolerance,
            "direction": self.direction,
            "status": self.status,
            "log_e": self.log_e,
            "since_ns": self.since_ns,
            "recent": self._recent.tolist(),
            "log_w": list(self._log_w),
            "gains": self._gains.tolist(),
            "design_effect": self._effect.to_state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Evidence:
        """From `to_state`."""
        evidence = cls(np.array(state["reference"]), tolerance=state["tolerance"], direction=state["direction"])
        evidence.status = state["status"]
        evidence.log_e = state["log_e"]
        evidence.since_ns = state["since_ns"]
        evidence._recent = np.array(state["recent"])
        evidence._log_w = list(state["log_w"])
        evidence._gains = np.array(state["gains"])
        evidence._effect = DesignEffect.from_state(evidence._shares, state["design_effect"])
        return evidence

    def _bet(self, pane: NDArray[np.float64], items: float, log_alarm_line: float) -> None:
        shares = pane / items
        log_ratios = np.log(np.maximum(self._likelihood_ratios(shares), _SMALLEST))
        gains = pane * log_ratios
        factors: list[float] = (log_ratios @ pane).tolist()
        factors[_UNIVERSAL] -= _regret(pane, shares, items)
        for index, extent in enumerate(np.abs(log_ratios[:_UNIVERSAL]).max(-1).tolist()):
            if extent < _NOTHING:
                factors[index] = -RELEASE_NATS * items
        cap = log_alarm_line + math.log(CAP)
        for index, (log_w, factor) in enumerate(zip(self._log_w, factors, strict=True)):
            if log_w <= 0.0:
                self._gains[index] = 0.0
            self._log_w[index] = min(max(log_w, 0.0) + factor, cap)
        self._gains += gains

    def _likelihood_ratios(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """L of the three plug-ins and of the pane's own shares, shape (4, K)."""
        alternatives = np.empty_like(self._gains)
        plugged = self._recent + PSEUDO_COUNTS * self._shares
        alternatives[:_UNIVERSAL] = plugged / plugged.sum(-1, keepdims=True)
        alternatives[_UNIVERSAL] = shares
        if self.direction == "both":
            return two_sided(alternatives, self._shares, self.radius)
        if self.direction == "down":
            return one_sided(alternatives, lowest_of(self._shares, self.radius))
        return one_sided(alternatives[:, ::-1], lowest_of(self._shares[::-1], self.radius))[:, ::-1]

    def _remember(self, pane: NDArray[np.float64], items: float) -> None:
        self._recent *= np.exp2(_DECAY * items)
        self._recent += pane

    def _conclude(self, end_ns: int, log_alarm_line: float) -> None:
        highest = max(self._log_w)
        mean = sum(math.exp(log_w - highest) for log_w in self._log_w) / len(self._log_w)
        self.log_e = max(0.0, highest + math.log(mean))
        if not self.log_e:
            self.since_ns = end_ns
        if not self._effect.is_known:
            self.status = "calibrating"
        elif self.log_e >= log_alarm_line:
            self.status = "drift"
        elif self.status == "calibrating" or not self.log_e:
            self.status = "ok"


def _regret(pane: NDArray[np.float64], shares: NDArray[np.float64], items: float) -> float:
    """By how many nats the Dirichlet(½) marginal likelihood falls short of the largest one; 0 or above."""
    bins = pane.size
    short = float(np.add.reduce(xlogy(pane, shares) - gammaln(pane + 0.5)))
    return short + bins * math.lgamma(0.5) + math.lgamma(items + bins / 2.0) - math.lgamma(bins / 2.0)


def _checked(counts: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`counts` as float64.

    Raises:
        BinMismatchError: They are not one row of this shape.
        ValueError: One is negative or not finite.
    """
    if counts.ndim != 1 or not counts.size or counts.shape != shape:
        raise BinMismatchError(f"counts of shape {counts.shape} against a reference of shape {shape}")
    values: NDArray[np.float64] = counts.astype(np.float64)
    if not (np.minimum.reduce(values) >= 0.0 and math.isfinite(np.add.reduce(values))):
        raise ValueError("counts must be finite and not negative")
    return values
