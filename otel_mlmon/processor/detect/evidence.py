"""The tolerant e-CUSUM: evidence that a stream has left its reference by more than is tolerated.

The reference counts R (N in total, K bins) give shares r_k = (R_k + ½)/(N + K/2). Within a total variation of
d = tolerance + sqrt(Kφ/4N) nothing is said: the first term is what the owner forgives, the second what a finite
reference does not know. All counts c are taken as c/φ, φ a cautious design effect (`design_effect.py`).

Many components bet against everything within d, each by its own idea of what drift would look like:

- Moves (`moves.py`): a fixed dictionary of drifts with few words. Half of the weight, in equal parts.
- Three that learn: their alternative q is the exponentially weighted mean of the counts before this pane, with
  half-lives of 100, 1,000 and 10,000 items, shrunk to r with 20 pseudo-counts; their factor for a pane is
  Π L_k^c_k, L the likelihood ratio of `projection.py`. An eighth of the weight each.
- One that knows the pane only: the Dirichlet(½) marginal likelihood of c over the largest likelihood of c within d
  (universal inference), so that one very large pane is enough whatever moved. The last eighth.

Each is a CUSUM of its own, W_j ← max(W_j, 1)·e_j. The evidence is the largest weighted one, W = max of w_j·W_j.

Without drift beyond d, W >= A comes on average no sooner than after A panes: each e_j is an e-value given the past, so
each W_j is an e-detector, so is their weighted mean, and W is not above that. That is exact for independent items, and
rests on simulations for items in bursts. An e-value may be replaced by any smaller one, and that is used three times:

- w_j·W_j is capped at 100 times the alarm line, so that the end of a drift shows.
- Where one is at its cap, all others start again from 1: beside a drift that is known for sure they have nothing to
  say, and the ones that bet on less would be the last to see it end.
- A component that has nothing to bet on, since its alternative lies within d, has L = 1 and would keep what it has
  won for ever. It halves it every 100 items instead.

One-sided evidence restricts what the null set allows, not what is counted: the ball is enlarged by everything that
lies on the other side of it, each L is the exact likelihood ratio against that larger set, and so still an e-value.
A move to the other side, however large, is part of what may be without drift.

Choice: half-lives in items and not in panes, and one CUSUM a component, make the delay in items nearly independent of
the size of the panes; averaging the factors before one CUSUM, or forgetting by panes, misses everything at small ones.
Choice: the largest, not the mean, which is larger by less than a nat and above 1 most of the time; the largest is at 1
until something has been seen, and says by itself which component leads.
Choice: √(K/4N) is the size of the reference's error to expect, not a bound on it; where one reference has to hold for
a very long time, ask for a tolerance larger by √(ln(1/δ)/2N).

Source: Huber, A robust version of the probability ratio test, 1965; Saha and Ramdas, arXiv 2408.14015; Shin, Ramdas and
Rinaldo, E-detectors, NEJSDS; Lindon and Malek, arXiv 2011.03567 (the Dirichlet mixture); Wasserman, Ramdas and
Balakrishnan, Universal inference, PNAS 2020.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from otel_mlmon.processor.detect.alternatives import TILTS, Direction, alternatives_of, held_by_sets
from otel_mlmon.processor.detect.arrays import Place, Rows, in_one_piece
from otel_mlmon.processor.detect.counts import checked
from otel_mlmon.processor.detect.design_effect import DesignEffects
from otel_mlmon.processor.detect.projection import lowest_of, one_sided, two_sided
from otel_mlmon.types import Floats, Indices

HALF_LIVES_ITEMS: Final = (100.0, 1_000.0, 10_000.0)
PSEUDO_COUNTS: Final = 20.0

CAP: Final = 100.0
"""w_j·W_j stays at or below this many times the alarm line."""

RELEASE_NATS: Final = math.log(2.0) / 100.0
"""What a component with nothing to bet on loses of ln W_j with each item."""

LARGEST_PANE_ITEMS: Final = 1e9
"""A larger pane counts as one of this size: beyond, float64 loses whole nats in ln Γ."""

STATUSES: Final[tuple[Literal["calibrating", "ok", "drift"], ...]] = ("calibrating", "ok", "drift")
"""By code. `calibrating` until φ is known; `drift` from the alarm line on, until W has fallen back to 1."""

_CALIBRATING, _OK, _DRIFT = range(3)
_UNIVERSAL: Final = len(HALF_LIVES_ITEMS)
_MOVES: Final = _UNIVERSAL + 1
"""The first of the moves; before it come the three that learn and the universal one."""
_DECAY: Final = -1.0 / np.array(HALF_LIVES_ITEMS)[:, None]
_SMALLEST: Final = 1e-300
_NOTHING: Final = 1e-12
_CHUNK_NUMBERS: Final = 100_000
"""Streams are taken in so many at a time that one array of all components stays in the processor's cache."""


class EvidenceBank:
    """The evidence of many streams of K bins and one direction, one stream a row.

    What a row comes to does not depend, to the last bit, on the rows it is updated with.

    Runs on: one thread at a time.

    Args:
        bins: K, 1 or above.
        direction: Which moves are drift.
    """

    def __init__(self, bins: int, direction: Direction = "both") -> None:
        self.bins = bins
        self.direction: Direction = direction
        self._moves = alternatives_of(bins, direction)
        components = _MOVES + self._moves.count
        weights = np.full(components, 0.5 / max(1, self._moves.count))
        weights[:_MOVES] = 0.125
        self._log_weights = np.log(weights)
        by_pair = np.arange(self._moves.count).reshape(-1, TILTS.size).T
        self._saved_as = np.concatenate([np.arange(_MOVES), _MOVES + by_pair.ravel()])
        """The number of each component in the state, where the tilts of a pair are together."""
        self._effects = DesignEffects(bins)
        self._free: list[int] = []
        self._used = 0
        self._rows = Rows(
            reference=((bins,), np.float64),
            total=((), np.float64),
            shares=((bins,), np.float64),
            held=((4 * bins,), np.float64),
            variance=((), np.float64),
            tolerance=((), np.float64),
            recent=((_UNIVERSAL, bins), np.float64),
            won=((components,), np.float64),
            onsets_ns=((components,), np.int64),
            gains=((bins,), np.float64),
            log_e=((), np.float64),
            since_ns=((), np.int64),
            last_ns=((), np.int64),
            status=((), np.int8),
        )

    @property
    def log_e(self) -> Floats:
        """Evidence by row: ln W, 0 or above."""
        return self._rows["log_e"]

    @property
    def since_ns(self) -> NDArray[np.int64]:
        """The onset by row: end of the last pane at which the component that first led was at 1, Unix nanoseconds.

        While W is at 1, the end of the last pane.
        """
        return self._rows["since_ns"]

    @property
    def status(self) -> NDArray[np.int8]:
        """By row, an index into `STATUSES`."""
        return self._rows["status"]

    @property
    def design_effect(self) -> Floats:
        """φ by row, 1 or above."""
        return self._effects.likely

    @property
    def reference(self) -> Floats:
        """The reference counts by row, shape (rows, K)."""
        return self._rows["reference"]

    @property
    def reference_count(self) -> Floats:
        """N by row."""
        return self._rows["total"]

    @property
    def contributions(self) -> Floats:
        """What each bin added to ln W_j of the leading component, pane by pane since W left 1, in nats.

        Shape (rows, K). Of the universal component, without the price of not having known the alternative.
        """
        return self._rows["gains"]

    def add(self, reference_counts: NDArray[Any], tolerance: float) -> int:
        """Begin with another stream.

        Args:
            reference_counts: Shape (K,), 0 or above.
            tolerance: Total variation that is forgiven, [0, 1].

        Returns:
            Its row.

        Raises:
            BinMismatchError: The reference is not one row of K counts.
            ValueError: A count is negative or not finite, or the tolerance is out of range.
        """
        counts = checked(np.asarray(reference_counts)[None], self.bins)[0]
        if not 0.0 <= tolerance <= 1.0:
            raise ValueError(f"a tolerance of {tolerance} is not in [0, 1]")
        if self._free:
            row = self._free.pop()
        else:
            row, self._used = self._used, self._used + 1
        data = self._rows
        data.clear(row)
        data["reference"][row] = counts
        data["total"][row] = counts.sum()
        data["shares"][row] = (counts + 0.5) / (counts.sum() + self.bins / 2.0)
        data["held"][row] = held_by_sets(data["shares"][row])
        # K/4N; an empty reference knows nothing.
        data["variance"][row] = self.bins / (4.0 * counts.sum()) if counts.any() else np.inf
        data["tolerance"][row] = tolerance
        self._effects.start(row, data["shares"][row])
        return row

    def go_on(self, row: int, before: EvidenceBank, before_row: int) -> None:
        """Go on in `row` from where a stream stood over other bins of the same reference.

        What was won stays won, each factor an e-value of its own pane; the bets begin anew, known in the former bins.
        """
        data, old = self._rows, before._rows
        for name in ("log_e", "since_ns", "last_ns", "status"):
            data[name][row] = old[name][before_row]
        data["won"][row] = old["log_e"][before_row]
        data["onsets_ns"][row] = old["since_ns"][before_row]
        self._effects.go_on(row, before._effects, before_row)

    def remove(self, row: int) -> None:
        """End with a stream; its row is given to another."""
        self._free.append(row)

    def update(self, rows: Indices, counts: NDArray[Any], end_ns: NDArray[np.int64], log_alarm_line: float) -> None:
        """Take in one pane of each of `rows`, of any size.

        Args:
            rows: Shape (S,), each row once.
            counts: Shape (S, K), 0 or above.
            end_ns: End of the panes, Unix nanoseconds, shape (S,).
            log_alarm_line: ln of the W that is an alarm.

        Raises:
            BinMismatchError: A pane has not K bins.
            ValueError: A count is negative or not finite.
        """
        panes = checked(counts, self.bins)
        size = max(1, _CHUNK_NUMBERS // self._log_weights.size)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            self._update(rows[part], panes[part], end_ns[part], log_alarm_line)

    def to_state(self, row: int) -> dict[str, Any]:
        """Everything of a row, as JSON has it; `restore` puts it back bit for bit."""
        data = self._rows
        # All others are at 1.
        ahead = np.flatnonzero(data["won"][row])
        return {
            "reference": data["reference"][row].tolist(),
            "tolerance": float(data["tolerance"][row]),
            "status": STATUSES[data["status"][row]],
            "log_e": float(data["log_e"][row]),
            "since_ns": int(data["since_ns"][row]),
            "last_ns": int(data["last_ns"][row]),
            "recent": data["recent"][row].tolist(),
            "gains": data["gains"][row].tolist(),
            "ahead": self._saved_as[ahead].tolist(),
            "won": data["won"][row, ahead].tolist(),
            "onsets_ns": data["onsets_ns"][row, ahead].tolist(),
            "design_effect": self._effects.to_state(row),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Begin with the stream that `to_state` gave, where it was.

        Returns:
            Its row.

        Raises:
            BinMismatchError: It has not K bins.
            KeyError: It is not a state.
        """
        row = self.add(np.array(state["reference"]), state["tolerance"])
        data = self._rows
        for name in ("log_e", "since_ns", "last_ns", "recent", "gains"):
            data[name][row] = state[name]
        data["status"][row] = STATUSES.index(state["status"])
        ahead = self._saved_as.argsort()[state["ahead"]]
        data["won"][row, ahead] = state["won"]
        data["onsets_ns"][row, ahead] = state["onsets_ns"]
        self._effects.restore(row, data["shares"][row], state["design_effect"])
        return row

    def _update(self, rows: Indices, panes: Floats, end_ns: NDArray[np.int64], log_alarm_line: float) -> None:
        items = panes.sum(-1)
        seen, pane, count = rows, panes, items
        if not items.all():
            is_seen = items > 0.0
            seen, pane, count = rows[is_seen], panes[is_seen], items[is_seen]
        is_known = self._effects.is_known[seen]
        # φ of the past alone goes into a bet: with the pane's own part in it, the factors would not be e-values.
        if is_known.any():
            known = slice(None) if is_known.all() else is_known
            self._bet(seen[known], pane[known], count[known], log_alarm_line)
        if seen.size:
            self._effects.add(seen, pane, count)
        self._conclude(rows, end_ns, log_alarm_line)

    def _bet(self, rows: Indices, pane: Floats, items: Floats, log_alarm_line: float) -> None:
        data, at = self._rows, in_one_piece(rows)
        effect = self._effects.value[at]
        scale = np.maximum(effect, items / LARGEST_PANE_ITEMS)
        pane, items = pane / scale[:, None], items / scale
        held, radius = data["held"][at], data["tolerance"][at] + np.sqrt(data["variance"][at] * effect)
        idle = -RELEASE_NATS * items
        pane_shares = pane / items[:, None]
        log_ratios = self._log_ratios(at, pane_shares, radius)
        factors = np.empty((len(rows), self._log_weights.size))
        factors[:, :_MOVES] = (log_ratios * pane[:, None]).sum(-1)
        factors[:, _UNIVERSAL] -= _regret(pane, pane_shares, items)
        is_idle = np.abs(log_ratios[:, :_UNIVERSAL]).max(-1) < _NOTHING
        np.copyto(factors[:, :_UNIVERSAL], idle[:, None], where=is_idle)
        self._moves.log_factors(pane, held, radius, idle, out=factors[:, _MOVES:])
        factors += data["won"][at]
        factors += self._log_weights
        leader = factors.argmax(-1)
        best = factors[np.arange(len(rows)), leader]
        self._add_gains(rows, best, leader, pane, log_ratios, held, radius)
        self._keep(rows, at, factors, best, leader, log_alarm_line + math.log(CAP))
        data["recent"][at] = data["recent"][at] * np.exp2(_DECAY * items[:, None, None]) + pane[:, None]

    def _keep(self, rows: Indices, at: Place, weighted: Floats, best: Floats, leader: Indices, cap: float) -> None:
        """Store what each component has won, never below 1, and the last pane at which it was at 1."""
        data = self._rows
        weighted -= self._log_weights
        won = np.maximum(weighted, 0.0, out=weighted)
        capped = np.flatnonzero(best >= cap)
        if capped.size:
            won[capped] = 0.0
            won[capped, leader[capped]] = cap - self._log_weights[leader[capped]]
        # A third of the time of `nonzero` with two axes.
        stream, component = np.divmod(np.flatnonzero((won > 0.0) & (data["won"][at] == 0.0)), won.shape[1])
        data["onsets_ns"][rows[stream], component] = data["last_ns"][rows[stream]]
        first = np.flatnonzero((best > 0.0) & (data["log_e"][at] == 0.0))
        data["since_ns"][rows[first]] = data["onsets_ns"][rows[first], leader[first]]
        data["won"][at] = won
        data["log_e"][at] = np.minimum(np.maximum(best, 0.0), cap)

    def _add_gains(
        self,
        rows: Indices,
        best: Floats,
        leader: Indices,
        pane: Floats,
        log_ratios: Floats,
        held: Floats,
        radius: Floats,
    ) -> None:
        """Write down what each bin gave the leader, where there is evidence."""
        gains = self._rows["gains"]
        if not (best > 0.0).any() and not self._rows["log_e"][rows].any():
            gains[rows] = 0.0
            return
        gains[rows[(best <= 0.0) | (self._rows["log_e"][rows] == 0.0)]] = 0.0
        told = np.flatnonzero((best > 0.0) & (leader < _MOVES))
        gains[rows[told]] += pane[told] * log_ratios[told, leader[told]]
        told = np.flatnonzero((best > 0.0) & (leader >= _MOVES))
        if told.size:
            gains[rows[told]] += pane[told] * self._moves.log_ratios(leader[told] - _MOVES, held[told], radius[told])

    def _log_ratios(self, at: Place, pane_shares: Floats, radius: Floats) -> Floats:
        """The ln L of the three that learn and of the pane's own shares, shape (S, 4, K)."""
        shares = self._rows["shares"][at]
        alternatives = np.empty((len(shares), _MOVES, self.bins))
        plugged = self._rows["recent"][at] + PSEUDO_COUNTS * shares[:, None]
        alternatives[:, :_UNIVERSAL] = plugged / plugged.sum(-1, keepdims=True)
        alternatives[:, _UNIVERSAL] = pane_shares
        if self.direction == "both":
            ratios = two_sided(alternatives, shares, radius)
        elif self.direction == "down":
            ratios = one_sided(alternatives, lowest_of(shares, radius))
        else:
            mirrored = np.ascontiguousarray(alternatives[..., ::-1])
            ratios = one_sided(mirrored, lowest_of(shares[:, ::-1], radius))[..., ::-1]
        return np.log(np.maximum(ratios, _SMALLEST))

    def _conclude(self, rows: Indices, end_ns: NDArray[np.int64], log_alarm_line: float) -> None:
        data = self._rows
        log_e, status = data["log_e"][rows], data["status"][rows]
        data["last_ns"][rows] = end_ns
        is_at_one = log_e == 0.0
        data["since_ns"][rows] = np.where(is_at_one, end_ns, data["since_ns"][rows])
        is_ok = (status == _CALIBRATING) | is_at_one
        status = np.where(log_e >= log_alarm_line, _DRIFT, np.where(is_ok, _OK, status))
        is_still = np.where(status == _DRIFT, log_e >= log_alarm_line + math.log(CAP), is_at_one)
        self._effects.follow(rows, is_still, (status == _DRIFT) != (data["status"][rows] == _DRIFT))
        data["status"][rows] = np.where(self._effects.is_known[rows], status, _CALIBRATING)


def _regret(pane: Floats, shares: Floats, items: Floats) -> Floats:
    """By how many nats the Dirichlet(½) marginal likelihood falls short of the largest one; 0 or above."""
    bins = pane.shape[-1]
    short = (xlogy(pane, shares) - gammaln(pane + 0.5)).sum(-1)
    constant = bins * math.lgamma(0.5) - math.lgamma(bins / 2.0)
    return np.asarray(short + constant + gammaln(items + bins / 2.0))
