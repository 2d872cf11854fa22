"""Bets on single bins that are too rare to move a total variation: missing values, new classes, frauds.

A class of half a percent may grow to two percent within a tolerance of .02. So a bin k whose share is below the
tolerance has an interval of its own: from half of its share to twice its share, with what the reference does not know
of it. With u and l the one-sided 90 % Poisson bounds of its count over φ, and N/φ the size of the reference,

    hi = max(2u, 10φ/N), and where the reference never saw the bin at least .002;
    lo = l/2, and 0 where its count over φ is below 10.

Missing values, and classes that no bin names, are such bins whatever their share; values beyond the ends of the
reference are so by their share. For each of them six components bet against p_k <= hi and p_k >= lo,

    L = e^θ / (1 + hi (e^θ - 1)) on k, 1 / (1 + hi (e^θ - 1)) elsewhere, and the same with lo and -θ,

whose mean is at most 1 for every p_k within. They are CUSUMs as in `evidence.py`, with a quarter of all the weight.

**What heals within a day is learned.** A weekly burst (thirty frauds in ten minutes) is no drift, and φ, which looks at
all bins together, does not see it. When the evidence about a bin falls back to 1 within a day, the bin's line rises by
its peak, by two alarm lines at most: evidence divided by a number above 1 is smaller, so nothing is promised that does
not hold.

Measured (reference of 10,000, panes of 50, fleet line): .5 → 3 % is found in 2,150 items (median), .2 → 2 % in 1,925,
1.5 → 0 % in 3,400, 0 → 1 % in 3,050, 0 → 3 % in 450, and .5 → .7 % in none of 400 runs of 30 days.

Choice: with twice and half of the plain share 6 of 400 streams alarm in 30 days (reference of 5,000).
Choice: leaving the best ten minutes out instead of raising the line finds .5 → 3 % a thousand items later.

Source: Johnson and Kotz, Discrete Distributions, 1969, after Wilson and Hilferty, 1931 (the Poisson bounds, to 2 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.processor.detect.arrays import RowArrays, RowIndex, count_used, list_positions
from otel_mlmon.processor.detect.detectable import RareShareLimits
from otel_mlmon.processor.detect.state import RareBinColumns
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.types import Bools, Floats, Indices, Ints

TILTS: Final = np.array([0.36, 1.08, 3.24])
"""θ, in nats of log odds: up, and the same down."""

WEIGHT: Final = 0.25
"""The share of these bets in all weight."""

MAX_RATIO: Final = 2.0
"""A rare bin's share may be so many times as large, or as small, as in the reference."""

MAX_STRICT_TOLERANCE: Final = 0.05
"""The largest tolerance of a stream that changes nothing here; what a larger one exceeds it by is added to hi, and
taken from lo: who loosens a stream loosens its rare bins."""

MIN_UNSEEN_SHARE: Final = 0.002
"""The share that is allowed of a bin that the reference never saw, or more if the reference is small."""

MIN_COUNT: Final = 10.0
"""Fewer counts over φ say nothing from below, and 10φ/N is allowed."""

MIN_SIZE: Final = 200.0
"""Where N/φ is smaller, nothing is known of rare bins."""

LEARNED_PEAK_NATS: Final = 8.0
"""Lower peaks that heal do not raise the line."""

MAX_LIFT_LINES: Final = 2.0
"""By so many alarm lines a bin's own line rises at most."""

HEALING_NS: Final = 24 * 3_600_000_000_000
"""A burst does not last longer."""

_Z_90: Final = 1.2815515594
BETS: Final = 2 * TILTS.size
"""How many components bet on each rare bin."""
_STORED: Final = ("lifts", "peaks", "since_ns")
_SIGNED_TILTS: Final = np.concatenate([TILTS, -TILTS])
_GAINS: Final = np.expm1(_SIGNED_TILTS)


class RareLimits(NamedTuple):
    """The limits of the shares of S streams that are no drift at one time of the day, and their number of values N."""

    highest: Floats
    """Shape (S, K)."""
    lowest: Floats
    """Shape (S, K)."""
    size: Floats
    """Shape (S,)."""
    forgiven: Floats
    """The shares that are added and taken off, shape (S,)."""
    has_cycle: Bools
    """Which streams they hold for; those of the others follow from their references. Shape (S,)."""


class RareBets(NamedTuple):
    """The wealth of the bets of some streams on their rare bins, after a pane."""

    log_cusums: Floats
    """ln W_j, may be below 0; shape (S, R, 6)."""
    maximum: Floats
    """ln of the largest weighted W_j over what the bin's line rose by, shape (S,); -inf without a rare bin."""
    leader: Indices
    """Which one that is, in R times 6; shape (S,)."""
    costs: Floats
    """-ln of the factor of an item in any other bin, shape (S, R, 6)."""


class RareBinEvidence:
    """The rare bins of many streams of K bins, one stream a row, with the bets on a change of their share.

    Args:
        bins: K.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._slots = 0
        self._arrays = _build_rare_arrays(0)

    def start(self, row: int, counts: Floats, tolerance: float, always: Bools | None) -> None:
        """Chooses the rare bins of a stream from its reference, and starts to bet on them in a row.

        Args:
            row: Of the bank.
            counts: Of the reference, shape (K,).
            tolerance: A bin with a smaller share is rare.
            always: Which bins are rare whatever their share, shape (K,).
        """
        total = counts.sum()
        is_rare = (counts < tolerance * total) if total else np.zeros(counts.shape, dtype=bool)
        if always is not None and total:
            is_rare |= always
        bins = np.flatnonzero(is_rare)
        self._start_rows([row], np.array([bins.size]), bins, counts[None], np.array([tolerance]))

    def _start_rows(self, rows: Sequence[int], sizes: Ints, bins: Indices, counts: Floats, tolerances: Floats) -> None:
        """Starts to bet on the rare bins of some streams: `sizes` of each, and the `bins` stream by stream."""
        if sizes.max() > self._slots:
            self._widen_arrays(int(sizes.max()))
        arrays = self._arrays
        for row in rows:
            arrays.clear(row)
        owners, slots = list_positions(sizes)
        index = np.asarray(rows, dtype=np.intp)
        arrays["log_weights"][index] = -np.inf
        arrays["log_weights"][index[owners], slots] = [math.log(WEIGHT / (BETS * size)) for size in sizes[owners]]
        arrays["bins"][index[owners], slots] = bins
        arrays["counts"][index[owners], slots] = counts[owners, bins]
        arrays["totals"][index] = np.where(sizes > 0, counts.sum(-1), 0.0)
        forgiven = np.maximum(tolerances - MAX_STRICT_TOLERANCE, 0.0)
        arrays["forgiven"][index] = np.where(sizes > 0, forgiven, 0.0)

    def weigh_pane(
        self, index: RowIndex, panes: Floats, items: Floats, effect: Floats, limits: RareLimits | None = None
    ) -> RareBets | None:
        """Multiplies the bets on rare bins by their factors for a pane; None if no stream has a rare bin.

        Args:
            index: The rows.
            panes: Counts over φ, shape (S, K).
            items: Their sums, shape (S,).
            effect: φ, shape (S,).
            limits: Shares of a cycle, instead of those of the reference.
        """
        if not self._slots:
            return None
        arrays = self._arrays
        high, low = self._compute_limits(index, effect, limits)
        log_weights = arrays["log_weights"][index]
        shares = np.empty((*high.shape, BETS))
        shares[..., : TILTS.size] = high[..., None]
        shares[..., TILTS.size :] = low[..., None]
        costs = np.log1p(shares * _GAINS)
        log_cusums = np.take_along_axis(panes, arrays["bins"][index], -1)[..., None] * _SIGNED_TILTS
        log_cusums -= costs * items[:, None, None]
        log_cusums += arrays["log_cusums"][index]
        weighted = log_cusums + (log_weights - arrays["lifts"][index])[..., None]
        flat = weighted.reshape(len(weighted), -1)
        leader = flat.argmax(-1)
        return RareBets(log_cusums, flat[np.arange(len(flat)), leader], leader, costs)

    def find_share_limits(
        self, rows: Indices, effect: Floats, limits: RareLimits | None, log_alarm_line: float
    ) -> RareShareLimits | None:
        """Returns the limits on which the detectable shares of rare bins depend; None if no stream has rare bins.

        Args:
            rows: Shape (S,).
            effect: φ, shape (S,).
            limits: Shares of a cycle, instead of those of the reference.
            log_alarm_line: ln of the evidence that is an alarm.
        """
        if not self._slots:
            return None
        arrays = self._arrays
        log_weights = arrays["log_weights"][rows]
        counts = arrays["counts"][rows]
        return RareShareLimits(
            limit=self._compute_limits(rows, effect, limits)[0],
            share=counts / np.maximum(arrays["totals"][rows], 1.0)[:, None],
            log_line=log_alarm_line - log_weights + arrays["lifts"][rows],
            is_new=counts < MIN_COUNT * effect[:, None],
            is_used=np.isfinite(log_weights),
        )

    def _compute_limits(self, index: RowIndex, effect: Floats, limits: RareLimits | None) -> tuple[Floats, Floats]:
        """Returns the largest and the smallest shares of rare bins that are no drift, shape (S, R)."""
        arrays = self._arrays
        counts, size = arrays["counts"][index], arrays["totals"][index][:, None]
        forgiven, divisor = arrays["forgiven"][index][:, None], effect[:, None]
        high, low = compute_share_bounds(counts, size, divisor)
        if limits is not None:
            bins, size, has_cycle = arrays["bins"][index], limits.size[:, None], limits.has_cycle[:, None]
            highest, lowest = (np.take_along_axis(part, bins, -1) * size for part in (limits.highest, limits.lowest))
            high = np.where(has_cycle, compute_share_bounds(highest, size, divisor)[0], high)
            low = np.where(has_cycle, compute_share_bounds(lowest, size, divisor)[1], low)
            forgiven = np.where(has_cycle, np.maximum(limits.forgiven[:, None], forgiven), forgiven)
        return np.minimum(high + forgiven, 1.0), np.maximum(low - forgiven, 0.0)

    def store_bets(
        self, index: RowIndex, bets: RareBets, is_capped: Bools, is_reset: Bools, cap: float, last_ns: Ints
    ) -> None:
        """Stores the bets on rare bins after a pane, and raises the alarm line of bins whose evidence healed.

        Args:
            index: The rows.
            bets: From `weigh`.
            is_capped: Where the leading bet is at its cap, shape (S,).
            is_reset: Where any component is at its cap, so that all others start again; shape (S,).
            cap: ln of the largest weighted W_j over what the bin's line rose by.
            last_ns: End of the pane before, shape (S,).
        """
        arrays = self._arrays
        used = np.isfinite(arrays["log_weights"][index])
        log_cusums = np.where(used[..., None], np.maximum(bets.log_cusums, 0.0), 0.0)
        lifts, peaks, since_ns = arrays["lifts"][index], arrays["peaks"][index], arrays["since_ns"][index]
        log_weights = np.where(used, arrays["log_weights"][index], 0.0)
        if is_reset.any():
            log_cusums[is_reset] = 0.0
            capped = np.flatnonzero(is_capped)
            slot = bets.leader[capped] // BETS
            flat = log_cusums.reshape(len(log_cusums), -1)
            flat[capped, bets.leader[capped]] = cap - log_weights[capped, slot] + lifts[capped, slot]
        was_open = arrays["log_cusums"][index].max(-1) > 0.0
        largest = log_cusums.max(-1)
        is_open = largest > 0.0
        np.copyto(since_ns, np.broadcast_to(last_ns[:, None], since_ns.shape), where=is_open & ~was_open)
        healed = was_open & ~is_open & (peaks > LEARNED_PEAK_NATS) & ~is_reset[:, None]
        healed &= last_ns[:, None] - since_ns <= HEALING_NS
        if healed.any():
            limit = MAX_LIFT_LINES * (cap - math.log(100.0))
            np.copyto(lifts, np.maximum(lifts, np.minimum(peaks, limit)), where=healed)
            arrays["lifts"][index] = lifts
        arrays["peaks"][index] = np.where(is_open, np.maximum(peaks, largest + log_weights), 0.0)
        starting = (log_cusums > 0.0) & (arrays["log_cusums"][index] == 0.0)
        onsets_ns = arrays["onsets_ns"][index]
        np.copyto(onsets_ns, np.broadcast_to(last_ns[:, None, None], onsets_ns.shape), where=starting)
        arrays["onsets_ns"][index] = onsets_ns
        arrays["since_ns"][index] = since_ns
        arrays["log_cusums"][index] = log_cusums

    def onsets_ns(self, rows: Indices, leader: Indices) -> Ints:
        """Returns the ends of the last panes at which the leading bets were at 1, shape (S,)."""
        slot, bet = np.divmod(leader, BETS)
        onsets: Ints = self._arrays["onsets_ns"][rows, slot, bet]
        return onsets

    def contributions(self, rows: Indices, panes: Floats, bets: RareBets, positions: Indices) -> Floats:
        """Computes the log factors of the leading bets on rare bins for a pane, all on the bins they bet on.

        Shape (P, K).
        """
        slot, bet = np.divmod(bets.leader[positions], BETS)
        order, bins = np.arange(positions.size), self._arrays["bins"][rows[positions], slot]
        added = np.zeros((positions.size, self._bins))
        added[order, bins] = panes[positions, bins] * _SIGNED_TILTS[bet]
        added[order, bins] -= panes[positions].sum(-1) * bets.costs[positions, slot, bet]
        return added

    def pack(self, rows: Indices) -> RareBinColumns:
        """Returns the bets of some streams on rare bins as columns for storage; `restore` restores them bit for bit."""
        arrays = self._arrays
        is_used = np.isfinite(arrays["log_weights"][rows])
        log_cusums, onsets_ns = (arrays[name][rows].reshape(len(rows), -1) for name in ("log_cusums", "onsets_ns"))
        is_bet = log_cusums != 0.0
        return RareBinColumns(
            bin_counts=count_used(is_used),
            bins=arrays["bins"][rows][is_used].astype(np.int64),
            **{name: arrays[name][rows][is_used] for name in _STORED},
            bet_counts=count_used(is_bet),
            bets=is_bet.nonzero()[1],
            log_cusums=log_cusums[is_bet],
            onsets_ns=onsets_ns[is_bet],
        )

    def restore(self, rows: Sequence[int], counts: Floats, tolerances: Floats, columns: RareBinColumns) -> None:
        """Restores the stored bets on rare bins in rows, with the same references, shape (S, K), and tolerances."""
        self._start_rows(rows, columns.bin_counts, columns.bins, counts, tolerances)
        arrays, index = self._arrays, np.asarray(rows, dtype=np.intp)
        owners, slots = list_positions(columns.bin_counts)
        for name in _STORED:
            arrays[name][index[owners], slots] = getattr(columns, name)
        slots, bets = np.divmod(columns.bets, BETS)
        owners = np.repeat(index, columns.bet_counts)
        arrays["log_cusums"][owners, slots, bets] = columns.log_cusums
        arrays["onsets_ns"][owners, slots, bets] = columns.onsets_ns

    def _widen_arrays(self, slots: int) -> None:
        """Makes room for more rare bins of a stream."""
        previous, self._arrays = self._arrays, _build_rare_arrays(slots)
        capacity = previous["totals"].shape[0]
        self._arrays.clear(capacity - 1)
        self._arrays["log_weights"][:] = -np.inf
        for name in ("totals", "forgiven"):
            self._arrays[name][:capacity] = previous[name]
        for name in ("bins", "counts", "log_weights", "lifts", "peaks", "since_ns", "log_cusums", "onsets_ns"):
            self._arrays[name][:capacity, : self._slots] = previous[name]
        self._slots = slots


def find_rare_names(names: Sequence[str]) -> Bools:
    """Returns which bins count as rare whatever their share: missing values, and classes without a name."""
    return np.array([name in (MISSING, OTHER) for name in names])


def compute_share_bounds(counts: Floats, totals: Floats, effect: Floats) -> tuple[Floats, Floats]:
    """Computes the largest and the smallest share that rare bins may have without drift.

    Args:
        counts: Of the reference in these bins, 0 or above.
        totals: N; where it is 0, nothing is known.
        effect: φ.
    """
    size = np.maximum(totals, 1.0) / effect
    scaled = counts / effect
    next_count = scaled + 1.0
    upper = next_count * (1.0 - 1.0 / (9.0 * next_count) + _Z_90 / (3.0 * np.sqrt(next_count))) ** 3
    enough = np.maximum(scaled, MIN_COUNT)
    lower = enough * (1.0 - 1.0 / (9.0 * enough) - _Z_90 / (3.0 * np.sqrt(enough))) ** 3
    high = np.maximum(MAX_RATIO * upper, MIN_COUNT) / size
    # A share that was never seen is smoothed to less than a count.
    high = np.where(counts >= 1.0, high, np.maximum(high, MIN_UNSEEN_SHARE))
    high = np.where(size < MIN_SIZE, 1.0, np.minimum(high, 1.0))
    return high, np.where(scaled >= MIN_COUNT, lower / MAX_RATIO / size, 0.0)


def _build_rare_arrays(slots: int) -> RowArrays:
    return RowArrays(
        bins=((slots,), np.intp),
        counts=((slots,), np.float64),
        totals=((), np.float64),
        forgiven=((), np.float64),
        log_weights=((slots,), np.float64),
        lifts=((slots,), np.float64),
        peaks=((slots,), np.float64),
        since_ns=((slots,), np.int64),
        log_cusums=((slots, BETS), np.float64),
        onsets_ns=((slots, BETS), np.int64),
    )
