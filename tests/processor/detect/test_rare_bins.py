"""Bins that are too rare for the tolerance: what they find, and that a burst that comes again is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import gamma

from otel_mlmon.processor.detect.evidence import CAP, DRIFT, EvidenceBank
from otel_mlmon.processor.detect.rare_bins import TILTS, compute_share_bounds
from otel_mlmon.types import Counts, Floats
from tests.support.evidence import Evidence, plain

LINE = math.log(6.7e6)
HOUR_NS = 3_600_000_000_000


def shares_of(rare: float) -> Floats:
    return np.array([0.4, 0.3, 0.2, 0.1 - rare, rare])


def items_to_alarm(
    moves: Sequence[tuple[float, float]], *, pane: int, items: int, runs: int, reference: int = 10_000
) -> Floats:
    """Items until the alarm of each run of each move, infinite without one, after 3,000 quiet items; (moves, runs)."""
    rng, rows_count = np.random.default_rng([19, pane]), len(moves) * runs
    before, after = (np.repeat([shares_of(move[side]) for move in moves], runs, axis=0) for side in (0, 1))
    bank = EvidenceBank(5)
    rows = np.array([bank.add(counts, 0.02) for counts in rng.multinomial(reference, before)])
    for end in range(60):
        bank.update(rows, rng.multinomial(50, before), np.full(rows_count, end), LINE)
    delays = np.full(rows_count, np.inf)
    for end in range(items // pane):
        bank.update(rows, rng.multinomial(pane, after), np.full(rows_count, 60 + end), LINE)
        is_new = (bank.status[rows] == DRIFT) & np.isinf(delays)
        delays[is_new] = (end + 1) * pane
    return delays.reshape(len(moves), runs)


@pytest.mark.parametrize("pane", [10, 100])
def test_rare_bins_are_watched(pane: int) -> None:
    """Missing values and new categories are bins that the reference never saw."""
    moves = [(0.005, 0.03), (0.002, 0.02), (0.015, 0.0), (0.0, 0.01), (0.0, 0.03)]
    delays = items_to_alarm(moves, pane=pane, items=5_000, runs=25)
    late = np.quantile(delays, 0.9, axis=1, method="inverted_cdf")
    assert (np.median(delays, axis=1) <= [2_500, 2_500, 3_800, 4_000, 600]).all(), delays
    assert (late <= [5_000, 4_000, 4_500, 5_000, 1_000]).all(), delays


def test_chance_and_small_changes_are_no_alarm() -> None:
    """Thirty days of 86,400 items."""
    moves = [(0.005, 0.007), (0.005, 0.005), (0.0005, 0.0005)]
    delays = items_to_alarm(moves, pane=6_000, items=2_592_000, runs=30, reference=5_000)
    assert np.isinf(delays).all()


def test_bounds_are_those_of_poisson_counts() -> None:
    counts = np.array([0.0, 3.0, 40.0, 400.0])
    high, low = compute_share_bounds(counts, np.array(10_000.0), np.array(1.0))
    exact_high = 2 * gamma.ppf(0.9, counts + 1) / 10_000
    exact_low = gamma.ppf(0.1, counts[2:]) / 2 / 10_000
    assert high == pytest.approx(np.maximum(exact_high, [0.002, 0.001, 0.0, 0.0]), rel=0.01)
    assert low == pytest.approx([0.0, 0.0, *exact_low], rel=0.01)
    bursty_high, bursty_low = compute_share_bounds(counts, np.array(10_000.0), np.array(5.0))
    assert (bursty_high >= high).all()
    assert (bursty_low <= low).all()
    assert compute_share_bounds(np.array([1.0]), np.array(1.0), np.array(1.0))[0].tolist() == [1.0]


def test_no_share_within_its_interval_gains_on_average() -> None:
    high, low = compute_share_bounds(np.array([50.0]), np.array(10_000.0), np.array(1.5))
    for share in np.linspace(low[0], high[0], 30).tolist():
        for tilt in TILTS.tolist():
            up = (1 + share * math.expm1(tilt)) / (1 + high[0] * math.expm1(tilt))
            down = (1 + share * math.expm1(-tilt)) / (1 + low[0] * math.expm1(-tilt))
            assert max(up, down) <= 1.0 + 1e-12


def alarms_by_week(items: int) -> Counts:
    """How many alarms begin in each of three weeks in which one hour has so many rare items beside its 1,800."""
    rng = np.random.default_rng(3)
    runs, panes = 12, 24 * 7 * 3
    bank = EvidenceBank(5)
    rows = np.array([bank.add(counts, 0.02) for counts in rng.multinomial(10_000, shares_of(0.005), size=runs)])
    is_drift, weeks = np.zeros(runs, dtype=bool), np.zeros(3, dtype=np.int64)
    for hour in range(panes):
        for part in range(3):
            counts = rng.multinomial(600, shares_of(0.005), size=runs)
            counts[:, 4] += items if hour % 168 == 100 and part == 1 else 0
            end_ns = hour * HOUR_NS + (part + 1) * HOUR_NS // 3
            bank.update(rows, counts, np.full(runs, end_ns), LINE)
            is_now = bank.status[rows] == DRIFT
            weeks[hour // 168] += int((is_now & ~is_drift).sum())
            is_drift = is_now
    return weeks


def test_a_weekly_burst_is_told_once() -> None:
    weeks = alarms_by_week(30)
    assert weeks[1:].sum() <= 2
    assert weeks.sum() <= 12


def test_a_bin_may_be_rare_whatever_its_share() -> None:
    """Four percent of the values are missing; then hardly any is, within what is tolerated of all values."""
    reference = np.array([9_000, 600, 400])
    watched, forgiven = EvidenceBank(3), EvidenceBank(3)
    rng = np.random.default_rng(1)
    for bank, mask in ((watched, np.array([False, False, True])), (forgiven, None)):
        assert bank.add(reference, 0.04, always_rare=mask) == 0
    for shares, end in (([0.9, 0.06, 0.04], 40), ([0.93, 0.065, 0.005], 120)):
        for _ in range(end):
            pane = rng.multinomial(50, shares)[None]
            for bank in (watched, forgiven):
                bank.update(np.array([0]), pane, np.array([1]), LINE)
    assert (watched.status[0], forgiven.status[0]) == (2, 1)
    assert watched.column("contributions")[0].tolist() == [
        0.0,
        0.0,
        pytest.approx(watched.column("contributions")[0].sum()),
    ]


def test_an_empty_reference_has_no_rare_bins_and_one_sided_evidence_none() -> None:
    empty = Evidence(np.zeros(3), tolerance=0.02).state().rare_bins
    assert empty is not None
    assert empty.bins.tolist() == []
    assert Evidence(np.array([5, 0, 5]), tolerance=0.02, direction="down").state().rare_bins is None


def test_whichever_bet_on_all_bins_leads_beside_rare_ones_it_has_its_onset_and_at_the_cap_they_are_at_one() -> None:
    begun, capped = set[int](), set[int]()
    for shares in ([0.3, 0.2, 0.3, 0.195, 0.005], [0.34, 0.33, 0.23, 0.095, 0.005], [0.37, 0.27, 0.17, 0.185, 0.005]):
        rng = np.random.default_rng(2)
        evidence, before = Evidence(rng.multinomial(10_000, shares_of(0.005)), tolerance=0.02), 0.0
        log_weights = evidence.bank._bets.log_weights
        for end in range(200):
            evidence.update(rng.multinomial(100, shares_of(0.005) if end < 60 else shares), end + 1, LINE)
            state = evidence.state()
            rare, weighted = state.rare_bins, state.log_cusums + log_weights[state.components]
            assert rare is not None
            if weighted.size and weighted.max() == evidence.log_e:
                leader = int(state.components[weighted.argmax()])
                if before == 0.0:
                    begun.add(leader)
                    assert evidence.since_ns == state.onsets_ns[weighted.argmax()]
                if evidence.log_e == LINE + math.log(CAP):
                    capped.add(leader)
                    assert (state.components.tolist(), rare.bets.tolist()) == ([leader], [])
            before = evidence.log_e
    assert (0 in begun, 0 in capped) == (True, True)


def test_a_state_goes_on_bit_for_bit_while_a_rare_bin_leads() -> None:
    rng = np.random.default_rng(5)
    evidence = Evidence(rng.multinomial(10_000, shares_of(0.005)), tolerance=0.02)
    panes = [rng.multinomial(50, shares_of(0.005)) for _ in range(40)]
    panes += [rng.multinomial(50, shares_of(0.04)) for _ in range(20)]
    for end, pane in enumerate(panes):
        evidence.update(pane, end, LINE)
    state = evidence.state()
    assert state.rare_bins is not None
    assert state.rare_bins.bets.size
    assert evidence.contributions[4] == max(evidence.contributions)
    again = Evidence.from_state(replace(state))
    for end in range(60, 120):
        pane = rng.multinomial(50, shares_of(0.005))
        evidence.update(pane, end, LINE)
        again.update(pane, end, LINE)
        assert plain(evidence.state()) == plain(again.state())
