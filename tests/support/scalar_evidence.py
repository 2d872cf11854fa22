"""Computes the evidence of drift of one stream, one number at a time: an oracle for the vectorised code.

The likelihood ratios come from all subsets of bins (two-sided) and from scipy's isotonic regression (one-sided), the
alternatives from their definition. The design effect is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import gammaln, xlogy

from otel_mlmon.processor.detect.alternatives import Direction

HALF_LIVES = (100.0, 1_000.0, 10_000.0)
TILTS = (0.04, 0.12, 0.36, 1.08)
RARE_TILTS = (0.36, 1.08, 3.24)
CAP = math.log(100.0)


def log_ratios(q: Sequence[float], r: Sequence[float], d: float, direction: Direction) -> list[float]:
    """ln L of q against everything within d of r, or against everything no lower (down) or no higher (up)."""
    if direction == "up":
        return log_ratios(q[::-1], r[::-1], d, "down")[::-1]
    if direction == "down":
        return _one_sided(q, r, d)
    if sum(abs(x - y) for x, y in zip(q, r, strict=True)) <= 2.0 * d:
        return [0.0] * len(r)
    subsets = [set_ for size in range(1, len(r) + 1) for set_ in combinations(range(len(r)), size)]
    masses = [(sum(q[k] for k in set_), sum(r[k] for k in set_)) for set_ in subsets]
    upper = max(1.0, *(of_q / (of_r + d) for of_q, of_r in masses))
    lower = min(1.0, *(of_q / (of_r - d) for of_q, of_r in masses if of_r > d))
    return [math.log(max(min(max(x / y, lower), upper), 1e-300)) for x, y in zip(q, r, strict=True)]


def rare_bounds(count: float, total: float, phi: float) -> tuple[float, float]:
    """Returns the largest and the smallest share that a rare bin may have without drift."""
    scaled, size = count / phi, total / phi
    upper = (scaled + 1) * (1 - 1 / (9 * (scaled + 1)) + 1.2815515594 / (3 * math.sqrt(scaled + 1))) ** 3
    high = max(2 * upper / size, 10 / size, 0.0 if count else 0.002)
    high = min(high, 1.0) if size >= 200 else 1.0
    if scaled < 10:
        return high, 0.0
    lower = scaled * (1 - 1 / (9 * scaled) - 1.2815515594 / (3 * math.sqrt(scaled))) ** 3
    return high, lower / 2 / size


def _one_sided(q: Sequence[float], r: Sequence[float], d: float) -> list[float]:
    lowest, removed = list(r), d
    for k in reversed(range(1, len(r))):
        moved = min(lowest[k], removed)
        lowest[k] -= moved
        lowest[0] += moved
        removed -= moved
    sums = [(sum(q[: k + 1]), sum(lowest[: k + 1])) for k in range(len(r) - 1)]
    if not any(of_q > of_g for of_q, of_g in sums):
        return [0.0] * len(r)
    # A bin without weight pools with those before it.
    lowest = [max(share, 1e-13) for share in lowest]
    slopes = isotonic_regression([x / g for x, g in zip(q, lowest, strict=True)], weights=lowest, increasing=False).x
    return [math.log(max(float(slope), 1e-300)) for slope in slopes]


def pairs_of(bins: int, direction: Direction) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    """The pairs (U, D) as the docstring of `alternatives.py` lists them, in the bank's order."""
    everything = frozenset(range(bins))
    runs = [frozenset(range(edge)) for edge in range(1, bins)]
    if direction != "both":
        yield from ((run, everything - run) if direction == "down" else (everything - run, run) for run in runs)
        return
    for set_ in runs + [frozenset({k}) for k in range(1, bins - 1)]:
        yield set_, everything - set_
        yield everything - set_, set_
    if 2 < bins <= 10:
        yield from ((frozenset({i}), frozenset({j})) for i in range(bins) for j in range(bins) if i != j)


class ScalarEvidence:
    """The evidence of drift of one stream, computed one number at a time."""

    def __init__(self, reference: Sequence[int], *, tolerance: float, direction: Direction) -> None:
        self.bins, self.direction = len(reference), direction
        total = sum(reference)
        self.r = [(count + 0.5) / (total + self.bins / 2.0) for count in reference]
        spread = sum(share * (1.0 - share) for share in self.r)
        self.tolerance = tolerance
        self.variance = self.bins**2 * spread / (4.0 * (self.bins - 1) * total)
        self.rare = [
            (k, count, total) for k, count in enumerate(reference) if direction == "both" and count < tolerance * total
        ]
        self.peaks, self.lifts = [0.0] * len(self.rare), [0.0] * len(self.rare)
        """Of each rare bin; what lasts a day is beyond these tests."""
        self.alternatives = [(u, d, tilt) for tilt in TILTS for u, d in pairs_of(self.bins, direction)]
        size = 4 + len(self.alternatives)
        scale = 0.75 if direction == "both" else 1.0
        self.log_weights = [math.log(0.125 * scale)] * 4 + [math.log(0.5 * scale / (size - 4))] * (size - 4)
        self.log_weights += [math.log(0.25 / (6 * len(self.rare)))] * 6 * len(self.rare) if self.rare else []
        self.first_rare, size = size, len(self.log_weights)
        self.log_cusums = [0.0] * size
        self.onsets_ns = [0] * size
        self.history = [[0.0] * self.bins for _ in HALF_LIVES]
        self.contributions = [0.0] * self.bins
        self.log_e, self.since_ns, self.last_ns, self.is_drift = 0.0, 0, 0, False

    def update(self, pane: Sequence[int], end_ns: int, line: float, *, divisor: float, is_calibrated: bool) -> None:
        """Updates the evidence with one pane, and the design effect before it."""
        if sum(pane) and is_calibrated:
            self._bet(pane, line, divisor)
        self.last_ns = end_ns
        if self.log_e == 0.0:
            self.since_ns, self.is_drift = end_ns, False
        if self.log_e >= line:
            self.is_drift = True

    def _bet(self, pane: Sequence[int], line: float, divisor: float) -> None:
        scale = max(divisor, sum(pane) / 1e9)
        c = [count / scale for count in pane]
        n = sum(pane) / scale
        d = self.tolerance + math.sqrt(self.variance * divisor)
        ratios = []
        for counts in self.history:
            q = [(h + 20.0 * r) / (sum(counts) + 20.0) for h, r in zip(counts, self.r, strict=True)]
            ratios.append(log_ratios(q, self.r, d, self.direction))
        ratios.append(log_ratios([count / n for count in c], self.r, d, self.direction))
        factors = [
            sum(x * y for x, y in zip(c, ratio, strict=True)) if any(ratio) else -math.log(2.0) / 100.0 * n
            for ratio in ratios[:3]
        ]
        largest = sum(float(xlogy(x, x / n)) for x in c)
        mixture = float(
            gammaln(self.bins / 2) - gammaln(n + self.bins / 2) + sum(gammaln(x + 0.5) - gammaln(0.5) for x in c)
        )
        factors.append(sum(x * y for x, y in zip(c, ratios[3], strict=True)) + mixture - largest)
        for u, lost, tilt in self.alternatives:
            a, b = sum(self.r[k] for k in u) + d, sum(self.r[k] for k in lost) - d
            if b <= 0.0:
                ratios.append([0.0] * self.bins)
                factors.append(-math.log(2.0) / 100.0 * n)
                continue
            log_z = math.log((a + b) / (a * math.exp(tilt) + b))
            ratios.append([tilt + log_z if k in u else log_z if k in lost else 0.0 for k in range(self.bins)])
            factors.append(sum(x * y for x, y in zip(c, ratios[-1], strict=True)))
        for k, count, total in self.rare:
            high, low = rare_bounds(count, total, divisor)
            loosened = max(self.tolerance - 0.05, 0.0)
            high, low = min(high + loosened, 1.0), max(low - loosened, 0.0)
            for tilt, limit in [(tilt, high) for tilt in RARE_TILTS] + [(-tilt, low) for tilt in RARE_TILTS]:
                log_z = -math.log(1.0 + limit * (math.exp(tilt) - 1.0))
                ratios.append([log_z + (tilt if bin_ == k else 0.0) for bin_ in range(self.bins)])
                factors.append(sum(x * y for x, y in zip(c, ratios[-1], strict=True)))
        self._carry(factors, ratios, c, line + CAP)
        for counts, half_life in zip(self.history, HALF_LIVES, strict=True):
            counts[:] = [h * 0.5 ** (n / half_life) + x for h, x in zip(counts, c, strict=True)]

    def _carry(
        self, factors: Sequence[float], ratios: Sequence[Sequence[float]], c: Sequence[float], cap: float
    ) -> None:
        totals = [cusum + factor for cusum, factor in zip(self.log_cusums, factors, strict=True)]
        weighted = [total + weight for total, weight in zip(totals, self.log_weights, strict=True)]
        lifts = [0.0] * self.first_rare + [lift for lift in self.lifts for _ in range(6)]
        weighted = [value - lift for value, lift in zip(weighted, lifts, strict=True)]
        best = max(weighted)
        leader = weighted.index(best)
        cusums = [max(0.0, total) for total in totals]
        if best >= cap:
            cusums = [0.0] * len(cusums)
            cusums[leader] = cap - self.log_weights[leader] + lifts[leader]
        for index, (cusum, former) in enumerate(zip(cusums, self.log_cusums, strict=True)):
            if cusum > 0.0 and former == 0.0:
                self.onsets_ns[index] = self.last_ns
        self._learn_peaks(cusums, best, cap)
        if best <= 0.0 or self.log_e == 0.0:
            self.contributions = [0.0] * self.bins
        if best > 0.0:
            self.contributions = [
                sum_ + x * y for sum_, x, y in zip(self.contributions, c, ratios[leader], strict=True)
            ]
            if leader >= self.first_rare:
                bin_ = self.rare[(leader - self.first_rare) // 6][0]
                for k in range(self.bins):
                    added = c[k] * ratios[leader][k]
                    self.contributions[k] -= added
                    self.contributions[bin_] += added
            if self.log_e == 0.0:
                self.since_ns = self.onsets_ns[leader]
        self.log_cusums, self.log_e = cusums, min(max(best, 0.0), cap)

    def _learn_peaks(self, cusums: Sequence[float], best: float, cap: float) -> None:
        for slot in range(len(self.rare)):
            bets = slice(self.first_rare + 6 * slot, self.first_rare + 6 * slot + 6)
            is_open = any(cusums[bets])
            if any(self.log_cusums[bets]) and not is_open and self.peaks[slot] > 8.0 and best < cap:
                self.lifts[slot] = max(self.lifts[slot], min(self.peaks[slot], 2.0 * (cap - CAP)))
            peak = max(cusums[bets]) + self.log_weights[bets.start]
            self.peaks[slot] = max(self.peaks[slot], peak) if is_open else 0.0

    @property
    def components(self) -> list[int]:
        """Those above 1, but for the bets on rare bins."""
        return np.flatnonzero(self.log_cusums[: self.first_rare]).tolist()
