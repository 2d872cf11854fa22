"""Everything that a stream's evidence comes to, against a scalar oracle; and what happens exactly at its bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from otel_mlmon.processor.detect.alternatives import TILTS, Direction, build_alternatives
from otel_mlmon.processor.detect.evidence import MAX_PANE_ITEMS, EvidenceBank
from otel_mlmon.types import Counts, Floats
from tests.support.evidence import Evidence
from tests.support.scalar_evidence import CAP, ScalarEvidence, pairs_of

LINE = 5.0
SHARES = {
    2: [0.6, 0.4],
    3: [0.5, 0.3, 0.2],
    4: [0.4, 0.3, 0.2, 0.1],
    11: [0.3, 0.1, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06, 0.05, 0.04, 0.03],
}


def episodes(rng: np.random.Generator, shares: Floats) -> list[Counts]:
    """Quiet, a drift down, quiet, a drift up, a slow drift, quiet; panes of any size, some of them empty."""
    down = 0.2 ** np.arange(shares.size)
    down /= down.sum()
    slow = 0.8 * shares + 0.2 * down
    panes = []
    for law, count in (
        (shares, 40),
        (down, 12),
        (shares, 25),
        (down[::-1], 12),
        (shares, 25),
        (slow, 40),
        (shares, 20),
    ):
        for size in rng.choice([0, 1, 20, 60, 200, 700], size=count, p=[0.05, 0.15, 0.2, 0.2, 0.3, 0.1]):
            panes.append(rng.multinomial(size, law))
    return panes


@pytest.mark.parametrize(
    ("bins", "direction", "tolerance"),
    # The oracle looks at all subsets of two-sided bins, so there are no eleven of them.
    [(4, "both", 0.02), (3, "up", 0.02), (4, "down", 0.0), (2, "both", 0.0), (3, "both", 0.15), (11, "up", 0.02),
     (4, "up", 0.15), (11, "down", 0.15), (2, "down", 0.02)],
)  # fmt: skip
def test_every_number_is_the_oracles(bins: int, direction: Direction, tolerance: float) -> None:
    rng = np.random.default_rng(bins)
    shares = np.array(SHARES[bins])
    reference = rng.multinomial(8_000, shares)
    evidence = Evidence(reference, tolerance=tolerance, direction=direction)
    oracle = ScalarEvidence(reference.tolist(), tolerance=tolerance, direction=direction)
    statuses, capped = set(), 0
    for index, pane in enumerate(episodes(rng, shares)):
        divisor, is_calibrated = evidence.divisor, bool(evidence.bank.effects.is_calibrated[evidence.row])
        evidence.update(pane, index + 1, LINE)
        oracle.update(pane.tolist(), index + 1, LINE, divisor=divisor, is_calibrated=is_calibrated)
        state = evidence.state()
        assert evidence.log_e == pytest.approx(oracle.log_e, rel=1e-9, abs=1e-9)
        assert (state.is_drift[0], state.since_ns[0], state.last_ns[0]) == (oracle.is_drift, oracle.since_ns, index + 1)
        assert state.contributions[0].tolist() == pytest.approx(oracle.contributions, rel=1e-7, abs=1e-7)
        assert state.history[0].tolist() == [pytest.approx(counts, rel=1e-9) for counts in oracle.history]
        assert state.components.tolist() == oracle.components
        assert state.log_cusums.tolist() == pytest.approx([oracle.log_cusums[k] for k in oracle.components], rel=1e-7)
        assert state.onsets_ns.tolist() == [oracle.onsets_ns[k] for k in oracle.components]
        statuses.add(evidence.status)
        capped += evidence.log_e == LINE + CAP
    assert statuses == {"calibrating", "ok", "drift"}
    assert capped > 3


@pytest.mark.parametrize("bins", [2, 3, 5, 10, 11])
@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_the_dictionary_is_as_it_is_described(bins: int, direction: Direction) -> None:
    alternatives = build_alternatives(bins, direction)
    pairs = [
        (frozenset(np.flatnonzero(gain).tolist()), frozenset(np.flatnonzero(loss).tolist()))
        for gain, loss in zip(alternatives.gain_sets, alternatives.loss_sets, strict=True)
    ]
    assert pairs == list(pairs_of(bins, direction))
    assert alternatives.alternative_count == len(pairs) * TILTS.size


def standing(log_e: float = 3.0, *, is_drift: bool = False, component: int = 0) -> Evidence:
    """A calibrated stream of three bins with this evidence, held by one component."""
    evidence = Evidence(np.array([3_000, 3_000, 4_000]), tolerance=0.02)
    for index in range(30):
        evidence.update(np.array([30, 30, 40]), index + 1, LINE)
    bank, state = evidence.bank, evidence.state()
    state = replace(
        state, log_e=np.array([log_e]), is_drift=np.array([is_drift]), since_ns=np.array([7]),
        component_counts=np.array([1]), components=np.array([component]),
        log_cusums=np.array([log_e - bank._bets.log_weights[component]]), onsets_ns=np.array([7]),
    )  # fmt: skip
    return Evidence.from_state(state)


EMPTY = np.zeros(3, dtype=np.int64)


@pytest.mark.parametrize(
    ("log_e", "was_drift", "status", "since_ns"),
    [
        (LINE, False, "drift", 7),
        (math.nextafter(LINE, 0.0), False, "ok", 7),
        (math.nextafter(LINE, 0.0), True, "drift", 7),
        (5e-324, True, "drift", 7),
        (0.0, True, "ok", 99),
        (0.0, False, "ok", 99),
    ],
)
def test_the_status_at_its_bounds(log_e: float, was_drift: bool, status: str, since_ns: int) -> None:
    evidence = standing(log_e, is_drift=was_drift)
    evidence.update(EMPTY, 99, LINE)
    assert (evidence.status, evidence.since_ns, evidence.log_e) == (status, since_ns, log_e)


def bet_on(gain: int, loss: int) -> int:
    """The component with the largest tilt that bets on one bin against another."""
    pairs = list(pairs_of(3, "both"))
    return 4 + 3 * len(pairs) + pairs.index((frozenset({gain}), frozenset({loss})))


def test_a_component_at_its_cap_sends_the_others_back_to_one() -> None:
    """Of a pane of a bin that it does not bet on, the leader stays exactly at the cap, and others that gain are cut."""
    line = next(line for line in (5.0, 6.0, 7.0, 12.0, 13.0, 30.0, 31.1, 33.3) if is_exact(line + CAP))
    evidence = standing(line + CAP, is_drift=True, component=bet_on(0, 1))
    evidence.update(np.array([0, 0, 6]), 99, line)
    assert (evidence.state().components.tolist(), evidence.log_e) == ([bet_on(0, 1)], line + CAP)
    below = standing(line + CAP - 1e-6, is_drift=True, component=bet_on(0, 1))
    below.update(np.array([0, 0, 6]), 99, line)
    assert len(below.state().components) > 1
    assert below.log_e == pytest.approx(line + CAP - 1e-6, abs=1e-12)


def is_exact(cap: float) -> bool:
    weight = EvidenceBank(3)._bets.log_weights[bet_on(0, 1)]
    return bool((cap - weight) + weight == cap)


@pytest.mark.parametrize(
    ("log_e", "is_drift", "is_stable"),
    [
        (0.0, False, True),
        (2.0, False, False),
        (LINE + 1.0, True, False),
        (LINE + CAP, True, True),
        (math.nextafter(LINE + CAP, 0.0), True, False),
    ],
)
def test_differences_are_pending_while_evidence_comes_or_goes(log_e: float, is_drift: bool, is_stable: bool) -> None:
    evidence = standing(log_e, is_drift=is_drift)
    arrays = evidence.bank.effects._arrays
    arrays["pending_counts"][evidence.row] = 3
    evidence.update(EMPTY, 99, LINE)
    assert arrays["pending_counts"][evidence.row].tolist() == [0 if is_stable else 3] * 6


@pytest.mark.parametrize(("log_e", "was_drift", "has_changed"), [
    (LINE, False, True), (LINE, True, False), (0.0, True, True), (1.0, False, False),
])  # fmt: skip
def test_the_begin_and_the_end_of_a_drift_forget_what_is_pending(
    log_e: float, was_drift: bool, has_changed: bool
) -> None:
    evidence = standing(log_e, is_drift=was_drift)
    arrays = evidence.bank.effects._arrays
    counts = arrays["difference_counts"][evidence.row].copy()
    arrays["pending_counts"][evidence.row] = 1
    evidence.update(EMPTY, 99, LINE)
    dropped = (counts - arrays["difference_counts"][evidence.row]).tolist()
    assert dropped == ([1 if count > 8 or 0 < count < 8 else 0 for count in counts] if has_changed else [0] * 6)


def test_evidence_that_falls_to_one_and_rises_has_a_new_onset() -> None:
    evidence = standing(1e-9)
    evidence.update(np.array([30, 30, 40]), 50, LINE)
    assert (evidence.log_e, evidence.since_ns, evidence.contributions) == (0.0, 50, (0.0, 0.0, 0.0))
    evidence.update(np.array([100, 0, 0]), 60, LINE)
    assert evidence.since_ns == 50
    assert evidence.log_e > 0.0


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_the_tolerance_may_be_at_its_ends(tolerance: float) -> None:
    assert Evidence(np.array([1, 1]), tolerance=tolerance).status == "calibrating"


def test_a_huge_pane_counts_as_a_billion_items() -> None:
    """Ten times as many items of the same shares, and as much evidence."""
    results = []
    for items in (MAX_PANE_ITEMS, 10 * MAX_PANE_ITEMS):
        evidence = standing(0.0)
        evidence.update(np.array([0.4, 0.3, 0.3]) * items, 99, 1e12)
        results.append(evidence.log_e)
    assert results[0] == pytest.approx(results[1], rel=1e-12)
    assert results[0] > 1e6


def test_an_empty_reference_can_never_be_left() -> None:
    evidence = Evidence(np.zeros(3, dtype=np.int64), tolerance=0.0)
    for index in range(30):
        evidence.update(np.array([100, 0, 0]), index + 1, LINE)
    assert (evidence.status, evidence.log_e, float(evidence.bank._arrays["variance"][0])) == ("ok", 0.0, math.inf)


def test_properties_are_of_the_row() -> None:
    bank = EvidenceBank(2, "up")
    rows = [bank.add(np.array(counts), 0.02) for counts in ([30, 10], [0, 5])]
    assert bank.column("reference")[rows].tolist() == [[30.0, 10.0], [0.0, 5.0]]
    assert bank.column("total")[rows].tolist() == [40.0, 5.0]
    assert bank.column("contributions")[rows].tolist() == [[0.0, 0.0]] * 2
    assert (bank.bins, bank.direction, bank.status[rows].tolist()) == (2, "up", [0, 0])
    spreads = [2 * share * (1 - share) for share in (30.5 / 41, 0.5 / 6)]
    assert bank._arrays["variance"][rows].tolist() == pytest.approx([4 * spreads[0] / 160, 4 * spreads[1] / 20])
    assert bank._arrays["shares"][rows].tolist() == [[30.5 / 41, 10.5 / 41], [0.5 / 6, 5.5 / 6]]


def test_a_refused_stream_takes_no_row() -> None:
    bank = EvidenceBank(2)
    with pytest.raises(ValueError, match="tolerance"):
        bank.add(np.array([1, 1]), 1.1)
    assert bank.add(np.array([1, 1]), 0.1) == 0
    assert bank.add(np.array([1, 1]), 0.1) == 1
    bank.remove(0)
    assert [bank.add(np.array([1, 1]), 0.1) for _ in range(2)] == [0, 2]
